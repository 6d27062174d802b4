"""Which vectors move, in which order, and what it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dualmem_mcp.model.search import KINDS, Collection, ItemKind, key_digest
from dualmem_mcp.model.tier_plan import COLLECTION_CODES, NO_COLLECTION, Move, Plan
from dualmem_mcp.model.tiers import TIER_NAMES, TIERS, TierName
from dualmem_mcp.model.use import decayed
from dualmem_mcp.ports import AccessColumns, ItemColumns
from dualmem_mcp.ports.placements import NOT_MOVING, PlacementColumns
from dualmem_mcp.tiers.allotment import LEAST_RESERVE, MOST
from dualmem_mcp.tiers.plan import make_plan

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MICROSECONDS = (NOW - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
DAY = 86_400_000_000
PRICES: Mapping[TierName, float] = {name: tier.usd_per_1k_vectors_month for name, tier in TIERS.items()}
EPOCH = 7 << 32
SMALL: Mapping[TierName, int] = {"critical": 40, "context": 60, "historical": 90}


@dataclass(frozen=True)
class Item:
    """One item as a test says it; by default a turn of now that nobody asked for."""

    key: str
    kind: ItemKind = "turn"
    days: float = 0.0
    passages: int = 1
    likeness: int = 0
    content: int = 1
    weight: float = 0.0
    relevance: float = 0.0
    used_days: float = 0.0
    conversation: int = 0
    ordinal: int = -1


@dataclass(frozen=True)
class Row:
    """A placement as a test says it."""

    tier: TierName
    passages: int = 1
    content: int = 1
    epoch: int = EPOCH
    words: bool = False
    moving_to: TierName | None = None


def array(values: Sequence[Any], kind: Any) -> NDArray[Any]:
    return np.array(list(values), kind)


def columns(items: Sequence[Item], now: int = MICROSECONDS) -> ItemColumns:
    return ItemColumns(
        ids=np.arange(1, len(items) + 1),
        keys=array([key_digest(item.key) for item in items], np.int64),
        kinds=array([KINDS.index(item.kind) for item in items], np.uint8),
        conversations=array([item.conversation for item in items], np.int64),
        ordinals=array([item.ordinal for item in items], np.int32),
        times=array([now - round(item.days * DAY) for item in items], np.int64),
        words=np.ones(len(items), np.int32),
        passages=array([item.passages for item in items], np.int32),
        contents=array([item.content for item in items], np.int64),
        likenesses=array([item.likeness for item in items], np.int64),
    )


def accesses(items: Sequence[Item]) -> AccessColumns:
    used = sorted((item for item in items if item.weight), key=lambda item: key_digest(item.key))
    return AccessColumns(
        keys=array([key_digest(item.key) for item in used], np.int64),
        weights=array([item.weight for item in used], np.float32),
        relevances=array([item.relevance for item in used], np.float32),
        last_at=array([MICROSECONDS - round(item.used_days * DAY) for item in used], np.int64),
    )


def placement_columns(rows: Mapping[int, Row]) -> PlacementColumns:
    ordered = [rows[digest] for digest in sorted(rows)]
    return PlacementColumns(
        keys=array(sorted(rows), np.int64),
        tiers=array([TIER_NAMES.index(row.tier) for row in ordered], np.uint8),
        moving_to=array(
            [NOT_MOVING if row.moving_to is None else TIER_NAMES.index(row.moving_to) for row in ordered], np.uint8
        ),
        epochs=array([row.epoch for row in ordered], np.int64),
        passages=array([row.passages for row in ordered], np.int32),
        contents=array([row.content for row in ordered], np.int64),
        words=array([row.words for row in ordered], np.bool_),
    )


def planned(items: Sequence[Item], rows: Mapping[int, Row] | None = None, **options: Any) -> Plan:
    whole: dict[str, Any] = {
        "now": NOW,
        "prices": PRICES,
        "present_epoch": EPOCH,
        "renew_epochs": set(),
        "words": False,
    }
    turns = [item for item in items if item.kind == "turn"]
    others = [item for item in items if item.kind != "turn"]
    indexes = {Collection.CONTEXT: columns(others), Collection.CONVERSATIONS: columns(turns)}
    return make_plan(indexes, accesses(items), placement_columns(rows or {}), **{**whole, **options})


def rows_of(placed: Mapping[str, Row]) -> dict[int, Row]:
    return {key_digest(key): row for key, row in placed.items()}


def said(plan: Plan) -> list[tuple[str, str, str, int]]:
    return [(move.action, move.source, move.target, len(move)) for move in plan.moves]


def goals(plan: Plan) -> dict[int, TierName]:
    return {int(key): move.target for move in plan.moves for key in move.keys}


def applied(
    plan: Plan, items: Sequence[Item], rows: Mapping[int, Row], words: bool = False, epoch: int = EPOCH
) -> tuple[dict[int, Row], list[dict[TierName, int]]]:
    """The placements after the plan, and the points after each move with both copies, and without."""
    by_key = {key_digest(item.key): item for item in items}
    after = dict(rows)
    loads: list[dict[TierName, int]] = []

    def points() -> dict[TierName, int]:
        found: dict[TierName, int] = dict.fromkeys(TIER_NAMES, 0)
        for row in after.values():
            found[row.tier] += row.passages
            if row.moving_to is not None:
                found[row.moving_to] += row.passages
        return found

    loads.append(points())
    for move in plan.moves:
        copied = points()
        if move.source != move.target and move.target != "edge":
            copied[move.target] += move.points
        loads.append(copied)
        for key in move.keys.tolist():
            assert ("edge" if key not in after else after[key].tier) == move.source
            after.pop(key, None)
            if move.target != "edge":
                item = by_key[key]
                after[key] = Row(move.target, item.passages, item.content, epoch, words)
        loads.append(points())
    return after, loads


# Rules


def test_items_are_placed_where_they_belong_with_the_reason() -> None:
    items = [
        Item("decision", "decision", days=2, passages=3),
        Item("turn of last week", days=3),
        Item("old", days=30, passages=2),
        Item("hot", days=30, weight=2),
        Item("in use", "note", days=30, weight=5),
    ]
    plan = planned(items, guests=False)
    assert {(move.action, move.source, move.target, move.reason, move.points) for move in plan.moves} == {
        ("place", "edge", "context", "recent and relevant", 3),
        ("place", "edge", "historical", "old and seldom asked for", 2),
        ("place", "edge", "context", "old and asked for", 1),
        ("place", "edge", "critical", "in use", 1),
    }
    assert (plan.items, plan.waiting, plan.duplicates) == (5, 0, 0)
    assert plan.points_before == {"critical": 0, "context": 0, "historical": 0, "edge": 8}
    assert plan.points_after == {"critical": 1, "context": 4, "historical": 2, "edge": 8}
    assert (plan.usd_month_before, plan.usd_month_after) == (0, pytest.approx((0.75 + 4 * 0.35 + 2 * 0.12) / 1000))
    assert plan.latency_ms_before is None
    assert plan.latency_ms_after == pytest.approx((5 * 50 + 2 * 150) / 7, rel=1e-6)
    assert plan.made_at == NOW


def test_moves_say_where_their_items_are_best_first() -> None:
    items = [Item("a", "note", days=30), Item("b", days=31), Item("c", "decision", days=8)]
    (move,) = planned(items).moves
    assert [COLLECTION_CODES[code] for code in move.collections] == [
        Collection.CONTEXT,
        Collection.CONTEXT,
        Collection.CONVERSATIONS,
    ]
    assert move.ids.tolist() == [2, 1, 1]
    assert move.keys.tolist() == [key_digest(key) for key in "cab"]
    assert [str(part.dtype) for part in (move.collections, move.ids, move.keys)] == ["uint8", "int64", "int64"]


def test_hot_history_is_promoted_and_stale_context_demoted() -> None:
    items = [
        Item("hot", days=30, weight=2),
        Item("stale", "note", days=8),
        Item("left", days=2),
        Item("done", days=40, weight=0.5),
    ]
    rows = rows_of(
        {"hot": Row("historical"), "stale": Row("context"), "left": Row("critical"), "done": Row("critical")}
    )
    plan = planned(items, rows, guests=False)
    assert {(move.action, move.source, move.target, move.reason) for move in plan.moves} == {
        ("demote", "critical", "edge", "no longer in use"),
        ("demote", "critical", "historical", "no longer in use"),
        ("demote", "context", "historical", "old and seldom asked for"),
        ("promote", "historical", "context", "old and asked for"),
    }
    assert plan.usd_month_before == pytest.approx((2 * 0.75 + 0.35 + 0.12) / 1000)
    assert plan.usd_month_after == pytest.approx((0.35 + 2 * 0.12) / 1000)
    assert plan.latency_ms_before == pytest.approx((2 * 300 + 0.5 * 50) / 2.5, rel=1e-6)


def test_an_item_near_a_threshold_stays() -> None:
    items = [
        Item("a", days=30, weight=0.7),
        Item("b", days=30, weight=2.0),
        Item("c", days=5, weight=1, relevance=0.65),
        Item("d", days=7.0),
    ]
    rows = rows_of({"a": Row("context"), "b": Row("critical"), "c": Row("context"), "d": Row("historical")})
    assert said(planned(items, rows)) == []
    assert sorted(said(planned(items, guests=False))) == [
        ("place", "edge", "context", 1),
        ("place", "edge", "historical", 1),
    ]


def test_what_is_in_no_index_is_removed_only_if_the_indexes_are_complete() -> None:
    rows = rows_of({"gone": Row("context", 4), "here": Row("historical"), "gone too": Row("context", 2)})
    items = [Item("here", days=30)]
    (move,) = planned(items, rows).moves
    assert (move.action, move.source, move.target, move.points) == ("remove", "context", "edge", 6)
    assert (move.collections.tolist(), move.ids.tolist()) == ([NO_COLLECTION] * 2, [0, 0])
    plan = planned(items, rows, complete=False)
    assert (said(plan), plan.points_after["context"]) == ([], 6)


def test_of_items_that_say_the_same_the_oldest_is_placed() -> None:
    same = [
        Item("newer", "note", days=30, likeness=5),
        Item("oldest", "note", days=32, likeness=5),
        Item("newest", "note", days=29, likeness=5),
        Item("a turn", days=40, likeness=5),
        Item("another", days=40, likeness=6),
        Item("no vectors", days=40, passages=0),
        Item("nor here", days=40, passages=0),
    ]
    plan = planned(same, rows_of({"newer": Row("context", 3)}))
    assert (plan.duplicates, plan.waiting, plan.items) == (2, 2, 7)
    removed, placed = plan.moves
    assert (removed.action, removed.reason, removed.points) == ("remove", "says the same as an earlier one", 3)
    assert removed.keys.tolist() == [key_digest("newer")]
    assert (COLLECTION_CODES[removed.collections[0]], removed.ids.tolist()) == (Collection.CONTEXT, [1])
    assert set(placed.keys.tolist()) == {key_digest(key) for key in ("oldest", "a turn", "another")}


@pytest.mark.parametrize(
    ("row", "options", "reason"),
    [
        (Row("historical", content=2), {}, "its text changed"),
        (Row("historical", passages=2), {}, "its text changed"),
        (Row("historical", words=True), {}, "its words are switched on or off"),
        (Row("historical"), {"words": True}, "its words are switched on or off"),
        (Row("historical", epoch=3), {"renew_epochs": {3, 4}}, "its key epoch is past"),
    ],
)
def test_points_that_are_not_the_present_ones_are_renewed(row: Row, options: Any, reason: str) -> None:
    (move,) = planned([Item("a", days=30)], rows_of({"a": row}), **options).moves
    assert (move.action, move.source, move.target, move.reason) == ("renew", "historical", "historical", reason)


def test_points_of_the_present_epoch_are_never_renewed_for_it() -> None:
    rows = rows_of({"a": Row("historical"), "b": Row("historical", epoch=5)})
    assert said(planned([Item("a", days=30), Item("b", days=30)], rows, renew_epochs={EPOCH})) == []


def test_an_item_without_vectors_now_or_on_its_way_stays_where_it_is() -> None:
    rows = rows_of({"a": Row("context", 3), "b": Row("historical", 2, moving_to="context")})
    items = [
        Item("a", days=30, passages=0),
        Item("b", days=30, weight=9, passages=2),
        Item("c", days=30, passages=0),
    ]
    plan = planned(items, rows)
    assert (said(plan), plan.waiting) == ([], 2)
    assert (plan.points_after["context"], plan.points_after["historical"]) == (3, 2)
    # On its way it takes up room in both tiers.
    more = [*items, *(Item(f"n{number}", "note", days=1) for number in range(60))]
    placed = planned(more, rows, most=SMALL).points_after["context"]
    assert placed + 2 == SMALL["context"] - LEAST_RESERVE
    # And if it is no more it is removed.
    assert said(planned([], rows)) == [("remove", "context", "edge", 1), ("remove", "historical", "edge", 1)]


def test_without_items_or_placements_there_is_nothing_to_do() -> None:
    plan = make_plan(
        {},
        accesses([]),
        placement_columns({}),
        now=NOW,
        prices=PRICES,
        present_epoch=EPOCH,
        renew_epochs=set(),
        words=False,
    )
    assert (plan.moves, plan.items, plan.latency_ms_before, plan.usd_month_after) == ([], 0, None, 0)


# Maxima


def test_the_least_worthy_go_one_tier_down_and_from_historical_to_the_edge() -> None:
    """1,000 points in use, of which 980 may lie in critical; the others go down, and so do the least of the
    next."""
    used = [Item(f"u{number}", days=30, weight=5 + number / 100, passages=10) for number in range(150)]
    hot = [Item(f"h{number}", days=30, weight=1.5 + number / 1000, passages=10) for number in range(500)]
    old = [Item(f"o{number}", days=30 + number, passages=16) for number in range(1300)]
    plan = planned([*used, *hot, *old])
    found = goals(plan)
    assert plan.points_after["critical"] == 980 == MOST["critical"] - 20
    assert plan.points_after["context"] == 4_900
    assert 19_600 - 16 < plan.points_after["historical"] <= 19_600
    assert {key for key in found if found[key] == "critical"} == {key_digest(f"u{n}") for n in range(52, 150)}
    in_context = {*(key_digest(f"u{n}") for n in range(52)), *(key_digest(f"h{n}") for n in range(62, 500))}
    assert {key for key in found if found[key] == "context"} == in_context
    in_history = {*(key_digest(f"h{n}") for n in range(62)), *(key_digest(f"o{n}") for n in range(1_186))}
    assert {key for key in found if found[key] == "historical"} == in_history
    assert {move.reason for move in plan.moves if move.target == "context"} == {
        "critical is full",
        "old and asked for",
    }


def test_a_full_tier_evicts_and_says_so() -> None:
    items = [Item(f"{number}", "note", days=number / 100) for number in range(50)]
    rows = {key_digest(item.key): Row("context") for item in items}
    (move,) = planned(items, rows, most={**SMALL, "context": 56}).moves
    assert (move.action, move.source, move.target, move.reason) == (
        "evict",
        "context",
        "historical",
        "context is full",
    )
    assert move.keys.tolist() == [key_digest(f"{number}") for number in range(40, 50)]


def test_who_is_to_take_the_place_of_another_must_be_worth_twice_as_much() -> None:
    here = [Item(f"here{number}", days=30, weight=5.0) for number in range(24)]
    rows = {key_digest(item.key): Row("critical") for item in here}
    assert said(planned([*here, Item("new", days=30, weight=9.0)], rows, most=SMALL)) == [
        ("place", "edge", "context", 1)
    ]
    assert said(planned([*here, Item("new", days=30, weight=11.0)], rows, most=SMALL)) == [
        ("evict", "critical", "context", 1),
        ("place", "edge", "critical", 1),
    ]


def test_items_of_equal_worth_are_told_apart_by_age_then_key() -> None:
    items = [Item(f"{number}", "note", days=9) for number in range(100)]
    expected = sorted(key_digest(item.key) for item in items)[: 90 - LEAST_RESERVE]
    for order in (items, items[::-1]):
        (move,) = planned(order, most=SMALL).moves
        assert move.keys.tolist() == expected


def test_two_full_tiers_change_places_piece_by_piece() -> None:
    colder = [Item(f"c{number}", days=30, weight=0.1) for number in range(44)]
    hotter = [Item(f"h{number}", days=30, weight=2) for number in range(44)]
    rows = {key_digest(item.key): Row("context") for item in colder}
    rows |= {key_digest(item.key): Row("historical") for item in hotter}
    most = {**SMALL, "historical": 60}
    plan = planned([*colder, *hotter], rows, most=most)
    after, loads = applied(plan, [*colder, *hotter], rows)
    assert all(load[tier] <= most[tier] for load in loads for tier in most)
    assert {move.action for move in plan.moves} == {"demote", "promote"}
    assert len(plan.moves) > 2
    assert all(after[key_digest(item.key)].tier == "historical" for item in colder)


def test_tiers_that_are_full_to_the_brim_exchange_by_way_of_the_edge() -> None:
    colder = [Item(f"c{number}", days=30, weight=0.1, passages=4) for number in range(5)]
    hotter = [Item(f"h{number}", days=30, weight=2, passages=4) for number in range(5)]
    rows = {key_digest(item.key): Row("context", 16) for item in colder[:4]}
    rows |= {key_digest(item.key): Row("historical", 15) for item in hotter[:4]}
    most = {"critical": 40, "context": 64, "historical": 60}
    plan = planned([*colder, *hotter], rows, most=most)
    after, loads = applied(plan, [*colder, *hotter], rows)
    assert all(load[tier] <= most[tier] for load in loads for tier in most)
    assert {row.tier for row in after.values()} == {"context", "historical"}
    assert said(planned([*colder, *hotter], after, most=most)) == []


# Guests


def talk(name: int, turns: int, days: float) -> list[Item]:
    """Turns of a conversation, all of one moment."""
    return [
        Item(f"{name}/{place}", days=days, conversation=name, ordinal=place, passages=2) for place in range(turns)
    ]


def test_recent_items_that_belong_nowhere_are_guests_where_there_is_room() -> None:
    items = [*talk(5, 25, 0.5), *talk(6, 3, 2.5), Item("old enough", days=7.0)]
    plan = planned(items)
    assert {(move.action, move.source, move.target, move.reason, move.points) for move in plan.moves} == {
        ("place", "edge", "critical", "in use", 20),
        ("place", "edge", "critical", "recent, and there is room", 30),
        ("place", "edge", "context", "recent, and there is room", 6),
    }


def test_guests_go_first_and_the_least_worthy_of_them() -> None:
    """24 points of room in critical, 44 in context."""
    guests = [*talk(5, 14, 0.5), *talk(6, 30, 2.5), *talk(7, 5, 3.0)]
    plan = planned(guests, most=SMALL)
    assert {(move.target, move.reason, len(move)) for move in plan.moves} == {
        ("critical", "in use", 10),
        ("critical", "recent, and there is room", 2),
        ("context", "critical is full", 2),
        ("context", "recent, and there is room", 20),
    }
    rows, _ = applied(plan, guests, {})
    belonging = [Item(f"n{number}", "note", days=1, passages=2) for number in range(20)]
    plan = planned([*guests, *belonging], rows, most=SMALL)
    assert {(move.action, move.source, move.target, move.reason, len(move)) for move in plan.moves} == {
        ("evict", "context", "edge", "context is full", 20),
        ("place", "edge", "context", "recent and relevant", 20),
    }
    after, _ = applied(plan, [*guests, *belonging], rows)
    left = {
        item.key
        for item in guests
        if key_digest(item.key) in after and after[key_digest(item.key)].tier == "context"
    }
    assert len(left) == 2
    assert all(key.startswith("5/") for key in left)


def test_a_guest_of_critical_stays_over_the_weekend_and_then_goes_down() -> None:
    rows, _ = applied(planned(talk(5, 30, 0.5)), talk(5, 30, 0.5), {})
    assert said(planned(talk(5, 30, 2.9), rows)) == []
    assert said(planned(talk(5, 30, 3.1), rows)) == [("demote", "critical", "context", 30)]
    assert said(planned(talk(5, 30, 7.5), rows)) == [("demote", "critical", "historical", 30)]
    # One that comes anew after a day goes to context at once.
    assert said(planned(talk(5, 30, 2.9))) == [("place", "edge", "context", 30)]


# Laws

placed = st.none() | st.builds(
    Row,
    st.sampled_from(TIER_NAMES[:3]),
    st.integers(1, 16),
    st.integers(1, 2),
    st.sampled_from([EPOCH, 3]),
    st.booleans(),
)
an_item = st.builds(
    Item,
    st.just(""),
    st.sampled_from(KINDS),
    st.sampled_from([0.0, 0.5, 6.9, 7.0, 7.1, 30.0, 400.0, -1.0]) | st.floats(0, 60),
    st.integers(0, 16),
    st.sampled_from([0, 0, 0, 1, 2]),
    st.integers(1, 2),
    st.sampled_from([0.0, 0.5, 1.0, 1.7, 3.0, 4.0]) | st.floats(0, 9, width=32),
    st.floats(0, 1, width=32),
    st.floats(0, 20),
    st.sampled_from([0, 11, 12]),
    st.integers(-1, 40),
)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(an_item, placed), max_size=60),
    st.lists(placed, max_size=5),
    st.booleans(),
    st.sampled_from([SMALL, {"critical": 17, "context": 20, "historical": 33}]),
    st.booleans(),
)
def test_a_plan_applied_in_full_leaves_nothing_to_do_and_no_tier_overfull(
    drawn: list[tuple[Item, Row | None]],
    gone: list[Row | None],
    words: bool,
    most: Mapping[TierName, int],
    guests: bool,
) -> None:
    items = [replace(item, key=f"k{number}") for number, (item, _) in enumerate(drawn)]
    # What has no vectors has no digest of what was embedded.
    items = [replace(item, likeness=item.likeness if item.passages else 0) for item in items]
    rows = {key_digest(f"k{number}"): row for number, (_, row) in enumerate(drawn) if row is not None}
    rows |= {key_digest(f"gone{number}"): row for number, row in enumerate(gone) if row is not None}
    options: dict[str, Any] = {"most": most, "words": words, "renew_epochs": {3}, "guests": guests}
    plan = planned(items, rows, **options)
    after, loads = applied(plan, items, rows, words)
    for earlier, load in pairwise(loads):
        assert all(load[tier] <= max(most[tier], earlier[tier]) for tier in most)
    assert {tier: loads[-1][tier] for tier in most} == {tier: plan.points_after[tier] for tier in most}
    assert {tier: loads[0][tier] for tier in most} == {tier: plan.points_before[tier] for tier in most}
    again = planned(items, after, **options)
    assert said(again) == []
    assert again.usd_month_before == pytest.approx(plan.usd_month_after)
    assert again.latency_ms_before == pytest.approx(plan.latency_ms_after)
    assert again.points_before == plan.points_after


def used_every(days: float, hour: float) -> list[float]:
    """The hours, over 200 days, at which an item is asked for that is so each so many days."""
    return [hour / 24 + days * time for time in range(int(200 / days))]


@pytest.mark.parametrize("most", [MOST, {"critical": 26, "context": 30, "historical": 90}])
def test_constant_use_moves_nothing_after_the_first_week(most: Mapping[TierName, int]) -> None:
    """Items asked for at a steady rhythm, from four times a day to once a week, with a plan each noon: once it has
    seen every item at its most, which takes a week, nothing moves, whichever threshold or cut it is near."""
    every = [0.25, 0.3, 0.5, 0.7, 1, 1.5, 2, 2.3, 2.5, 3, 3.5, 4, 5, 6, 7]
    rhythms = {f"{days} days, {hour} h": used_every(days, hour) for days in every for hour in (8, 12.5, 18)}
    weights = dict.fromkeys(rhythms, 0.0)
    last = dict.fromkeys(rhythms, 0.0)
    rows: dict[int, Row] = {}
    moved: list[int] = []
    for day in range(1, 180):
        items = []
        for key, times in rhythms.items():
            for time in times:
                if last[key] < time <= day:
                    weights[key] = decayed(weights[key], time - last[key]) + 1
                    last[key] = time
            items.append(
                Item(key, days=400, weight=max(weights[key], 1e-9), used_days=day - last[key], relevance=0.5)
            )
        if day > 100:  # weights have settled
            plan = planned(items, rows, most=most)
            moved.append(sum(map(len, plan.moves)))
            rows, _ = applied(plan, items, rows)
    assert moved[0] == len(rhythms)
    assert sum(moved[7:]) == 0
    tiers = {row.tier for row in rows.values()}
    assert tiers == ({"critical", "context"} if most is MOST else {"critical", "context", "historical"})


def test_what_is_asked_for_once_a_month_does_not_move_each_day() -> None:
    times = used_every(30, 11)
    rows: dict[int, Row] = {}
    moves = 0
    for day in range(1, 180):
        past = [time for time in times if time <= day]
        weight = sum(2 ** (-(past[-1] - time) / 7) for time in past) if past else 1e-9
        items = [Item("a", days=400, weight=weight, used_days=day - past[-1] if past else 0)]
        plan = planned(items, rows)
        moves += sum(map(len, plan.moves))
        rows, _ = applied(plan, items, rows)
    assert moves <= 1 + 2 * 6


def test_a_move_counts_its_items() -> None:
    moves: list[Move] = list(planned([Item("a", days=30), Item("b", days=31)]).moves)
    assert [len(move) for move in moves] == [2]
