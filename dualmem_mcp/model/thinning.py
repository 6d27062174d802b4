"""What of a subject's ops has no effect any more, whatever may come later, and can be taken out of the log.

For ops W of one subject and any ops L that come later, `merge(thin(W) + L, tombstones)` is the state that
`merge(W + L)` is; what a conflict would suggest of a deleted item may have gone. Relies on two facts: deleted tags
are remembered apart from the ops, and ops of the first version, which do not name what they replace, are older than
anything that comes later. Taken out for good: what was taken out must not come back alone, so a device that merges
thinned ops lets go of its own copies. Source: docs/sync.md, "Snapshots and compaction".
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dualmem_mcp.model.merge import merge
from dualmem_mcp.model.oplog import OpKind
from dualmem_mcp.model.subject_op import (
    ENTITY_TYPE,
    EXTRA,
    SubjectOp,
    added_items,
    created_fields,
    named_tags,
    set_fields,
)

_CREATES: Final = frozenset({OpKind.ENTITY_CREATE.value, OpKind.RELATION_CREATE.value})
_ADDS: Final = frozenset({OpKind.ENTITY_CREATE.value, OpKind.OBSERVATION_ADD.value})
_SETS: Final = frozenset({OpKind.ENTITY_SET.value, OpKind.RELATION_SET.value, OpKind.RECORD_SET.value})
_DELETES: Final = frozenset({OpKind.ENTITY_DELETE.value, OpKind.RELATION_DELETE.value, OpKind.RECORD_DELETE.value})
_TARGETS: Final = {OpKind.ENTITY_SET.value: "entity", OpKind.RELATION_SET.value: "relation"}
"""The member of a change that names the tags of the item it was made to."""

Covered = Callable[[str], bool]
"""Whether the op of that stamp is among those known, or was before it was taken out."""


def thin(
    ops: Sequence[SubjectOp], buried: Container[str], covered: Covered, *, texts_only: bool = False
) -> list[SubjectOp]:
    """Those of the ops that still have an effect, in their order, without the parts that have none.

    `ops` are of one subject, each there once; `buried` holds the tags that are known to be deleted apart from the
    ops. Ops that stay as they are, are the same objects. While versions of the subject conflict all of them are
    kept, but for texts that were deleted; so they are with `texts_only`.
    """
    if len(ops) == 1 and ops[0].kind not in _DELETES and not any(tag in buried for tag, _ in added_items(ops[0])):
        return list(ops)
    state = merge(ops, buried)
    known = {op.stamp: _Known(op) for op in ops}
    if state is None or len(known) < len(ops) or not all(one.is_understood for one in known.values()):
        return list(ops)
    thinning = _Thinning(known, buried, covered)
    kept = thinning.without_texts() if texts_only or state.clashes else thinning.without_effectless()
    return [thinned for op in ops if (thinned := kept.get(op.stamp)) is not None]


@dataclass(slots=True)
class _Known:
    """An op, the fields that it sets, and those of them that still matter."""

    op: SubjectOp
    fields: Mapping[str, Any] = field(init=False)
    left: set[str] = field(init=False)

    def __post_init__(self) -> None:
        kind = self.op.kind
        self.fields = created_fields(self.op) if kind in _CREATES else set_fields(self.op) if kind in _SETS else {}
        self.left = set(self.fields)

    @property
    def is_understood(self) -> bool:
        return self.op.kind in _CREATES | _ADDS | _SETS | _DELETES | {OpKind.OBSERVATION_DELETE.value}

    @property
    def over(self) -> Mapping[str, Sequence[str]] | None:
        """For each field the stamps of the values that it replaces; None for an op that replaces all older ones."""
        over = self.op.payload.get("over")
        if isinstance(over, Mapping):
            return {name: stamps for name, stamps in over.items() if isinstance(stamps, list)}
        return {} if self.op.kind in _CREATES else None

    def replaces(self, name: str, stamp: str) -> bool:
        """Whether it puts a value of its own in the place of that one."""
        if name not in self.fields or stamp >= self.op.stamp:
            return False
        over = self.over
        return (
            stamp in over.get(name, ()) if over is not None else _TARGETS.get(self.op.kind) not in self.op.payload
        )


class _Thinning:
    """One subject being thinned. Deleting needs two looks: first which values matter no more, then which ops do
    nothing else than to replace or delete such."""

    def __init__(self, known: Mapping[str, _Known], buried: Container[str], covered: Covered) -> None:
        self._known = known
        self._stamps = sorted(known)
        self._buried = buried
        self._covered = covered
        self._named = {
            tag for one in known.values() if one.op.kind.endswith(".delete") for tag in named_tags(one.op)
        }
        self._tags = [
            tag
            for one in known.values()
            for tag, text in added_items(one.op)
            if text is None and not self._is_dead(tag)
        ]
        self._past: dict[str, bool] = {}
        self._sets = [one for one in known.values() if one.op.kind in _SETS]
        self._replacing = [one for one in known.values() if one.op.kind in _DELETES or one.fields or one.over]
        self._ended = any(one.op.kind == OpKind.RECORD_DELETE for one in known.values())

    def without_texts(self) -> dict[str, SubjectOp]:
        """The ops by their stamps, without texts that were deleted."""
        kept: dict[str, SubjectOp] = {}
        for stamp in self._stamps:
            op = self._known[stamp].op
            if op.kind == OpKind.OBSERVATION_DELETE and self._is_remembered(op):
                continue
            kept[stamp] = _shortened(op, self._texts(op), None)
        return kept

    def without_effectless(self) -> dict[str, SubjectOp]:
        """The ops by their stamps that have an effect, without the parts that have none."""
        for stamp in self._stamps:
            one = self._known[stamp]
            one.left = {name for name in one.fields if not self._is_past_value(one, name)}
        kept: dict[str, SubjectOp] = {}
        sets = [stamp for stamp in self._stamps if self._known[stamp].op.kind == OpKind.RECORD_SET]
        # A record's first op says which conversation it is of, its last one when it was changed.
        needed = set() if self._ended or not sets else {sets[0], sets[-1]}
        for stamp in reversed(self._stamps):
            one = self._known[stamp]
            op = one.op
            if stamp in needed or not self._is_effectless(one, kept):
                kept[stamp] = _shortened(op, self._texts(op), one.left)
        return kept

    def _is_effectless(self, one: _Known, kept: Mapping[str, SubjectOp]) -> bool:
        op = one.op
        match op.kind:
            case OpKind.OBSERVATION_ADD:
                result = not any(self._texts(op) or ())
            case OpKind.OBSERVATION_DELETE:
                result = self._is_remembered(op)
            case OpKind.ENTITY_DELETE | OpKind.RELATION_DELETE:
                result = self._is_remembered(op) and self._deletes_nothing_left(one)
            case OpKind.RECORD_DELETE:  # the record's id is used once, so this counts for good
                result = False
            case OpKind.ENTITY_CREATE | OpKind.RELATION_CREATE:
                is_empty = self._is_dead(f"{op.stamp}.0") and not any(self._texts(op) or ())
                result = is_empty and not one.left and self._replaces_nothing_left(one)
            case _:
                is_empty = not one.left and self._replaces_nothing_left(one)
                result = is_empty and not self._holds_up(one, kept)
        return result

    def _is_past_value(self, one: _Known, name: str) -> bool:
        """Whether a value will never count, nor be one side of a conflict."""
        op = one.op
        if op.kind in _CREATES and self._is_dead(f"{op.stamp}.0"):
            return True
        replaced = any(other.replaces(name, op.stamp) for other in self._sets)
        if replaced and not self._leaves_older(one, name):
            return True  # whatever replaces it counts wherever it would
        return self._never_stands(op.stamp) and self._is_replaced(op.stamp, name)

    def _leaves_older(self, one: _Known, name: str) -> bool:
        """Whether a value of an op that names none replaces older ones that are still there."""
        return one.over is None and any(
            name in self._known[stamp].left for stamp in self._stamps if stamp < one.op.stamp
        )

    def _is_replaced(self, stamp: str, name: str) -> bool:
        for other in self._replacing:
            if other.op.stamp <= stamp:
                continue
            if other.op.kind in _DELETES:
                over = other.op.payload.get("over")
                if over is None or (isinstance(over, list) and stamp in over):
                    return True
            elif (over := other.over) is not None:
                if stamp in over.get(name, ()):
                    return True
            elif name in other.fields:
                return True
        return False

    def _never_stands(self, stamp: str) -> bool:
        """Whether a change will never count again, since what it was made to is deleted."""
        if stamp not in self._past:
            self._past[stamp] = False  # no op replaces itself
            self._past[stamp] = self._finds_all_deleted(stamp)
        return self._past[stamp]

    def _finds_all_deleted(self, stamp: str) -> bool:
        one = self._known.get(stamp)
        if one is None:
            return self._covered(stamp)  # it was taken out, because it was so
        target = _TARGETS.get(one.op.kind)
        if target is None:
            return self._ended or (one.op.kind in _CREATES and self._is_dead(f"{stamp}.0"))
        named = one.op.payload.get(target)
        if named is None:
            return not any(tag < stamp for tag in self._tags)
        return all(map(self._is_dead, _texts(named))) and all(
            self._never_stands(other) for stamps in (one.over or {}).values() for other in _texts(stamps)
        )

    def _holds_up(self, one: _Known, kept: Mapping[str, SubjectOp]) -> bool:
        """Whether a change that is kept may count only because this one does, which it replaced."""
        stamp = one.op.stamp
        target = _TARGETS.get(one.op.kind)
        if target is None:
            return False  # records stand by themselves
        base = self._base(stamp)
        for other in kept.values():
            over = other.payload.get("over")
            if (
                other.kind in _SETS
                and isinstance(over, Mapping)
                and any(stamp in stamps for stamps in over.values() if isinstance(stamps, list))
                and (base is None or not base.issubset(_texts(other.payload.get(target))))
                and not self._never_stands(stamp)
            ):
                return True
        return False

    def _base(self, stamp: str) -> set[str] | None:
        """All tags by which a change may come to count; None if they are not named."""
        one = self._known.get(stamp)
        if one is None:
            return set()  # what it stood by, those that replaced it name as well
        target = _TARGETS.get(one.op.kind)
        if target is None:
            return {f"{stamp}.0"}
        named = one.op.payload.get(target)
        if named is None:
            return None
        base = set(_texts(named))
        for stamps in (one.over or {}).values():
            for other in _texts(stamps):
                below = self._base(other) if other < stamp else set()
                if below is None:
                    return None
                base |= below
        return base

    def _replaces_nothing_left(self, one: _Known) -> bool:
        if one.over is None:
            return True  # its values went because nothing older is left
        return all(self._is_gone(stamp, name) for name, stamps in one.over.items() for stamp in _texts(stamps))

    def _is_gone(self, stamp: str, name: str) -> bool:
        other = self._known.get(stamp)
        return name not in other.left if other is not None else self._covered(stamp)

    def _deletes_nothing_left(self, one: _Known) -> bool:
        over = one.op.payload.get("over")
        if over is None:
            return not any(self._known[stamp].left for stamp in self._stamps if stamp < one.op.stamp)
        return all(
            not self._known[stamp].left if stamp in self._known else self._covered(stamp) for stamp in _texts(over)
        )

    def _is_remembered(self, op: SubjectOp) -> bool:
        return all(tag in self._buried for tag in named_tags(op))

    def _is_dead(self, tag: str) -> bool:
        return tag in self._named or tag in self._buried

    def _texts(self, op: SubjectOp) -> list[str | None] | None:
        """The observations that an op adds, null in the place of those that are deleted; None if it adds none."""
        given = op.payload.get("observations")
        if op.kind not in _ADDS or not isinstance(given, list):
            return None
        return [
            text if isinstance(text, str) and not self._is_dead(f"{op.stamp}.{item}") else None
            for item, text in enumerate(given, start=1)
        ]


def _shortened(op: SubjectOp, texts: list[str | None] | None, fields: set[str] | None) -> SubjectOp:
    """The op with these observations and no other fields than these; itself if that changes nothing."""
    payload: dict[str, Any] = dict(op.payload)
    if texts is not None:
        while texts and texts[-1] is None:
            texts.pop()
        payload["observations"] = texts
    if fields is not None and op.kind in _CREATES:
        if ENTITY_TYPE not in fields:
            payload.pop(ENTITY_TYPE, None)
        if isinstance(extra := payload.get("extra"), Mapping):
            payload["extra"] = {key: value for key, value in extra.items() if EXTRA + key in fields}
            if not payload["extra"]:
                del payload["extra"]
    elif fields is not None and op.kind in _SETS and isinstance(given := payload.get("fields"), Mapping):
        payload["fields"] = {name: value for name, value in given.items() if name in fields}
    return op if payload == op.payload else SubjectOp(op.stamp, op.kind, payload)


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
