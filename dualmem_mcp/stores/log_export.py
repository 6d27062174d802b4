"""The log of a data home written out: what all ops that were sealed add up to, as ops, the least that says it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import LogHead, Op, OpKind, Stamp, Tag, subject_digest
from dualmem_mcp.model.whole_log import TOMBSTONES
from dualmem_mcp.stores.columns import from_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.log_thinning import SubjectReader
from dualmem_mcp.stores.row_payloads import (
    CONVERSATION_COLUMNS,
    FINDING_COLUMNS,
    HANDOFF_COLUMNS,
    TURN_COLUMNS,
    Row,
    conversation_json,
    finding_json,
    handoff_json,
    turn_json,
)
from dualmem_mcp.stores.subject_fold import batched

TAGS_IN_LINE: Final = 5_000
_SUBJECTS_AT_ONCE: Final = 500
OF_ROWS: Final = (
    OpKind.TURN_ADD,
    OpKind.CONVERSATION_SET,
    OpKind.FINDING_PUT,
    OpKind.HANDOFF_ADD,
    OpKind.CONVERSATION_ERASE,
)
"""Of ops whose effect are rows, from which they are made again."""

_NOT_THEMSELVES: Final = (*OF_ROWS, OpKind.LOG_ADOPT)
"""And of those whose effect are other ops, which are there."""


class LogExport:
    """The log as one transaction sees it. `own` is the device whose unsealed ops are left out: nobody has been told
    of them, and they may yet change their names."""

    def __init__(self, connection: Connection, own: DeviceId) -> None:
        self._connection = connection
        self._own = own
        self.vector = read_vector(connection)
        self._sealed = self.vector[own].sequence if own in self.vector else 0
        (first,) = connection.execute(
            "SELECT min(ticks) FROM ops WHERE device_id = ? AND sequence > ?", (own, self._sealed)
        ).fetchone()
        self._first_unsealed = Stamp(first, own).to_bytes() if first is not None else None
        self._subjects = SubjectReader(connection, self.vector)

    def ops(self) -> Iterator[Op]:
        """Bans and deleted tags first, then subjects in the order of their rows here, then rows, then the rest."""
        yield from self._erasures()
        yield from self._tombstones()
        yield from self._subject_ops()
        yield from row_ops(self._connection, self._is_told, self._parameters)
        yield from self._others()

    def _erasures(self) -> Iterator[Op]:
        for name, stamp in self._connection.execute("SELECT name, stamp FROM erased ORDER BY name"):
            yield Op(Stamp.from_bytes(stamp), 0, OpKind.CONVERSATION_ERASE, compact_json({"name": name}))

    def _tombstones(self) -> Iterator[Op]:
        rows = self._connection.execute("SELECT tag, deleted_by FROM tombstones ORDER BY tag")
        for some in batched(rows, TAGS_IN_LINE):
            pairs = [[str(Tag.from_bytes(tag)), str(Stamp.from_bytes(stamp))] for tag, stamp in some]
            yield Op(max(Stamp.from_bytes(stamp) for _, stamp in some), 0, TOMBSTONES, compact_json(pairs))

    def _subject_ops(self) -> Iterator[Op]:
        """What exists comes in the order of its rows: each device shows things in the order in which they came."""
        told: set[bytes] = set()
        for subjects in batched(self._subjects_in_order(), _SUBJECTS_AT_ONCE):
            new = [subject for subject in dict.fromkeys(subjects) if subject not in told]
            told.update(new)
            for op in self._subjects.thinned(new):
                if op.stamp.device_id != self._own or op.sequence <= self._sealed:
                    yield op

    def _subjects_in_order(self) -> Iterator[bytes]:
        connection = self._connection
        for (name,) in connection.execute("SELECT name FROM entities ORDER BY id"):
            yield _digest(OpKind.ENTITY_CREATE, {"name": from_column(name)})
        for ends in connection.execute("SELECT source, target, relation_type FROM relations ORDER BY id"):
            triple = zip(("from", "to", "relationType"), map(from_column, ends), strict=True)
            yield _digest(OpKind.RELATION_CREATE, dict(triple))
        for (subject,) in connection.execute(
            "SELECT subject FROM ops WHERE subject IS NOT NULL GROUP BY subject ORDER BY min(id)"
        ):
            yield subject

    @property
    def _is_told(self) -> str:
        # Stamps sort by their ticks, then by device: of the own device's those from the first unsealed one on.
        return "length(stamp) = 24 AND (?1 IS NULL OR stamp < ?1 OR substr(stamp, 9) <> ?2)"

    @property
    def _parameters(self) -> Sequence[Any]:
        return (self._first_unsealed, bytes.fromhex(self._own))

    def _others(self) -> Iterator[Op]:
        """Ops that are held back, and those of kinds that are unknown here, as they are."""
        marks = ", ".join("?" * len(_NOT_THEMSELVES))
        for device, sequence, ticks, kind, payload in self._connection.execute(
            "SELECT device_id, sequence, ticks, kind, payload FROM ops"  # noqa: S608
            f" WHERE (held OR (subject IS NULL AND kind NOT IN ({marks}))) AND NOT (device_id = ? AND sequence > ?)"
            " ORDER BY id",
            (*_NOT_THEMSELVES, self._own, self._sealed),
        ):
            yield Op(Stamp(ticks, DeviceId(device)), sequence, kind, payload)


def row_ops(connection: Connection, condition: str, parameters: Sequence[Any]) -> Iterator[Op]:
    """Ops made from conversations, turns, findings, handoffs whose column `stamp` meets the condition."""
    yield from _single(
        connection,
        f"SELECT {CONVERSATION_COLUMNS}, stamp FROM conversations WHERE {condition} ORDER BY id",  # noqa: S608
        parameters,
        OpKind.CONVERSATION_SET,
        conversation_json,
    )
    yield from _turns(connection, condition, parameters)
    yield from _single(
        connection,
        f"SELECT {FINDING_COLUMNS}, stamp FROM findings WHERE {condition} ORDER BY id",  # noqa: S608
        parameters,
        OpKind.FINDING_PUT,
        finding_json,
    )
    yield from _single(
        connection,
        f"SELECT {HANDOFF_COLUMNS}, stamp FROM handoffs WHERE {condition} ORDER BY created_at, handoff_id",  # noqa: S608
        parameters,
        OpKind.HANDOFF_ADD,
        handoff_json,
    )


def _turns(connection: Connection, condition: str, parameters: Sequence[Any]) -> Iterator[Op]:
    rows = connection.execute(
        f"SELECT {TURN_COLUMNS}, stamp FROM turns WHERE {condition} ORDER BY id",  # noqa: S608
        parameters,
    )
    # Rows of one op follow each other; conversation and device stand once in the op.
    for (stamp, conversation_id, device_name), some in groupby(rows, key=lambda row: (row[-1], row[0], row[10])):
        payload = {
            "conversation_id": conversation_id,
            "device_name": from_column(device_name),
            "turns": [turn_json(row[:-1]) for row in some],
        }
        yield Op(Stamp.from_bytes(stamp), 0, OpKind.TURN_ADD, compact_json(payload))


def _single(
    connection: Connection,
    statement: str,
    parameters: Sequence[Any],
    kind: OpKind,
    to_json: Callable[[Row], Mapping[str, Any]],
) -> Iterator[Op]:
    for row in connection.execute(statement, parameters):
        yield Op(Stamp.from_bytes(row[-1]), 0, kind, compact_json(to_json(row[:-1])))


def read_vector(connection: Connection) -> dict[DeviceId, LogHead]:
    """Where each log ends here; logs of which there is nothing are left out."""
    rows = connection.execute("SELECT device_id, segment, object_hash, sequence FROM log_heads WHERE segment > 0")
    return {DeviceId(device): LogHead(*head) for device, *head in rows}


def _digest(kind: OpKind, payload: Mapping[str, Any]) -> bytes:
    return subject_digest(kind, payload) or b""
