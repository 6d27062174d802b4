"""Which values of a subject's fields count, which lost to them, and which a deletion hides.

Source: docs/ops.md, "Fields".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as made_by
from typing import Any, Final

from dualmem_mcp.model.oplog import OpKind
from dualmem_mcp.model.subject_op import (
    CREATES,
    DELETES,
    ENTITY_TYPE,
    SETS,
    SubjectOp,
    created_fields,
    set_fields,
    texts_in,
)

UNKNOWN_TYPE: Final = "unknown"
"""The type of an entity that comes back when no op is left that says which one it had."""


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
    fields: Mapping[str, Any] = made_by(default_factory=dict)


class FieldVersions:
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
            if op.kind in CREATES:
                if f"{op.stamp}.0" in living:
                    standing.add(op.stamp)
                    self._take(self._standing, op.stamp, created_fields(op))
                self._note_replaced(op, creation=True)
            elif op.kind in SETS:
                named = op.payload.get(member)
                replaced = self._note_replaced(op)
                stands = (
                    any(tag < op.stamp for tag in tags)
                    if named is None
                    else not living.isdisjoint(texts_in(named)) or not standing.isdisjoint(replaced)
                )
                if stands:
                    standing.add(op.stamp)
                self._take(self._standing if stands else self._hidden, op.stamp, set_fields(op))
            elif op.kind in DELETES:
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
            given = created_fields(op) if op.kind in CREATES else set_fields(op) if op.kind in SETS else {}
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
                named = {stamp for stamp in texts_in(stamps) if stamp < op.stamp}
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
            self._deleted.update(texts_in(over))

    def _is_replaced(self, name: str, stamp: str) -> bool:
        return (
            stamp in self._deleted
            or stamp in self._replaced.get(name, ())
            or stamp < self._deleted_before
            or stamp < self._replaced_before.get(name, "")
        )


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: 1 and 1.0 and true are three."""
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _different(heads: Mapping[str, Any], *counting: Any) -> tuple[Side, ...]:
    """The values that are not among the counting ones, each once, as its newest side."""
    found: list[Side] = []
    for stamp, value in heads.items():
        if not any(same_value(value, other) for other in (*counting, *(side.value for side in found))):
            found.append(Side(value, stamp))
    return tuple(found)


def sides(shown: Mapping[str, Any]) -> tuple[Side, ...]:
    """What is shown for each stamp, the newest first."""
    return tuple(Side(value, stamp) for stamp, value in sorted(shown.items(), reverse=True))


def overlaid(hidden: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The newest value of each field."""
    return {name: value for _, found in sorted(hidden.items()) for name, value in found.items()}
