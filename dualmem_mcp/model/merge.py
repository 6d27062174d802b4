"""What the ops of one subject add up to: the rules by which devices merge, as one pure function of a set of ops.

`merge` sorts its ops and counts none twice, so the order and repetition in which they came do not matter: it is
commutative, associative and idempotent by being a function of a set. Stamps and add-tags are their texts, which
sort as they do. Ops that are not well-formed have no effect. Source: docs/ops.md, "Merging".
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as member
from typing import Any, Final

from dualmem_mcp.model.oplog import OpKind

ENTITY_TYPE: Final = "entityType"
EXTRA: Final = "extra."
UNKNOWN_TYPE: Final = "unknown"
"""The type of an entity that comes back when no op is left that says which one it had."""

_CREATES: Final = frozenset({OpKind.ENTITY_CREATE.value, OpKind.RELATION_CREATE.value})
_SETS: Final = frozenset({OpKind.ENTITY_SET.value, OpKind.RELATION_SET.value, OpKind.RECORD_SET.value})
_DELETES: Final = frozenset({OpKind.ENTITY_DELETE.value, OpKind.RELATION_DELETE.value, OpKind.RECORD_DELETE.value})


@dataclass(frozen=True, slots=True)
class SubjectOp:
    """An op of a subject: its stamp as text, its kind, and its payload as JSON gives it."""

    stamp: str
    kind: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FieldState:
    """The value that a field has, and the stamps of the ops that gave it this value and that nobody replaced, the
    greatest first: a change of the field replaces all of them."""

    value: Any
    stamps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a clash: the value, and the stamp of the op that set it."""

    value: Any
    stamp: str


@dataclass(frozen=True, slots=True)
class Clash:
    """Changes that did not know of each other. `lost`, the newest first, are what does not count.

    `field` is empty where a deletion hides what it did not know of: `kept` is None, each side's value an object
    with `fields` or `observations`, `tags` are those of the hidden observations, and `fields` what a new item
    would have. A decision names `heads`, the stamps of all sides, and replaces them so.
    """

    field: str
    kept: Side | None
    lost: tuple[Side, ...]
    heads: tuple[str, ...]
    tags: tuple[str, ...] = ()
    fields: Mapping[str, Any] = member(default_factory=dict)


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
    ordered = _distinct(ops)
    for op in ordered:
        payload = op.payload
        if op.kind.startswith(("entity.", "observation.")):
            return _merge_entity(payload["name"], ordered, buried)
        if op.kind.startswith("relation."):
            return _merge_relation((payload["from"], payload["to"], payload["relationType"]), ordered, buried)
        if op.kind.startswith("record."):
            return _merge_record(payload["type"], payload["id"], ordered)
    return None


def named_tags(op: SubjectOp) -> Iterator[str]:
    """The tags that the op deletes."""
    payload = op.payload
    if op.kind in _DELETES:
        yield from _texts(payload.get("tags"))
        yield from _texts(payload.get("observations"))
    elif op.kind == OpKind.OBSERVATION_DELETE:
        for item in _list(payload.get("observations")):
            if isinstance(item, Mapping):
                yield from _texts(item.get("tags"))


def added_items(op: SubjectOp) -> Iterator[tuple[str, str | None]]:
    """The tags that the op adds and that may be alive, each with the text of the observation, None for the entity
    or relation itself. Where a snapshot took a text out, the tag is dead."""
    if op.kind in _CREATES:
        yield f"{op.stamp}.0", None
    if op.kind in (OpKind.ENTITY_CREATE, OpKind.OBSERVATION_ADD):
        for item, text in enumerate(_list(op.payload.get("observations")), start=1):
            if isinstance(text, str):
                yield f"{op.stamp}.{item}", text


def _merge_entity(name: str, ops: Sequence[SubjectOp], buried: Container[str]) -> EntityState:
    tags, texts = _living(ops, buried)
    values = _Values(ops)
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
        lost=_sides(shown),
        heads=tuple(sorted(hidden, reverse=True)),
        tags=tuple(tag for own in texts.values() for tag in own),
        fields={ENTITY_TYPE: values.last_type(), **_overlaid(hidden)},
    )
    return EntityState(name, (), {}, {}, (clash,))


def _merge_relation(
    triple: tuple[str, str, str], ops: Sequence[SubjectOp], buried: Container[str]
) -> RelationState:
    tags, _ = _living(ops, buried)
    values = _Values(ops)
    values.take_graph(tags, "relation")
    fields, clashes = values.resolve()
    hidden = {} if tags else values.hidden()
    if hidden:
        clashes = [_hidden_fields(hidden, _overlaid(hidden))]
    return RelationState(*triple, tags=tuple(tags), fields=fields if tags else {}, clashes=tuple(clashes))


