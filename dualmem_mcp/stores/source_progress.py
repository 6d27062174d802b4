"""How far each session file was read, and what was read, written together: a kill loses and doubles nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.source import Finding, FindingKind, ImportedTurn, ReadMark, SessionChunk
from dualmem_mcp.ports import Clock
from dualmem_mcp.stores.columns import from_column, to_column, to_time
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.conversation_store import put_conversation
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.finding_rows import own_findings, put_finding, read_findings
from dualmem_mcp.stores.turn_rows import add_imported_turn, add_turns

TURNS_AT_ONCE: Final = 200
"""Turns that one transaction adds: other writers wait no longer than some milliseconds."""


class SourceProgress:
    """A SourceLog in memory.db."""

    def __init__(self, database: Database, clock: Clock, device_name: str) -> None:
        self._database = database
        self._clock = clock
        self._device_name = device_name

    def mark(self, path: str) -> ReadMark | None:
        """As the port says."""
        with self._database.read() as connection:
            return _read_mark(connection, path)

    def add_chunk(self, chunk: SessionChunk, before: ReadMark | None) -> int | None:
        """As the port says."""
        after = chunk.mark
        with self._database.write() as connection:
            stored = _read_mark(connection, after.path)
            if (stored.offset if stored else None) != (before.offset if before else None):
                return None
            self._put_session(connection, after, chunk.ended_at, self._device_name)
            added = add_turns(connection, after.conversation_id, chunk.turns, device_name=self._device_name)
            _write_mark(connection, after, findings_due=chunk.findings_due)
            return added

    def findings_due(self) -> Sequence[tuple[str, ConversationId]]:
        """As the port says."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT path, conversation_id FROM session_files WHERE findings_due ORDER BY path"
            )
            return [(from_column(path), ConversationId(conversation_id)) for path, conversation_id in rows]

    def put_findings(
        self, conversation_id: str, findings: Iterable[Finding], *, replacing: str = "", path: str = ""
    ) -> int:
        """As the port says."""
        wanted = {(one.kind, one.finding_id): one for one in findings if one.text}
        if not path:
            # Nearly always nothing has changed, and then nobody has to wait for this.
            with self._database.read() as connection:
                if not self._changes(connection, conversation_id, wanted, replacing):
                    return 0
        with self._database.write() as connection:
            changed = self._changes(connection, conversation_id, wanted, replacing)
            for one in changed:
                # Those that name their device were read from its package.
                put_finding(
                    connection,
                    conversation_id,
                    one,
                    one.device or self._device_name,
                    told_elsewhere=bool(one.device),
                )
            if path:
                connection.execute("UPDATE session_files SET findings_due = 0 WHERE path = ?", (to_column(path),))
            return len(changed)

    def _changes(
        self,
        connection: Connection,
        conversation_id: str,
        wanted: Mapping[tuple[FindingKind, str], Finding],
        replacing: str,
    ) -> list[Finding]:
        """Those of the wanted findings that are new or have another text, and what is to be removed, without text:
        never what another device told of, which may know more of the conversation."""
        known = {(one.kind, one.finding_id): one for one in read_findings(connection, conversation_id, replacing)}
        changed = [one for name, one in wanted.items() if name not in known or known[name].text != one.text]
        if replacing and any(one.text and name not in wanted for name, one in known.items()):
            own = own_findings(connection, conversation_id, self._device_name)
            gone = [name for name, one in known.items() if one.text and name not in wanted and name in own]
            changed += [
                replace(known[name], text="", device=known[name].device if own[name] else "") for name in gone
            ]
        return changed

    def add_session(self, source: str, conversation_id: str, session: Session | None, device_name: str) -> int:
        """As the port says."""
        mark = ReadMark(source, ConversationId(conversation_id))
        added = self._add_whole(replace(mark, **_facts(session)), session, device_name) if session else 0
        # Only now: what was interrupted is done again from its beginning, and adds nothing twice.
        with self._database.write() as connection:
            _write_mark(connection, mark, findings_due=False)
        return added

    def _add_whole(self, mark: ReadMark, session: Session, device_name: str) -> int:
        turns = [turn for turn in session.all_turns() if turn.text and not turn.is_meta]
        added = 0
        for start in range(0, len(turns), TURNS_AT_ONCE):
            with self._database.write() as connection:
                ended_at = session.ended_at or session.started_at
                self._put_session(connection, mark, ended_at, device_name, told_elsewhere=True)
                some = turns[start : start + TURNS_AT_ONCE]
                added += add_turns(
                    connection, mark.conversation_id, some, device_name=device_name, told_elsewhere=True
                )
        return added

    def add_imported(self, turns: Sequence[ImportedTurn]) -> tuple[int, Sequence[ImportedTurn]]:
        """As the port says."""
        differing: list[ImportedTurn] = []
        added: dict[ConversationId, list[ImportedTurn]] = {}
        with self._database.write() as connection:
            for turn in turns:
                if turn.conversation_id not in added:
                    added[turn.conversation_id] = []
                    self._begin_imported(connection, turn)
                if add_imported_turn(connection, turn):
                    added[turn.conversation_id].append(turn)
                elif _stored_text(connection, turn) != turn.text:
                    differing.append(turn)
            for conversation_id, new in added.items():
                _count_imported(connection, conversation_id, new)
        return sum(map(len, added.values())), differing

    def _put_session(
        self,
        connection: Connection,
        mark: ReadMark,
        ended_at: datetime | None,
        device_name: str,
        *,
        told_elsewhere: bool = False,
    ) -> None:
        if ended_at is None and _is_known(connection, mark.conversation_id):
            return  # lines without a time do not say that anything is newer than what is known
        put_conversation(
            connection,
            mark.conversation_id,
            title=mark.title,
            cwd=mark.cwd,
            updated_at=to_time(ended_at or self._clock.now()),
            message_count=mark.messages,
            device_name=device_name,
            listed=False,
            told_elsewhere=told_elsewhere,
        )

    def _begin_imported(self, connection: Connection, turn: ImportedTurn) -> None:
        if not _is_known(connection, turn.conversation_id):
            put_conversation(
                connection,
                turn.conversation_id,
                title=turn.conversation_id,
                cwd="",
                updated_at=to_time(turn.timestamp or self._clock.now()),
                message_count=0,
                device_name=self._device_name,
                listed=False,
            )


