"""Which vectors should move between the tiers: where each item lies, where it belongs, and what fits there."""

from __future__ import annotations

from collections.abc import Collection as Values
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.model.search import Collection
from dualmem_mcp.model.tier_plan import NO_COLLECTION, Action, Plan
from dualmem_mcp.model.tiers import RECENT_DAYS, TIER_NAMES, TIERS, TierName
from dualmem_mcp.ports import AccessColumns, ItemColumns
from dualmem_mcp.ports.placements import NOT_MOVING, PlacementColumns
from dualmem_mcp.tiers.effect import mean_latency_ms, named, points_by_tier, usd_month
from dualmem_mcp.tiers.schedule import Group, in_order
from dualmem_mcp.tiers.worth import (
    CONTEXT,
    CRITICAL,
    EDGE,
    HISTORICAL,
    Signals,
    joined,
    may_stay,
    signals_of,
    tiers_for,
)

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

_NOWHERE: Final = -1
"""As a row of the placements."""

_ACTIONS: Final[tuple[Action, ...]] = ("remove", "evict", "demote", "promote", "place", "renew")
_REMOVE, _EVICT, _DEMOTE, _PROMOTE, _PLACE, _RENEW = range(len(_ACTIONS))

_REASONS: Final = (
    "critical is full",
    "context is full",
    "historical is full",
    "in use",
    "recent and relevant",
    "old and asked for",
    "old and seldom asked for",
    "no longer in use",
    "of little relevance",
    "its text changed",
    "its words are switched on or off",
    "its key epoch is past",
    "says the same as an earlier one",
)
_FULL: Final = 0
"""The first three, in the order of TIER_NAMES."""
_USED, _RECENT, _HOT, _RARE, _UNUSED, _IRRELEVANT, _CHANGED, _WORDS, _SEALED, _REPEATED = range(3, len(_REASONS))


@dataclass(frozen=True, slots=True, eq=False)
class _Standing:
    """All items, what they are worth and where they lie; all (n,) but the placements.

    `collections` uint8 are places in `model.tier_plan.COLLECTION_CODES`, `rows` int64 are places in the
    placements, or _NOWHERE; `tiers` uint8, EDGE where there is none. `repeated`: says the same as an earlier
    item. `free`: is to be placed where it belongs; the others stay as they are, because they are on a move that
    has not ended, or have no vectors now.
    """

    collections: NDArray[np.uint8]
    items: ItemColumns
    signals: Signals
    placements: PlacementColumns
    rows: NDArray[np.int64]
    tiers: NDArray[np.uint8]
    repeated: NDArray[np.bool_]
    free: NDArray[np.bool_]


def make_plan(
    items: Mapping[Collection, ItemColumns],
    accesses: AccessColumns,
    placements: PlacementColumns,
    *,
    now: datetime,
    prices: Mapping[TierName, float],
    present_epoch: int,
    renew_epochs: Values[int],
    words: bool,
    complete: bool = True,
    most: Mapping[TierName, int] = MOST,
) -> Plan:
    """The moves that bring every item to where it belongs; applied in full, a plan made again at once has none.

    An item belongs where the rules say (`tiers_for`), unless it lies in a warmer tier and may stay there
    (`may_stay`). Where that is more than `most` points less the reserve, those of the highest worth stay, and the
    others go one tier down, from `historical` to the edge. Of items that say the same the oldest is placed.

    `words` says whether points are to have their words. Points of `renew_epochs` that move nowhere are renewed, as
    are those whose text or words changed; those of `present_epoch` never for their epoch. `prices` are US dollars
    for 1,000 vectors and a month. Not `complete`: the indexes may not hold all items yet, and nothing is removed
    for being in none.

    A plan may be stale when it is applied: a move is void for an item that lies elsewhere than in its source by
    then. The reason needs no second look; the next plan takes it. Items on a move that has not ended are in no move
    but `remove`, which then is of both tiers.
    """
    collections, columns = joined(items)
    standing = _standing(collections, columns, signals_of(columns, accesses, now), placements)
    removed, fixed = _rows_apart(standing, complete)
    wish, goal = _goals(standing, _rooms(placements, fixed, most))
    renewal = _renewals(standing, words, set(renew_epochs) - {present_epoch})
    points = points_by_tier(placements.tiers, placements.passages)
    moving = placements.moving_to != NOT_MOVING
    doubled = points_by_tier(placements.moving_to[moving], placements.passages[moving])
    groups = [*_removals(standing, removed), *_changes(standing, wish, goal, renewal)]
    moves = in_order(groups, named(points + doubled), most)
    before, after = _with_edge(points, columns), _with_edge(_points_after(standing, fixed, goal), columns)
    accesses_a_day = standing.signals.accesses_a_day
    return Plan(
        made_at=now,
        moves=moves,
        items=len(columns.keys),
        waiting=int(np.count_nonzero(columns.passages == 0)),
        duplicates=int(np.count_nonzero(standing.repeated)),
        points_before=before,
        points_after=after,
        usd_month_before=usd_month(before, prices),
        usd_month_after=usd_month(after, prices),
        latency_ms_before=mean_latency_ms(standing.tiers, accesses_a_day),
        latency_ms_after=mean_latency_ms(goal, accesses_a_day),
    )


