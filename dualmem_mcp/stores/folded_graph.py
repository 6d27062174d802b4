"""Entities, observations and relations as their ops say they are: rows of memory.db made to agree."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dualmem_mcp.model.field_versions import FieldState
from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.merge import EntityState, RelationState
from dualmem_mcp.model.oplog import Tag
from dualmem_mcp.model.subject_op import ENTITY_TYPE, EXTRA
from dualmem_mcp.stores.columns import text_digest, to_column
from dualmem_mcp.stores.connection import Connection

_STAMP_CHARACTERS: Final = 49
"""Of a stamp's text. Source: docs/ops.md, "Time"."""

_Value = str | bytes
_Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class GraphChanges:
    """Names of entities that are different now, observations included, and how many relations are."""

    entities: tuple[str, ...] = ()
    relations: int = 0

    def __add__(self, other: GraphChanges) -> GraphChanges:
        return GraphChanges(self.entities + other.entities, self.relations + other.relations)

    def __bool__(self) -> bool:
        return bool(self.entities or self.relations)


def put_entities(connection: Connection, states: Sequence[EntityState]) -> tuple[str, ...]:
    """Make the rows of these entities and their observations what the states say; names of those that differed."""
    if not states:
        return ()
    names = [to_column(state.name) for state in states]
    there: dict[_Value, _Row] = {
        row[1]: row
        for row in connection.execute(
            "SELECT id, name, entity_type, tags, extra, field_stamps FROM entities"  # noqa: S608
            f" WHERE name IN ({_marks(names)})",
            names,
        )
    }
    observations = _observations(connection, [row[0] for row in there.values()])
    gone: list[tuple[int]] = []
    changes = _ObservationChanges()
    different: list[str] = []
    for name, state in zip(names, states, strict=True):
        old = there.get(name)
        if not state.tags:
            if old is not None:
                gone.append((old[0],))
                changes.remove_all(observations.get(old[0], {}))
                different.append(state.name)
            continue
        columns = _entity_columns(state)
        is_different = old is None or not _same_columns(columns, old[2:])
        if old is None:
            entity_id = connection.execute(
                "INSERT INTO entities (name, entity_type, tags, extra, field_stamps) VALUES (?, ?, ?, ?, ?)",
                (name, *columns),
            ).lastrowid
        else:
            entity_id = old[0]
            if is_different:
                connection.execute(
                    "UPDATE entities SET entity_type = ?, tags = ?, extra = ?, field_stamps = ? WHERE id = ?",
                    (*columns, entity_id),
                )
        if changes.compare(entity_id, state.observations, observations.get(entity_id, {})) or is_different:
            different.append(state.name)
    changes.write(connection)
    connection.executemany("DELETE FROM entities WHERE id = ?", gone)
    return tuple(different)


def put_relations(connection: Connection, states: Sequence[RelationState]) -> int:
    """Make the rows of these relations what the states say; how many differed."""
    if not states:
        return 0
    triples = [
        (to_column(state.source), to_column(state.target), to_column(state.relation_type)) for state in states
    ]
    there: dict[tuple[_Value, _Value, _Value], _Row] = {
        row[1:4]: row
        for row in connection.execute(
            "SELECT id, source, target, relation_type, tags, extra, field_stamps FROM relations"  # noqa: S608
            f" WHERE (source, target, relation_type) IN (VALUES {', '.join(['(?, ?, ?)'] * len(triples))})",
            [part for triple in triples for part in triple],
        )
    }
    gone: list[tuple[int]] = []
    new: list[_Row] = []
    changed: list[_Row] = []
    for triple, state in zip(triples, states, strict=True):
        old = there.get(triple)
        if not state.tags:
            if old is not None:
                gone.append((old[0],))
            continue
        columns = (tag_bytes(state.tags), *_extra_columns(state.fields, state.tags))
        if old is None:
            new.append((*triple, *columns))
        elif not _same_columns(columns, old[4:]):
            changed.append((*columns, old[0]))
    connection.executemany(
        "INSERT INTO relations (source, target, relation_type, tags, extra, field_stamps)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        new,
    )
    connection.executemany("UPDATE relations SET tags = ?, extra = ?, field_stamps = ? WHERE id = ?", changed)
    connection.executemany("DELETE FROM relations WHERE id = ?", gone)
    return len(gone) + len(new) + len(changed)


