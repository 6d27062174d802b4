"""The op logs in memory.db: this device's own, to be sealed, and what came of the others'. Source: docs/sync.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from dualmem_mcp.errors import ConflictError, DualmemError
from dualmem_mcp.model.adoption import adopted_ops, without_ops
from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import NO_HEAD, LogHead, Op, OpKind, Stamp, physical_ticks, subject_digest
from dualmem_mcp.model.whole_log import TOMBSTONES
from dualmem_mcp.ports import Applied, Clock
from dualmem_mcp.stores.adopted_ops import adopt, bury
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.erasure_rows import NameOf, apply_erasure, banned_by
from dualmem_mcp.stores.log_rewrite import Rewrite, rewrite_log
from dualmem_mcp.stores.op_log import MOST_AHEAD_MS, OpWriter
from dualmem_mcp.stores.outbox import FileOutbox, forget_waiting
from dualmem_mcp.stores.row_ops import apply_row_op, log_rows, unlogged
from dualmem_mcp.stores.subject_fold import refold

HELD_AFTER: Final = timedelta(hours=24)
"""Ops further ahead of the clock than this have no effect until their time has come."""

_NOTED_MS: Final = 30_000
"""A change of the clock's error that is worth a write."""

_LINE_BYTES: Final = 150
"""Of an op's line beside its payload, about."""


