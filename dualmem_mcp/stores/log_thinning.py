"""Ops of subjects read without what has no effect any more, and the log of a data home shortened so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import LogHead, Op, OpKind, Stamp
from dualmem_mcp.model.subject_op import SubjectOp, added_items, named_tags
from dualmem_mcp.model.thinning import thin
from dualmem_mcp.model.whole_log import Thinned
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.folded_graph import tag_bytes
from dualmem_mcp.stores.subject_fold import AT_ONCE, batched

_Vector = Mapping[DeviceId, LogHead]


@dataclass(frozen=True, slots=True)
class _Stored:
    """An op as it lies in the database, and as the merge sees it."""

    row_id: int
    device_id: str
    sequence: int
    ticks: int
    payload: str
    op: SubjectOp


class SubjectReader:
    """Reads ops of subjects within one transaction. What `vector` does not cover is left as it is."""

    def __init__(self, connection: Connection, vector: _Vector) -> None:
        self._connection = connection
        # Of each device the ops up to its last known one are all here, or were taken out.
        self._last = {
            device: f"{ticks:016x}"
            for device, ticks in connection.execute(
                "SELECT device_id, max(ticks) FROM ops JOIN op_sequences USING (device_id)"
                " WHERE NOT held AND sequence <= last_sequence GROUP BY device_id"
            )
        }
        self._vector = vector
        (self._any_buried,) = connection.execute("SELECT EXISTS (SELECT 1 FROM tombstones)").fetchone()

    def thinned(self, subjects: Sequence[bytes]) -> Iterator[Op]:
        """The ops of at most 500 subjects that have an effect, those of a subject together and as they came."""
        for stored, op in self._pairs(subjects):
            if op is not None:
                payload = stored.payload if op is stored.op else compact_json(op.payload)
                stamp = Stamp(stored.ticks, DeviceId(stored.device_id))
                yield Op(stamp, stored.sequence, op.kind, payload)

    def changes(self, subjects: Sequence[bytes]) -> Iterator[tuple[int, int, str | None]]:
        """For each op that can be shortened its row, by how much, and its payload then: None for no op at all."""
        for stored, op in self._pairs(subjects):
            if op is None:
                yield stored.row_id, len(stored.payload), None
            elif op is not stored.op:
                payload = compact_json(op.payload)
                yield stored.row_id, len(stored.payload) - len(payload), payload

    def _pairs(self, subjects: Sequence[bytes]) -> Iterator[tuple[_Stored, SubjectOp | None]]:
        found = self._read(subjects)
        buried = self._buried(found)
        for subject in subjects:
            stored = found.get(subject, [])
            apart = [one.op.stamp for one in stored if not self._is_in_vector(one)]
            # What was handed on of a revoked log stays, though ops that are covered replaced it: so do they.
            named = any(stamp in one.payload for stamp in apart for one in stored if self._is_in_vector(one))
            ops = thin([one.op for one in stored], buried, self._covered, texts_only=named)
            left = {op.stamp: op for op in ops}
            for one in stored:
                yield one, left.get(one.op.stamp) if self._is_in_vector(one) else one.op

    def _is_in_vector(self, one: _Stored) -> bool:
        head = self._vector.get(DeviceId(one.device_id))
        return head is not None and one.sequence <= head.sequence

    def _read(self, subjects: Sequence[bytes]) -> dict[bytes, list[_Stored]]:
        marks = ", ".join("?" * len(subjects))
        found: dict[bytes, list[_Stored]] = {}
        for subject, row_id, device_id, sequence, ticks, kind, payload in self._connection.execute(
            "SELECT subject, id, device_id, sequence, ticks, kind, payload FROM ops"  # noqa: S608
            f" WHERE subject IN ({marks}) AND NOT held ORDER BY id",
            subjects,
        ):
            op = SubjectOp(f"{ticks:016x}-{device_id}", kind, json.loads(payload))
            found.setdefault(subject, []).append(_Stored(row_id, device_id, sequence, ticks, payload, op))
        return found

    def _buried(self, found: Mapping[bytes, Sequence[_Stored]]) -> set[str]:
        if not self._any_buried:
            return set()
        tags: dict[bytes, str] = {}
        for stored in found.values():
            for one in stored:
                named = (
                    named_tags(one.op)
                    if one.op.kind.endswith(".delete")
                    else (tag for tag, _ in added_items(one.op))
                )
                tags.update((tag_bytes([tag]), tag) for tag in named)
        buried: set[str] = set()
        for some in batched(tags, AT_ONCE):
            marks = ", ".join("?" * len(some))
            rows = self._connection.execute(f"SELECT tag FROM tombstones WHERE tag IN ({marks})", some)  # noqa: S608
            buried.update(tags[data] for (data,) in rows)
        return buried

    def _covered(self, stamp: str) -> bool:
        ticks, _, device = stamp.partition("-")
        return ticks <= self._last.get(device, "")


def thin_log(connection: Connection, vector: _Vector, subjects: Sequence[bytes]) -> Thinned:
    """Take what has no effect any more out of the ops of at most 500 subjects, as far as `vector` covers them.

    What exists keeps the op that it was added by, in its place, so that whatever goes through the ops finds it.
    """
    changes = list(SubjectReader(connection, vector).changes(subjects))
    gone = [(row_id,) for row_id, _, payload in changes if payload is None]
    connection.executemany("DELETE FROM ops WHERE id = ?", gone)
    shorter: list[tuple[Any, ...]] = [(payload, row_id) for row_id, _, payload in changes if payload is not None]
    connection.executemany("UPDATE ops SET payload = ? WHERE id = ?", shorter)
    return Thinned(len(gone), len(shorter), sum(saved for _, saved, _ in changes))


def forget_adoptions(connection: Connection, vector: _Vector) -> int:
    """Take out ops that hand on others, as far as `vector` covers them: what they handed on is here. How many."""
    return sum(
        connection.execute(
            "DELETE FROM ops WHERE device_id = ? AND sequence <= ? AND kind = ? AND NOT held",
            (device, head.sequence, OpKind.LOG_ADOPT),
        ).rowcount
        for device, head in vector.items()
    )