def _merge_record(record_type: str, record_id: str, ops: Sequence[SubjectOp]) -> RecordState:
    sets = [op for op in ops if op.kind == OpKind.RECORD_SET]
    deleted = any(op.kind == OpKind.RECORD_DELETE for op in ops)
    values = _Values(ops)
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
    return Clash("", None, _sides(shown), tuple(sorted(hidden, reverse=True)), fields=whole)


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


class _Values:
    """All values that ops gave to the fields of one subject, those that count and those that a deletion hides.

    An op replaces what it names in `over`. That holds also when the op itself does not count any more, so that
    what its author decided stays decided. One without `over` was made by a version that had no other devices: it
    replaces whatever is older.
    """

    def __init__(self, ops: Sequence[SubjectOp]) -> None:
        self._ops = ops
        self._standing: dict[str, dict[str, Any]] = {}
        self._hidden: dict[str, dict[str, Any]] = {}
        self._replaced: dict[str, set[str]] = {}
        self._replaced_before: dict[str, str] = {}
        self._deleted: set[str] = set()
        self._deleted_before = ""

    def take_graph(self, tags: Sequence[str], member: str) -> None:
        """Sort the values of an entity or relation with these living tags; `member` names tags in its set ops."""
        living = set(tags)
        # An op stands while one of the tags that it was made to is alive, or one of the ops that it replaced: its
        # author may have seen those before the creation that they stand by.
        standing: set[str] = set()
        for op in self._ops:
            if op.kind in _CREATES:
                if f"{op.stamp}.0" in living:
                    standing.add(op.stamp)
                    self._take(self._standing, op.stamp, created_fields(op))
                self._note_replaced(op, creation=True)
            elif op.kind in _SETS:
                named = op.payload.get(member)
                replaced = self._note_replaced(op)
                stands = (
                    any(tag < op.stamp for tag in tags)
                    if named is None
                    else not living.isdisjoint(_texts(named)) or not standing.isdisjoint(replaced)
                )
                if stands:
                    standing.add(op.stamp)
                self._take(self._standing if stands else self._hidden, op.stamp, set_fields(op))
            elif op.kind in _DELETES:
                self._note_deleted(op)

    def take_record(self, sets: Sequence[SubjectOp]) -> None:
        """Sort the values of a record: all stand, and a deletion hides those that it does not name."""
        for op in sets:
            self._note_replaced(op)
            self._take(self._standing, op.stamp, set_fields(op))
        for op in self._ops:
            if op.kind == OpKind.RECORD_DELETE:
                self._note_deleted(op)

    def resolve(self) -> tuple[dict[str, FieldState], list[Clash]]:
        """The fields with the values that count, in the order in which they were first set, and what lost."""
        fields: dict[str, FieldState] = {}
        clashes: list[Clash] = []
        for name, standing in self._standing.items():
            winner = next(reversed(standing))  # ops came in the order of their stamps
            value = standing[winner]
            hidden = self._hidden.get(name)
            if len(standing) == 1 and not hidden:
                fields[name] = FieldState(value, (winner,))
                continue
            heads = {
                stamp: other
                for stamp, other in sorted({**standing, **(hidden or {})}.items(), reverse=True)
                if stamp == winner or not self._is_replaced(name, stamp)
            }
            equal = [stamp for stamp, other in heads.items() if stamp != winner and same_value(other, value)]
            fields[name] = FieldState(value, (winner, *equal))
            lost = _different(heads, value)
            if lost:
                clashes.append(Clash(name, Side(value, winner), lost, tuple(heads)))
        for name, hidden in self._hidden.items():
            if name not in self._standing:
                heads = {
                    stamp: other
                    for stamp, other in sorted(hidden.items(), reverse=True)
                    if not self._is_replaced(name, stamp)
                }
                if heads:
                    clashes.append(Clash(name, None, _different(heads), tuple(heads)))
        return fields, clashes

    def hidden(self) -> dict[str, dict[str, Any]]:
        """For the stamps of ops that no deletion knew of the fields that they set and nobody replaced."""
        found: dict[str, dict[str, Any]] = {}
        for values in (self._standing, self._hidden):
            for name, given in values.items():
                for stamp, value in given.items():
                    if not self._is_replaced(name, stamp):
                        found.setdefault(stamp, {})[name] = value
        return found

    def last_type(self) -> str:
        """The entity type last given by any op."""
        for op in reversed(self._ops):
            given = created_fields(op) if op.kind in _CREATES else set_fields(op) if op.kind in _SETS else {}
            if ENTITY_TYPE in given:
                return str(given[ENTITY_TYPE])
        return UNKNOWN_TYPE

    def _take(self, values: dict[str, dict[str, Any]], stamp: str, given: Mapping[str, Any]) -> None:
        for name, value in given.items():
            values.setdefault(name, {})[stamp] = value

    def _note_replaced(self, op: SubjectOp, *, creation: bool = False) -> set[str]:
        over = op.payload.get("over")
        noted: set[str] = set()
        if isinstance(over, Mapping):
            for name, stamps in over.items():
                named = {stamp for stamp in _texts(stamps) if stamp < op.stamp}
                self._replaced.setdefault(name, set()).update(named)
                noted |= named
        elif not creation:
            for name in set_fields(op):
                self._replaced_before[name] = op.stamp
        return noted

    def _note_deleted(self, op: SubjectOp) -> None:
        over = op.payload.get("over")
        if over is None:
            self._deleted_before = op.stamp
        else:
            self._deleted.update(_texts(over))

    def _is_replaced(self, name: str, stamp: str) -> bool:
        return (
            stamp in self._deleted
            or stamp in self._replaced.get(name, ())
            or stamp < self._deleted_before
            or stamp < self._replaced_before.get(name, "")
        )


