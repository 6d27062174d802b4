"""The signals of all items at once, the tiers that they give, and what items are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.model.search import KINDS, Collection, ItemKind, key_digest
from dualmem_mcp.model.tiers import RELEVANT, TIER_NAMES, tier_for
from dualmem_mcp.model.use import accesses_a_day, decayed, interaction_score
from dualmem_mcp.ports import AccessColumns, ItemColumns
from dualmem_mcp.tiers.worth import (
    CONTEXT,
    CRITICAL,
    EDGE,
    HISTORICAL,
    NO_TIME,
    NO_TURNS,
    PRIOR_RELEVANCE,
    Signals,
    joined,
    may_stay,
    signals_of,
    tiers_for,
    worth_of,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MICROSECONDS = (NOW - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
DAY = 86_400_000_000


def at(days_ago: float) -> int:
    return MICROSECONDS - round(days_ago * DAY)


def columns(*rows: Mapping[str, Any]) -> ItemColumns:
    """Items that differ from a plain one as said; `key` and `conversation` are texts."""
    plain = {"key": "", "kind": "turn", "conversation": "", "ordinal": -1, "time": at(0), "passages": 1}
    whole = [{**plain, "key": f"turn/c/{number}", **row} for number, row in enumerate(rows)]
    return ItemColumns(
        ids=np.arange(1, len(rows) + 1),
        keys=np.array([key_digest(row["key"]) for row in whole], np.int64),
        kinds=np.array([KINDS.index(row["kind"]) for row in whole], np.uint8),
        conversations=np.array(
            [key_digest(row["conversation"]) if row["conversation"] else 0 for row in whole], np.int64
        ),
        ordinals=np.array([row["ordinal"] for row in whole], np.int32),
        times=np.array([row["time"] for row in whole], np.int64),
        words=np.full(len(rows), 10, np.int32),
        passages=np.array([row["passages"] for row in whole], np.int32),
        contents=np.arange(len(rows)) + 100,
        likenesses=np.arange(len(rows)) + 1,
    )


def accesses(*rows: tuple[str, float, float, float]) -> AccessColumns:
    """Key, weight, relevance, and how many days ago the last one was."""
    ordered = sorted((key_digest(key), *rest) for key, *rest in rows)
    return AccessColumns(
        keys=np.array([row[0] for row in ordered], np.int64),
        weights=np.array([row[1] for row in ordered], np.float32),
        relevances=np.array([row[2] for row in ordered], np.float32),
        last_at=np.array([at(row[3]) for row in ordered], np.int64),
    )


def raw(rows: Sequence[tuple[float, float, float, int | None, float]]) -> Signals:
    turns = np.array([NO_TURNS if row[3] is None else row[3] for row in rows], np.int32)
    return Signals(
        age_days=np.array([row[0] for row in rows]),
        accesses_a_day=np.array([row[1] for row in rows]),
        relevance=np.array([row[2] for row in rows]),
        turns_ago=turns,
        turns_ago_of_late=turns,
        interaction_score=np.array([row[4] for row in rows]),
        worth=np.zeros(len(rows), np.float32),
    )


def near(*limits: float) -> st.SearchStrategy[float]:
    """The limits, the numbers beside them, and any."""
    beside = [
        number for limit in limits for number in (limit, math.nextafter(limit, math.inf), math.nextafter(limit, 0))
    ]
    return st.sampled_from(beside) | st.floats(0, 1e6, allow_nan=False)


@given(
    st.lists(
        st.tuples(
            near(7.0, 0.0),
            near(0.1, 0.0),
            near(0.7, 0.0, 1.0),
            st.none() | st.integers(0, 12) | st.integers(0, 2**31 - 1),
            near(0.9, 0.0, 1.0),
        ),
        max_size=20,
    )
)
def test_the_tiers_are_those_of_the_rule_item_by_item(
    rows: list[tuple[float, float, float, int | None, float]],
) -> None:
    assert [TIER_NAMES[code] for code in tiers_for(raw(rows))] == [tier_for(*row) for row in rows]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.sampled_from([7 * DAY, 7 * DAY - 1, 7 * DAY + 1, 0, -5 * DAY]) | st.integers(-(10**15), 10**17),
            st.none()
            | st.tuples(
                st.floats(0.0078125, 1e6, width=32), st.floats(0, 1, width=32), st.integers(-(10**12), 10**15)
            ),
        ),
        max_size=12,
    )
)
def test_whole_signals_give_the_tier_that_the_rule_gives(
    rows: list[tuple[ItemKind, int, tuple[float, float, int] | None]],
) -> None:
    items = columns(*({"kind": kind, "time": MICROSECONDS - age} for kind, age, _ in rows))
    used = [
        (f"turn/c/{number}", use[0], use[1], use[2] / DAY)
        for number, (*_, use) in enumerate(rows)
        if use is not None
    ]
    signals = signals_of(items, accesses(*used), NOW)
    tiers = tiers_for(signals)
    for number, (kind, age, use) in enumerate(rows):
        # What is before 1970 counts as 1970.
        days = min(max(age, 0), MICROSECONDS) / DAY
        weight, relevance = 0.0, PRIOR_RELEVANCE[kind]
        if use is not None:
            weight = decayed(use[0], round(use[2] / DAY * DAY) / DAY)
            relevance = max(relevance, use[1])
        rate, score = accesses_a_day(weight), interaction_score(weight)
        assert signals.age_days[number] == days
        assert signals.accesses_a_day[number] == pytest.approx(rate)
        assert signals.interaction_score[number] == pytest.approx(score, abs=1e-12)
        if abs(rate - 0.1) > 1e-9 and abs(score - 0.9) > 1e-9:
            assert TIER_NAMES[tiers[number]] == tier_for(days, rate, relevance, None, score)
    assert np.isfinite(signals.worth).all()


def test_an_item_without_a_time_is_history_until_it_is_asked_for() -> None:
    items = columns({"time": NO_TIME}, {"time": NO_TIME, "kind": "note"}, {"time": NO_TIME})
    signals = signals_of(items, accesses(("turn/c/2", 2.0, 0.1, 0.0)), NOW)
    assert tiers_for(signals).tolist() == [HISTORICAL, HISTORICAL, CONTEXT]
    assert signals.age_days[0] == MICROSECONDS / DAY


def test_what_context_is_for_is_relevant_by_its_kind_and_a_turn_is_not() -> None:
    items = columns(*({"kind": kind, "time": at(3)} for kind in KINDS))
    tiers = tiers_for(signals_of(items, accesses(), NOW))
    assert tiers.tolist() == [EDGE if kind == "turn" else CONTEXT for kind in KINDS]
    assert all((relevance > RELEVANT) == (kind != "turn") for kind, relevance in PRIOR_RELEVANCE.items())
    # One that answered well is, too; one that answered badly stays as relevant as its kind.
    items = columns({"time": at(3)}, {"time": at(3), "kind": "decision"})
    signals = signals_of(items, accesses(("turn/c/0", 1.0, 0.8, 1.0), ("turn/c/1", 1.0, 0.1, 1.0)), NOW)
    assert tiers_for(signals).tolist() == [CONTEXT, CONTEXT]
    assert signals.relevance.tolist() == [pytest.approx(0.8), 0.9]


def conversation(name: str, turns: int, last_days_ago: float) -> list[dict[str, Any]]:
    """Turns a minute apart."""
    return [
        {
            "key": f"turn/{name}/{place}",
            "conversation": name,
            "ordinal": place,
            "time": at(last_days_ago + (turns - 1 - place) / 1440),
        }
        for place in range(turns)
    ]


def test_the_last_ten_turns_of_conversations_of_the_last_day_are_in_use() -> None:
    rows = [*conversation("now", 15, 0.5), *conversation("before", 5, 1.5), *conversation("old", 3, 30)]
    signals = signals_of(columns(*rows), accesses(), NOW)
    assert signals.turns_ago.tolist() == [*range(14, -1, -1), *[NO_TURNS] * 8]
    assert signals.turns_ago_of_late.tolist() == [*range(14, -1, -1), *range(4, -1, -1), *[NO_TURNS] * 3]
    assert tiers_for(signals).tolist() == [*[EDGE] * 5, *[CRITICAL] * 10, *[EDGE] * 5, *[HISTORICAL] * 3]


def test_a_decision_is_as_many_turns_ago_as_came_after_it() -> None:
    turns = conversation("now", 30, 0.1)
    rows: list[dict[str, Any]] = [
        {"key": "d1", "kind": "decision", "conversation": "now", "time": turns[12]["time"]},
        {"key": "d2", "kind": "decision", "conversation": "now", "time": turns[25]["time"] + 1},
        {"key": "d3", "kind": "note", "conversation": "now", "time": NO_TIME},
        {"key": "d4", "kind": "decision", "conversation": "another", "time": at(0)},
        {"key": "e", "kind": "entity", "time": at(0)},
    ]
    signals = signals_of(columns(*rows, *turns), accesses(), NOW)
    assert signals.turns_ago[:5].tolist() == [17, 4, 0, NO_TURNS, NO_TURNS]


def test_a_turn_far_in_the_future_says_nothing_of_use() -> None:
    signals = signals_of(columns(*conversation("skewed", 2, -400)), accesses(), NOW)
    assert signals.turns_ago.tolist() == [NO_TURNS, NO_TURNS]
    assert signals.age_days.tolist() == [0.0, 0.0]


def test_turns_without_times_are_in_use_with_their_conversation_only() -> None:
    rows = conversation("now", 3, 0.1)
    rows[1]["time"] = NO_TIME
    untimed = [{**row, "time": NO_TIME, "key": row["key"] + "x", "conversation": "other"} for row in rows]
    signals = signals_of(columns(*rows, *untimed), accesses(), NOW)
    assert signals.turns_ago.tolist() == [2, 1, 0, *[NO_TURNS] * 3]


def worths(*rows: tuple[float, float, float]) -> list[float]:
    """Of age in days, weight and relevance."""
    age, weight, relevance = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    return worth_of(age, weight, relevance).tolist()


def test_worth_is_recency_with_frequency_lifted_by_relevance() -> None:
    new, week, used, relevant, both = worths((0, 0, 0), (7, 0, 0), (0, 1, 0), (0, 0, 1), (7, 1, 0))
    assert new == 0.0
    assert week == -1.0
    assert used == 1.0
    assert relevant == pytest.approx(math.log2(5))
    assert both == pytest.approx(math.log2(1.5))
    # One of the highest relevance outlasts one of the lowest by 16 days, and no more.
    assert worths((16, 0, 1))[0] > new > worths((17, 0, 1))[0]


def test_what_is_years_old_is_still_in_order() -> None:
    found = worths(*((years * 365.0, 0, 0.5) for years in range(50)))
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 50


@given(
    st.lists(st.tuples(st.floats(0, 3650), st.floats(0, 100), st.floats(0, 1)), min_size=2, max_size=2),
    st.floats(0, 1000),
)
def test_time_alone_changes_no_order(rows: list[tuple[float, float, float]], days: float) -> None:
    first, second = worths(*rows)
    later = worths(*((age + days, decayed(weight, days), relevance) for age, weight, relevance in rows))
    if abs(first - second) > 0.01:
        assert (first > second) == (later[0] > later[1])


@pytest.mark.parametrize(
    ("row", "stays"),
    [
        ((0, 0, 0.5, 19, 0), "critical"),
        ((0, 0, 0.5, 20, 0), ""),
        ((30, 0, 0.5, None, 0.7), "critical"),
        ((30, 0, 0.5, None, 0.68), ""),
        ((6, 0, 0.61, None, 0), "context"),
        ((6, 0, 0.59, None, 0), ""),
        ((7.0, 0, 0.9, None, 0), ""),
        ((8, 0.05, 0.5, None, 0), "context"),
        ((8, 0.049, 0.9, None, 0), ""),
    ],
)
def test_a_tier_is_left_later_than_it_is_entered(row: Any, stays: str) -> None:
    found = {name for name, stay in zip(TIER_NAMES, may_stay(raw([row]))[0], strict=True) if stay}
    assert found == ({stays} if stays else set()) | {"historical"}


def test_what_enters_a_tier_may_stay_there() -> None:
    rng = np.random.default_rng(1)
    signals = raw(
        [
            (age, rate, relevance, turns if turns < 30 else None, score)
            for age, rate, relevance, turns, score in zip(
                rng.choice([0, 6.9, 7.0, 7.1, 90], 500),
                rng.choice([0, 0.09, 0.1, 0.2], 500),
                rng.random(500),
                rng.integers(0, 60, 500),
                rng.choice([0, 0.89, 0.91], 500),
                strict=True,
            )
        ]
    )
    tiers = tiers_for(signals)
    placed = tiers != EDGE
    assert set(tiers.tolist()) == {CRITICAL, CONTEXT, HISTORICAL, EDGE}
    assert may_stay(signals)[np.flatnonzero(placed), tiers[placed]].all()


def test_items_of_several_collections_are_joined_with_theirs() -> None:
    turns, notes = columns({}, {}), columns({"kind": "note", "key": "n"})
    codes, items = joined({Collection.CONTEXT: notes, Collection.CONVERSATIONS: turns})
    assert [tuple(Collection)[code] for code in codes] == [
        Collection.CONVERSATIONS,
        Collection.CONVERSATIONS,
        Collection.CONTEXT,
    ]
    assert items.keys.tolist() == [*turns.keys, *notes.keys]
    codes, items = joined({Collection.AGENTS: turns})
    assert (codes.tolist(), items.keys.tolist()) == ([1, 1], turns.keys.tolist())
    codes, items = joined({})
    assert (len(codes), len(items.ids)) == (0, 0)
    assert tiers_for(signals_of(replace(turns), accesses(), NOW)).tolist() == [EDGE, EDGE]
    assert len(signals_of(items, accesses(), NOW).worth) == 0
