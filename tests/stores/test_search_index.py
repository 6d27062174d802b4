"""The suite of the port SearchIndex: every implementation of it has to pass.

A new implementation adds how it is opened to `IMPLEMENTATIONS`.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.search import Collection, Filter, ItemKind, SearchItem, item_key
from dualmem_mcp.model.words import Trait, index_text_of
from dualmem_mcp.ports import SearchIndex, SearchReader
from dualmem_mcp.stores.search_index import open_search_index

KEY = bytes(range(32))
MODEL = "model"
DIMENSIONS = 24
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

IMPLEMENTATIONS: dict[str, Callable[[Path], Any]] = {
    "sqlite": lambda folder: open_search_index(folder, KEY, Collection.CONVERSATIONS),
}


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SearchIndex]:
    opened = IMPLEMENTATIONS[request.param](tmp_path)
    opened.use_model(MODEL, DIMENSIONS)
    yield opened
    opened.close()


def turn(number: int, text: str, conversation: str = "c", author: str = "user", **fields: Any) -> SearchItem:
    fields.setdefault("timestamp", NOON + timedelta(minutes=number))
    key = item_key("turn", conversation, f"t{number}")
    return SearchItem(key, "turn", text, conversation, f"t{number}", author, **fields)


def note(name: str, text: str, **fields: Any) -> SearchItem:
    return SearchItem(item_key("note", name), "note", text, **fields)


def vectors(*seeds: int) -> np.ndarray:
    """One unit vector for each seed, float32 (n, DIMENSIONS)."""
    rows = np.stack([np.random.default_rng(seed).normal(size=DIMENSIONS) for seed in seeds])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def embed(index: SearchIndex, seeds: Callable[[SearchItem], tuple[int, ...]] | None = None) -> None:
    """Give every item that waits for it a vector for each seed; by default the number of its turn."""
    for waiting in index.unembedded(10_000):
        chosen = seeds(waiting.item) if seeds else (int(waiting.item.turn_id[1:]),)
        passages = vectors(*chosen) if chosen else np.empty((0, DIMENSIONS), np.float32)
        index.put_vectors(MODEL, [(waiting.id, passages)])


def keys(index: SearchReader, ids: Any) -> list[str]:
    return [item.key for item in index.items([int(item_id) for item_id in ids])]


def found(index: SearchIndex, *terms: str, where: Filter | None = None, limit: int = 100) -> list[str]:
    return keys(index, index.lexical(terms, where or Filter(), limit).ids)


def test_of_several_texts_of_one_item_in_a_batch_the_last_stays(index: SearchIndex) -> None:
    index.put([turn(1, "cat")])
    assert index.put([turn(1, "fox"), turn(1, "moon"), turn(1, "cat")]) == 3
    assert (found(index, "cat"), found(index, "fox", "moon")) == (["turn/c/t1"], [])


def test_vectors_come_back_in_the_order_of_the_passages(index: SearchIndex) -> None:
    index.put([turn(1, "one"), turn(2, "two"), turn(3, "three")])
    embed(index, lambda item: {"t1": (1,), "t2": (4, 2, 3), "t3": ()}[item.turn_id])
    numbers = index.lexical(["one", "two", "three"], Filter(), 9).ids.tolist()
    ids = {index.items([number])[0].turn_id: number for number in numbers}
    kept = index.vectors([*ids.values(), 999])
    assert set(kept) == {ids["t1"], ids["t2"]}
    np.testing.assert_allclose(kept[ids["t1"]], vectors(1), atol=1e-3)
    np.testing.assert_allclose(kept[ids["t2"]], vectors(4, 2, 3), atol=1e-3)


# Putting and removing


def test_items_come_back_as_they_were_put(index: SearchIndex) -> None:
    items = [
        turn(0, "plain", device="desk"),
        SearchItem(item_key("summary", "c", "s"), "summary", "summed up", "c", "s", timestamp=NOON),
        SearchItem("a/key of its own", "turn", "text", "c", "t9", "Åsa", None, "phone"),
        SearchItem("half \ud83d", "entity", "\0 half \ud83d of a pair", author="\udc00", device="\ud800"),
        note("time", "zone", timestamp=datetime(1969, 1, 1, 1, 2, 3, 456789, timezone(timedelta(hours=5)))),
        note("empty", ""),
        note("long", "x " * 60_000),
    ]
    assert index.put(items) == len(items)
    index_ids = [waiting.id for waiting in index.unembedded(100)]
    assert sorted(index.items(index_ids), key=lambda item: item.key) == sorted(items, key=lambda item: item.key)


def test_the_same_text_again_changes_nothing(index: SearchIndex) -> None:
    item = turn(1, "once")
    assert index.put([item, item]) == 1
    embed(index)
    assert index.put([item]) == 0
    assert index.put([dataclasses.replace(item, device="other")]) == 0
    assert index.counts().embedded == 1
    assert found(index, "once") == [item.key]


def test_a_changed_text_is_found_by_its_new_words_and_loses_its_vectors(index: SearchIndex) -> None:
    index.put([turn(1, "first words"), turn(2, "of another")])
    embed(index, lambda item: (1, 2))
    changed = turn(1, "second version")
    before = index.lexical(["first"], Filter(), 1).ids.tolist()
    assert index.put([changed]) == 1
    assert index.lexical(["second"], Filter(), 1).ids.tolist() == before
    assert found(index, "first") == []
    assert index.items(before) == [changed]
    assert [waiting.item for waiting in index.unembedded(10)] == [changed]
    assert index.counts().embedded == 1
    assert np.isnan(index.cosines(vectors(1)[0], np.array(before))).all()
    assert keys(index, index.nearest(vectors(1)[0], Filter(), 5).ids) == [turn(2, "").key]


def test_removed_items_are_gone_for_every_question(index: SearchIndex) -> None:
    index.put([turn(number, "word") for number in range(4)])
    embed(index)
    gone = index.lexical(["word"], Filter(), 4).ids[:1]
    assert index.remove([turn(0, "").key, "turn/c/unknown"]) == 1
    assert index.remove([turn(0, "").key]) == 0
    rest = [turn(number, "").key for number in (1, 2, 3)]
    assert sorted(found(index, "word")) == rest
    assert sorted(keys(index, index.nearest(vectors(0)[0], Filter(), 10).ids)) == rest
    assert index.items(gone.tolist()) == []
    assert not len(index.features(gone, Filter()).ids)
    assert index.counts().items == 3
    index.put([turn(0, "word")])
    assert gone[0] not in index.lexical(["word"], Filter(), 10).ids


def test_nothing_put_or_removed_is_no_work(index: SearchIndex) -> None:
    assert index.put([]) == 0
    assert index.remove([]) == 0
    index.put_vectors(MODEL, [])
    assert index.counts().items == 0


def test_turns_of_a_conversation_follow_each_other(index: SearchIndex) -> None:
    index.put([turn(0, "a"), turn(0, "b", "d"), SearchItem("summary/c", "summary", "between", "c"), turn(1, "c")])
    index.put([turn(2, "d"), note("n", "none"), turn(1, "e", "d")])
    ids = {item.key: int(i) for i in _all_ids(index) for item in index.items([int(i)])}
    assert [ids[f"turn/c/t{n}"] - ids["turn/c/t0"] for n in range(3)] == [0, 1, 2]
    assert ids["turn/d/t1"] - ids["turn/d/t0"] == 1
    features = index.features(_all_ids(index), Filter())
    numbers = dict(zip(features.ids.tolist(), features.conversations.tolist(), strict=True))
    assert numbers[ids["note/n"]] == 0
    assert numbers[ids["turn/c/t0"]] == numbers[ids["summary/c"]] != numbers[ids["turn/d/t0"]] > 0


def _all_ids(index: SearchIndex) -> np.ndarray:
    return np.array(sorted(waiting.id for waiting in index.unembedded(10_000)), np.int64)


# Vectors


def test_what_has_no_vectors_is_told_newest_first_with_what_stood_before_it(index: SearchIndex) -> None:
    first, second, third = (turn(number, f"text {number}") for number in range(3))
    timeless = note("n", "timeless")
    other = turn(5, "of another conversation", "d", timestamp=NOON + timedelta(seconds=90))
    summary = SearchItem("summary/c", "summary", "sum", "c", timestamp=NOON - timedelta(days=1))
    index.put([first, timeless, second, third, other, summary])
    told = [(waiting.item, waiting.previous) for waiting in index.unembedded(10)]
    assert told == [
        (third, second),
        (other, None),
        (second, first),
        (first, None),
        (summary, None),
        (timeless, None),
    ]
    assert [waiting.item for waiting in index.unembedded(2)] == [third, other]
    index.put_vectors(MODEL, [(waiting.id, vectors(1)) for waiting in index.unembedded(2)])
    assert [waiting.item for waiting in index.unembedded(2)] == [second, first]


def test_another_model_drops_all_vectors_and_the_same_none(index: SearchIndex) -> None:
    index.put([turn(number, "word") for number in range(3)])
    embed(index)
    index.use_model(MODEL, DIMENSIONS)
    assert index.counts().embedded == 3
    index.use_model("wider", 72)
    assert index.counts().embedded == 0
    assert len(index.unembedded(10)) == 3
    waiting = index.unembedded(1)[0]
    index.put_vectors(MODEL, [(waiting.id, vectors(1))])
    assert index.counts().embedded == 0
    wide = np.random.default_rng(0).normal(size=(1, 72)).astype(np.float32)
    index.put_vectors("wider", [(waiting.id, wide)])
    assert keys(index, index.nearest(wide[0], Filter(), 9).ids) == [waiting.item.key]
    assert not len(index.nearest(vectors(1)[0], Filter(), 9).ids)
    assert np.isnan(index.cosines(vectors(1)[0], np.array([waiting.id]))).all()
    assert found(index, "word", limit=2) != []


def test_vectors_of_items_that_have_gone_or_changed_are_dropped(index: SearchIndex) -> None:
    index.put([turn(1, "old"), turn(2, "stays")])
    waiting = {entry.item.turn_id: entry.id for entry in index.unembedded(10)}
    index.put([turn(1, "new")])
    index.remove([turn(2, "").key])
    index.put_vectors(MODEL, [(waiting["t1"], vectors(1)), (waiting["t2"], vectors(2)), (1 << 40, vectors(3))])
    assert index.counts().embedded == 0
    assert [entry.item.text for entry in index.unembedded(10)] == ["new"]
    embed(index)
    assert index.counts().embedded == 1


def test_vectors_again_replace_those_before(index: SearchIndex) -> None:
    index.put([turn(1, "text")])
    item_id = index.unembedded(1)[0].id
    index.put_vectors(MODEL, [(item_id, vectors(1, 2, 3))])
    index.put_vectors(MODEL, [(item_id, vectors(4))])
    cosine = index.cosines(vectors(1)[0], np.array([item_id]))
    assert cosine == pytest.approx(vectors(1) @ vectors(4)[0], abs=1e-3)


def test_an_item_without_passages_waits_no_longer(index: SearchIndex) -> None:
    index.put([note("empty", "")])
    embed(index, lambda item: ())
    assert index.unembedded(1) == []
    assert not len(index.nearest(vectors(1)[0], Filter(), 9).ids)


def test_vectors_of_another_shape_are_a_fault_of_the_program(index: SearchIndex) -> None:
    index.put([turn(1, "text")])
    item_id = index.unembedded(1)[0].id
    for wrong in (vectors(1)[0], vectors(1)[:, 1:]):
        with pytest.raises(ValueError, match="shape"):
            index.put_vectors(MODEL, [(item_id, wrong)])
    assert index.counts().embedded == 0


def test_the_best_passage_counts(index: SearchIndex) -> None:
    index.put([turn(1, "two passages"), turn(2, "one"), turn(3, "none")])
    embed(index, lambda item: {"t1": (10, 11), "t2": (12,)}.get(item.turn_id, ()))
    query = vectors(11)[0]
    nearest = index.nearest(query, Filter(), 5)
    assert keys(index, nearest.ids) == ["turn/c/t1", "turn/c/t2"]
    assert nearest.scores == pytest.approx([1, vectors(12)[0] @ query], abs=1e-3)
    ids = [*nearest.ids.tolist(), 77, nearest.ids[0]]
    assert index.cosines(query, np.array(ids)) == pytest.approx(
        [1, vectors(12)[0] @ query, math.nan, 1], abs=1e-3, nan_ok=True
    )
    assert index.cosines(query, np.empty(0, np.int64)).shape == (0,)


def test_cosines_do_not_depend_on_lengths(index: SearchIndex) -> None:
    index.put([turn(1, "text")])
    embed(index, lambda item: (1,))
    item_id = index.nearest(vectors(1)[0], Filter(), 1).ids
    index.put_vectors(MODEL, [(int(item_id[0]), vectors(1) * 7)])
    assert index.cosines(vectors(1)[0] * 3, item_id) == pytest.approx([1], abs=1e-3)


@pytest.mark.parametrize(
    "query", [np.zeros(DIMENSIONS), np.full(DIMENSIONS, math.nan), np.full(DIMENSIONS, math.inf)]
)
def test_a_query_vector_that_points_nowhere_is_near_to_nothing(index: SearchIndex, query: np.ndarray) -> None:
    index.put([turn(number, "word") for number in range(3)])
    embed(index)
    assert not len(index.nearest(query.astype(np.float32), Filter(), 9).ids)
    assert np.isnan(index.cosines(query.astype(np.float32), _ids(index, "word"))).all()


def _ids(index: SearchIndex, *terms: str) -> np.ndarray:
    return index.lexical(terms, Filter(), 10_000).ids


# Words


def test_words_are_found_by_their_stems_in_any_case_and_without_accents(index: SearchIndex) -> None:
    index.put([turn(1, "She was RUNNING to the Café"), turn(2, "nothing of it")])
    for word in ("run", "runs", "Running", "cafe", "CAFÉ"):
        assert found(index, word) == ["turn/c/t1"], word


def test_a_word_that_few_hold_weighs_more(index: SearchIndex) -> None:
    index.put([turn(number, "common words here") for number in range(9)] + [turn(9, "rare words here")])
    assert found(index, "common", "rare", limit=1) == ["turn/c/t9"]
    assert len(found(index, "words")) == 10
    scores = index.lexical(["words", "rare"], Filter(), 10).scores
    assert scores[0] > scores[1] > 0
    assert (np.diff(scores) <= 0).all()


def test_how_rare_a_word_is_depends_on_the_scope(index: SearchIndex) -> None:
    index.put([turn(number, f"alice said number{number} bob", "talk") for number in range(20)])
    index.put([turn(20, "alice was seen with carol", "talk")])
    index.put([turn(number, "carol went away", "elsewhere") for number in range(300)])
    where = Filter(conversation_id=ConversationId("talk"))
    assert found(index, "alice", "carol", where=where, limit=1) == ["turn/talk/t20"]
    scoped = index.lexical(["alice"], where, 100)
    assert len(scoped.ids) == 21
    assert scoped.scores.max() < 0.1
    assert index.lexical(["alice"], Filter(), 100).scores.max() > 1


@pytest.mark.parametrize(
    "term",
    ['"', "'", "*", "NEAR(", "a AND", "OR", "NOT word", "text:word", "^", "(", "{a b}:", "-", "+", "\0", "", " ",
     "🙂", "\ud83d", "word\0", "%", "\\", "x" * 100_000, "ﷺ", "\u202eword", "1e999", ";--"],
)  # fmt: skip
def test_nothing_in_a_word_is_an_operator(index: SearchIndex, term: str) -> None:
    index.put([turn(1, "word"), turn(2, "other")])
    assert set(found(index, term)) <= {"turn/c/t1"}
    assert set(found(index, term, "other")) >= {"turn/c/t2"}


def test_texts_of_any_characters_are_found_by_their_words(index: SearchIndex) -> None:
    for number, text in enumerate(
        ["nul\0led gamma", "half \ud83d gamma", "emoji 🙂 gamma", "漢字 gamma", "мир gamma"]
    ):
        index.put([turn(number, text)])
    assert len(found(index, "gamma")) == 5
    assert found(index, "мир") == ["turn/c/t4"]
    assert found(index, "漢字") == ["turn/c/t3"]


def test_ten_thousand_words_find_by_the_rarest(index: SearchIndex) -> None:
    index.put([turn(number, f"everywhere unique{number}") for number in range(50)])
    terms = [f"missing{number}" for number in range(9_000)] + ["everywhere"] * 1_000
    assert len(found(index, *terms)) == 50
    many = [f"unique{number}" for number in range(50)] + [f"missing{number}" for number in range(100)]
    assert len(found(index, *many)) == 50


def test_no_words_find_nothing(index: SearchIndex) -> None:
    index.put([turn(1, "word")])
    assert found(index) == []
    assert found(index, "absent") == []
    assert found(index, "word", limit=0) == []


# Filters


def _filtered(index: SearchIndex, where: Filter) -> set[str]:
    """What passes, which all ways of asking have to agree on."""
    by_words = index.lexical(["word"], where, 10_000)
    nearest = index.nearest(vectors(1)[0], where, 10_000)
    features = index.features(_ids(index, "word"), where)
    assert set(by_words.ids) == set(nearest.ids) == set(features.ids)
    passing = index.items(features.ids.tolist())
    assert set(index.authors(where)) == {item.author for item in passing} - {""}
    return {item.key for item in passing}


def test_filters(index: SearchIndex) -> None:
    early, late = turn(1, "word", author="Ann"), turn(2, "word", author="ÅSA")
    elsewhere = turn(3, "word", "d", author="ann")
    summary = SearchItem("summary/c", "summary", "word", "c", author="", timestamp=NOON)
    timeless = note("n", "word")
    index.put([early, late, elsewhere, summary, timeless])
    embed(index, lambda item: (1, 2) if item.kind == "turn" else (3,))
    everything = {item.key for item in (early, late, elsewhere, summary, timeless)}
    c, minute = ConversationId("c"), timedelta(minutes=1)
    expected: list[tuple[Filter, set[str]]] = [
        (Filter(), everything),
        (Filter(collections=(Collection.CONTEXT,)), set()),
        (Filter(conversation_id=c), {early.key, late.key, summary.key}),
        (Filter(conversation_id=ConversationId("unknown")), set()),
        (Filter(conversation_id=c, kinds=("turn",)), {early.key, late.key}),
        (Filter(kinds=("summary", "note")), {summary.key, timeless.key}),
        (Filter(author="ANN"), {early.key, elsewhere.key}),
        (Filter(author="åsa"), {late.key}),
        (Filter(author="nobody"), set()),
        (Filter(since=NOON + minute), {early.key, late.key, elsewhere.key}),
        (Filter(until=NOON + minute), {summary.key}),
        (Filter(since=NOON + minute, until=NOON + 2 * minute), {early.key}),
        (Filter(since=datetime.min.replace(tzinfo=UTC)), everything - {timeless.key}),
        (Filter(until=datetime.max.replace(tzinfo=UTC)), everything - {timeless.key}),
        (Filter(since=NOON.astimezone(timezone(timedelta(hours=9))), author="ann", conversation_id=c), {early.key}),
    ]  # fmt: skip
    for where, passing in expected:
        assert _filtered(index, where) == passing, where


def test_no_result_is_missing_while_more_pass(index: SearchIndex) -> None:
    index.put([turn(number, "word", author="many") for number in range(1_500)])
    index.put([turn(number, "word", "d", author="few") for number in range(30)])
    embed(index, lambda item: (1, 1, 1) if item.author == "many" else (2, 3))
    query = vectors(1)[0]
    for where, number in ((Filter(author="few"), 30), (Filter(author="many"), 1_500), (Filter(), 1_530)):
        for limit in (1, 20, 250, 600, 2_000):
            assert len(index.nearest(query, where, limit).ids) == min(limit, number)
            assert len(index.lexical(["word"], where, limit).ids) == min(limit, number)


# Several questions to one state


def test_a_reading_answers_as_the_index_does(index: SearchIndex) -> None:
    index.put([turn(number, f"word number{number % 7}", author=f"author {number % 3}") for number in range(50)])
    index.put([note("n", "word")])
    embed(index, lambda item: (int(item.turn_id[1:]),) if item.turn_id else (1, 2))
    query, ids = vectors(3)[0], _all_ids(index)
    for where in (Filter(), Filter(author="author 1"), Filter(collections=(Collection.AGENTS,))):
        with index.reading() as reader:
            assert reader.collection is index.collection
            for one, other in zip(
                _answers(reader, query, ids, where), _answers(index, query, ids, where), strict=True
            ):
                np.testing.assert_equal(one, other)


def _answers(reader: SearchReader, query: np.ndarray, ids: np.ndarray, where: Filter) -> list[Any]:
    lexical, nearest = reader.lexical(["word", "number3"], where, 20), reader.nearest(query, where, 20)
    return [
        *(lexical.ids, lexical.scores, nearest.ids, nearest.scores),
        reader.cosines(query, ids),
        dataclasses.asdict(reader.features(ids, where)),
        reader.vectors(ids.tolist()),
        reader.items(ids.tolist()),
        reader.authors(where),
    ]


def test_a_reading_sees_the_state_of_its_first_question(index: SearchIndex) -> None:
    index.put([turn(1, "word")])
    with index.reading() as early, index.reading() as late:
        assert keys(early, early.lexical(["word"], Filter(), 9).ids) == ["turn/c/t1"]
        index.put([turn(2, "word", author="Ann")])
        assert found(index, "word") == ["turn/c/t1", "turn/c/t2"]
        assert keys(early, early.lexical(["word"], Filter(), 9).ids) == ["turn/c/t1"]
        assert (early.authors(Filter()), late.authors(Filter())) == (["user"], ["user", "Ann"])
    with index.reading() as reader:
        assert reader.authors(Filter()) == ["user", "Ann"]


def test_a_reading_that_asks_nothing_is_nothing(index: SearchIndex) -> None:
    with index.reading():
        index.put([turn(1, "word")])
    assert found(index, "word") == ["turn/c/t1"]


# Features


def test_features(index: SearchIndex) -> None:
    index.put(
        [
            turn(1, "Where are the keys to the garden shed?", author="Ann"),
            turn(2, "On the hook. Is that all? No.", timestamp=None),
            SearchItem("summary/c", "summary", "“Really?” ", "c", author="model"),
        ]
    )
    ids = _all_ids(index)
    features = index.features(np.array([*ids[::-1], ids[0], 5]), Filter())
    assert features.ids.tolist() == ids.tolist()
    assert features.kinds == ("turn", "turn", "summary")
    assert features.authors == ("Ann", "user", "model")
    assert features.timestamps[0] == (NOON + timedelta(minutes=1)).timestamp()
    assert np.isnan(features.timestamps[1:]).all()
    assert features.terms.tolist() == [3, 1, 0]
    assert features.traits.tolist() == [Trait.QUESTION, Trait(0), Trait.QUESTION]
    assert len(set(features.conversations.tolist())) == 1


def test_authors_are_told_most_frequent_first_and_at_most_two_hundred(index: SearchIndex) -> None:
    index.put([turn(number, "word", author=f"author {number % 300}") for number in range(400)])
    index.put([turn(number, "word", "d", author="often") for number in range(3)])
    told = index.authors(Filter())
    assert told[0] == "often"
    assert len(told) == len(set(told)) == 200


# All of it together


WORDS = ["cat", "sun", "moon", "fox", "rain"]
_items = st.builds(
    lambda number, conversation, text, author, minute, kind: (
        turn(number, " ".join(text), conversation, author, timestamp=minute and NOON + timedelta(minutes=minute))
        if kind == "turn"
        else SearchItem(
            item_key(kind, conversation, f"x{number}"), kind, " ".join(text), conversation, author=author
        )
    ),
    st.integers(0, 6),
    st.sampled_from(["c", "d", ""]),
    st.lists(st.sampled_from(WORDS), max_size=5),
    st.sampled_from(["Ann", "bob", ""]),
    st.one_of(st.none(), st.integers(1, 9)),
    st.sampled_from(["turn", "summary"]),
)
_filters = st.builds(
    Filter,
    conversation_id=st.sampled_from([None, ConversationId("c"), ConversationId("")]),
    kinds=st.sampled_from([(), ("turn",), ("summary", "note")]),
    author=st.sampled_from(["", "ann", "BOB"]),
    since=st.sampled_from([None, NOON + timedelta(minutes=3)]),
    until=st.sampled_from([None, NOON + timedelta(minutes=7)]),
)


def passes(item: SearchItem, where: Filter) -> bool:
    """The filter's meaning, item by item."""
    timed = where.since is not None or where.until is not None
    return (
        (where.conversation_id is None or item.conversation_id == where.conversation_id)
        and (not where.kinds or item.kind in where.kinds)
        and (not where.author or item.author.casefold() == where.author.casefold())
        and (item.timestamp is not None or not timed)
        and (where.since is None or item.timestamp is None or where.since <= item.timestamp)
        and (where.until is None or item.timestamp is None or item.timestamp < where.until)
    )


