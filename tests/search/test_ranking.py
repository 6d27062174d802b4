"""How candidates are collected from indexes and put in one order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.search import Collection, Filter, SearchItem, item_key
from dualmem_mcp.model.words import Trait
from dualmem_mcp.ports import Features
from dualmem_mcp.search.query import Query, read_query
from dualmem_mcp.search.ranking import Candidates, Pool, collect, rank
from dualmem_mcp.search.weights import WEIGHTS
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index

NOW = datetime(2026, 3, 10, tzinfo=UTC)
MODEL = "test-vectors"
DIMENSIONS = 64


def read(text: str, authors: Sequence[str] = ()) -> Query:
    return read_query(text, known_authors=authors, now=NOW)


def candidates(
    lexical: Sequence[float],
    cosines: Sequence[float] | None = None,
    *,
    ids: Sequence[int] | None = None,
    conversations: Sequence[int] | None = None,
    ages_days: Sequence[float] | None = None,
    authors: Sequence[str] | None = None,
    terms: Sequence[int] | None = None,
    traits: Sequence[int] | None = None,
    collection: Collection = Collection.CONVERSATIONS,
) -> Candidates:
    """Far apart, of one length, old, and without vectors, unless said otherwise."""
    count = len(lexical)
    times = [NOW - timedelta(days=age) for age in (ages_days or [5_000] * count)]
    return Candidates(
        collection,
        Features(
            ids=np.array(ids or range(100, 100 + 10 * count, 10), np.int64),
            kinds=("turn",) * count,
            authors=tuple(authors or ["user"] * count),
            conversations=np.array(conversations or [1] * count, np.int64),
            timestamps=np.array([time.timestamp() for time in times]),
            terms=np.array(terms or [10] * count, np.int32),
            traits=np.array(traits or [0] * count, np.uint8),
        ),
        np.array(lexical, np.float32),
        np.array(cosines or [np.nan] * count, np.float32),
    )


def order(query: Query, *pool: Candidates) -> list[int]:
    return [one.id for one in rank(query, pool)]


def test_nothing_found_is_nothing_ranked() -> None:
    assert rank(read("x"), ()) == []
    assert rank(read("x"), (candidates([]),)) == []


def test_words_and_vectors_add_up() -> None:
    assert order(read("x"), candidates([2, 4, 3], [0.1, 0.1, 0.6])) == [120, 110, 100]


def test_without_vectors_words_decide() -> None:
    assert order(read("x"), candidates([2, 4, 3])) == [110, 120, 100]


def test_what_has_no_vector_yet_is_not_put_last() -> None:
    assert order(read("x"), candidates([4, 4, 4], [0.6, np.nan, 0.1])) == [100, 110, 120]


def test_an_answer_gains_by_the_question_before_it() -> None:
    pool = candidates([0, 5, 0], ids=[10, 50, 51], traits=[0, Trait.QUESTION, 0])
    assert order(read("x"), pool) == [50, 51, 10]


def test_context_is_shared_up_to_two_turns_away_and_less_each_time() -> None:
    pool = candidates([0, 0, 5, 0, 0, 0], ids=[1, 9, 10, 11, 12, 13], terms=[1, 1, 30, 1, 1, 1])
    assert order(read("x"), pool) == [10, 9, 11, 12, 1, 13]


@pytest.mark.parametrize(
    ("conversations", "ages_days"), [([1, 2], [5_000, 5_000]), ([0, 0], [5_000, 5_000]), ([1, 1], [5_001, 5_000])]
)
def test_another_conversation_or_sitting_is_no_context(conversations: list[int], ages_days: list[float]) -> None:
    pool = candidates([4, 0, 0], ids=[10, 11, 90], conversations=[*conversations, 9], ages_days=[*ages_days, 5_000])
    scores = {one.id: one.score for one in rank(read("x"), (pool,))}
    assert scores[11] == scores[90]


def test_of_equal_matches_the_one_that_tells_more_comes_first() -> None:
    assert order(read("x"), candidates([4, 4, 4], terms=[2, 40, 10])) == [110, 120, 100]


def test_a_question_comes_after_what_is_none() -> None:
    assert order(read("x"), candidates([4, 4], traits=[Trait.QUESTION, 0])) == [110, 100]


def test_who_asks_when_wants_a_time_and_who_asks_how_many_a_number() -> None:
    pool = candidates([4, 4, 4], traits=[0, Trait.TIME, Trait.NUMBER])
    assert order(read("When was it?"), pool)[0] == 110
    assert order(read("How many were there?"), pool)[0] == 120
    assert order(read("Why?"), pool) == [100, 110, 120]


def test_the_person_named_comes_first_among_equals_and_no_one_if_two_are_named() -> None:
    pool = candidates([4, 4], authors=["Ana", "Ben"])
    assert order(read("What did Ben say?", ["Ana", "Ben"]), pool) == [110, 100]
    assert order(read("What did Ben tell Ana?", ["Ana", "Ben"]), pool) == [100, 110]


def test_a_much_better_match_of_the_other_person_stays_first() -> None:
    pool = candidates([6, 2], authors=["Ana", "Ben"])
    assert order(read("What did Ben say?", ["Ana", "Ben"]), pool) == [100, 110]


def test_the_time_that_is_meant_comes_first_among_equals() -> None:
    pool = candidates([4, 4, 4], ages_days=[400, 9.5, 700])
    assert order(read("What was decided last week?"), pool)[0] == 110


def test_of_equal_matches_the_newer_comes_first() -> None:
    assert order(read("x"), candidates([4, 4, 4], ages_days=[90, 1, 5_000])) == [110, 100, 120]


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.floats(-1, 1), st.floats(0, 10_000), st.integers(0, 300)),
        min_size=1,
        max_size=12,
    )
)
def test_recency_never_puts_anything_before_a_clearly_better_match(
    rows: list[tuple[float, float, float, int]],
) -> None:
    lexical, cosines, ages, terms = (list(column) for column in zip(*rows, strict=True))
    pool = (candidates(lexical, cosines, ages_days=ages, terms=terms),)
    query = read("x")
    scores = {one.id: one.score for one in rank(query, pool, weights=replace(WEIGHTS, recency=0))}
    ranked = [one.id for one in rank(query, pool)]
    # On the scale of the scores without recency the most that recency can add.
    views = (WEIGHTS.lexical + WEIGHTS.vector) * (1 + 2 * sum(WEIGHTS.context)) + WEIGHTS.length
    bound = WEIGHTS.recency / views
    for place, earlier in enumerate(ranked):
        for later in ranked[place + 1 :]:
            assert scores[later] <= scores[earlier] + bound + 1e-9


@given(
    st.lists(
        st.tuples(
            st.integers(1, 40),
            st.floats(0, 20),
            st.floats(-1, 1) | st.just(np.nan),
            st.integers(0, 3),
            st.integers(0, 7),
        ),
        min_size=1,
        max_size=20,
        unique_by=lambda row: row[0],
    )
)
def test_scores_lie_between_0_and_1_and_fall(rows: list[tuple[int, float, float, int, int]]) -> None:
    ids, lexical, cosines, conversations, traits = (list(column) for column in zip(*sorted(rows), strict=True))
    pool = candidates(lexical, cosines, ids=ids, conversations=conversations, traits=traits)
    ranked = rank(read("When, last week?"), (pool,))
    assert sorted(one.id for one in ranked) == ids
    scores = [one.score for one in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test_collections_are_ranked_together() -> None:
    pool: Pool = (
        candidates([4, 2]),
        candidates([], collection=Collection.AGENTS),
        candidates([3], ids=[100], collection=Collection.CONTEXT),
    )
    assert [(one.collection, one.id) for one in rank(read("x"), pool)] == [
        (Collection.CONVERSATIONS, 100),
        (Collection.CONTEXT, 100),
        (Collection.CONVERSATIONS, 110),
    ]


# With a real index


def vector(seed: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


def turn(conversation: str, number: int, text: str, author: str = "Ana") -> SearchItem:
    return SearchItem(
        item_key("turn", conversation, str(number)), "turn", text, conversation, str(number), author, NOW
    )


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SqliteSearchIndex]:
    opened = open_search_index(tmp_path / "index", bytes(32), Collection.CONVERSATIONS)
    opened.use_model(MODEL, DIMENSIONS)
    yield opened
    opened.close()


def texts(index: SqliteSearchIndex, pool: Pool, query: Query) -> list[str]:
    return [item.text for item in index.items([one.id for one in rank(query, pool)])]


def test_found_by_words_by_vector_and_beside_them(index: SqliteSearchIndex) -> None:
    said = [
        "Nothing much",
        "Where do you keep the lantern?",
        "In the shed behind the house",
        "Fine",
        "Good night then",
        "Blue",
        "Bye",
    ]
    index.put([turn("c", number, text) for number, text in enumerate(said)])
    index.put([turn("d", number, "Quite another matter") for number in range(3)])
    waiting = index.unembedded(100)
    index.put_vectors(MODEL, [(one.id, vector(one.id)[None]) for one in waiting])
    blue = next(one.id for one in waiting if one.item.text == "Blue")
    query = read("the lantern")
    by_words = collect([index], query, None, Filter())
    assert set(texts(index, by_words, query)) == set(said[:4])
    assert texts(index, by_words, query)[:2] == [said[1], said[2]]
    both = collect([index], query, vector(blue), Filter())
    assert "Blue" in texts(index, both, query)[:3]


def test_the_filter_holds_for_what_stands_beside_too(index: SqliteSearchIndex) -> None:
    index.put(
        [
            turn("c", 1, "A lantern", "Ana"),
            turn("c", 2, "In the shed behind the house", "Ben"),
            turn("d", 1, "A lantern"),
        ]
    )
    query = read("lantern")
    found = collect([index], query, None, Filter(conversation_id=ConversationId("c"), author="ana"))
    assert texts(index, found, query) == ["A lantern"]
    assert len(rank(query, found)) == 1


@pytest.mark.parametrize("text", ["", "?", "who was it", '"AND" OR (', "我喜欢", "x " * 60_000])
def test_any_query_is_answered(index: SqliteSearchIndex, text: str) -> None:
    index.put([turn("c", 1, "我喜欢猫"), turn("c", 2, "who was it")])
    query = read(text)
    assert len(rank(query, collect([index], query, None, Filter()))) in {0, 2}


def test_a_word_without_spaces_around_it_is_found(index: SqliteSearchIndex) -> None:
    index.put([turn("c", 1, "昨天我买了一只猫"), turn("d", 1, "天气很好")])
    query = read("猫")
    assert texts(index, collect([index], query, None, Filter()), query) == ["昨天我买了一只猫"]
