"""Fusion against values worked out by hand."""

from __future__ import annotations

from baselines import fuse


def test_what_both_rankings_hold_comes_before_what_one_holds() -> None:
    assert fuse([[1, 2, 3], [3, 4]]) == [3, 1, 2, 4]


def test_equal_sums_are_in_the_order_of_ids() -> None:
    assert fuse([[7, 5], [5, 7]]) == [5, 7]


def test_nothing_fused_is_nothing() -> None:
    assert fuse([[], []]) == []
