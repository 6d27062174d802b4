"""A whole search over real indexes: what comes once, what a filter lets pass, what has no room."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.search import COLLECTION_OF, Collection, Filter, SearchItem, item_key
from dualmem_mcp.ports import SearchReader
from dualmem_mcp.search.hits import passes
from dualmem_mcp.search.search import CACHE_TIER, INDEX_TIER, Found, search
from dualmem_mcp.search.working_set import WorkingSet
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def turn(conversation: str, number: int, text: str, author: str = "Ada", at: datetime | None = NOON) -> SearchItem:
    key = item_key("turn", conversation, f"t{number}")
    return SearchItem(key, "turn", text, conversation, f"t{number}", author, at)


ITEMS = (
    turn("boat", 1, "The winch of the cutter is broken."),
    turn("boat", 2, "Then the cutter stays ashore.", "ADA", NOON + timedelta(days=1)),
    turn("kiln", 1, "A cutter for clay lies in the shed.", "Bo", None),
    SearchItem("entity/cutter", "entity", "cutter (boat)\noak", timestamp=NOON - timedelta(days=400)),
    SearchItem("agent//painter", "agent", "painter\nPaints the cutter.", author="painter"),
    SearchItem("note/boat/1", "note", "Sell the cutter.", "boat", "", "user", NOON + timedelta(days=2)),
)


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[dict[Collection, SqliteSearchIndex]]:
    opened = {one: open_search_index(tmp_path / one.value, bytes(32), one) for one in Collection}
    for item in ITEMS:
        opened[COLLECTION_OF[item.kind]].put([item])
    yield opened
    for index in opened.values():
        index.close()


EVERYTHING = Filter()


def found(
    indexes: dict[Collection, SqliteSearchIndex], query: str, where: Filter = EVERYTHING, **given: Any
) -> Found:
    usual = {"limit": 50, "token_budget": 10_000, "working_set": None, "embed": lambda _: None, "now": NOON}
    return search(query, where, indexes=indexes, **{**usual, **given})


def keys(answer: Found) -> set[str]:
    return {result.item.key for result in answer.results}


@pytest.mark.parametrize(
    "where",
    [
        Filter(),
        Filter(collections=(Collection.CONTEXT, Collection.AGENTS)),
        Filter(conversation_id=ConversationId("boat")),
        Filter(conversation_id=ConversationId("unknown")),
        Filter(kinds=("note", "agent")),
        Filter(author="ada"),
        Filter(since=NOON),
        Filter(until=NOON),
        Filter(since=NOON, until=NOON + timedelta(days=1)),
        Filter(author="Ada", since=NOON + timedelta(microseconds=1), conversation_id=ConversationId("boat")),
    ],
)
def test_the_working_set_and_the_indexes_let_the_same_items_pass(
    indexes: dict[Collection, SqliteSearchIndex], where: Filter
) -> None:
    cache = WorkingSet(50)
    for item in ITEMS:
        cache.use(item, None, 0.5)
    expected = {item.key for item in ITEMS if passes(item, where)}
    assert keys(found(indexes, "cutter", where)) == expected
    assert keys(found({}, "cutter", where, working_set=cache)) == expected


def test_a_turn_that_a_forked_session_carries_along_comes_once(
    indexes: dict[Collection, SqliteSearchIndex],
) -> None:
    copy = turn("boat-fork", 1, ITEMS[0].text)
    indexes[Collection.CONVERSATIONS].put([copy])
    assert len(keys(found(indexes, "winch")) & {copy.key, ITEMS[0].key}) == 1
    # Who asks for one conversation gets its own.
    assert keys(found(indexes, "winch", Filter(conversation_id=ConversationId("boat-fork")))) == {copy.key}


def test_copies_do_not_take_the_room_of_others(indexes: dict[Collection, SqliteSearchIndex]) -> None:
    indexes[Collection.CONVERSATIONS].put([turn(f"fork-{number}", 1, ITEMS[0].text) for number in range(10)])
    assert len(found(indexes, "winch cutter", limit=4).results) == 4


def test_an_index_that_cannot_be_asked_leaves_the_others(
    indexes: dict[Collection, SqliteSearchIndex], tmp_path: Path
) -> None:
    broken = indexes[Collection.CONTEXT]
    broken.release()
    folder = tmp_path / Collection.CONTEXT.value
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_bytes(b"")
    with pytest.raises(StoreUnreachableError):
        broken.counts()
    answer = found(indexes, "cutter")
    assert keys(answer) == {item.key for item in ITEMS if COLLECTION_OF[item.kind] is not Collection.CONTEXT}
    assert len(answer.failures) == 1


class Failing:
    """A reader whose disk fails when it is asked one of the questions."""

    def __init__(self, reader: SearchReader, question: str) -> None:
        self._reader = reader
        self._question = question

    def __getattr__(self, name: str) -> Any:
        if name == self._question:
            raise StoreUnreachableError("the disk has failed")
        return getattr(self._reader, name)


def fail_late(index: SqliteSearchIndex, question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = index.reading

    @contextmanager
    def reading() -> Iterator[SearchReader]:
        with whole() as reader:
            yield Failing(reader, question)

    monkeypatch.setattr(index, "reading", reading)


QUERY_VECTOR = np.eye(384, dtype=np.float32)[0]


@pytest.mark.parametrize("question", ["authors", "lexical", "nearest", "features", "cosines", "items"])
def test_an_index_that_fails_late_leaves_the_others(
    indexes: dict[Collection, SqliteSearchIndex], question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = found(indexes, "cutter", embed=lambda _: QUERY_VECTOR)
    fail_late(indexes[Collection.CONTEXT], question, monkeypatch)
    answer = found(indexes, "cutter", embed=lambda _: QUERY_VECTOR)
    left = [item.key for item in ITEMS if COLLECTION_OF[item.kind] is not Collection.CONTEXT]
    assert keys(answer) == set(left) < keys(whole)
    assert (answer.failures, whole.failures) == (["the disk has failed"], [])
    assert [tier.name for tier in answer.tiers] == [INDEX_TIER]


def test_where_all_indexes_fail_late_the_working_set_answers(
    indexes: dict[Collection, SqliteSearchIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = WorkingSet(2)
    cache.use(ITEMS[0], None, 0.5)
    for index in indexes.values():
        fail_late(index, "lexical", monkeypatch)
    answer = found(indexes, "winch", working_set=cache)
    assert keys(answer) == {ITEMS[0].key}
    assert [tier.name for tier in answer.tiers] == [CACHE_TIER]
    assert len(answer.failures) == len(Collection)


def test_what_the_budget_has_no_room_for_is_counted(indexes: dict[Collection, SqliteSearchIndex]) -> None:
    answer = found(indexes, "cutter", token_budget=100)
    assert 0 < len(answer.results) < len(ITEMS)
    assert len(answer.results) + answer.left_out == len(ITEMS)


def test_what_was_an_answer_is_at_hand_and_the_tiers_say_who_answered(
    indexes: dict[Collection, SqliteSearchIndex],
) -> None:
    cache = WorkingSet(2)
    first = found(indexes, "winch", working_set=cache)
    assert [(tier.name, tier.results) for tier in first.tiers] == [
        (CACHE_TIER, 0),
        (INDEX_TIER, len(first.results)),
    ]
    assert ITEMS[0].key in cache.keys()  # noqa: SIM118
    alone = found({}, "winch", working_set=cache)
    assert (keys(alone), [tier.name for tier in alone.tiers]) == ({ITEMS[0].key}, [CACHE_TIER])


@pytest.mark.parametrize("query", ["", "\0", "\x1b[2J", '"NEAR(', "\udcff", "🛶", "x" * 100_000, "the of and"])
def test_any_query_has_an_answer(indexes: dict[Collection, SqliteSearchIndex], query: str) -> None:
    answer = found(indexes, query)
    assert not answer.failures
    assert answer.timings_ms["total"] > 0
