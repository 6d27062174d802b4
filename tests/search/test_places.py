"""Numbers for turns that no index has: one after the other where they were said one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.model.search import Collection, SearchItem
from dualmem_mcp.search.offered import Offered
from dualmem_mcp.search.places import FIRST, numbered
from dualmem_mcp.stores.search_index import open_search_index


def offered(key: str, previous: str = "", conversation: str = "c", kind: str = "turn") -> Offered:
    item = SearchItem(f"{kind}/{conversation}/{key}", kind, "text", conversation, key)  # type: ignore[arg-type]
    return Offered(item, 0, previous and f"turn/{conversation}/{previous}", "context")


def numbers(items: Sequence[Offered]) -> list[int]:
    return numbered(items, None)[0].tolist()


def test_turns_that_follow_each_other_have_numbers_that_do() -> None:
    found = numbers([offered("3", "2"), offered("9", "8"), offered("1"), offered("2", "1")])
    assert found[0] == found[3] + 1 == found[2] + 2
    assert min(abs(found[1] - other) for other in (found[0], found[2], found[3])) > 2
    assert min(found) >= FIRST


def test_conversations_are_told_apart_and_what_is_of_none_has_none() -> None:
    items = [
        offered("1"),
        offered("1", conversation="d"),
        offered("2", "1"),
        offered("x", conversation="", kind="note"),
    ]
    first, other, second, none = numbered(items, None)[1].tolist()
    assert first == second != other
    assert none == 0
    assert max(first, other) < 0


def test_of_two_that_follow_one_turn_one_stands_beside_it() -> None:
    found = numbers([offered("1"), offered("2", "1"), offered("2b", "1")])
    assert found[1] == found[0] + 1
    assert abs(found[2] - found[0]) > 2


KEYS = [str(number) for number in range(6)]


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(["", *KEYS])), unique_by=lambda row: row[0]))
def test_whatever_follows_what_each_has_a_number_of_its_own(rows: list[tuple[str, str]]) -> None:
    """Rings and loops, too, which only a wrong program writes."""
    found = numbers([offered(*row) for row in rows])
    assert len(set(found)) == len(rows)


@pytest.fixture
def index(tmp_path: Path):
    opened = open_search_index(tmp_path, bytes(32), Collection.CONVERSATIONS)
    opened.put([SearchItem(f"turn/c/{n}", "turn", "text", "c", str(n)) for n in range(3)])
    opened.put([SearchItem("turn/d/0", "turn", "text", "d", "0")])
    yield opened
    opened.close()


def test_a_talk_goes_on_where_it_ends_in_the_index(index) -> None:
    known = index.ids(["turn/c/2", "turn/c/1"])
    found, conversations = numbered([offered("4", "3"), offered("3", "2")], index)
    assert found.tolist() == [known["turn/c/2"] + 2, known["turn/c/2"] + 1]
    features = index.features(np.array([known["turn/c/2"]], np.int64), _everything())
    assert set(conversations.tolist()) == {int(features.conversations[0])}


def test_where_it_goes_on_in_the_index_there_is_no_room(index) -> None:
    found, conversations = numbered([offered("1b", "1")], index)
    assert found[0] >= FIRST
    assert conversations[0] < 0


def _everything():
    from dualmem_mcp.model.search import Filter

    return Filter()
