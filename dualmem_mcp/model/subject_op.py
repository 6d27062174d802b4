"""Ops of one subject, as merging reads them: what each adds, deletes and sets.

Stamps and add-tags are their texts, which sort as they do. What is not well-formed is left out.
Source: docs/ops.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dualmem_mcp.model.oplog import OpKind

ENTITY_TYPE: Final = "entityType"
EXTRA: Final = "extra."

CREATES: Final = frozenset({OpKind.ENTITY_CREATE.value, OpKind.RELATION_CREATE.value})
SETS: Final = frozenset({OpKind.ENTITY_SET.value, OpKind.RELATION_SET.value, OpKind.RECORD_SET.value})
DELETES: Final = frozenset({OpKind.ENTITY_DELETE.value, OpKind.RELATION_DELETE.value, OpKind.RECORD_DELETE.value})


@dataclass(frozen=True, slots=True)
class SubjectOp:
    """An op of a subject: its stamp as text, its kind, and its payload as JSON gives it."""

    stamp: str
    kind: str
    payload: Mapping[str, Any]


def named_tags(op: SubjectOp) -> Iterator[str]:
    """The tags that the op deletes."""
    payload = op.payload
    if op.kind in DELETES:
        yield from texts_in(payload.get("tags"))
        yield from texts_in(payload.get("observations"))
    elif op.kind == OpKind.OBSERVATION_DELETE:
        for item in _list(payload.get("observations")):
            if isinstance(item, Mapping):
                yield from texts_in(item.get("tags"))


def added_items(op: SubjectOp) -> Iterator[tuple[str, str | None]]:
    """The tags that the op adds and that may be alive, each with the text of the observation, None for the entity
    or relation itself. Where a snapshot took a text out, the tag is dead."""
    if op.kind in CREATES:
        yield f"{op.stamp}.0", None
    if op.kind in (OpKind.ENTITY_CREATE, OpKind.OBSERVATION_ADD):
        for item, text in enumerate(_list(op.payload.get("observations")), start=1):
            if isinstance(text, str):
                yield f"{op.stamp}.{item}", text


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


def distinct(ops: Iterable[SubjectOp]) -> list[SubjectOp]:
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


def texts_in(value: Any) -> list[str]:
    """The texts of a JSON list; none for anything else."""
    return [text for text in _list(value) if isinstance(text, str)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
