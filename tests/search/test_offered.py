"""What tiers offer, as items; and how rare words are there, worked out from their scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.crypto.vectors import word_values
from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.search.offered import MOST_RARITY, Offered, rarities_told


def offered(**scores: float) -> Offered:
    return Offered(SearchItem("note/1", "note", "text"), 0, "", "context", [], scores)


@given(
    st.lists(st.floats(0.01, MOST_RARITY - 1), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=5, max_size=12),
)
def test_rarities_follow_from_the_scores(rarities: list[float], rows: list[list[int]]) -> None:
    stems = len(rarities)
    # Each stem alone in one text, so that there is one solution, and whatever else.
    counts = np.array([*np.eye(stems), *(row[:stems] for row in rows)], np.float32)
    scores = word_values(counts).astype(np.float64) @ rarities
    found = rarities_told([offered(context=float(score)) for score in scores], counts)
    assert found is not None
    assert found == pytest.approx(np.array(rarities), abs=1e-3)


def test_of_several_tiers_the_shares_are_meaned() -> None:
    counts = np.ones((4, 1), np.float32)
    rows = [offered(critical=np.log(2)), offered(historical=np.log(8)), offered(historical=np.log(8))]
    rows.append(offered(historical=np.log(8)))
    found = rarities_told(rows, counts)
    assert found is not None
    assert np.exp(-found[0]) == pytest.approx((1 / 2 + 3 / 8) / 4)


def test_without_scores_nothing_is_told_and_unheard_stems_are_unknown() -> None:
    assert rarities_told([offered()], np.ones((1, 1), np.float32)) is None
    assert rarities_told([], np.ones((0, 1), np.float32)) is None
    found = rarities_told([offered(context=2.0)], np.array([[1, 0]], np.float32))
    assert found is not None
    assert found[0] == pytest.approx(2.0)
    assert np.isnan(found[1])


@pytest.mark.parametrize("score", [-1e30, 1e30, 3e38])
def test_forged_scores_stay_within_bounds(score: float) -> None:
    found = rarities_told([offered(context=score)], np.ones((1, 1), np.float32))
    assert found is not None
    assert 0 <= found[0] <= MOST_RARITY


def test_what_is_cut_or_a_stretch_tells_nothing_of_its_words() -> None:
    long = Offered(SearchItem("note/1", "note", "x " * 9_000), 0, "", "context", [], {"context": 5.0})
    stretch = Offered(SearchItem("note/2", "note", "x"), 3, "", "context", [], {"context": 5.0})
    assert rarities_told([long, stretch], np.ones((2, 1), np.float32)) is None
