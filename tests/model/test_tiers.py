"""Which tier an item belongs to."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.tiers import TIER_NAMES, TIERS, TierName, tier_for

JUST_OVER_WEEK = math.nextafter(7.0, 8.0)
JUST_UNDER_WEEK = math.nextafter(7.0, 0.0)
measure = st.floats(min_value=0, allow_nan=False, allow_infinity=False)


def test_the_table_is_whole_and_costs_fall_as_latency_grows() -> None:
    assert tuple(TIERS) == TIER_NAMES
    cloud = [TIERS[name] for name in ("critical", "context", "historical")]
    assert [tier.most_vectors for tier in cloud] == [1_000, 5_000, 20_000]
    assert [tier.target_latency_ms for tier in cloud] == [50, 150, 300]
    assert [tier.usd_per_1k_vectors_month for tier in cloud] == [0.75, 0.35, 0.12]
    assert (TIERS["edge"].most_vectors, TIERS["edge"].usd_per_1k_vectors_month) == (None, 0)


@pytest.mark.parametrize(
    ("age_days", "accesses", "relevance", "turns_ago", "score", "tier"),
    [
        (0, 0, 0, 9, 0, "critical"),
        (400, 0, 0, 0, 0, "critical"),
        (400, 0, 0, None, 0.91, "critical"),
        (0, 0, 0, 10, 0, "edge"),  # ten turns ago is no longer in use
        (0, 0, 0, None, 0.9, "edge"),  # nor is a score of exactly .9
        (0, 0, 0.71, 10, 0.9, "context"),
        (JUST_UNDER_WEEK, 0, 0.71, None, 0, "context"),
        (JUST_UNDER_WEEK, 9, 0.7, None, 0, "edge"),
        (7.0, 0, 1.0, None, 0, "edge"),  # neither younger nor older
        (JUST_OVER_WEEK, 0, 1.0, None, 0, "historical"),
        (JUST_OVER_WEEK, math.nextafter(0.1, 0), 0, None, 0, "historical"),
        (JUST_OVER_WEEK, 0.1, 0, None, 0, "context"),  # old, and asked for
        (3650, 5, 0, 10_000, 0.9, "context"),
    ],
)
def test_every_boundary(
    age_days: float, accesses: float, relevance: float, turns_ago: int | None, score: float, tier: TierName
) -> None:
    assert tier_for(age_days, accesses, relevance, turns_ago, score) == tier


@given(measure, measure, measure, st.none() | st.integers(0, 10**9), measure)
def test_every_item_has_exactly_one_tier_and_the_rules_hold(
    age: float, accesses: float, relevance: float, turns: int | None, score: float
) -> None:
    tier = tier_for(age, accesses, relevance, turns, score)
    active = (turns is not None and turns < 10) or score > 0.9
    assert (tier == "critical") == active
    if not active:
        assert (tier == "historical") == (age > 7 and accesses < 0.1)
        assert (tier == "edge") == (age == 7 or (age < 7 and relevance <= 0.7))


@given(measure, measure, measure, st.integers(10, 10**6), st.floats(0, 0.9))
def test_more_use_never_moves_an_item_to_a_slower_tier(
    age: float, accesses: float, relevance: float, turns: int, score: float
) -> None:
    order = {"historical": 0, "edge": 1, "context": 1, "critical": 2}
    before = tier_for(age, accesses, relevance, turns, score)
    assert order[tier_for(age, accesses + 1, relevance, turns, score)] >= order[before]
    assert order[tier_for(age, accesses, relevance, 0, score)] >= order[before]


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("place", range(5))
def test_what_is_no_measure_is_refused(bad: float, place: int) -> None:
    given_values: list[float] = [1.0, 1.0, 0.5, 5, 0.5]
    given_values[place] = bad
    with pytest.raises(UsageError, match="numbers from 0 on"):
        tier_for(*given_values)  # type: ignore[arg-type]
