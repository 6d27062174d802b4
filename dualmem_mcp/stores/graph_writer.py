"""Changes of the graph within one transaction: rows and ops together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from dualmem_mcp.model.graph import Entity, Relation
from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.oplog import OpKind, Stamp, Tag, split_tags, subject_digest
from dualmem_mcp.model.subject_op import ENTITY_TYPE, EXTRA
from dualmem_mcp.stores.columns import from_column, text_digest, to_column
from dualmem_mcp.stores.conflict_rows import conflict_heads
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.graph_cache import read_entity
from dualmem_mcp.stores.op_log import OpWriter
from dualmem_mcp.stores.subject_fold import refold


class GraphWriter:
    """The single changes that all others consist of. Each records its op, and none if it changes nothing.

    Rows are changed directly, to what their ops add up to. Where a subject has conflicts, its ops say more than its
    rows do, and the rows are made anew.
    """

    def __init__(self, connection: Connection, ops: OpWriter) -> None:
        self._connection = connection
        self._ops = ops

    def create_entity(self, entity: Entity) -> Entity | None:
        """The entity as it was stored, its repeated observations once; None if there is one of that name.

        Observations that its deletion hid, because it did not know of them, are back.
        """
        observations = tuple(dict.fromkeys(entity.observations))
        stamp = self._ops.next_stamp()
        cursor = self._connection.execute(
            "INSERT INTO entities (name, entity_type, tags, extra) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                to_column(entity.name),
                to_column(entity.entity_type),
                Tag(stamp, 0).to_bytes(),
                compact_json(entity.extra) if entity.extra else None,
            ),
        )
        if not cursor.rowcount:
            return None
        self._insert_observations(cursor.lastrowid, observations, stamp)
        payload: dict[str, Any] = {
            "name": entity.name,
            "entityType": entity.entity_type,
            "observations": list(observations),
        }
        if entity.extra:
            payload["extra"] = dict(entity.extra)
        self._ops.record(OpKind.ENTITY_CREATE, payload, stamp)
        if self._settle(OpKind.ENTITY_CREATE, payload) and (row := read_entity(self._connection, entity.name)):
            return row[1]
        return Entity(entity.name, entity.entity_type, observations, entity.extra)

    def create_relation(self, relation: Relation) -> Relation | None:
        """The relation as it was stored; None if there is one of that triple."""
        stamp = self._ops.next_stamp()
        cursor = self._connection.execute(
            "INSERT INTO relations (source, target, relation_type, tags, extra) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (
                *_triple_columns(relation),
                Tag(stamp, 0).to_bytes(),
                compact_json(relation.extra) if relation.extra else None,
            ),
        )
        if not cursor.rowcount:
            return None
        payload = _triple_json(relation)
        if relation.extra:
            payload["extra"] = dict(relation.extra)
        self._ops.record(OpKind.RELATION_CREATE, payload, stamp)
        self._settle(OpKind.RELATION_CREATE, payload)
        return relation

    def add_observations(self, entity_name: str, texts: Iterable[str]) -> tuple[str, ...] | None:
        """Those of the texts that the entity did not have, in order; None if there is no such entity."""
        row = self._connection.execute(
            "SELECT id, tags FROM entities WHERE name = ?", (to_column(entity_name),)
        ).fetchone()
        if row is None:
            return None
        entity_id, tags = row
        added = tuple(
            text for text in dict.fromkeys(texts) if self._observation(entity_id, text_digest(text)) is None
        )
        if added:
            stamp = self._ops.record(
                OpKind.OBSERVATION_ADD,
                {"name": entity_name, "entity": _tag_texts(tags), "observations": list(added)},
            )
            self._insert_observations(entity_id, added, stamp)
        return added

    def delete_entity(self, name: str) -> None:
        """Delete the entity, if there is one, and every relation with that name at either end."""
        column = to_column(name)
        row = self._connection.execute(
            "SELECT id, tags, field_stamps FROM entities WHERE name = ?", (column,)
        ).fetchone()
        if row is not None:
            entity_id, tags, stamps = row
            observation_tags = b"".join(
                row[0]
                for row in self._connection.execute(
                    "SELECT tags FROM observations WHERE entity_id = ? ORDER BY id", (entity_id,)
                )
            )
            payload: dict[str, Any] = {
                "name": name,
                "tags": _tag_texts(tags),
                "observations": _tag_texts(observation_tags),
            }
            payload["over"] = self._versions(OpKind.ENTITY_DELETE, payload, stamps)
            stamp = self._ops.record(OpKind.ENTITY_DELETE, payload)
            self._ops.bury(tags + observation_tags, stamp)
            self._connection.execute("DELETE FROM observations WHERE entity_id = ?", (entity_id,))
            self._connection.execute("DELETE FROM entities WHERE id = ?", (entity_id,))
            self._settle(OpKind.ENTITY_DELETE, payload)
        touching = self._connection.execute(
            "SELECT source, target, relation_type FROM relations WHERE source = ?1 OR target = ?1 ORDER BY id",
            (column,),
        ).fetchall()
        for source, target, relation_type in touching:
            self.delete_relation(Relation(from_column(source), from_column(target), from_column(relation_type)))

    def delete_observations(self, entity_name: str, texts: Iterable[str]) -> None:
        """Delete those of the texts that the entity has."""
        row = self._connection.execute(
            "SELECT id FROM entities WHERE name = ?", (to_column(entity_name),)
        ).fetchone()
        if row is None:
            return
        found: list[tuple[int, str, bytes]] = []
        for text in dict.fromkeys(texts):
            observation = self._observation(row[0], text_digest(text))
            if observation is not None:
                found.append((observation[0], text, observation[1]))
        if not found:
            return
        stamp = self._ops.record(
            OpKind.OBSERVATION_DELETE,
            {
                "name": entity_name,
                "observations": [{"text": text, "tags": _tag_texts(tags)} for _, text, tags in found],
            },
        )
        for observation_id, _, tags in found:
            self._ops.bury(tags, stamp)
            self._connection.execute("DELETE FROM observations WHERE id = ?", (observation_id,))

    def delete_relation(self, relation: Relation) -> None:
        """Delete the relation of that triple, if there is one."""
        row = self._connection.execute(
            "DELETE FROM relations WHERE source = ? AND target = ? AND relation_type = ?"
            " RETURNING tags, field_stamps",
            _triple_columns(relation),
        ).fetchone()
        if row is not None:
            tags, stamps = row
            payload: dict[str, Any] = {**_triple_json(relation), "tags": _tag_texts(tags)}
            payload["over"] = self._versions(OpKind.RELATION_DELETE, payload, stamps)
            stamp = self._ops.record(OpKind.RELATION_DELETE, payload)
            self._ops.bury(tags, stamp)
            self._settle(OpKind.RELATION_DELETE, payload)

    def entity_fields(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """Type and extra fields of the entity, None if there is none."""
        row = self._connection.execute(
            "SELECT entity_type, extra FROM entities WHERE name = ?", (to_column(name),)
        ).fetchone()
        return (from_column(row[0]), json.loads(row[1] or "{}")) if row else None

    def relation_extra(self, relation: Relation) -> dict[str, Any] | None:
        """Extra fields of the relation of that triple, None if there is none."""
        row = self._connection.execute(
            "SELECT extra FROM relations WHERE source = ? AND target = ? AND relation_type = ?",
            _triple_columns(relation),
        ).fetchone()
        return json.loads(row[0] or "{}") if row else None

    def set_entity_fields(self, name: str, *, entity_type: str | None, extra: Mapping[str, Any]) -> None:
        """Change the type, unless None, and the given extra fields of an entity; the others stay."""
        fields = {EXTRA + key: value for key, value in extra.items()}
        if entity_type is not None:
            fields[ENTITY_TYPE] = entity_type
        row_id, tags, old_type, old_extra, stamps = self._connection.execute(
            "SELECT id, tags, entity_type, extra, field_stamps FROM entities WHERE name = ?", (to_column(name),)
        ).fetchone()
        payload = {
            "name": name,
            "entity": _tag_texts(tags),
            "fields": fields,
            "over": _over(fields, tags, old_extra, stamps),
        }
        stamp = self._ops.record(OpKind.ENTITY_SET, payload)
        self._connection.execute(
            "UPDATE entities SET entity_type = ?, extra = ?, field_stamps = ? WHERE id = ?",
            (
                old_type if entity_type is None else to_column(entity_type),
                _merged(old_extra, extra),
                _merged(stamps, dict.fromkeys(fields, str(stamp))),
                row_id,
            ),
        )
        self._settle(OpKind.ENTITY_SET, payload)

    def set_relation_fields(self, relation: Relation, extra: Mapping[str, Any]) -> None:
        """Change the given extra fields of the relation of that triple; the others stay."""
        fields = {EXTRA + key: value for key, value in extra.items()}
        row_id, tags, old_extra, stamps = self._connection.execute(
            "SELECT id, tags, extra, field_stamps FROM relations"
            " WHERE source = ? AND target = ? AND relation_type = ?",
            _triple_columns(relation),
        ).fetchone()
        payload = {
            **_triple_json(relation),
            "relation": _tag_texts(tags),
            "fields": fields,
            "over": _over(fields, tags, old_extra, stamps),
        }
        stamp = self._ops.record(OpKind.RELATION_SET, payload)
        self._connection.execute(
            "UPDATE relations SET extra = ?, field_stamps = ? WHERE id = ?",
            (_merged(old_extra, extra), _merged(stamps, dict.fromkeys(fields, str(stamp))), row_id),
        )
        self._settle(OpKind.RELATION_SET, payload)

    @cached_property
    def _any_conflicts(self) -> bool:
        # Within a transaction of these changes none begins.
        return bool(self._connection.execute("SELECT EXISTS (SELECT 1 FROM conflicts)").fetchone()[0])

    def _settle(self, kind: OpKind, payload: Mapping[str, Any]) -> bool:
        """Make the op's subject anew if it has conflicts; whether it had."""
        if not self._any_conflicts:
            return False
        subject = subject_digest(kind, payload)
        row = self._connection.execute("SELECT 1 FROM conflicts WHERE subject = ?", (subject,)).fetchone()
        if row is None or subject is None:
            return False
        self._ops.flush()
        refold(self._connection, [subject])
        return True

    def _versions(self, kind: OpKind, payload: Mapping[str, Any], stamps: str | None) -> list[str]:
        """Stamps of what a deletion knows of: values set after the creation, and those that lost to them."""
        found = {stamp for of_field in json.loads(stamps or "{}").values() for stamp in of_field.split()}
        if self._any_conflicts and (subject := subject_digest(kind, payload)) is not None:
            found |= conflict_heads(self._connection, subject)
        return sorted(found)

    def _observation(self, entity_id: int, digest: bytes) -> tuple[int, bytes] | None:
        row: tuple[int, bytes] | None = self._connection.execute(
            "SELECT id, tags FROM observations WHERE entity_id = ? AND digest = ?", (entity_id, digest)
        ).fetchone()
        return row

    def _insert_observations(self, entity_id: int, texts: Iterable[str], stamp: Stamp) -> None:
        self._connection.executemany(
            "INSERT INTO observations (entity_id, digest, text, tags) VALUES (?, ?, ?, ?)",
            [
                (entity_id, text_digest(text), to_column(text), Tag(stamp, item).to_bytes())
                for item, text in enumerate(texts, start=1)
            ],
        )


def _triple_columns(relation: Relation) -> tuple[str | bytes, str | bytes, str | bytes]:
    return (to_column(relation.source), to_column(relation.target), to_column(relation.relation_type))


def _triple_json(relation: Relation) -> dict[str, Any]:
    return {"from": relation.source, "to": relation.target, "relationType": relation.relation_type}


def _tag_texts(tags: bytes) -> list[str]:
    return [str(tag) for tag in split_tags(tags)]


def _over(fields: Iterable[str], tags: bytes, old_extra: str | None, stamps: str | None) -> dict[str, list[str]]:
    """For each of the fields that has a value the stamps of the ops that gave it that."""
    known: dict[str, str] = json.loads(stamps or "{}")
    extra = json.loads(old_extra or "{}")
    first = str(Stamp.from_bytes(tags))
    return {
        name: known.get(name, first).split()
        for name in fields
        if name in known or name == ENTITY_TYPE or name[len(EXTRA) :] in extra
    }


def _merged(old: str | None, changes: Mapping[str, Any]) -> str | None:
    """The JSON object with the changes; None for an empty one."""
    merged = {**json.loads(old or "{}"), **changes}
    return compact_json(merged) if merged else None
