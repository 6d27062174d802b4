"""The conversations and handoffs that this device knows of, in the encrypted database."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.handoff import ConversationSummary, HandoffRecord
from dualmem_mcp.model.ids import ConversationId, DeviceId, HandoffId, parse_conversation_id
from dualmem_mcp.ports import Clock
from dualmem_mcp.stores.columns import from_column, from_time, to_column, to_time
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.row_payloads import HANDOFF_COLUMNS, NEVER
from dualmem_mcp.stores.turn_rows import add_turns

MAX_LIMIT: Final = 200


class ConversationStore:
    """A Catalogue in memory.db. A conversation is listed as its newest event left it: a session that was read
    on this device, or a handoff from any. `device_name` is asked when something is kept: the device may get a name,
    or another one, while this is open."""

    def __init__(self, database: Database, clock: Clock, device_name: Callable[[], str]) -> None:
        self._database = database
        self._clock = clock
        self._device_name = device_name

    def save_session(self, session: Session) -> int:
        """As the port says. A turn that is here already is left as it is: sessions only grow."""
        ended = session.ended_at or session.started_at or self._clock.now()
        name = self._device_name()
        with self._database.write() as connection:
            put_conversation(
                connection,
                session.conversation_id,
                title=session.title,
                cwd=session.cwd,
                updated_at=to_time(ended),
                message_count=session.message_count,
                device_name=name,
            )
            rows = connection.execute(
                "SELECT uuid FROM turns WHERE conversation_id = ?", (session.conversation_id,)
            )
            known = {from_column(uuid) for (uuid,) in rows}
            # A session is handed over again and again: asking for each turn again would take ten times as long.
            new = [turn for turn in session.all_turns() if turn.uuid not in known]
            return add_turns(connection, session.conversation_id, new, device_name=name)

    def save_handoff(self, record: HandoffRecord, *, told_elsewhere: bool = False) -> None:
        with self._database.write() as connection:
            known = connection.execute("SELECT 1 FROM handoffs WHERE handoff_id = ?", (record.handoff_id,))
            if known.fetchone():
                return
            put_conversation(
                connection,
                record.conversation_id,
                title=record.title,
                cwd=record.cwd,
                updated_at=to_time(record.created_at),
                message_count=record.message_count,
                device_name=record.device_name,
                told_elsewhere=told_elsewhere,
            )
            connection.execute(
                f"INSERT INTO handoffs ({HANDOFF_COLUMNS}, stamp)"  # noqa: S608
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.handoff_id,
                    record.conversation_id,
                    to_column(record.title),
                    to_column(record.cwd),
                    to_time(record.created_at),
                    record.device_id,
                    to_column(record.device_name),
                    record.base,
                    record.package_key,
                    record.package_bytes,
                    record.manifest_key,
                    record.message_count,
                    record.visible_tokens,
                    record.digest_tokens,
                    to_column(record.last_turn_uuid),
                    NEVER if told_elsewhere else None,
                ),
            )

    def handoffs(self, conversation_id: ConversationId) -> Sequence[HandoffRecord]:
        return self._handoffs("WHERE conversation_id = ?", (conversation_id,))

    def newest_handoff(self) -> HandoffRecord | None:
        return next(iter(self._handoffs("", (), limit=1)), None)

    def handoff(self, handoff_id: HandoffId) -> HandoffRecord | None:
        return next(iter(self._handoffs("WHERE handoff_id = ?", (handoff_id,))), None)

    def rename_device(self, old: str, new: str) -> None:
        with self._database.write() as connection:
            for table in ("turns", "conversations", "findings"):
                connection.execute(
                    f"UPDATE {table} SET device_name = ? WHERE stamp IS NULL AND device_name = ?",  # noqa: S608
                    (to_column(new), to_column(old)),
                )

    def manifest_keys(self) -> frozenset[str]:
        with self._database.read() as connection:
            return frozenset(row[0] for row in connection.execute("SELECT manifest_key FROM handoffs"))

    def conversations(
        self, *, query: str = "", limit: int = 20, cursor: str = ""
    ) -> tuple[Sequence[ConversationSummary], str]:
        """As the port says; at most 200 a page, the next cursor "" at the end.

        Raises UsageError for a limit below 1 or a cursor that this did not give.
        """
        if limit < 1:
            raise UsageError(
                f"the limit is {limit}; it has to be at least 1", operation="list conversations", subject=str(limit)
            )
        limit = min(limit, MAX_LIMIT)
        before = _decode_cursor(cursor) if cursor else ("~", "~")
        wanted = query.casefold()
        found: list[ConversationSummary] = []
        with self._database.read() as connection:
            for row in connection.execute(
                "SELECT id, title, cwd, updated_at, message_count, device_name,"
                " (SELECT handoff_id FROM handoffs WHERE conversation_id = conversations.id"
                "  ORDER BY created_at DESC, handoff_id DESC LIMIT 1)"
                " FROM conversations WHERE listed AND (updated_at, id) < (?, ?) ORDER BY updated_at DESC, id DESC",
                before,
            ):
                summary = _summary(row)
                held = (summary.title, summary.cwd, summary.conversation_id)
                if not any(wanted in text.casefold() for text in held):
                    continue
                if len(found) == limit:
                    return found, _encode_cursor(found[-1])
                found.append(summary)
        return found, ""

    def knows(self, conversation_id: str) -> bool:
        """Whether there is such a conversation on this device, one that is only searched included."""
        with self._database.read() as connection:
            row = connection.execute("SELECT 1 FROM conversations WHERE id = ?", (conversation_id,)).fetchone()
        return row is not None

    def conversations_in(self, cwd: str) -> frozenset[str]:
        """Ids of all conversations in that folder, those that are only searched included."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT id FROM conversations WHERE cwd = ?", (to_column(cwd),))
            return frozenset(row[0] for row in rows)

    def _handoffs(self, where: str, parameters: tuple[str, ...], *, limit: int = -1) -> list[HandoffRecord]:
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {HANDOFF_COLUMNS} FROM handoffs {where}"  # noqa: S608
                " ORDER BY created_at DESC, handoff_id DESC LIMIT ?",
                (*parameters, limit),
            )
            return [_record(row) for row in rows]


