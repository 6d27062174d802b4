"""The working set: what stays, what goes, and what it answers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.search.working_set import RELEVANCE_BOOST, WorkingSet


def item(name: str, text: str = "") -> SearchItem:
    return SearchItem(key=f"turn/c/{name}", kind="turn", text=text or name, turn_id=name)


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def names(cache: WorkingSet) -> set[str]:
    entries = cache.take_changed()
    assert entries is not None
    return {entry.item.turn_id for entry in entries}


def test_of_equal_relevance_the_least_recently_used_goes() -> None:
    cache = WorkingSet(2)
    for name in ("a", "b", "a", "c"):
        cache.use(item(name), None, 0.5)
    assert names(cache) == {"a", "c"}


def test_a_relevant_item_outlasts_newer_irrelevant_ones_but_not_for_ever() -> None:
    cache = WorkingSet(2)
    cache.use(item("relevant"), None, 1.0)
    for count in range(int(RELEVANCE_BOOST)):
        cache.use(item(f"passing {count}"), None, 0.0)
    assert "relevant" in names(cache)
    for count in range(2 * int(RELEVANCE_BOOST)):
        cache.use(item(f"later {count}"), None, 0.0)
    assert "relevant" not in names(cache)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1)), max_size=120), st.integers(0, 8))
def test_never_more_than_its_capacity_and_always_the_last_one(uses: list[tuple[int, float]], capacity: int) -> None:
    cache = WorkingSet(capacity)
    for number, relevance in uses:
        cache.use(item(str(number)), None, relevance)
        assert len(cache) <= capacity
    if uses and capacity:
        kept = {entry.item.turn_id for entry in cache.take_changed() or ()}
        assert len(kept) == min(capacity, len({number for number, _ in uses}))
        # The item used last may be the least worth of all, but only where all others are worth more.
        assert str(uses[-1][0]) in kept or uses[-1][1] < 1


def test_a_saved_working_set_goes_on_where_it_was() -> None:
    first = WorkingSet(3)
    for name, relevance in (("a", 1.0), ("b", 0.0), ("c", 0.0), ("d", 0.0)):
        first.use(item(name), None, relevance)
    entries = first.take_changed()
    assert entries is not None
    again = WorkingSet(3, entries)
    assert again.take_changed() is None
    first.use(item("e"), None, 0.0)
    again.use(item("e"), None, 0.0)
    assert names(first) == names(again)


def test_a_smaller_profile_keeps_the_best_of_a_larger_one() -> None:
    large = WorkingSet(10)
    for number in range(10):
        large.use(item(str(number)), None, number / 10)
    small = WorkingSet(2, large.take_changed() or ())
    small.use(item("8"), None, 0.0)
    assert names(small) == {"8", "9"}


def test_words_and_nearness_find_and_order() -> None:
    cache = WorkingSet(5)
    cache.use(item("words", "the tide gauge reports metres"), unit(0, 1), 0.5)
    cache.use(item("near", "water level in meters"), unit(1, 0.1), 0.5)
    cache.use(item("neither", "lunch at noon"), unit(-1, 0), 0.5)
    found = cache.find(["tide", "gauge"], unit(1, 0), 10)
    assert [found_item.turn_id for found_item, _ in found] == ["words", "near"]
    assert all(0 < score <= 1 for _, score in found)
    assert [one.turn_id for one, _ in cache.find(["tide"], None, 10)] == ["words"]
    assert cache.find(["tide"], None, 10, accept=lambda one: one.turn_id != "words") == []


def test_what_was_deleted_is_gone_and_what_changed_is_shown_as_it_is() -> None:
    cache = WorkingSet(5)
    cache.use(item("a", "old words"), unit(1, 0), 0.5)
    cache.use(item("b", "other words"), unit(1, 0), 0.5)
    cache.forget(["turn/c/b", "turn/c/unknown"])
    cache.refresh({"turn/c/a": item("a", "new words"), "turn/c/b": item("b", "back?")})
    assert [one.text for one, _ in cache.find(["words", "back"], None, 10)] == ["new words"]
