"""Figures against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from retrieval_metrics import average, distinct, percentile, recall, reciprocal_rank


def test_recall_is_the_share_of_what_is_wanted() -> None:
    assert recall(["a", "b", "c"], {"b", "x"}) == 0.5
    assert recall([], {"b"}) == 0.0


def test_reciprocal_rank_counts_from_one() -> None:
    assert reciprocal_rank(["a", "b", "c"], {"c", "b"}) == 0.5
    assert reciprocal_rank(["a"], {"c"}) == 0.0


def test_distinct_keeps_the_first_place_of_each() -> None:
    assert distinct(["s2", "s1", "s2", "s3", "s1"]) == ["s2", "s1", "s3"]


def test_averages_look_at_the_lists_beginning_only() -> None:
    figures = average([(["a", "b"], {"a"}), (["c", "d", "e"], {"d", "x"}), (["f", "g", "h"], {"h"})], 2)
    assert figures.questions == 3
    assert figures.recall == pytest.approx((1 + 0.5 + 0) / 3)
    assert figures.hit == pytest.approx(2 / 3)
    assert figures.hit_at_1 == pytest.approx(1 / 3)
    assert figures.mrr == pytest.approx((1 + 0.5 + 0) / 3)


def test_nothing_asked_is_zero_of_zero() -> None:
    assert average([], 10).questions == 0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_the_share_does_not_pass(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values) or found == min(values)


def test_a_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(percentile([], 0.5))
