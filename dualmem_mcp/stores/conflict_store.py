"""What lost when devices changed one thing without knowing of each other, until somebody decides."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.model.field_versions import Clash
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.merge import EntityState, RecordState, RelationState, SubjectState
from dualmem_mcp.model.oplog import OpKind, Stamp, subject_digest
from dualmem_mcp.model.subject_op import ENTITY_TYPE, EXTRA
from dualmem_mcp.ports import Clock, Conflict, Version
from dualmem_mcp.stores.conflict_rows import field_column
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.op_log import OpWriter
from dualmem_mcp.stores.subject_fold import fold, refold

_Decision = tuple[OpKind, dict[str, Any]]

_SHORTEST_PREFIX: Final = 4
"""Digits that an id may be named by, if no other begins so."""


class ConflictStore:
    """Conflicts, for use from any thread, beside other processes on the same data home."""

    def __init__(self, database: Database, clock: Clock, device_id: DeviceId) -> None:
        self._database = database
        self._clock = clock
        self._device_id = device_id
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call the listener after each decision, in that call's thread, after its commit."""
        self._listeners.append(listener)

    def find(self, limit: int = 100) -> Sequence[Conflict]:
        """As the port says."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT subject, field, detail FROM conflicts").fetchall()
        found = [_conflict(subject, column, json.loads(detail)) for subject, column, detail in rows]
        found.sort(key=lambda one: (one.lost[0].stamp, one.conflict_id), reverse=True)
        return found[:limit]

    def count(self) -> int:
        """As the port says."""
        with self._database.read() as connection:
            (count,) = connection.execute("SELECT count(*) FROM conflicts").fetchone()
            return int(count)

    def resolve(self, conflict_id: str, *, keep: bool, stamp: str | None = None) -> Conflict:
        """As the port says. A record that was deleted comes back under a new id."""
        with self._database.write() as connection:
            rows = connection.execute("SELECT subject, field, detail FROM conflicts").fetchall()
            subject, column, detail = _row_of(rows, conflict_id)
            conflict = _conflict(subject, column, json.loads(detail))
            lost = _chosen(conflict, stamp)
            state = fold(connection, [subject])[subject]
            clash = next(one for one in state.clashes if field_column(one.field) == column)
            decisions = list(_keeping(state, clash) if keep else _taking(state, clash, lost))
            ops = OpWriter(connection, self._device_id, self._clock.now())
            for kind, payload in decisions:
                ops.record(kind, payload)
            ops.finish()
            subjects = {subject_digest(kind, payload) for kind, payload in decisions}
            refold(connection, [one for one in subjects if one is not None])
        for listener in self._listeners:
            listener()
        return conflict


def _row_of(rows: Sequence[tuple[bytes, str, str]], conflict_id: str) -> tuple[bytes, str, str]:
    """The row of the conflict of that id, or whose id alone begins so."""
    wanted = conflict_id.lower()
    found = [row for row in rows if _conflict_id(row[0], row[1]).startswith(wanted)]
    if len(wanted) < _SHORTEST_PREFIX or not found:
        raise NotFoundError(
            f"there is no conflict {conflict_id[:40]}",
            operation="resolve conflict",
            subject=conflict_id[:40],
            hint="`dualmem conflicts` lists those that wait; another device may have decided this one.",
        )
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} conflicts have an id that begins with {conflict_id[:40]}",
            operation="resolve conflict",
            subject=conflict_id[:40],
            hint="Give more of the id; `dualmem conflicts` lists them.",
        )
    return found[0]


def _conflict_id(subject: bytes, column: str) -> str:
    """16 hexadecimal digits that are the same on all devices."""
    return hashlib.blake2b(subject + column.encode(), digest_size=8).hexdigest()


def _conflict(subject: bytes, column: str, detail: Mapping[str, Any]) -> Conflict:
    return Conflict(
        conflict_id=_conflict_id(subject, column),
        kind=detail["kind"],
        name=detail["name"],
        field=detail["field"],
        kept=None if detail["kept"] is None else _version(detail["kept"]),
        lost=tuple(_version(side) for side in detail["lost"]),
    )


def _version(side: Mapping[str, Any]) -> Version:
    return Version(side["value"], Stamp.parse(side["stamp"]))


def _chosen(conflict: Conflict, stamp: str | None) -> Version:
    """The lost version of that stamp, the newest for None."""
    for version in conflict.lost:
        if stamp is None or str(version.stamp) == stamp:
            return version
    raise UsageError(
        f"the conflict has no lost version {stamp}",
        operation="resolve conflict",
        subject=conflict.conflict_id,
        hint="Name the stamp of one of the versions that `dualmem conflicts` shows as lost.",
    )


def _keeping(state: SubjectState, clash: Clash) -> Iterator[_Decision]:
    """The ops by which what counts now is what counts, for all devices."""
    if clash.field:
        yield _setting(state, clash, {} if clash.kept is None else {clash.field: clash.kept.value})
    else:
        yield _deleting(state, clash)


def _taking(state: SubjectState, clash: Clash, lost: Version) -> Iterator[_Decision]:
    """The ops by which the lost version counts again, or what a deletion hides comes back."""
    if clash.field:
        yield _setting(state, clash, {clash.field: lost.value})
        return
    if isinstance(state, RecordState):
        yield (
            OpKind.RECORD_SET,
            {
                "type": state.type,
                "id": uuid.uuid4().hex,
                **({"conversation_id": state.conversation_id} if state.conversation_id else {}),
                "fields": dict(clash.fields),
                "over": {},
            },
        )
        yield _deleting(state, clash)
        return
    payload = _named(state)
    if isinstance(state, EntityState):
        payload |= {"entityType": clash.fields[ENTITY_TYPE], "observations": []}
    extra = {name[len(EXTRA) :]: value for name, value in clash.fields.items() if name.startswith(EXTRA)}
    if extra:
        payload["extra"] = extra
    # The new item has the values that were hidden, so they are no versions beside its own.
    payload["over"] = {name: list(clash.heads) for name in clash.fields}
    yield OpKind.ENTITY_CREATE if isinstance(state, EntityState) else OpKind.RELATION_CREATE, payload


def _setting(state: SubjectState, clash: Clash, fields: Mapping[str, Any]) -> _Decision:
    payload = {**_named(state), "fields": dict(fields), "over": {clash.field: list(clash.heads)}}
    if isinstance(state, EntityState):
        return OpKind.ENTITY_SET, {**payload, "entity": list(state.tags)}
    if isinstance(state, RelationState):
        return OpKind.RELATION_SET, {**payload, "relation": list(state.tags)}
    return OpKind.RECORD_SET, payload


def _deleting(state: SubjectState, clash: Clash) -> _Decision:
    payload = {**_named(state), "over": list(clash.heads)}
    if isinstance(state, EntityState):
        return OpKind.ENTITY_DELETE, {**payload, "tags": [], "observations": list(clash.tags)}
    if isinstance(state, RelationState):
        return OpKind.RELATION_DELETE, {**payload, "tags": []}
    return OpKind.RECORD_DELETE, payload


def _named(state: SubjectState) -> dict[str, Any]:
    if isinstance(state, EntityState):
        return {"name": state.name}
    if isinstance(state, RelationState):
        return {"from": state.source, "to": state.target, "relationType": state.relation_type}
    named: dict[str, Any] = {"type": state.type, "id": state.id}
    if state.conversation_id:
        named["conversation_id"] = state.conversation_id
    return named
