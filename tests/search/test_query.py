"""How a query is read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.model.words import Trait
from dualmem_mcp.search.query import MAX_CHARACTERS, MAX_EMBEDDED, MAX_TERMS, Query, read_query

NOW = datetime(2026, 3, 10, tzinfo=UTC)
PEOPLE = ("Ines Carvalho", "Tobias", "Mark", "Will", "user", "assistant", "安娜")


def read(text: str) -> Query:
    return read_query(text, known_authors=PEOPLE, now=NOW)


@pytest.mark.parametrize("text", ["", "   ", "\n", "😀", "***", "\0"])
def test_a_query_without_a_word_has_no_terms(text: str) -> None:
    query = read(text)
    assert query.terms == ()
    assert query.embedded == text.strip()
    assert query.authors == ()


@pytest.mark.parametrize(
    ("text", "embedded", "authors"),
    [
        ("What did Tobias bake?", "What did I bake?", ("Tobias",)),
        ("What is Tobias's cat called?", "What is my cat called?", ("Tobias",)),
        ("What is Ines’s cat called?", "What is my cat called?", ("Ines Carvalho",)),
        ("What did Ines Carvalho tell Tobias?", "What did I tell I?", ("Ines Carvalho", "Tobias")),
        ("what did tobias bake?", "what did I bake?", ("Tobias",)),
        ("Where is the mark on the wall?", "Where is the mark on the wall?", ()),
        ("Will it rain?", "Will it rain?", ()),
        ("The user of the assistant", "The user of the assistant", ()),
        ("Tobiasson and Markus", "Tobiasson and Markus", ()),
        ("安娜 说了什么", "I 说了什么", ("安娜",)),
        ("Tobias", "Tobias", ("Tobias",)),
    ],
)
def test_authors(text: str, embedded: str, authors: tuple[str, ...]) -> None:
    query = read(text)
    assert query.embedded == embedded
    assert query.authors == authors


def test_names_are_searched_with_the_other_words() -> None:
    assert read("What did Tobias bake for the party?").terms == ("tobias", "bake", "party")


def test_stop_words_are_searched_where_there_is_nothing_else() -> None:
    assert read("Who was it?").terms == ("who", "was", "it")


@pytest.mark.parametrize("text", ['"a b" OR c', "NEAR(x y)", "col:y*", "^x", "-z AND (", "'; DROP TABLE t; --"])
def test_nothing_in_a_term_is_an_operator(text: str) -> None:
    assert all(term.isalnum() and term == term.lower() for term in read(text).terms)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("When did Ines move?", Trait.TIME),
        ("How long was it?", Trait.TIME),
        ("In which year was it?", Trait.TIME),
        ("How many cats are there?", Trait.NUMBER),
        ("Which version do we use?", Trait.NUMBER),
        ("What happened whenever it rained?", Trait(0)),
        ("Why?", Trait(0)),
    ],
)
def test_wanted(text: str, wanted: Trait) -> None:
    assert read(text).wanted == wanted


def test_the_time_that_is_meant() -> None:
    assert read("in May 2023").spans == ((datetime(2023, 5, 1, tzinfo=UTC), datetime(2023, 6, 1, tzinfo=UTC)),)
    assert read("What may that be?").spans == ()


def test_of_a_long_query_both_ends_are_read() -> None:
    middle = " ".join(f"w{number}" for number in range(20_000))
    query = read(f"Why does backup fail? {middle} What broke parsing?")
    assert {"backup", "fail", "broke", "parsing"} <= set(query.terms)
    assert len(query.terms) == MAX_TERMS
    assert len(query.embedded) == MAX_EMBEDDED
    assert query.embedded.startswith("Why does backup fail?")
    assert query.embedded.endswith("What broke parsing?")
    assert len(middle) > 2 * MAX_CHARACTERS


@given(st.text(), st.lists(st.text(max_size=8), max_size=5))
def test_any_query_of_any_authors(text: str, authors: list[str]) -> None:
    query = read_query(text, known_authors=authors, now=NOW)
    assert set(query.authors) <= set(authors)
    assert len(set(query.terms)) == len(query.terms) <= MAX_TERMS
    assert len(query.embedded) <= MAX_EMBEDDED
