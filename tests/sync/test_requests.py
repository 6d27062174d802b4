"""Requests are counted as they are paid for."""

from __future__ import annotations

import pytest

from dualmem_mcp.sync.requests import CountingObjectStore, Requests
from tests.crypto.conftest import MemoryObjectStore


def test_each_request_is_counted_and_passed_on() -> None:
    store = CountingObjectStore(MemoryObjectStore())
    tag = store.put("a", b"one")
    store.put("a", b"two", if_match=tag)
    store.put("b", b"x", if_absent=True)
    assert (store.get("a"), store.get("a", start=1, length=1)) == (b"two", b"w")
    assert store.stat("a").size_bytes == 3
    assert [info.key for info in store.list("", start_after="a")] == ["b"]
    store.delete("b")
    assert store.requests == Requests(get=2, put=3, list=1, stat=1, delete=1)
    assert (store.location, store.server_time()) == ("memory", None)


@pytest.mark.parametrize(("objects", "requests"), [(0, 1), (999, 1), (1000, 2), (2500, 3)])
def test_a_listing_costs_a_request_for_each_thousand(objects: int, requests: int) -> None:
    memory = MemoryObjectStore()
    memory.objects = {f"k{number:05}": b"" for number in range(objects)}
    store = CountingObjectStore(memory)
    assert len(list(store.list())) == objects
    assert store.requests.list == requests


def test_a_listing_that_is_left_early_costs_what_was_read() -> None:
    memory = MemoryObjectStore()
    memory.objects = {f"k{number:05}": b"" for number in range(5000)}
    store = CountingObjectStore(memory)
    assert next(iter(store.list())).key == "k00000"
    assert store.requests.list == 1


def test_list_prices() -> None:
    requests = Requests(get=1000, put=500, list=500, stat=1000, delete=10)
    assert requests.cost_usd("s3://bucket") == pytest.approx(0.005 + 0.0008)
    assert requests.cost_usd("/a/folder") == 0