def created_fields(op: SubjectOp) -> dict[str, Any]:
    """The fields that a creation sets, by their names in `fields` of other ops."""
    payload = op.payload
    given: dict[str, Any] = {}
    if op.kind == OpKind.ENTITY_CREATE and isinstance(payload.get(ENTITY_TYPE), str):
        given[ENTITY_TYPE] = payload[ENTITY_TYPE]
    extra = payload.get("extra")
    if isinstance(extra, Mapping):
        given.update((EXTRA + key, value) for key, value in extra.items())
    return given


def set_fields(op: SubjectOp) -> dict[str, Any]:
    """The fields that an op of kind entity.set, relation.set or record.set sets."""
    fields = op.payload.get("fields")
    if not isinstance(fields, Mapping):
        return {}
    if op.kind == OpKind.RECORD_SET:
        return dict(fields)
    return {
        name: value
        for name, value in fields.items()
        if name.startswith(EXTRA)
        or (name == ENTITY_TYPE and op.kind == OpKind.ENTITY_SET and isinstance(value, str))
    }


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: 1 and 1.0 and true are three."""
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _different(heads: Mapping[str, Any], *counting: Any) -> tuple[Side, ...]:
    """The values that are not among the counting ones, each once, as its newest side."""
    sides: list[Side] = []
    for stamp, value in heads.items():
        if not any(same_value(value, other) for other in (*counting, *(side.value for side in sides))):
            sides.append(Side(value, stamp))
    return tuple(sides)


def _sides(shown: Mapping[str, Any]) -> tuple[Side, ...]:
    return tuple(Side(value, stamp) for stamp, value in sorted(shown.items(), reverse=True))


def _overlaid(hidden: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The newest value of each field."""
    return {name: value for _, found in sorted(hidden.items()) for name, value in found.items()}


def _distinct(ops: Iterable[SubjectOp]) -> list[SubjectOp]:
    """The ops in the order of their stamps; copies of one become one that lacks what any of them lacks."""
    found: dict[str, SubjectOp] = {}
    for op in ops:
        other = found.get(op.stamp)
        found[op.stamp] = op if other is None else thinner(op, other)
    return [found[stamp] for stamp in sorted(found)]


def thinner(one: SubjectOp, other: SubjectOp) -> SubjectOp:
    """Of two copies of one op what both have: snapshots take out what has no effect."""
    if one.payload == other.payload:
        return one
    payload = {**other.payload, **one.payload}
    if ENTITY_TYPE not in one.payload or ENTITY_TYPE not in other.payload:
        payload.pop(ENTITY_TYPE, None)
    for name in ("extra", "fields"):
        given, twins = one.payload.get(name), other.payload.get(name)
        if isinstance(given, Mapping) and isinstance(twins, Mapping):
            payload[name] = {key: value for key, value in given.items() if key in twins}
        else:
            payload.pop(name, None)
    if one.kind in (OpKind.ENTITY_CREATE, OpKind.OBSERVATION_ADD):
        pairs = zip(_list(one.payload.get("observations")), _list(other.payload.get("observations")), strict=False)
        payload["observations"] = [text if text == twin else None for text, twin in pairs]
    return SubjectOp(one.stamp, one.kind, payload)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: Any) -> list[str]:
    return [text for text in _list(value) if isinstance(text, str)]
