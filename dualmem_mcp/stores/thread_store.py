"""The turns of conversations as trees, whatever device and whatever way they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dualmem_mcp.model.branches import TurnLink
from dualmem_mcp.model.conversation import Turn
from dualmem_mcp.model.handoff import ConversationSummary
from dualmem_mcp.model.ids import ConversationId, HandoffId
from dualmem_mcp.model.source import PROGRESS
from dualmem_mcp.ports import Clock
from dualmem_mcp.stores.columns import from_column, from_time, to_column, to_time
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.turn_rows import add_turns

_AT_ONCE: Final = 500
"""Texts asked for in one statement."""


class ThreadStore:
    """Threads in memory.db."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def conversation(self, conversation_id: ConversationId) -> ConversationSummary | None:
        """As the port says."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT title, cwd, updated_at, message_count, device_name,"
                " (SELECT handoff_id FROM handoffs WHERE conversation_id = conversations.id"
                "  ORDER BY created_at DESC, handoff_id DESC LIMIT 1)"
                " FROM conversations WHERE id = ?",
                (conversation_id,),
            ).fetchone()
        if row is None:
            return None
        return ConversationSummary(
            conversation_id=conversation_id,
            title=from_column(row[0]),
            cwd=from_column(row[1]),
            updated_at=from_time(row[2]),
            message_count=row[3],
            device_name=from_column(row[4]),
            handoff_id=HandoffId(row[5]) if row[5] else None,
        )

    def links(self, conversation_id: ConversationId) -> Sequence[TurnLink]:
        """As the port says."""
        with self._database.read() as connection:
            rows = connection.execute(
                # octet_length looks at a row's head alone, however long the text is.
                "SELECT uuid, parent_uuid, role, timestamp, device_name, origin,"
                " octet_length(text) > 0 AND NOT is_meta AND NOT is_compact_summary"
                " FROM turns WHERE conversation_id = ? ORDER BY id",
                (conversation_id,),
            )
            return [_link(row) for row in rows]

    def texts(self, conversation_id: ConversationId, uuids: Sequence[str]) -> Mapping[str, str]:
        """As the port says."""
        found: dict[str, str] = {}
        with self._database.read() as connection:
            for start in range(0, len(uuids), _AT_ONCE):
                some = [to_column(uuid) for uuid in uuids[start : start + _AT_ONCE]]
                marks = ", ".join("?" * len(some))
                rows = connection.execute(
                    f"SELECT uuid, text FROM turns WHERE conversation_id = ? AND uuid IN ({marks})",  # noqa: S608
                    (conversation_id, *some),
                )
                found.update((from_column(uuid), from_column(text)) for uuid, text in rows)
        return found

    def add(
        self, conversation_id: ConversationId, turns: Sequence[Turn], *, title: str, device_name: str
    ) -> tuple[int, bool]:
        """As the port says."""
        now = self._clock.now()
        with self._database.write() as connection:
            begun = _begin(connection, conversation_id, title, to_time(now), device_name)
            added = add_turns(connection, conversation_id, turns, device_name=device_name)
            if added:
                latest = max((turn.timestamp for turn in turns if turn.timestamp), default=now)
                connection.execute(
                    "UPDATE conversations SET updated_at = max(updated_at, ?), message_count = message_count + ?,"
                    " device_name = ?, listed = 1, stamp = NULL WHERE id = ?",
                    (to_time(latest), added, to_column(device_name), conversation_id),
                )
        return added, begun or added > 0

    def is_elsewhere(self, conversation_id: ConversationId, uuid: str) -> bool:
        """As the port says."""
        with self._database.read() as connection:
            # One look into an index for each conversation; turns have none by their uuids alone.
            found = connection.execute(
                "SELECT 1 FROM conversations WHERE id <> ? AND EXISTS"
                " (SELECT 1 FROM turns WHERE conversation_id = conversations.id AND uuid = ?) LIMIT 1",
                (conversation_id, to_column(uuid)),
            )
            return found.fetchone() is not None

    def shared(self, conversation_ids: Sequence[ConversationId]) -> Sequence[ConversationId]:
        """As the port says."""
        with self._database.read() as connection:
            return [one for one in conversation_ids if _is_shared(connection, one)]


def _begin(connection: Connection, conversation_id: str, title: str, updated_at: str, device_name: str) -> bool:
    return bool(
        connection.execute(
            "INSERT INTO conversations (id, title, cwd, updated_at, message_count, device_name, listed)"
            " VALUES (?, ?, '', ?, 0, ?, 1) ON CONFLICT DO NOTHING",
            (conversation_id, to_column(title), updated_at, to_column(device_name)),
        ).rowcount
    )


def _is_shared(connection: Connection, conversation_id: str) -> bool:
    # Only the ends of an index are looked at, however many turns there are.
    least, most = connection.execute(
        "SELECT (SELECT min(device_name) FROM turns WHERE conversation_id = ?1),"
        " (SELECT max(device_name) FROM turns WHERE conversation_id = ?1)",
        (conversation_id,),
    ).fetchone()
    if least != most:
        return True
    found = connection.execute(
        # The origin stands in the statement itself: it chooses the index.
        f"SELECT 1 FROM turns WHERE conversation_id = ? AND origin = '{PROGRESS}' LIMIT 1",  # noqa: S608
        (conversation_id,),
    )
    return found.fetchone() is not None


def _link(row: tuple[Any, ...]) -> TurnLink:
    return TurnLink(
        uuid=from_column(row[0]),
        parent_uuid=None if row[1] is None else from_column(row[1]),
        role=row[2],
        timestamp=from_time(row[3]) if row[3] else None,
        device=from_column(row[4]),
        origin=row[5],
        spoken=bool(row[6]),
    )
