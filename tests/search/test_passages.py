"""Which texts are embedded of an item."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.search.passages import (
    MAX_PASSAGES,
    PASSAGE_CHARACTERS,
    PASSAGE_WORDS,
    PREVIOUS_CHARACTERS,
    passages,
    stretches,
)

ASKED = SearchItem("turn/c/1", "turn", "When do you\nmove?", "c", "1", "Ana")
ANSWER = SearchItem("turn/c/2", "turn", "Yes, in May.", "c", "2", "Ben", datetime(2023, 5, 8, 13, tzinfo=UTC))


def test_a_short_turn_is_embedded_once_with_what_came_before_its_day_and_author() -> None:
    assert passages(ANSWER, ASKED) == ("Ana: When do you move? (8 May 2023) Ben: Yes, in May.",)


def test_the_first_turn_stands_by_itself() -> None:
    assert passages(ASKED, None) == ("Ana: When do you\nmove?",)


def test_roles_are_no_names() -> None:
    assert passages(replace(ANSWER, author="assistant"), replace(ASKED, author="user")) == (
        "When do you move? (8 May 2023) Yes, in May.",
    )


def test_of_a_long_turn_before_the_end_is_taken() -> None:
    before = replace(ASKED, text="x" * 5_000 + "the end")
    (text,) = passages(ANSWER, before)
    assert "xthe end (8 May" in text
    assert len(text) < PREVIOUS_CHARACTERS + 60


def test_what_is_no_turn_before_is_no_context() -> None:
    assert passages(ANSWER, replace(ASKED, kind="summary")) == ("(8 May 2023) Ben: Yes, in May.",)


def test_a_turn_that_says_much_is_embedded_by_itself_too() -> None:
    text = " ".join(["word"] * 60)
    assert passages(replace(ANSWER, text=text), ASKED) == (
        f"Ana: When do you move? (8 May 2023) Ben: {text}",
        f"Ben: {text}",
    )


def test_a_long_turn_is_cut_into_stretches() -> None:
    first, *own = passages(replace(ANSWER, text=" ".join(f"w{n}" for n in range(300))), ASKED)
    assert first.startswith("Ana: When do you move? (8 May 2023) Ben: w0 ")
    assert first.endswith(f" w{PASSAGE_WORDS - 1}")
    assert [text.split()[1] for text in own] == ["w0", f"w{PASSAGE_WORDS}", f"w{2 * PASSAGE_WORDS}"]


def test_each_stretch_of_an_entity_says_of_what_it_is() -> None:
    item = SearchItem("entity/Kettle Lane", "entity", "Kettle Lane (place): " + "a garden " * 100)
    first, *others = passages(item, None)
    assert first.startswith("Kettle Lane (place): a garden")
    assert others
    assert all(text.startswith("Kettle Lane: ") for text in others)


@given(st.text(alphabet=st.sampled_from("ab \n我😀"), max_size=200), st.integers(1, 400))
def test_every_word_is_in_a_passage_until_there_are_too_many(text: str, times: int) -> None:
    item = SearchItem("note/1", "note", text * times)
    found = passages(item, None)
    assert 1 <= len(found) <= MAX_PASSAGES
    assert all(len(one) <= PASSAGE_CHARACTERS and len(one.split()) <= PASSAGE_WORDS for one in found)
    if len(found) < MAX_PASSAGES:
        assert "".join("".join(found).split()) == "".join(item.text.split())


@given(st.text(alphabet="ab \n", max_size=4_000), st.sampled_from(["turn", "note", "entity"]), st.booleans())
def test_every_passage_ends_with_its_stretch(text: str, kind: str, after_another: bool) -> None:
    item = SearchItem("turn/c/2", kind, text, "c", "2", "Ben")  # type: ignore[arg-type]
    embedded = passages(item, ASKED if after_another else None)
    own = stretches(item)
    assert len(own) == len(embedded)
    assert all(passage.endswith(stretch) for passage, stretch in zip(embedded, own, strict=True))
    assert all(stretch in text for stretch in own)