def bm25(items: list[SearchItem], terms: list[str]) -> dict[str, float]:
    """BM25 of each item that holds a word, straight from the formula."""
    texts = {item.key: index_text_of(item.author, item.text).split() for item in items}
    mean = max(sum(map(len, texts.values())) / max(len(texts), 1), 1.0)
    scores: dict[str, float] = {}
    for term in set(terms):
        holding = [key for key, text in texts.items() if term in text]
        idf = math.log(1 + (len(texts) - len(holding) + 0.5) / (len(holding) + 0.5))
        for key in holding:
            count = texts[key].count(term)
            norm = 1.2 * (0.25 + 0.75 * len(texts[key]) / mean)
            scores[key] = scores.get(key, 0) + idf * count * 2.2 / (count + norm)
    return scores


class IndexMachine(RuleBasedStateMachine):
    """Any order of changes and questions, beside a model that is a dict and looks at every item."""

    @initialize(name=st.sampled_from(sorted(IMPLEMENTATIONS)))
    def begin(self, name: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.open = lambda: IMPLEMENTATIONS[name](Path(self.folder.name))
        self.index = self.open()
        self.index.use_model(MODEL, DIMENSIONS)
        self.other = self.open()  # sees what the first one writes
        self.held: dict[str, SearchItem] = {}
        self.passages: dict[str, np.ndarray] = {}
        self.likenesses: dict[str, int] = {}

    @rule(items=st.lists(_items, max_size=12))
    def put(self, items: list[SearchItem]) -> None:
        changed = 0
        for item in items:
            if item.key not in self.held or self.held[item.key].text != item.text:
                self.held[item.key] = item
                self.passages.pop(item.key, None)
                self.likenesses.pop(item.key, None)
                changed += 1
        assert self.index.put(items) == changed

    @rule(items=st.lists(_items, max_size=4))
    def remove(self, items: list[SearchItem]) -> None:
        there = {item.key for item in items} & self.held.keys()
        assert self.index.remove([item.key for item in items]) == len(there)
        for key in there:
            del self.held[key]
            self.passages.pop(key, None)
            self.likenesses.pop(key, None)

    @rule(
        limit=st.integers(0, 9),
        seed=st.integers(0, 50),
        count=st.integers(0, 3),
        alike=st.lists(st.integers(0, 3), min_size=9, max_size=9),
    )
    def embed(self, limit: int, seed: int, count: int, alike: list[int]) -> None:
        waiting = self.index.unembedded(limit)
        assert len(waiting) == min(limit, len(self.held) - len(self.passages))
        likenesses = {entry.id: one for entry, one in zip(waiting, alike, strict=False) if one}
        known = {one: self.passages[key] for key, one in self.likenesses.items()}
        shared = self.index.share_vectors(MODEL, likenesses)
        assert shared == {item_id for item_id, one in likenesses.items() if one in known}
        given = []
        for number, entry in enumerate(waiting):
            assert entry.item == self.held[entry.item.key]
            rows = vectors(*range(seed + number, seed + number + count)) if count else np.empty((0, DIMENSIONS))
            given.append((entry.id, rows.astype(np.float32)))
            likeness = likenesses.get(entry.id)
            if likeness and (count or likeness in known):
                # Of those alike it has the first that were stored.
                self.likenesses[entry.item.key] = likeness
                rows = known.setdefault(likeness, rows)
            self.passages[entry.item.key] = rows.astype(np.float32)
        self.index.put_vectors(MODEL, [one for one in given if one[0] not in shared], likenesses)

    @rule()
    def change_model(self) -> None:
        self.index.use_model("for a moment", 8)
        self.index.use_model(MODEL, DIMENSIONS)
        self.passages.clear()
        self.likenesses.clear()

    @rule()
    def open_again(self) -> None:
        self.index.close()
        self.index = self.open()

    @rule()
    def release(self) -> None:
        self.index.release()

    @rule(terms=st.lists(st.sampled_from(WORDS), max_size=3), where=_filters, limit=st.integers(0, 12))
    def ask_by_words(self, terms: list[str], where: Filter, limit: int) -> None:
        expected = bm25([item for item in self.held.values() if passes(item, where)], terms)
        for index in (self.index, self.other):
            scored = index.lexical(terms, where, limit)
            self.compare(index, scored, expected, limit)

    @rule(seed=st.integers(0, 50), where=_filters, limit=st.integers(0, 12))
    def ask_by_vector(self, seed: int, where: Filter, limit: int) -> None:
        query = vectors(seed)[0]
        expected = {
            key: float((rows @ query).max())
            for key, rows in self.passages.items()
            if len(rows) and passes(self.held[key], where)
        }
        for index in (self.index, self.other):
            scored = index.nearest(query, where, limit)
            self.compare(index, scored, expected, limit)
            assert index.cosines(query, scored.ids) == pytest.approx(scored.scores, abs=1e-6)

    def compare(self, index: SearchIndex, scored: Any, expected: dict[str, float], limit: int) -> None:
        found_keys = keys(index, scored.ids)
        assert len(found_keys) == len(set(found_keys)) == len(scored.scores) == min(limit, len(expected))
        assert scored.scores == pytest.approx([expected[key] for key in found_keys], abs=2e-3)
        assert scored.scores == pytest.approx(sorted(expected.values(), reverse=True)[:limit], abs=2e-3)

    @rule(where=_filters)
    def ask_for_features(self, where: Filter) -> None:
        ids = np.concatenate([self.other.lexical(WORDS, Filter(), 1_000).ids, np.array([-1, 1 << 60])])
        by_key = {key: self.held[key] for key in keys(self.other, ids)}
        assert set(by_key) == {item.key for item in self.held.values() if item.text}
        features = self.other.features(ids, where)
        passing = self.other.items(features.ids.tolist())
        assert {item.key for item in passing} == {key for key, item in by_key.items() if passes(item, where)}
        assert features.kinds == tuple(item.kind for item in passing)
        assert features.authors == tuple(item.author for item in passing)

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "index"):
            counts = self.index.counts()
            assert (counts.items, counts.embedded) == (len(self.held), len(self.passages))
            assert counts.shared == len(self.likenesses) - len(set(self.likenesses.values()))

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()
            self.other.close()
            self.folder.cleanup()


IndexMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestIndexMachine = IndexMachine.TestCase


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_within_a_small_scope_the_nearest_are_exactly_the_nearest(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 60))
    rows = (
        np.random.default_rng(data.draw(st.integers(0, 1000))).normal(size=(count, DIMENSIONS)).astype(np.float32)
    )
    with tempfile.TemporaryDirectory() as folder:
        index = IMPLEMENTATIONS["sqlite"](Path(folder))
        index.use_model(MODEL, DIMENSIONS)
        index.put([turn(number, "word") for number in range(count)])
        index.put_vectors(MODEL, [(e.id, rows[[int(e.item.turn_id[1:])]]) for e in index.unembedded(count)])
        query = rows[0] + 0.3
        exact = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        nearest = index.nearest(query, Filter(), 10)
        assert nearest.scores == pytest.approx(np.sort(exact)[::-1][:10], abs=1e-3)
        index.close()


def test_kinds_are_all_kept(index: SearchIndex) -> None:
    kinds: tuple[ItemKind, ...] = ("turn", "summary", "agent", "entity", "decision", "note")
    index.put([SearchItem(item_key(kind, "x"), kind, "word") for kind in kinds])
    assert {item.kind for item in index.items(_ids(index, "word").tolist())} == set(kinds)
