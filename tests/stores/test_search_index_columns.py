"""The columns that a plan reads say of each item what the index holds of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from dualmem_mcp.model.search import KINDS, Collection, SearchItem, item_key, key_digest
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index

DIMENSIONS = 16
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SqliteSearchIndex]:
    opened = open_search_index(tmp_path, bytes(32), Collection.CONVERSATIONS)
    opened.use_model("model", DIMENSIONS)
    yield opened
    opened.close()


def turn(number: int, text: str, conversation: str = "c", timestamp: datetime | None = NOON) -> SearchItem:
    key = item_key("turn", conversation, f"t{number}")
    return SearchItem(key, "turn", text, conversation, f"t{number}", "user", timestamp)


def test_of_an_empty_index_all_columns_are_empty_and_typed(index: SqliteSearchIndex) -> None:
    columns = index.columns()
    types = {name: getattr(columns, name).dtype.name for name in columns.__slots__}
    assert types == {
        **dict.fromkeys(("ids", "keys", "conversations", "times", "contents", "likenesses"), "int64"),
        **dict.fromkeys(("ordinals", "words", "passages"), "int32"),
        "kinds": "uint8",
    }
    assert {getattr(columns, name).shape for name in columns.__slots__} == {(0,)}


def test_each_item_has_its_row_in_the_order_of_ids(index: SqliteSearchIndex) -> None:
    items = [
        turn(0, "one two three"),
        SearchItem(item_key("note", "n"), "note", "loose\ud83d"),
        turn(0, "one two three", "d", None),
        SearchItem("summary/c", "summary", "a summary", "c", timestamp=NOON),
        turn(1, "four", timestamp=NOON.replace(year=1960)),
    ]
    index.put(items)
    columns = index.columns()
    found = list(index.items(columns.ids.tolist()))
    assert (np.diff(columns.ids) > 0).all()
    assert sorted(item.key for item in found) == sorted(item.key for item in items)
    assert columns.keys.tolist() == [key_digest(item.key) for item in found]
    assert columns.kinds.tolist() == [KINDS.index(item.kind) for item in found]
    assert columns.contents.tolist() == [key_digest(item.text) for item in found]
    assert columns.conversations.tolist() == [
        key_digest(item.conversation_id) if item.conversation_id else 0 for item in found
    ]
    ordinals = {item.key: place for item, place in zip(found, columns.ordinals.tolist(), strict=True)}
    assert ordinals == {"note/n": -1, "summary/c": -1, "turn/c/t0": 0, "turn/c/t1": 1, "turn/d/t0": 0}
    none = np.iinfo(np.int64).min
    assert columns.times.tolist() == [
        none if item.timestamp is None else int(item.timestamp.timestamp() * 1e6) for item in found
    ]
    words = {item.key: count for item, count in zip(found, columns.words.tolist(), strict=True)}
    assert (words["turn/c/t0"], words["turn/c/t1"]) == (3, 1)
    assert columns.passages.tolist() == columns.likenesses.tolist() == [0] * 5


def test_they_follow_changes_of_texts_and_vectors(index: SqliteSearchIndex) -> None:
    index.put([turn(0, "before"), turn(1, "stays")])
    rows = np.random.default_rng(1).normal(size=(3, DIMENSIONS)).astype(np.float32)
    index.put_vectors("model", [(one.id, rows) for one in index.unembedded(2)])
    assert index.columns().passages.tolist() == [3, 3]
    index.put([turn(0, "after")])
    columns = index.columns()
    assert columns.contents.tolist() == [key_digest("after"), key_digest("stays")]
    assert columns.passages.tolist() == [0, 3]
    index.remove([turn(0, "").key])
    assert index.columns().keys.tolist() == [key_digest(turn(1, "").key)]


def test_blocks_of_rows_come_together(index: SqliteSearchIndex) -> None:
    items = [turn(number, f"word{number}", f"c{number % 7}") for number in range(6_001)]
    index.put(items)
    columns = index.columns()
    assert sorted(columns.keys.tolist()) == sorted(key_digest(item.key) for item in items)
    assert len(set(columns.conversations.tolist())) == 7
