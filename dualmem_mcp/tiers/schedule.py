"""In which order moves are made, so that no tier of the service is above its maximum in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.model.tier_plan import Action, Move
from dualmem_mcp.model.tiers import TIER_NAMES, TierName

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WARMTH: Final = {name: -place for place, name in enumerate(TIER_NAMES)}


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Items that go the same way for the same reason, best first; all arrays (n,).

    `before` and `after` int64 are the points that each takes up in the source before, and in the target after.
    """

    action: Action
    source: TierName
    target: TierName
    reason: str
    collections: NDArray[np.uint8] = field(repr=False)
    ids: NDArray[np.int64] = field(repr=False)
    keys: NDArray[np.int64] = field(repr=False)
    before: NDArray[np.int64] = field(repr=False)
    after: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, which: slice | NDArray[np.bool_]) -> Group:
        """Some of the items."""
        arrays = ("collections", "ids", "keys", "before", "after")
        return replace(self, **{name: getattr(self, name)[which] for name in arrays})

    def move(self) -> Move:
        """All of them in one move, which writes as many points as there will be, or removes those there are."""
        points = self.before if self.target == "edge" else self.after
        return Move(
            self.action,
            self.source,
            self.target,
            self.reason,
            self.collections,
            self.ids,
            self.keys,
            int(points.sum()),
        )


def in_order(groups: Sequence[Group], points: Mapping[TierName, int], most: Mapping[TierName, int]) -> list[Move]:
    """The groups as moves, cut into pieces where tiers can only change places piece by piece.

    `points` are those in the tiers now. After each move no tier has more than `most`, or than it had before it;
    and while it is made, if it is copied as a whole before anything of it is removed. First goes what leaves the
    service and what shrinks where it is, then what changes its tier, then what comes in, last what grows where it
    is. If tiers that have to exchange items are all full, one gives its items up, and they come back at the end.
    """
    loads = dict(points)
    groups = [group for group in groups if len(group)]
    leaving = [group for group in groups if group.target == "edge"]
    coming = [group for group in groups if group.source == "edge"]
    renewing = [group for group in groups if group.action == "renew"]
    crossing = [group for group in groups if group.action != "renew" and "edge" not in (group.source, group.target)]
    moves: list[Move] = []
    for group in (*leaving, *(group.part(group.after <= group.before) for group in renewing)):
        _make(group, loads, moves)
    # What is worth less goes first, and the furthest, which makes room for what comes after it.
    crossing.sort(key=lambda group: (_WARMTH[group.target], -_WARMTH[group.source]))
    while crossing:
        left: list[Group] = []
        for group in crossing:
            fitting = _fitting(group, most[group.target] - loads[group.target])
            _make(group.part(slice(fitting)), loads, moves)
            left.append(group.part(slice(fitting, None)))
        if sum(map(len, left)) == sum(map(len, crossing)):
            stuck = left.pop(0)
            reason = f"{stuck.reason}; {stuck.target} has no room before"
            _make(replace(stuck, action="demote", target="edge", reason=reason), loads, moves)
            coming.append(replace(stuck, action="place", source="edge"))
        crossing = [group for group in left if len(group)]
    for group in coming:
        _make(group, loads, moves)
    for group in renewing:
        _make(group.part(group.after > group.before), loads, moves)
    return moves


def _make(group: Group, loads: dict[TierName, int], moves: list[Move]) -> None:
    if not len(group):
        return
    loads[group.source] -= int(group.before.sum())
    loads[group.target] += int(group.after.sum())
    moves.append(group.move())


def _fitting(group: Group, room: int) -> int:
    """How many of the first items fit."""
    return int(np.searchsorted(np.cumsum(group.after), room, side="right"))