class SyncLog:
    """An OpLog. `name_of` gives the keyed hash of a conversation's id, by which erased ones are known."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        device_id: DeviceId,
        outbox: FileOutbox,
        *,
        name_of: NameOf,
    ) -> None:
        self._database = database
        self._clock = clock
        self._first_id = device_id
        self._outbox = outbox
        self._name_of = name_of

    def device_id(self) -> DeviceId:
        """As the port says."""
        with self._database.read() as connection:
            return self._own(connection)

    def heads(self) -> Mapping[DeviceId, LogHead]:
        """As the port says."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT device_id, segment, object_hash, sequence FROM log_heads")
            return {DeviceId(device): LogHead(*head) for device, *head in rows}

    def waiting(self) -> int:
        """As the port says."""
        with self._database.read() as connection:
            own = self._own(connection)
            (ops,) = connection.execute(
                "SELECT count(*) FROM ops WHERE device_id = ? AND sequence > ?",
                (own, _head(connection, own).sequence),
            ).fetchone()
            return int(ops) + unlogged(connection)

    def unsealed(self, most_ops: int, most_bytes: int) -> Sequence[Op]:
        """As the port says; `most_bytes` is kept to within what escapes in JSON add."""
        while True:
            with self._database.read() as connection:
                own = self._own(connection)
                after = _head(connection, own).sequence
                ops, size = _read_own(connection, own, after, most_ops, most_bytes)
                if len(ops) >= most_ops or size >= most_bytes or not unlogged(connection):
                    return ops
            with self._database.write() as connection:
                writer = OpWriter(connection, self._first_id, self._clock.now())
                log_rows(connection, writer, banned=banned_by(connection, self._name_of))
                writer.finish()

    def add_segment(self, key: str, data: bytes, head: LogHead) -> None:
        """As the port says; the sealed file lies durably on the disk first. Texts of turns are taken out of the ops
        of the segment, since they have rows."""
        staged = self._outbox.stage(key, data)
        if staged is None:
            raise _moved(key)
        try:
            with self._database.write() as connection:
                own = self._own(connection)
                before = _head(connection, own)
                if head.segment != before.segment + 1 or own not in key or not staged.enter(connection):
                    raise _moved(key)
                _set_head(connection, own, head)
                _take_texts_out(connection, own, before.sequence, head.sequence)
        except DualmemError:
            staged.discard()
            raise

    def take_in(self, device_id: DeviceId, ops: Sequence[Op], head: LogHead) -> Applied:
        """As the port says. Ops of erased conversations have no effect, and are not kept."""
        with self._database.write() as connection:
            before = _head(connection, device_id)
            if head == before:
                return Applied(0, 0)
            if head.segment != before.segment + 1 or device_id == self._own(connection):
                raise _moved(f"{device_id}/{head.segment}")
            last = _last_read(connection, device_id)
            merge = _Merge(connection, self._name_of, self._limit(connection))
            for op in ops:
                if op.sequence > last:
                    merge.add(op)
            applied = merge.finish()
            _set_head(connection, device_id, head)
            connection.execute(
                "INSERT INTO op_sequences VALUES (?, ?) ON CONFLICT (device_id)"
                " DO UPDATE SET last_sequence = max(last_sequence, excluded.last_sequence)",
                (device_id, head.sequence),
            )
            return applied

    def own_ops(self, after: int, upto: int) -> Sequence[Op]:
        """As the port says: of turns that a sealed segment holds the ids only."""
        with self._database.read() as connection:
            return _read_own(connection, self._own(connection), after, upto - after, None)[0]

    def release(self, *, all_of_them: bool = False) -> Applied:
        """As the port says."""
        with self._database.read() as connection:
            limit = None if all_of_them else self._limit(connection)
            if not _held(connection, limit):
                return Applied(0, 0)
        with self._database.write() as connection:
            due = _held(connection, limit)
            connection.executemany("DELETE FROM ops WHERE id = ?", [(row_id,) for row_id, _ in due])
            merge = _Merge(connection, self._name_of, None)
            for _, op in due:
                merge.add(op)
            return merge.finish()

    def held(self) -> Mapping[DeviceId, int]:
        """As the port says."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT device_id, count(*) FROM ops WHERE held GROUP BY device_id")
            return {DeviceId(device): count for device, count in rows}

    def adopt(self, device_id: DeviceId, limit: LogHead) -> int:
        """As the port says."""
        with self._database.write() as connection:
            if _head(connection, device_id).segment <= limit.segment:
                return 0
            writer = OpWriter(connection, self._first_id, self._clock.now())
            adopted = adopt(connection, writer, device_id, limit.sequence)
            writer.finish()
            _set_head(connection, device_id, limit)
            return adopted

    def fork(self, device_id: DeviceId, after: int, head: LogHead) -> int:
        """As the port says; sealed segments of the old id that wait behind `head` are dropped."""
        with self._database.write() as connection:
            own = self._own(connection)
            if own == device_id:
                return 0
            moved = rewrite_log(connection, Rewrite(own, device_id, after))
            forget_waiting(connection, f"log/{own}/", f"log/{own}/{head.segment:020d}")
            _set_head(connection, own, head)
            connection.execute("UPDATE hybrid_clock SET device_id = ?", (device_id,))
            refold(connection, moved.subjects)
            return moved.ops

    def go_back(self, head: LogHead) -> int:
        """As the port says."""
        with self._database.write() as connection:
            own = self._own(connection)
            moved = rewrite_log(connection, Rewrite(own, own, head.sequence))
            forget_waiting(connection, f"log/{own}/", f"log/{own}/{head.segment:020d}")
            _set_head(connection, own, head)
            return moved.ops

    def set_ahead(self, milliseconds: int) -> int:
        """As the port says."""
        with self._database.read() as connection:
            (known,) = connection.execute("SELECT ahead_ms FROM hybrid_clock").fetchone()
            if abs(known - milliseconds) < _NOTED_MS:
                return 0
        with self._database.write() as connection:
            connection.execute("UPDATE hybrid_clock SET ahead_ms = ?", (milliseconds,))
            return self._restamp(connection, self._clock.now() - timedelta(milliseconds=milliseconds))

    def _restamp(self, connection: Connection, now: datetime) -> int:
        """Give ops from the future that nobody has seen stamps of the present; how many."""
        own = self._own(connection)
        after = _head(connection, own).sequence
        limit = physical_ticks(now + timedelta(milliseconds=MOST_AHEAD_MS))
        (first,) = connection.execute(
            "SELECT min(sequence) FROM ops WHERE device_id = ? AND sequence > ? AND ticks > ?", (own, after, limit)
        ).fetchone()
        if first is None:
            return 0
        (others,) = connection.execute(
            "SELECT max(ticks) FROM ops WHERE NOT held AND NOT (device_id = ? AND sequence >= ?)", (own, first)
        ).fetchone()
        if (others or 0) > limit:
            return 0  # they follow on what was merged, and would get no lower
        moved = rewrite_log(
            connection, Rewrite(own, own, first - 1, now=max(physical_ticks(now), (others or 0) + 1))
        )
        refold(connection, moved.subjects)
        return moved.ops

    def _own(self, connection: Connection) -> DeviceId:
        (device,) = connection.execute("SELECT device_id FROM hybrid_clock").fetchone()
        return DeviceId(device or self._first_id)

    def _limit(self, connection: Connection) -> int:
        """Ticks above which an op is held; by the bucket's clock where this machine's is known to be wrong."""
        (ahead_ms,) = connection.execute("SELECT ahead_ms FROM hybrid_clock").fetchone()
        now = self._clock.now()
        if abs(ahead_ms) > MOST_AHEAD_MS:
            now -= timedelta(milliseconds=ahead_ms)
        return physical_ticks(now + HELD_AFTER)


@dataclass(slots=True)
class _Merge:
    """Ops of another device on their way into the database; `limit` are the ticks above which one is held."""

    connection: Connection
    name_of: NameOf
    limit: int | None
    banned: Callable[[str], bool] = field(init=False)
    erasures: list[tuple[Stamp, Mapping[str, Any]]] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    row_ops: list[tuple[Op, Mapping[str, Any]]] = field(default_factory=list)
    subjects: set[bytes] = field(default_factory=set)
    conversations: set[str] = field(default_factory=set)
    held: int = 0
    ticks: int = 0

    def __post_init__(self) -> None:
        self.banned = banned_by(self.connection, self.name_of)

    def add(self, op: Op) -> None:
        payload: Mapping[str, Any] = json.loads(op.payload)
        conversation_id = payload.get("conversation_id")
        if isinstance(conversation_id, str) and self.banned(conversation_id):
            return
        text, subject = op.payload, subject_digest(op.kind, payload)
        held = self.limit is not None and op.stamp.ticks > self.limit
        if held:
            self.held += 1
        else:
            self.ticks = max(self.ticks, op.stamp.ticks)
            if subject is not None:
                self.subjects.add(subject)
            elif op.kind == OpKind.CONVERSATION_ERASE:
                self.erasures.append((op.stamp, payload))
            elif op.kind == OpKind.LOG_ADOPT:
                for one in adopted_ops(payload):
                    self._add_adopted(one)
                text = compact_json(without_ops(payload))
            else:
                self.row_ops.append((op, payload))
                text = _without_texts(op.kind, payload) or text
        self.rows.append((op.stamp.device_id, op.sequence, op.stamp.ticks, op.kind, text, subject, held))

    def _add_adopted(self, op: Op) -> None:
        if op.kind == TOMBSTONES:
            self.subjects |= bury(self.connection, json.loads(op.payload))
        elif op.sequence:
            # Of a log that was read this far all is here that has an effect: what was taken out stays out.
            if op.sequence > _last_read(self.connection, op.stamp.device_id):
                self.add(op)
        elif op.kind == OpKind.CONVERSATION_ERASE:
            self.erasures.append((op.stamp, json.loads(op.payload)))
        else:
            self.row_ops.append((op, json.loads(op.payload)))

    def finish(self) -> Applied:
        connection = self.connection
        connection.executemany(
            "INSERT OR IGNORE INTO ops (device_id, sequence, ticks, kind, payload, subject, held)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            self.rows,
        )
        connection.execute("UPDATE hybrid_clock SET ticks = max(ticks, ?)", (self.ticks,))
        refold(connection, self.subjects)
        for op, payload in self.row_ops:
            changed = apply_row_op(connection, op, payload, banned=self.banned)
            if changed is not None:
                self.conversations.add(changed)
        # Last, so that nothing which the same segment brings stays of what it bans.
        for stamp, payload in self.erasures:
            self.conversations |= apply_erasure(connection, payload, stamp, self.name_of)
        return Applied(len(self.rows), self.held, frozenset(self.subjects), frozenset(self.conversations))


def _last_read(connection: Connection, device_id: DeviceId) -> int:
    """The sequence up to which a device's log was read."""
    row = connection.execute("SELECT last_sequence FROM op_sequences WHERE device_id = ?", (device_id,)).fetchone()
    return int(row[0]) if row else 0