def tag_bytes(tags: Iterable[str]) -> bytes:
    """The tags side by side, as they lie in a row; each is one that `Tag` wrote."""
    return b"".join(
        bytes.fromhex(tag[:16] + tag[17:49]) + int(tag[50:]).to_bytes(Tag.SIZE_BYTES - 24, "big") for tag in tags
    )


class _ObservationChanges:
    """What has to be written so that observations are what the states say."""

    def __init__(self) -> None:
        self._new: list[_Row] = []
        self._changed: list[_Row] = []
        self._gone: list[tuple[int]] = []

    def compare(
        self, entity_id: int, wanted: Mapping[str, Sequence[str]], there: Mapping[bytes, tuple[int, bytes]]
    ) -> bool:
        """Note what has to be written for one entity; whether anything has."""
        before = self._count()
        kept = 0
        for text, own in wanted.items():
            digest = text_digest(text)
            tags = tag_bytes(own)
            old = there.get(digest)
            if old is None:
                self._new.append((entity_id, digest, to_column(text), tags))
                continue
            kept += 1
            if old[1] != tags:
                self._changed.append((tags, old[0]))
        if kept < len(there):
            digests = {text_digest(text) for text in wanted}
            self._gone += [(row_id,) for digest, (row_id, _) in there.items() if digest not in digests]
        return self._count() != before

    def _count(self) -> int:
        return len(self._new) + len(self._changed) + len(self._gone)

    def remove_all(self, there: Mapping[bytes, tuple[int, bytes]]) -> None:
        self._gone += [(row_id,) for row_id, _ in there.values()]

    def write(self, connection: Connection) -> None:
        connection.executemany("DELETE FROM observations WHERE id = ?", self._gone)
        connection.executemany("UPDATE observations SET tags = ? WHERE id = ?", self._changed)
        connection.executemany(
            "INSERT INTO observations (entity_id, digest, text, tags) VALUES (?, ?, ?, ?)", self._new
        )


def _observations(connection: Connection, entity_ids: Sequence[int]) -> dict[int, dict[bytes, tuple[int, bytes]]]:
    """For each entity the row number and tags of its observations, by the digest of the text."""
    found: dict[int, dict[bytes, tuple[int, bytes]]] = {}
    for entity_id, digest, row_id, tags in connection.execute(
        f"SELECT entity_id, digest, id, tags FROM observations WHERE entity_id IN ({_marks(entity_ids)})",  # noqa: S608
        entity_ids,
    ):
        found.setdefault(entity_id, {})[digest] = (row_id, tags)
    return found


def _entity_columns(state: EntityState) -> tuple[Any, ...]:
    found = state.fields.get(ENTITY_TYPE)
    return (
        to_column(found.value if found else ""),
        tag_bytes(state.tags),
        *_extra_columns(state.fields, state.tags),
    )


def _extra_columns(fields: Mapping[str, FieldState], tags: Sequence[str]) -> tuple[str | None, str | None]:
    """Columns `extra` and `field_stamps`; a field that the first tag's op alone set has no stamp of its own."""
    first = (tags[0][:_STAMP_CHARACTERS],)
    extra = {name[len(EXTRA) :]: one.value for name, one in fields.items() if name.startswith(EXTRA)}
    stamps = {name: " ".join(one.stamps) for name, one in fields.items() if one.stamps != first}
    return (compact_json(extra) if extra else None, compact_json(stamps) if stamps else None)


def _same_columns(new: Sequence[Any], old: Sequence[Any]) -> bool:
    """Whether the columns say the same; of the JSON objects at the end the order of members does not count."""
    return all(
        one == other
        or (at >= len(new) - 2 and one is not None and other is not None and _sorted(one) == _sorted(other))
        for at, (one, other) in enumerate(zip(new, old, strict=True))
    )


def _sorted(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
