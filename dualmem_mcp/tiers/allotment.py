"""What fits into the tiers: who gets a tier's room if it is too little, and who else if there is more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.model.tiers import RECENT_DAYS, TIER_NAMES, TIERS, TierName
from dualmem_mcp.ports.placements import NOT_MOVING, PlacementColumns
from dualmem_mcp.tiers.effect import points_by_tier
from dualmem_mcp.tiers.standing import Standing
from dualmem_mcp.tiers.worth import CONTEXT, CRITICAL, EDGE, HISTORICAL, NO_TURNS, may_stay, tiers_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST: Final[Mapping[TierName, int]] = {
    name: tier.most_vectors for name, tier in TIERS.items() if tier.most_vectors is not None
}

RESERVE: Final = 0.02
"""Of a tier's maximum, the part that a plan leaves free (at least `LEAST_RESERVE`): two full tiers can only
exchange items through room that one of them has, and a move copies before it removes."""
LEAST_RESERVE: Final = 16
"""An item has no more passages than that."""

INCUMBENCY: Final = np.float32(1.0)
"""What an item's worth counts more where a tier is full and it lies there, or in a warmer one: who is to take its
place must be worth twice as much (`worth_of`), which is the band of `may_stay`. Without it two items of nearly the
same use would take turns."""


@dataclass(frozen=True, slots=True, eq=False)
class Allotment:
    """By item, all (n,): `wish` uint8, the tier that it would lie in if there were room; `goal` uint8, the one that
    it is to lie in; `is_guest` bool, whether it is a guest there."""

    wish: NDArray[np.uint8]
    goal: NDArray[np.uint8]
    is_guest: NDArray[np.bool_]


def rooms_of(
    placements: PlacementColumns, fixed: NDArray[np.bool_], most: Mapping[TierName, int]
) -> Mapping[int, int]:
    """By tier, the points that a plan may put there."""
    taken = points_by_tier(placements.tiers[fixed], placements.passages[fixed])
    moving = fixed & (placements.moving_to != NOT_MOVING)
    taken += points_by_tier(placements.moving_to[moving], placements.passages[moving])
    rooms = {}
    for tier in (CRITICAL, CONTEXT, HISTORICAL):
        limit = most[TIER_NAMES[tier]]
        rooms[int(tier)] = limit - max(LEAST_RESERVE, int(limit * RESERVE)) - int(taken[tier])
    return rooms


def allot(standing: Standing, rooms: Mapping[int, int], *, guests: bool) -> Allotment:
    """Where each item belongs and where it is to lie, with so many points of room in each tier of the service.

    Those of the highest worth get a tier's room; the others go one tier down, and from `historical` to the edge.
    What is left of it goes to `guests`: recent items that the rules leave on the edge, which are what is asked
    for most and are in no tier else. Those of a conversation in use are guests of `critical`, the others of
    `context`, and each goes when somebody comes who belongs there.
    """
    items, signals = standing.items, standing.signals
    rule = tiers_for(signals)
    stays = np.take_along_axis(may_stay(signals), standing.tiers[:, None].astype(np.int64), 1)[:, 0]
    wish = np.where((standing.tiers < rule) & stays, standing.tiers, rule)
    wish[~standing.free] = standing.tiers[~standing.free]
    wish[standing.repeated] = EDGE
    goal = wish.copy()
    left = dict(rooms)
    for tier in (CRITICAL, CONTEXT, HISTORICAL):
        some = np.flatnonzero((goal == tier) & standing.free)
        fits = _fitting(standing, some, tier, rooms[int(tier)])
        left[int(tier)] -= int(items.passages[some[fits]].sum())
        # What is in this tier only because it may stay goes to where the rules have it.
        goal[some[~fits]] = np.maximum(rule[some[~fits]], tier + 1)
    is_guest = np.zeros(len(goal), np.bool_)
    if not guests:
        return Allotment(wish, goal, is_guest)
    recent = standing.free & (goal == EDGE) & (rule == EDGE) & (signals.age_days < RECENT_DAYS)
    in_use = signals.turns_ago != NO_TURNS
    in_use |= (signals.turns_ago_of_late != NO_TURNS) & (standing.tiers == CRITICAL)
    wish[recent] = np.where(in_use[recent], CRITICAL, CONTEXT)
    for tier, may in ((CRITICAL, in_use), (CONTEXT, True)):
        some = np.flatnonzero(recent & may & (goal == EDGE))
        some = some[_fitting(standing, some, tier, left[int(tier)])]
        goal[some] = tier
        is_guest[some] = True
    return Allotment(wish, goal, is_guest)


def _fitting(standing: Standing, some: NDArray[np.intp], tier: np.uint8, room: int) -> NDArray[np.bool_]:
    """Which of these items fit into the tier, the worthiest first."""
    items = standing.items
    passages = items.passages[some]
    if passages.sum() <= room:
        return np.ones(len(some), np.bool_)
    score = standing.signals.worth[some] + INCUMBENCY * (standing.tiers[some] <= tier)
    # Of equal worth the newer goes first, then the lower digest: ~ turns the order of times round.
    order = np.lexsort((items.keys[some], ~items.times[some], -score))
    fits = np.zeros(len(some), np.bool_)
    fits[order] = _fit(passages[order], room)
    return fits


def _fit(passages: NDArray[np.int32], room: int) -> NDArray[np.bool_]:
    """Which items fit, each taken in turn if there is room for it still.

    Whatever is left out has more passages than there is room for in the end. So it is left out again when those
    that were taken come first the next time, in whatever order: else a plan made again could find one that fits.
    """
    fits = np.zeros(len(passages), np.bool_)
    left = np.arange(len(passages))
    while room > 0 and len(left):
        left = left[passages[left] <= room]
        number = int(np.searchsorted(np.cumsum(passages[left], dtype=np.int64), room, side="right"))
        fits[left[:number]] = True
        room -= int(passages[left[:number]].sum())
        left = left[number:]
    return fits
