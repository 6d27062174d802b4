"""Rows made anew from ops: after ops of others came in, the subjects that they touch look as all their ops say."""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from dualmem_mcp.errors import MalformedError
from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.merge import EntityState, RecordState, RelationState, SubjectState, merge
from dualmem_mcp.model.oplog import OpKind, Stamp, Tag, subject_digest
from dualmem_mcp.model.subject_op import SubjectOp, added_items, named_tags
from dualmem_mcp.stores.columns import from_column
from dualmem_mcp.stores.conflict_rows import conflict_rows
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.folded_graph import GraphChanges, put_entities, put_relations, tag_bytes
from dualmem_mcp.stores.folded_records import put_records
from dualmem_mcp.stores.untold_changes import tell_of

AT_ONCE: Final = 500
"""Subjects whose ops are in memory together, and values bound in one statement."""

_Item = TypeVar("_Item")


def refold(connection: Connection, subjects: Iterable[bytes], *, told: bool = True) -> None:
    """Make the rows of these subjects what their ops say: entities, observations, relations, records with their
    findings, conflicts, tombstones.

    `subjects` are digests as in `ops.subject`; ops that are held back take no part. Only rows that differ are
    written, and those that stay keep their place. To be called in the transaction that changed the ops.

    Without `told` no op that came in this transaction says that these subjects change; who follows the graph by new
    ops is told in another way.
    """
    without_ops: set[bytes] = set()
    changed = GraphChanges()
    for some in batched(dict.fromkeys(subjects), AT_ONCE):
        folded = fold(connection, some)
        changed += _put(connection, folded.values())
        _put_conflicts(connection, some, folded)
        without_ops.update(subject for subject in some if subject not in folded)
    if without_ops:
        for states in batched(_absent(connection, without_ops), AT_ONCE):
            changed += _put(connection, states)
    if changed and not told:
        tell_of(connection, changed.entities)


def fold(connection: Connection, subjects: Sequence[bytes]) -> dict[bytes, SubjectState]:
    """The state of each of the subjects that has one, by its digest, in the order in which their first ops arrived.

    Remembers tags that ops delete and that nobody buried yet.
    """
    ops = subject_ops(connection, subjects)
    buried = _bury(connection, ops)
    states = ((subject, merge(own, buried)) for subject, own in ops.items())
    return {subject: state for subject, state in states if state is not None}


def _put(connection: Connection, states: Collection[SubjectState]) -> GraphChanges:
    put_records(connection, [state for state in states if isinstance(state, RecordState)])
    return GraphChanges(
        put_entities(connection, [state for state in states if isinstance(state, EntityState)]),
        put_relations(connection, [state for state in states if isinstance(state, RelationState)]),
    )


def _absent(connection: Connection, subjects: Container[bytes]) -> list[SubjectState]:
    """States that say there is none, for the rows of subjects that no op names any more: a digest does not tell
    the name, so all rows are looked at."""
    found: list[SubjectState] = []
    for (column,) in connection.execute("SELECT name FROM entities"):
        name = from_column(column)
        if subject_digest(OpKind.ENTITY_CREATE, {"name": name}) in subjects:
            found.append(EntityState(name, (), {}, {}))
    for columns in connection.execute("SELECT source, target, relation_type FROM relations"):
        source, target, relation_type = map(from_column, columns)
        payload = {"from": source, "to": target, "relationType": relation_type}
        if subject_digest(OpKind.RELATION_CREATE, payload) in subjects:
            found.append(RelationState(source, target, relation_type, (), {}))
    for record_type, record_id in connection.execute("SELECT type, id FROM records"):
        if subject_digest(OpKind.RECORD_SET, {"type": record_type, "id": record_id}) in subjects:
            found.append(RecordState(record_type, record_id, "", {}, "", "", deleted=False))
    return found


def subject_ops(connection: Connection, subjects: Sequence[bytes]) -> dict[bytes, list[SubjectOp]]:
    """The ops of each of the subjects, at most `AT_ONCE`, that count here."""
    marks = ", ".join("?" * len(subjects))
    found: dict[bytes, list[SubjectOp]] = {}
    for subject, ticks, device_id, kind, payload in connection.execute(
        "SELECT subject, ticks, device_id, kind, payload FROM ops"  # noqa: S608
        f" WHERE subject IN ({marks}) AND NOT held ORDER BY id",
        subjects,
    ):
        found.setdefault(subject, []).append(SubjectOp(f"{ticks:016x}-{device_id}", kind, json.loads(payload)))
    return found


def batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """The items in lists of at most that many."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _bury(connection: Connection, ops: dict[bytes, list[SubjectOp]]) -> set[str]:
    """Those of the tags in the ops that have a tombstone; what ops delete and that has none gets one."""
    deleted: dict[bytes, str] = {}
    tags: dict[bytes, str] = {}
    for own in ops.values():
        for op in own:
            if op.kind.endswith(".delete"):
                found = {data: tag for tag in named_tags(op) if (data := _tag_bytes(tag)) is not None}
                tags |= found
                deleted.update(dict.fromkeys(found, op.stamp))
            else:
                tags.update((tag_bytes((tag,)), tag) for tag, _ in added_items(op))
    known: set[bytes] = set()
    for some in batched(tags, AT_ONCE):
        marks = ", ".join("?" * len(some))
        rows = connection.execute(f"SELECT tag FROM tombstones WHERE tag IN ({marks})", some)  # noqa: S608
        known.update(data for (data,) in rows)
    new = [(data, Stamp.parse(stamp).to_bytes()) for data, stamp in deleted.items() if data not in known]
    if new:
        connection.executemany("INSERT INTO tombstones VALUES (?, ?)", new)
    return {tags[data] for data in known}


def _tag_bytes(tag: str) -> bytes | None:
    """The tag's bytes; None for a text that is none, as only a faulty program writes it."""
    try:
        return Tag.parse(tag).to_bytes()
    except MalformedError:
        return None


def _put_conflicts(connection: Connection, subjects: Sequence[bytes], folded: dict[bytes, SubjectState]) -> None:
    wanted: dict[tuple[bytes, str], str] = {}
    for subject, state in folded.items():
        if state.clashes:
            wanted.update(((subject, field), compact_json(detail)) for field, detail in conflict_rows(state))
    marks = ", ".join("?" * len(subjects))
    there = {
        (subject, field): detail
        for subject, field, detail in connection.execute(
            f"SELECT subject, field, detail FROM conflicts WHERE subject IN ({marks})",  # noqa: S608
            subjects,
        )
    }
    if there == wanted:
        return
    connection.executemany(
        "DELETE FROM conflicts WHERE subject = ? AND field = ?", [key for key in there if key not in wanted]
    )
    rows: list[tuple[Any, ...]] = [(*key, detail) for key, detail in wanted.items() if there.get(key) != detail]
    connection.executemany("INSERT OR REPLACE INTO conflicts VALUES (?, ?, ?)", rows)