def _facts(session: Session) -> dict[str, Any]:
    return {"messages": session.message_count, "title": session.title, "cwd": session.cwd}


def _read_mark(connection: Connection, path: str) -> ReadMark | None:
    row = connection.execute("SELECT mark FROM session_files WHERE path = ?", (to_column(path),)).fetchone()
    if row is None:
        return None
    members = json.loads(row[0])
    members["fingerprint"] = bytes.fromhex(members["fingerprint"])
    members["open_calls"] = tuple(members["open_calls"])
    return ReadMark(path=path, **members)


def _write_mark(connection: Connection, mark: ReadMark, *, findings_due: bool) -> None:
    members: dict[str, Any] = {**asdict(mark), "fingerprint": mark.fingerprint.hex()}
    del members["path"]
    connection.execute(
        "INSERT INTO session_files VALUES (?, ?, ?, ?)"
        " ON CONFLICT (path) DO UPDATE SET conversation_id = excluded.conversation_id, mark = excluded.mark,"
        " findings_due = max(findings_due, excluded.findings_due)",
        (to_column(mark.path), mark.conversation_id, json.dumps(members), int(findings_due)),
    )


def _is_known(connection: Connection, conversation_id: str) -> bool:
    found = connection.execute("SELECT 1 FROM conversations WHERE id = ?", (conversation_id,))
    return found.fetchone() is not None


def _stored_text(connection: Connection, turn: ImportedTurn) -> str:
    (text,) = connection.execute(
        "SELECT text FROM turns WHERE conversation_id = ? AND uuid = ?",
        (turn.conversation_id, to_column(turn.id)),
    ).fetchone()
    return from_column(text)


def _count_imported(connection: Connection, conversation_id: ConversationId, new: Sequence[ImportedTurn]) -> None:
    if not new:
        return
    newest = max((to_time(turn.timestamp) for turn in new if turn.timestamp), default="")
    connection.execute(
        "UPDATE conversations SET message_count = message_count + ?, updated_at = max(updated_at, ?), stamp = NULL"
        " WHERE id = ?",
        (len(new), newest, conversation_id),
    )
