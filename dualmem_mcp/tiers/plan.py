"""Which vectors should move between the tiers: where each item lies, where it belongs, and what fits there."""

from __future__ import annotations

from collections.abc import Collection as Values
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.model.search import Collection
from dualmem_mcp.model.tier_plan import NO_COLLECTION, Action, Plan
from dualmem_mcp.model.tiers import RECENT_DAYS, TIER_NAMES, TierName
from dualmem_mcp.ports import AccessColumns, ItemColumns
from dualmem_mcp.ports.placements import NOT_MOVING, PlacementColumns
from dualmem_mcp.tiers.allotment import MOST, Allotment, allot, rooms_of
from dualmem_mcp.tiers.effect import mean_latency_ms, named, points_by_tier, usd_month
from dualmem_mcp.tiers.schedule import Group, in_order
from dualmem_mcp.tiers.standing import NOWHERE, Standing, standing_of
from dualmem_mcp.tiers.worth import CONTEXT, CRITICAL, EDGE, HISTORICAL, joined, signals_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ACTIONS: Final[tuple[Action, ...]] = ("remove", "evict", "demote", "promote", "place", "renew")
_REMOVE, _EVICT, _DEMOTE, _PROMOTE, _PLACE, _RENEW = range(len(_ACTIONS))

_REASONS: Final = (
    "critical is full",
    "context is full",
    "historical is full",
    "in use",
    "recent and relevant",
    "old and asked for",
    "recent, and there is room",
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
_USED, _RECENT, _HOT, _GUEST, _RARE, _UNUSED, _IRRELEVANT, _CHANGED, _WORDS, _SEALED, _REPEATED = range(
    3, len(_REASONS)
)


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
    guests: bool = True,
) -> Plan:
    """The moves that bring every item to where it belongs; applied in full, a plan made again at once has none.

    An item belongs where the rules say (`tiers_for`), unless it lies in a warmer tier and may stay there
    (`may_stay`). Where that is more than `most` points less the reserve, those of the highest worth stay, and the
    others go one tier down, from `historical` to the edge. Of items that say the same the oldest is placed. With
    `guests` recent items that belong nowhere get what room is left (`allot`).

    `words` says whether points are to have their words. Points of `renew_epochs` that move nowhere are renewed, as
    are those whose text or words changed; those of `present_epoch` never for their epoch. `prices` are US dollars
    for 1,000 vectors and a month. Not `complete`: the indexes may not hold all items yet, and nothing is removed
    for being in none.

    A plan may be stale when it is applied: a move is void for an item that lies elsewhere than in its source by
    then. The reason needs no second look; the next plan takes it. Items on a move that has not ended are in no move
    but `remove`, which then is of both tiers.
    """
    collections, columns = joined(items)
    standing = standing_of(collections, columns, signals_of(columns, accesses, now), placements)
    removed, fixed = _rows_apart(standing, complete)
    allotment = allot(standing, rooms_of(placements, fixed, most), guests=guests)
    renewal = _renewals(standing, words, set(renew_epochs) - {present_epoch})
    points = points_by_tier(placements.tiers, placements.passages)
    moving = placements.moving_to != NOT_MOVING
    doubled = points_by_tier(placements.moving_to[moving], placements.passages[moving])
    groups = [*_removals(standing, removed), *_changes(standing, allotment, renewal)]
    moves = in_order(groups, named(points + doubled), most)
    before, after = _with_edge(points, columns), _with_edge(_points_after(standing, fixed, allotment.goal), columns)
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
        latency_ms_after=mean_latency_ms(allotment.goal, accesses_a_day),
    )


def _rows_apart(standing: Standing, complete: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The rows of the placements that go away, and those that stay as they are whatever the plan: bool each."""
    of_items = standing.rows != NOWHERE
    removed = np.full(len(standing.placements.keys), complete, np.bool_)
    removed[standing.rows[of_items]] = standing.repeated[of_items]
    fixed = ~removed
    fixed[standing.rows[of_items & standing.free]] = False
    return removed, fixed


def _renewals(standing: Standing, words: bool, epochs: set[int]) -> NDArray[np.uint8]:
    """Why the points of an item should be made again where they lie: a place in _REASONS, or 0."""
    items, placements = standing.items, standing.placements
    reasons = np.zeros(len(items.keys), np.uint8)
    some = np.flatnonzero((standing.rows != NOWHERE) & standing.free)
    rows = standing.rows[some]
    changed = placements.contents[rows] != items.contents[some]
    changed |= placements.passages[rows] != items.passages[some]
    past = np.isin(placements.epochs[rows], np.array(sorted(epochs), np.int64))
    reasons[some] = np.select([changed, placements.words[rows] != words, past], [_CHANGED, _WORDS, _SEALED], 0)
    return reasons


def _removals(standing: Standing, removed: NDArray[np.bool_]) -> Iterator[Group]:
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


def _changes(standing: Standing, allotment: Allotment, renewal: NDArray[np.uint8]) -> Iterator[Group]:
    """What moves or is renewed, by action, way and reason; in each the best first."""
    items, signals, placements = standing.items, standing.signals, standing.placements
    some = np.flatnonzero(standing.free & ((allotment.goal != standing.tiers) | (renewal > 0)))
    source, target, wished, renewed = (
        codes[some].astype(np.int64) for codes in (standing.tiers, allotment.goal, allotment.wish, renewal)
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
            allotment.is_guest[some],
            target == CRITICAL,
            (target == CONTEXT) & old,
            target == CONTEXT,
            target == HISTORICAL,
        ],
        [renewed, _FULL + wished, _UNUSED, _GUEST, _USED, _HOT, _RECENT, _RARE],
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


def _points_after(standing: Standing, fixed: NDArray[np.bool_], goal: NDArray[np.uint8]) -> NDArray[np.int64]:
    free, placements = standing.free, standing.placements
    after = points_by_tier(goal[free], standing.items.passages[free])
    return after + points_by_tier(placements.tiers[fixed], placements.passages[fixed])


def _with_edge(points: NDArray[np.int64], items: ItemColumns) -> Mapping[TierName, int]:
    """The points by name, with all vectors of the device on the edge: it has those that lie in the service, too."""
    points[EDGE] = items.passages.sum()
    return named(points)
