"""What the ops of one subject add up to: the rules by which devices merge, as one pure function of a set of ops.

`merge` sorts its ops and counts none twice, so the order and repetition in which they came do not matter: it is
commutative, associative and idempotent by being a function of a set. Ops that are not well-formed have no effect.
Source: docs/ops.md, "Merging".
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dualmem_mcp.model.field_versions import Clash, FieldState, FieldVersions, overlaid, sides
from dualmem_mcp.model.oplog import OpKind
from dualmem_mcp.model.subject_op import ENTITY_TYPE, SubjectOp, added_items, distinct, named_tags


@dataclass(frozen=True, slots=True)
class EntityState:
    """An entity: it exists if it has living `tags`; else it has no fields and no observations.

    `observations` are texts with their living tags, in the order of the first of these.
    """

    name: str
    tags: tuple[str, ...]
    fields: Mapping[str, FieldState]
    observations: Mapping[str, tuple[str, ...]]
    clashes: tuple[Clash, ...] = ()


@dataclass(frozen=True, slots=True)
class RelationState:
    """A relation: it exists if it has living `tags`; else it has no fields."""

    source: str
    target: str
    relation_type: str
    tags: tuple[str, ...]
    fields: Mapping[str, FieldState]
    clashes: tuple[Clash, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordState:
    """A record: `created` and `changed` are the stamps of the first and the last op that set something of it.

    It exists if it has been set and not deleted: `created` is empty where only a deletion is known. A deleted one
    has no fields.
    """

    type: str
    id: str
    conversation_id: str
    fields: Mapping[str, FieldState]
    created: str
    changed: str
    deleted: bool
    clashes: tuple[Clash, ...] = ()

    @property
    def exists(self) -> bool:
        """Whether there is such a record."""
        return bool(self.created) and not self.deleted


SubjectState = EntityState | RelationState | RecordState


def merge(ops: Iterable[SubjectOp], buried: Container[str] = frozenset()) -> SubjectState | None:
    """What the subject of these ops looks like; None if none of them is of a kind that has a state.

    `ops` are of one subject, in any order and repeated as may be; of one stamp there may be copies from which a
    snapshot took what has no effect. `buried` are tags that are known to be deleted, beside those that ops name.
    """
    ordered = distinct(ops)
    for op in ordered:
        payload = op.payload
        if op.kind.startswith(("entity.", "observation.")):
            return _merge_entity(payload["name"], ordered, buried)
        if op.kind.startswith("relation."):
            return _merge_relation((payload["from"], payload["to"], payload["relationType"]), ordered, buried)
        if op.kind.startswith("record."):
            return _merge_record(payload["type"], payload["id"], ordered)
    return None


def _merge_entity(name: str, ops: Sequence[SubjectOp], buried: Container[str]) -> EntityState:
    tags, texts = _living(ops, buried)
    values = FieldVersions(ops)
    values.take_graph(tags, "entity")
    fields, clashes = values.resolve()
    if tags:
        return EntityState(
            name, tuple(tags), fields, {text: tuple(own) for text, own in texts.items()}, tuple(clashes)
        )
    hidden = values.hidden()
    shown: dict[str, dict[str, Any]] = {stamp: {"fields": found} for stamp, found in hidden.items()}
    for text, own in texts.items():
        for tag in own:
            shown.setdefault(tag.partition(".")[0], {}).setdefault("observations", []).append(text)
    if not shown:
        return EntityState(name, (), {}, {})
    clash = Clash(
        field="",
        kept=None,
        lost=sides(shown),
        heads=tuple(sorted(hidden, reverse=True)),
        tags=tuple(tag for own in texts.values() for tag in own),
        fields={ENTITY_TYPE: values.last_type(), **overlaid(hidden)},
    )
    return EntityState(name, (), {}, {}, (clash,))


def _merge_relation(
    triple: tuple[str, str, str], ops: Sequence[SubjectOp], buried: Container[str]
) -> RelationState:
    tags, _ = _living(ops, buried)
    values = FieldVersions(ops)
    values.take_graph(tags, "relation")
    fields, clashes = values.resolve()
    hidden = {} if tags else values.hidden()
    if hidden:
        clashes = [_hidden_fields(hidden, overlaid(hidden))]
    return RelationState(*triple, tags=tuple(tags), fields=fields if tags else {}, clashes=tuple(clashes))


def _merge_record(record_type: str, record_id: str, ops: Sequence[SubjectOp]) -> RecordState:
    sets = [op for op in ops if op.kind == OpKind.RECORD_SET]
    deleted = any(op.kind == OpKind.RECORD_DELETE for op in ops)
    values = FieldVersions(ops)
    values.take_record(sets)
    fields, clashes = values.resolve()
    if deleted:
        hidden = values.hidden()
        whole = {name: one.value for name, one in fields.items()}
        fields, clashes = {}, [_hidden_fields(hidden, whole)] if hidden else []
    conversation_id = sets[0].payload.get("conversation_id") if sets else None
    return RecordState(
        record_type,
        record_id,
        conversation_id if isinstance(conversation_id, str) else "",
        fields,
        created=sets[0].stamp if sets else "",
        changed=sets[-1].stamp if sets else "",
        deleted=deleted,
        clashes=tuple(clashes),
    )


def _hidden_fields(hidden: Mapping[str, Mapping[str, Any]], whole: Mapping[str, Any]) -> Clash:
    shown = {stamp: {"fields": found} for stamp, found in hidden.items()}
    return Clash("", None, sides(shown), tuple(sorted(hidden, reverse=True)), fields=whole)


def _living(ops: Sequence[SubjectOp], buried: Container[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The living tags of the item itself, and of each observation, in their order."""
    dead = {tag for op in ops if op.kind.endswith(".delete") for tag in named_tags(op)}
    tags: list[str] = []
    texts: dict[str, list[str]] = {}
    for op in ops:
        for tag, text in added_items(op):
            if tag in dead or tag in buried:
                continue
            if text is None:
                tags.append(tag)
            else:
                texts.setdefault(text, []).append(tag)
    return tags, texts