def put_conversation(
    connection: Connection,
    conversation_id: ConversationId,
    *,
    title: str,
    cwd: str,
    updated_at: str,
    message_count: int,
    device_name: str,
    listed: bool = True,
    told_elsewhere: bool = False,
) -> None:
    """Make the conversation's row, or bring it up to this event if it is the newest.

    Without `listed` a new one is known to search alone; one that is listed stays so. With `told_elsewhere` the
    event is of another device, whose ops tell of it; else an op will, if anything changed.
    """
    stamp = NEVER if told_elsewhere else None
    connection.execute(
        "INSERT INTO conversations (id, title, cwd, updated_at, message_count, device_name, listed, stamp)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET title = excluded.title, cwd = excluded.cwd,"
        " updated_at = excluded.updated_at, message_count = excluded.message_count,"
        # What no op told of before still needs one.
        " device_name = excluded.device_name, stamp = iif(conversations.stamp IS NULL, NULL, excluded.stamp)"
        # An op that told of the same moment is not set back to nothing: it would not come again.
        " WHERE excluded.updated_at >= conversations.updated_at"
        " AND (excluded.updated_at > conversations.updated_at OR NOT ?)"
        " AND (excluded.title, excluded.cwd, excluded.updated_at, excluded.message_count, excluded.device_name)"
        " <> (conversations.title, conversations.cwd, conversations.updated_at, conversations.message_count,"
        " conversations.device_name)",
        (
            conversation_id,
            to_column(title),
            to_column(cwd),
            updated_at,
            message_count,
            to_column(device_name),
            int(listed),
            stamp,
            int(told_elsewhere),
        ),
    )
    if listed:
        connection.execute(
            "UPDATE conversations SET listed = 1, stamp = iif(?, stamp, NULL) WHERE id = ? AND listed = 0",
            (int(told_elsewhere), conversation_id),
        )


def _summary(row: tuple[Any, ...]) -> ConversationSummary:
    return ConversationSummary(
        conversation_id=ConversationId(row[0]),
        title=from_column(row[1]),
        cwd=from_column(row[2]),
        updated_at=from_time(row[3]),
        message_count=row[4],
        device_name=from_column(row[5]),
        handoff_id=HandoffId(row[6]) if row[6] else None,
    )


def _record(row: tuple[Any, ...]) -> HandoffRecord:
    return HandoffRecord(
        handoff_id=HandoffId(row[0]),
        conversation_id=ConversationId(row[1]),
        title=from_column(row[2]),
        cwd=from_column(row[3]),
        created_at=from_time(row[4]),
        device_id=DeviceId(row[5]),
        device_name=from_column(row[6]),
        base=HandoffId(row[7]) if row[7] else None,
        package_key=row[8],
        package_bytes=row[9],
        manifest_key=row[10],
        message_count=row[11],
        visible_tokens=row[12],
        digest_tokens=row[13],
        last_turn_uuid=from_column(row[14]),
    )


def _encode_cursor(last: ConversationSummary) -> str:
    text = json.dumps([to_time(last.updated_at), last.conversation_id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> tuple[str, str]:
    try:
        data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        updated_at, conversation_id = json.loads(data)
        return to_time(from_time(updated_at)), parse_conversation_id(conversation_id)
    except (ValueError, TypeError, OverflowError, RecursionError, UsageError):
        raise UsageError(
            "this is no cursor of the list of conversations",
            operation="list conversations",
            subject=cursor[:80],
            hint="Take the next_cursor of the page before, or leave it out to start anew.",
        ) from None
