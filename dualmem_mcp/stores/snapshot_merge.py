"""A snapshot's ops on their way into the log and the rows of a data home, in many short transactions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from dualmem_mcp.errors import TamperedError
from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import LogHead, Op, OpKind, Stamp, Tag, subject_digest
from dualmem_mcp.model.subject_op import SubjectOp, thinner
from dualmem_mcp.model.whole_log import TOMBSTONES
from dualmem_mcp.ports import Applied
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.erasure_rows import apply_erasure, banned_by
from dualmem_mcp.stores.row_ops import apply_row_op
from dualmem_mcp.stores.subject_fold import batched, refold

_AT_ONCE: Final = 500
"""Ops looked up, or subjects made anew, in one transaction at the end."""


class LogSnapshotMerge:
    """A SnapshotMerge in memory.db.

    An op that the snapshot has and that was taken out here stays out; of one that both have what both left in it
    stays; and one that it covers and does not have goes, since whoever made it found that it has no effect.
    `limit(connection)` are the ticks above which an op is held back.
    """

    def __init__(
        self,
        database: Database,
        vector: Mapping[DeviceId, LogHead],
        *,
        own: Callable[[Connection], DeviceId],
        limit: Callable[[Connection], int],
        name_of: Callable[[str], str],
    ) -> None:
        self._database = database
        self._vector = vector
        self._own = own
        self._limit = limit
        self._name_of = name_of
        self._seen: dict[str, bytearray] = {}

    def merge(self, ops: Sequence[Op]) -> Applied:
        """As the Protocol says."""
        with self._database.write() as connection:
            return _Batch(connection, self._limit(connection), self._name_of).take(ops, self._see)

    def finish(self) -> Applied:
        """As the Protocol says."""
        with self._database.read() as connection:
            self._check_heads(connection)
            unseen = self._unseen(connection)
            beyond = self._beyond(connection)
        subjects: set[bytes] = set()
        for some in batched(unseen.items(), _AT_ONCE):
            with self._database.write() as connection:
                connection.executemany("DELETE FROM ops WHERE id = ?", [(row_id,) for row_id, _ in some])
                refold(connection, [subject for _, subject in some], told=False)
            subjects.update(subject for _, subject in some)
        # A tag that the snapshot says is deleted may be of an op that the snapshot does not have yet.
        for more in batched(beyond, _AT_ONCE):
            with self._database.write() as connection:
                refold(connection, more, told=False)
        with self._database.write() as connection:
            self._check_heads(connection)
            self._move_heads(connection)
        return Applied(0, 0, frozenset(subjects | set(beyond)))

    def _see(self, op: Op) -> None:
        # One bit for each op that is covered: sequences have no large gaps, and there may be millions.
        seen = self._seen.setdefault(op.stamp.device_id, bytearray())
        at, bit = divmod(op.sequence, 8)
        if at >= len(seen):
            head = self._vector.get(op.stamp.device_id)
            if head is None or op.sequence > head.sequence:
                return
            seen.extend(bytes(head.sequence // 8 + 1 - len(seen)))
        seen[at] |= 1 << bit

    def _is_seen(self, device: str, sequence: int) -> bool:
        seen = self._seen.get(device, b"")
        at, bit = divmod(sequence, 8)
        return at < len(seen) and bool(seen[at] & 1 << bit)

    def _unseen(self, connection: Connection) -> dict[int, bytes]:
        """Rows and subjects of ops that the snapshot covers and does not have."""
        return {
            row_id: subject
            for device, head in self._vector.items()
            for row_id, sequence, subject in connection.execute(
                "SELECT id, sequence, subject FROM ops"
                " WHERE device_id = ? AND sequence <= ? AND subject IS NOT NULL AND NOT held",
                (device, head.sequence),
            )
            if not self._is_seen(device, sequence)
        }

    def _beyond(self, connection: Connection) -> list[bytes]:
        """Subjects of ops that the snapshot does not cover."""
        subjects: dict[bytes, None] = {}
        devices = [row[0] for row in connection.execute("SELECT DISTINCT device_id FROM ops")]
        for device in devices:
            head = self._vector.get(DeviceId(device))
            rows = connection.execute(
                "SELECT DISTINCT subject FROM ops WHERE device_id = ? AND sequence > ? AND subject IS NOT NULL",
                (device, head.sequence if head else 0),
            )
            subjects.update(dict.fromkeys(row[0] for row in rows))
        return list(subjects)

    def _check_heads(self, connection: Connection) -> None:
        for device, segment, object_hash in connection.execute(
            "SELECT device_id, segment, object_hash FROM log_heads"
        ):
            head = self._vector.get(DeviceId(device))
            if head is not None and head.segment == segment and head.object_hash != object_hash:
                raise TamperedError(
                    f"the snapshot includes another segment {segment} of device {device} than this device read",
                    operation="take in snapshot",
                    subject=device,
                    hint="Two machines may have written as one device. Nothing was moved; run `dualmem doctor`.",
                )

    def _move_heads(self, connection: Connection) -> None:
        own = self._own(connection)
        for device, head in self._vector.items():
            if device == own:
                continue  # where this device's own log ends, it alone knows
            connection.execute(
                "INSERT INTO log_heads VALUES (?, ?, ?, ?) ON CONFLICT (device_id) DO UPDATE SET"
                " segment = excluded.segment, object_hash = excluded.object_hash, sequence = excluded.sequence"
                " WHERE excluded.segment > log_heads.segment",
                (device, head.segment, head.object_hash, head.sequence),
            )
            connection.execute(
                "INSERT INTO op_sequences VALUES (?, ?) ON CONFLICT (device_id)"
                " DO UPDATE SET last_sequence = max(last_sequence, excluded.last_sequence)",
                (device, head.sequence),
            )


class _Batch:
    """Some ops of a snapshot, in one write transaction."""

    def __init__(self, connection: Connection, limit: int, name_of: Callable[[str], str]) -> None:
        self._connection = connection
        self._limit = limit
        self._name_of = name_of
        self._banned = banned_by(connection, name_of)
        self._known: dict[str, int] = dict(connection.execute("SELECT device_id, last_sequence FROM op_sequences"))
        self._rows: list[tuple[Any, ...]] = []
        self._subjects: set[bytes] = set()
        self._conversations: set[str] = set()
        self._held = 0
        self._ticks = 0

    def take(self, ops: Sequence[Op], see: Callable[[Op], None]) -> Applied:
        """Merge the ops; `see` is told of those that stand for themselves, not for rows."""
        row_ops: list[tuple[Op, Mapping[str, Any]]] = []
        for op in ops:
            payload = json.loads(op.payload)
            if op.kind == TOMBSTONES:
                self._bury(payload)
            elif op.kind == OpKind.CONVERSATION_ERASE:
                self._conversations.update(apply_erasure(self._connection, payload, op.stamp, self._name_of))
                self._banned = banned_by(self._connection, self._name_of)
            elif op.sequence == 0:
                row_ops.append((op, payload))
            elif not (isinstance(name := payload.get("conversation_id"), str) and self._banned(name)):
                see(op)
                self._queue(op, payload)
        inserted = self._insert()
        new = len(inserted)
        told = {row[5] for row in inserted if row[5] in self._subjects}
        refold(self._connection, told)
        refold(self._connection, self._subjects - told, told=False)
        for op, payload in row_ops:
            changed = apply_row_op(self._connection, op, payload, banned=self._banned)
            self._ticks = max(self._ticks, op.stamp.ticks if op.stamp.ticks <= self._limit else 0)
            if changed is not None:
                self._conversations.add(changed)
                new += 1
        self._connection.execute("UPDATE hybrid_clock SET ticks = max(ticks, ?)", (self._ticks,))
        return Applied(new, self._held, frozenset(self._subjects), frozenset(self._conversations))

    def _bury(self, pairs: Iterable[Any]) -> None:
        rows = [(Tag.parse(tag).to_bytes(), Stamp.parse(stamp).to_bytes()) for tag, stamp in pairs]
        self._connection.executemany("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", rows)

    def _queue(self, op: Op, payload: Mapping[str, Any]) -> None:
        held = op.stamp.ticks > self._limit
        subject = subject_digest(op.kind, payload)
        if held:
            self._held += 1
        else:
            self._ticks = max(self._ticks, op.stamp.ticks)
            if subject is not None:
                self._subjects.add(subject)
        self._rows.append((op.stamp.device_id, op.sequence, op.stamp.ticks, op.kind, op.payload, subject, held))

    def _insert(self) -> list[tuple[Any, ...]]:
        """Write the ops that are new, and take out of the others what the snapshot lacks; the new rows."""
        there: dict[tuple[str, int], tuple[int, str]] = {}
        for device in {row[0] for row in self._rows}:
            for some in batched([row[1] for row in self._rows if row[0] == device], _AT_ONCE):
                marks = ", ".join("?" * len(some))
                for row_id, sequence, payload in self._connection.execute(
                    f"SELECT id, sequence, payload FROM ops WHERE device_id = ? AND sequence IN ({marks})",  # noqa: S608
                    (device, *some),
                ):
                    there[device, sequence] = (row_id, payload)
        new: list[tuple[Any, ...]] = []
        shorter: list[tuple[str, int]] = []
        for row in self._rows:
            found = there.get(row[:2])
            if found is None:
                if row[1] > self._known.get(row[0], 0):
                    new.append(row)
            elif found[1] != row[4] and row[5] is not None:
                shorter.append((_both(row, found[1]), found[0]))
        self._connection.executemany(
            "INSERT INTO ops (device_id, sequence, ticks, kind, payload, subject, held)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            new,
        )
        self._connection.executemany("UPDATE ops SET payload = ? WHERE id = ?", shorter)
        return new


def _both(row: tuple[Any, ...], payload: str) -> str:
    stamp, kind = f"{row[2]:016x}-{row[0]}", row[3]
    one = SubjectOp(stamp, kind, json.loads(payload))
    return compact_json(thinner(one, SubjectOp(stamp, kind, json.loads(row[4]))).payload)