def _standing(
    collections: NDArray[np.uint8], items: ItemColumns, signals: Signals, placements: PlacementColumns
) -> _Standing:
    rows = np.full(len(items.keys), _NOWHERE, np.int64)
    tiers = np.full(len(items.keys), EDGE, np.uint8)
    free = items.passages > 0
    if len(placements.keys):
        places = np.searchsorted(placements.keys, items.keys)
        places[places == len(placements.keys)] = 0
        there = np.flatnonzero(placements.keys[places] == items.keys)
        rows[there] = places[there]
        tiers[there] = placements.tiers[rows[there]]
        free[there] &= placements.moving_to[rows[there]] == NOT_MOVING
    repeated = _repeated(items)
    return _Standing(collections, items, signals, placements, rows, tiers, repeated, free & ~repeated)


def _repeated(items: ItemColumns) -> NDArray[np.bool_]:
    """Whether an older item of the same kind says the same; of equal age that with the lower digest counts as
    older."""
    repeated = np.zeros(len(items.keys), np.bool_)
    order = np.argsort(items.likenesses, kind="stable")
    ordered = items.likenesses[order]
    same = (ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)
    if not same.any():
        return repeated
    some = order[np.append(same, False) | np.append(False, same)]
    some = some[np.lexsort((items.keys[some], items.times[some], items.kinds[some], items.likenesses[some]))]
    later, earlier = some[1:], some[:-1]
    again = (items.likenesses[later] == items.likenesses[earlier]) & (items.kinds[later] == items.kinds[earlier])
    repeated[later[again]] = True
    return repeated


