"""What counts as a word, for indexes and queries alike."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.model.words import STOP_WORDS, Trait, index_text, index_text_of, term_count, terms, traits, words

MIXED = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("aB1_-.'’ ?我猫東ワ안สक़ि\u0301İß"),
    ),
    max_size=60,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getUserName", ["getusername"]),
        ("user_id well-known e-mail", ["userid", "wellknown", "email"]),
        ("Python 3.12", ["python", "3x12"]),
        ("src/app/main.py", ["src", "app", "mainpy"]),
        ("Ben's dog, I'll say; don't!", ["ben", "dog", "i", "say"]),
        ("l’eau", ["l", "eau"]),
        ("我喜欢猫", ["我喜", "喜欢", "欢猫"]),
        ("猫", ["猫"]),
        ("the 東京タワー", ["the", "東京", "京タ", "タワ", "ワー"]),
        ("ｆｕｌｌ ﬁne cafe\u0301", ["full", "fine", "café"]),
        ("हिन्दी।", ["हिन्दी"]),
        ("😀 … --- ''", []),
        ("x" * 65, []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert list(words(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getUserName", "getusername get user name"),
        ("HTTPServer", "httpserver http server"),
        ("user_id", "userid user id"),
        ("Python 3.12", "python 3x12 3 12"),
        ("我喜欢", "我 喜 欢 我喜 喜欢"),
    ],
)
def test_index_text(text: str, expected: str) -> None:
    assert index_text(text) == expected


@given(MIXED)
def test_every_word_of_a_text_is_found_in_its_index_text(text: str) -> None:
    stored = set(index_text(text).split())
    assert set(words(text)) <= stored


@given(MIXED)
def test_a_full_text_index_finds_each_word(text: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5(text, tokenize='porter unicode61')")
    connection.execute("INSERT INTO t VALUES (?)", (index_text(text),))
    for word in words(text):
        assert '"' not in word
        found = connection.execute("SELECT count(*) FROM t WHERE t MATCH ?", (f'"{word}"',)).fetchone()
        assert found == (1,), word
    connection.close()


def test_one_character_finds_a_run_that_holds_it() -> None:
    assert "猫" in index_text("我喜欢猫").split()


def test_a_person_is_indexed_with_what_they_say_and_a_role_is_not() -> None:
    assert index_text_of("Ana", "Hello") == "ana hello"
    assert index_text_of("assistant", "Hello") == "hello"


def test_terms_are_different_and_tell_something() -> None:
    assert terms("What did the dog do, and what did the Dog eat?") == ["dog", "eat"]
    assert term_count("What did the dog do, and what did the Dog eat?") == 3
    assert term_count("") == 0
    assert all(word == word.casefold() for word in STOP_WORDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How are you?", Trait.QUESTION),
        ("How are you? 😀", Trait.QUESTION),
        ("Is it yours? [photo: a dog]", Trait.QUESTION),
        ("真的吗？", Trait.QUESTION),
        ("Why? Because.", Trait(0)),
        ("Really?!", Trait(0)),
        ("", Trait(0)),
        ("?", Trait.QUESTION),
        ("We met last summer", Trait.TIME),
        ("Two weeks ago!", Trait.TIME | Trait.NUMBER),
        ("It was in 2019", Trait.TIME | Trait.NUMBER),
        ("She has ٣ cats", Trait.NUMBER),
        ("Someone phoned", Trait(0)),
        ("Did you go on Friday?", Trait.TIME | Trait.QUESTION),
    ],
)
def test_traits(text: str, expected: Trait) -> None:
    assert traits(text) == expected


@pytest.mark.parametrize("text", ["a_" * 50_000, "a'" * 50_000, "\u0301" * 100_000, "aB" * 50_000, "我" * 100_000])
def test_long_runs_take_no_long_time(text: str) -> None:
    assert len(index_text(text)) <= 6 * len(text)
