"""Adding a whole graph, read from a file, to the one that is stored: additions only, nothing stored is lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dualmem_mcp.model.graph import Entity, Relation
from dualmem_mcp.model.oplog import OpKind
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.graph_cache import GRAPH_PAYLOAD, graph_version
from dualmem_mcp.stores.graph_writer import GraphWriter


@dataclass
class ImportCounts:
    """What an import changed; `outdated` counts what was left out because it has been deleted here since."""

    entities: int = 0
    relations: int = 0
    observations: int = 0
    other_types: int = 0
    """Entities that have another type here; theirs was not taken."""
    outdated: int = 0

    def __iadd__(self, other: ImportCounts) -> ImportCounts:
        self.entities += other.entities
        self.relations += other.relations
        self.observations += other.observations
        self.other_types += other.other_types
        self.outdated += other.outdated
        return self


@dataclass(frozen=True)
class LocalChanges:
    """What was deleted or set here after some version: an import of something older must not bring it back."""

    entities: set[str] = field(default_factory=set)
    observations: set[tuple[str, str]] = field(default_factory=set)
    relations: set[tuple[str, str, str]] = field(default_factory=set)
    fields: set[tuple[str | tuple[str, str, str], str]] = field(default_factory=set)
    """Entity name or relation's triple, and the field."""

    def add(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Take in an op of the graph; additions cannot be undone by an import."""
        match kind:
            case OpKind.ENTITY_DELETE:
                self.entities.add(payload["name"])
            case OpKind.OBSERVATION_DELETE:
                self.observations.update((payload["name"], item["text"]) for item in payload["observations"])
            case OpKind.RELATION_DELETE:
                self.relations.add((payload["from"], payload["to"], payload["relationType"]))
            case OpKind.ENTITY_SET:
                self.fields.update((payload["name"], name) for name in payload["fields"])
            case OpKind.RELATION_SET:
                triple = (payload["from"], payload["to"], payload["relationType"])
                self.fields.update((triple, name) for name in payload["fields"])
            case _:
                pass


def changes_since(connection: Connection, version: int) -> LocalChanges | None:
    """The deletions and field changes after that version, by whichever device; None if the op log does not reach
    back so far."""
    rows = connection.execute(
        f"SELECT kind, {GRAPH_PAYLOAD} FROM ops WHERE id > ? ORDER BY id",  # noqa: S608
        (version,),
    ).fetchall()
    if len(rows) != graph_version(connection) - version:
        return None
    changes = LocalChanges()
    for kind, text in rows:
        if text is not None:
            changes.add(kind, json.loads(text))
    return changes


class GraphImporter:
    """Adds entities and relations to the graph through the writer of one transaction.

    Without `changes` the graph given is a stranger's: where an entity of that name has another type or other
    values in unknown fields, those stored stay. With `changes` it is a newer state of what this device once
    wrote, edited by hand or by another program: its fields are taken, and what was deleted or set here in the
    meantime stays as it is here.
    """

    def __init__(self, writer: GraphWriter, changes: LocalChanges | None) -> None:
        self._writer = writer
        self._changes = changes or LocalChanges()
        self._edited = changes is not None
        self.counts = ImportCounts()

    def add_entity(self, entity: Entity) -> None:
        """Create the entity, or add to the one of that name what it lacks."""
        if entity.name in self._changes.entities:
            self.counts.outdated += 1
            return
        observations = tuple(
            text for text in entity.observations if (entity.name, text) not in self._changes.observations
        )
        self.counts.outdated += len(entity.observations) - len(observations)
        added = self._writer.add_observations(entity.name, observations)
        if added is None:
            created = self._writer.create_entity(
                Entity(entity.name, entity.entity_type, observations, entity.extra)
            )
            self.counts.entities += 1
            self.counts.observations += len(created.observations) if created else 0
            return
        self.counts.observations += len(added)
        stored = self._writer.entity_fields(entity.name)
        if stored is None:
            return
        entity_type = None
        if stored[0] != entity.entity_type:
            if self._edited and (entity.name, "entityType") not in self._changes.fields:
                entity_type = entity.entity_type
            else:
                self.counts.other_types += 1
        extra = self._fields_to_take(entity.name, entity.extra, stored[1])
        if entity_type is not None or extra:
            self._writer.set_entity_fields(entity.name, entity_type=entity_type, extra=extra)

    def add_relation(self, relation: Relation) -> None:
        """Create the relation, or add to the one of that triple the unknown fields it lacks."""
        if relation.triple in self._changes.relations:
            self.counts.outdated += 1
            return
        stored = self._writer.relation_extra(relation)
        if stored is None:
            self._writer.create_relation(relation)
            self.counts.relations += 1
        elif extra := self._fields_to_take(relation.triple, relation.extra, stored):
            self._writer.set_relation_fields(relation, extra)

    def _fields_to_take(
        self, subject: str | tuple[str, str, str], given: Mapping[str, Any], stored: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            key: value
            for key, value in given.items()
            if key not in stored
            or (self._edited and stored[key] != value and (subject, f"extra.{key}") not in self._changes.fields)
        }