def _rows_apart(standing: _Standing, complete: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The rows of the placements that go away, and those that stay as they are whatever the plan: bool each."""
    of_items = standing.rows != _NOWHERE
    removed = np.full(len(standing.placements.keys), complete, np.bool_)
    removed[standing.rows[of_items]] = standing.repeated[of_items]
    fixed = ~removed
    fixed[standing.rows[of_items & standing.free]] = False
    return removed, fixed


def _rooms(
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


def _goals(standing: _Standing, rooms: Mapping[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Where each item would lie if there were room, and where it is to lie."""
    items, signals = standing.items, standing.signals
    rule = tiers_for(signals)
    stays = np.take_along_axis(may_stay(signals), standing.tiers[:, None].astype(np.int64), 1)[:, 0]
    wish = np.where((standing.tiers < rule) & stays, standing.tiers, rule)
    wish[~standing.free] = standing.tiers[~standing.free]
    wish[standing.repeated] = EDGE
    goal = wish.copy()
    for tier in (CRITICAL, CONTEXT, HISTORICAL):
        some = np.flatnonzero((goal == tier) & standing.free)
        passages = items.passages[some]
        if passages.sum() <= rooms[int(tier)]:
            continue
        score = signals.worth[some] + INCUMBENCY * (standing.tiers[some] <= tier)
        # Of equal worth the newer goes first, then the lower digest: ~ turns the order of times round.
        order = np.lexsort((items.keys[some], ~items.times[some], -score))
        over = some[order[~_fit(passages[order], rooms[int(tier)])]]
        # What is in this tier only because it may stay goes to where the rules have it.
        goal[over] = np.maximum(rule[over], tier + 1)
    return wish, goal


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


def _renewals(standing: _Standing, words: bool, epochs: set[int]) -> NDArray[np.uint8]:
    """Why the points of an item should be made again where they lie: a place in _REASONS, or 0."""
    items, placements = standing.items, standing.placements
    reasons = np.zeros(len(items.keys), np.uint8)
    some = np.flatnonzero((standing.rows != _NOWHERE) & standing.free)
    rows = standing.rows[some]
    changed = placements.contents[rows] != items.contents[some]
    changed |= placements.passages[rows] != items.passages[some]
    past = np.isin(placements.epochs[rows], np.array(sorted(epochs), np.int64))
    reasons[some] = np.select([changed, placements.words[rows] != words, past], [_CHANGED, _WORDS, _SEALED], 0)
    return reasons


def _removals(standing: _Standing, removed: NDArray[np.bool_]) -> Iterator[Group]:
    """What is in no index any more, and what says the same as an earlier item."""
    items, placements = standing.items, standing.placements
    for tier in (CRITICAL, CONTEXT, HISTORICAL):
        repeated = np.flatnonzero(standing.repeated & (standing.tiers == tier))
        rows = standing.rows[repeated]
        gone = removed & (placements.tiers == tier)
        gone[rows] = False
        for reason, where, ids, of_rows in (
            ("in no index any more", NO_COLLECTION, 0, np.flatnonzero(gone)),
            (_REASONS[_REPEATED], standing.collections[repeated], items.ids[repeated], rows),
        ):
            yield Group(
                "remove",
                TIER_NAMES[tier],
                "edge",
                reason,
                np.broadcast_to(np.asarray(where, np.uint8), len(of_rows)),
                np.broadcast_to(np.asarray(ids, np.int64), len(of_rows)),
                placements.keys[of_rows],
                placements.passages[of_rows].astype(np.int64),
                np.zeros(len(of_rows), np.int64),
            )


def _changes(
    standing: _Standing, wish: NDArray[np.uint8], goal: NDArray[np.uint8], renewal: NDArray[np.uint8]
) -> Iterator[Group]:
    """What moves or is renewed, by action, way and reason; in each the best first."""
    items, signals, placements = standing.items, standing.signals, standing.placements
    some = np.flatnonzero(standing.free & ((goal != standing.tiers) | (renewal > 0)))
    source, target, wished, renewed = (
        codes[some].astype(np.int64) for codes in (standing.tiers, goal, wish, renewal)
    )
    actions = np.select(
        [source == EDGE, target == source, target < source, target > wished],
        [_PLACE, _RENEW, _PROMOTE, _EVICT],
        _DEMOTE,
    )
    old = signals.age_days[some] > RECENT_DAYS
    reasons = np.select(
        [
            actions == _RENEW,
            target > wished,
            (actions == _DEMOTE) & (source == CRITICAL),
            target == CRITICAL,
            (target == CONTEXT) & old,
            target == CONTEXT,
            target == HISTORICAL,
        ],
        [renewed, _FULL + wished, _UNUSED, _USED, _HOT, _RECENT, _RARE],
        _IRRELEVANT,
    )
    ways = ((actions * 4 + source) * 4 + target) * len(_REASONS) + reasons
    order = np.lexsort((items.keys[some], ~items.times[some], -signals.worth[some], ways))
    for places in np.split(order, np.flatnonzero(np.diff(ways[order])) + 1):
        if not len(places):
            continue
        one, chosen = places[0], some[places]
        rows = standing.rows[chosen]
        yield Group(
            _ACTIONS[actions[one]],
            TIER_NAMES[source[one]],
            TIER_NAMES[target[one]],
            _REASONS[reasons[one]],
            standing.collections[chosen],
            items.ids[chosen],
            items.keys[chosen],
            np.zeros(len(rows), np.int64) if source[one] == EDGE else placements.passages[rows].astype(np.int64),
            items.passages[chosen].astype(np.int64) * int(target[one] != EDGE),
        )


def _points_after(standing: _Standing, fixed: NDArray[np.bool_], goal: NDArray[np.uint8]) -> NDArray[np.int64]:
    free, placements = standing.free, standing.placements
    after = points_by_tier(goal[free], standing.items.passages[free])
    return after + points_by_tier(placements.tiers[fixed], placements.passages[fixed])


def _with_edge(points: NDArray[np.int64], items: ItemColumns) -> Mapping[TierName, int]:
    """The points by name, with all vectors of the device on the edge: it has those that lie in the service, too."""
    points[EDGE] = items.passages.sum()
    return named(points)
