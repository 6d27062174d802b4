"""Results fitted to a budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.model.conversation import estimate_tokens
from dualmem_mcp.search.excerpts import FRAME_TOKENS, MAX_EXCERPT, MIN_EXCERPT, excerpt, fit

FILLER = "and so the day went by without anything that anybody would have to remember later on. "


def result_tokens(texts: list[str]) -> int:
    """What results with these texts take."""
    return sum(estimate_tokens(text) + FRAME_TOKENS for text in texts)


def test_a_short_text_is_shown_as_it_is() -> None:
    assert excerpt("We meet at nine.", ["nine"], 100) == "We meet at nine."


def test_of_a_long_text_the_part_that_answers_is_shown() -> None:
    text = FILLER * 40 + "The port of the ingest worker is 8123, as agreed. " + FILLER * 40
    shown = excerpt(text, ["port", "ingest", "worker"], 400)
    assert "port of the ingest worker is 8123" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert len(shown) <= 400


def test_without_a_word_the_beginning_is_shown() -> None:
    shown = excerpt("Beginning. " + FILLER * 40, ["absent"], 200)
    assert shown.startswith("Beginning.")
    assert len(shown) <= 200


def test_short_texts_leave_their_room_to_long_ones() -> None:
    texts = ["short", FILLER * 10, "short too"]
    shown = fit(texts, [], 300)
    assert shown[0] == "short"
    assert shown[2] == "short too"
    assert len(shown[1]) > 500
    assert result_tokens(shown) <= 300


def test_with_too_small_a_budget_the_last_results_go() -> None:
    shown = fit([FILLER * 5] * 10, [], 200)
    assert 1 <= len(shown) < 10
    assert result_tokens(shown) <= 200


@given(
    st.lists(st.text(max_size=4_000), min_size=1, max_size=20),
    st.lists(st.text(max_size=20), max_size=5),
    st.integers(1, 5_000),
)
def test_the_budget_holds(texts: list[str], words: list[str], budget: int) -> None:
    shown = fit(texts, words, budget)
    assert 1 <= len(shown) <= len(texts)
    assert all(len(text) <= MAX_EXCERPT for text in shown)
    assert result_tokens(shown) <= max(budget, result_tokens(["x" * MIN_EXCERPT]))
    for text, original in zip(shown, texts, strict=False):
        assert text == original or "…" in text
