"""What may share vectors: texts that differ in nothing that the model reads or that anybody means."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dualmem_mcp.search.likeness import alike, likeness

# Where folding goes wrong if it does: signs, forms of letters, combining marks, spaces, surrogates.
_TEXTS = st.text(
    st.one_of(
        st.sampled_from("aAbZ09.,;:!?-+*/\\_'\"‘’“”…–— \t\n\u00a0\u2003ßẞſİıΣσςﬁＡ²K\u0301\u0307\u0345\u1e9b"),
        st.characters(),
    ),
    max_size=30,
)
_WORDS = st.lists(st.text("abcxyzABCXYZéÉ019.,+-!/", min_size=1, max_size=6), min_size=1, max_size=8)


@given(_TEXTS)
@example("İ.")
@example("ΑΣ.")
@example("\u0345 \u1e9b\u0323")
def test_once_is_enough(text: str) -> None:
    assert alike(alike(text)) == alike(text)


@given(_WORDS, st.lists(st.sampled_from([" ", "  ", "\n", "\t", "\u00a0", " \r\n "]), min_size=8, max_size=8))
def test_capitals_and_white_space_are_passed_over(words: list[str], spaces: list[str]) -> None:
    spaced = "".join(word.upper() + space for word, space in zip(words, spaces, strict=False))
    assert alike(spaced) == alike(" ".join(words)) == alike(" " + " ".join(words).lower())


@given(_WORDS, _WORDS)
def test_texts_alike_have_the_same_words_but_for_a_last_stop(one: list[str], other: list[str]) -> None:
    first, second = " ".join(one), " ".join(other)
    same = first.lower().removesuffix(".") == second.lower().removesuffix(".")
    assert same or alike(first) != alike(second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Use Postgres.", "use postgres"),
        ("It’s “done”", 'It\'s "done"'),
        ("Straße", "STRAẞE"),
        ("caf\u00e9", "cafe\u0301"),
        ("line one\r\n\tline two", "Line one line two."),
    ],
)
def test_what_means_the_same_is_alike(one: str, other: str) -> None:
    assert alike(one) == alike(other)
    assert likeness([one, "x"]) == likeness([other, "x"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a-b", "a+b"),
        ("a-b", "a b"),
        ("!x", "x"),
        ("a, b", "a b"),
        ("src/a.py", "src a.py"),
        ("src/a.py", "srca.py"),
        ("cd ..", "cd ."),
        ("cd .", "cd"),
        ("x²", "x2"),
        ("in Maßen", "in Massen"),
        ("résumé", "resume"),
        ("sort!", "sort"),
        ("It works?", "It works."),
        ("wait...", "wait"),
        ("3.12", "312"),
        ("5.", "5"),
        ("--force", "-force"),
        ("user_id", "user id"),
        ("", "."),
    ],
)
def test_what_means_something_else_is_not(one: str, other: str) -> None:
    assert alike(one) != alike(other)
    assert likeness([one]) != likeness([other])


def test_where_a_text_is_cut_into_passages_counts() -> None:
    assert likeness(["a b", "c"]) != likeness(["a", "b c"])
    assert likeness(["a", "b"]) != likeness(["b", "a"])
    assert likeness(["a"]) != likeness(["a", "a"])
    assert 0 <= likeness([""]) < 1 << 63