def _head(connection: Connection, device_id: DeviceId) -> LogHead:
    row = connection.execute(
        "SELECT segment, object_hash, sequence FROM log_heads WHERE device_id = ?", (device_id,)
    ).fetchone()
    return LogHead(*row) if row else NO_HEAD


def _set_head(connection: Connection, device_id: DeviceId, head: LogHead) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO log_heads VALUES (?, ?, ?, ?)",
        (device_id, head.segment, head.object_hash, head.sequence),
    )


def _read_own(
    connection: Connection, own: DeviceId, after: int, most_ops: int, most_bytes: int | None
) -> tuple[list[Op], int]:
    """Own ops behind that sequence, and about how many bytes their lines take."""
    ops: list[Op] = []
    size = 0
    for sequence, ticks, kind, payload in connection.execute(
        "SELECT sequence, ticks, kind, payload FROM ops WHERE device_id = ? AND sequence > ?"
        " ORDER BY sequence LIMIT ?",
        (own, after, most_ops),
    ):
        ops.append(Op(Stamp(ticks, own), sequence, kind, payload))
        size += len(payload) + _LINE_BYTES
        if most_bytes is not None and size >= most_bytes:
            break
    return ops, size


def _held(connection: Connection, limit: int | None) -> list[tuple[int, Op]]:
    rows = connection.execute(
        "SELECT id, device_id, sequence, ticks, kind, payload FROM ops"
        " WHERE held AND ticks <= coalesce(?, ticks) ORDER BY id",
        (limit,),
    )
    return [
        (row_id, Op(Stamp(ticks, DeviceId(device)), sequence, kind, payload))
        for row_id, device, sequence, ticks, kind, payload in rows
    ]


def _take_texts_out(connection: Connection, own: DeviceId, after: int, upto: int) -> None:
    rows = connection.execute(
        "SELECT id, kind, payload FROM ops WHERE device_id = ? AND sequence > ? AND sequence <= ? AND kind = ?",
        (own, after, upto, OpKind.TURN_ADD),
    ).fetchall()
    stubs: Iterable[tuple[str | None, int]] = (
        (_without_texts(kind, json.loads(payload)), row_id) for row_id, kind, payload in rows
    )
    connection.executemany("UPDATE ops SET payload = coalesce(?, payload) WHERE id = ?", stubs)


def _without_texts(kind: str, payload: Mapping[str, Any]) -> str | None:
    """What is kept of an op whose turns have rows; None of other kinds."""
    if kind != OpKind.TURN_ADD or "turns" not in payload:
        return None
    turns = payload["turns"]
    uuids = [turn.get("uuid") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    return compact_json({"conversation_id": payload.get("conversation_id"), "uuids": uuids})


def _moved(subject: str) -> ConflictError:
    return ConflictError(
        "another process has written to this log meanwhile; nothing was changed",
        operation="write log",
        subject=subject,
        hint="Run `dualmem sync` again.",
    )
