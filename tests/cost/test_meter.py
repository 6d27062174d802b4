"""Requests are counted, written down in batches, and lost by no failed write."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import date

import pytest

from dualmem_mcp.cost.meter import BYTES_IN, BYTES_OUT, DELETES, READS, WRITES, Meter, MeteredObjectStore
from dualmem_mcp.errors import DiskFullError, NotFoundError
from tests.conftest import SteppingClock
from tests.crypto.conftest import MemoryObjectStore


class Written:
    """Counts as they are written down, as long as the disk takes them."""

    def __init__(self) -> None:
        self.written: list[tuple[date, Mapping[str, int]]] = []
        self.full = False

    def add_use(self, day: date, counts: Mapping[str, int]) -> None:
        if self.full:
            raise DiskFullError("no space left")
        self.written.append((day, dict(counts)))


class Steady:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def made(clock: SteppingClock) -> tuple[Written, Steady, Meter]:
    written, steady = Written(), Steady()
    return written, steady, Meter(written, clock, steady=steady)  # type: ignore[arg-type]


def test_each_request_is_counted_as_it_is_priced(clock: SteppingClock) -> None:
    _, _, meter = made(clock)
    store = MeteredObjectStore(MemoryObjectStore(), meter, check=lambda: None)
    tag = store.put("a", b"one")
    store.put("a", b"fore", if_match=tag)
    assert store.get("a") == b"fore"
    assert store.get("a", start=1, length=2) == b"or"
    assert store.stat("a").size_bytes == 4
    with pytest.raises(NotFoundError):
        store.get("b")
    assert [info.key for info in store.list()] == ["a"]
    store.delete("a")
    assert meter.pending() == {WRITES: 3, BYTES_IN: 7, READS: 4, BYTES_OUT: 6, DELETES: 1}
    assert (store.location, store.server_time()) == ("memory", None)


@pytest.mark.parametrize(("objects", "requests"), [(0, 1), (999, 1), (1000, 2), (2500, 3)])
def test_a_listing_costs_a_request_for_each_thousand(clock: SteppingClock, objects: int, requests: int) -> None:
    _, _, meter = made(clock)
    memory = MemoryObjectStore()
    memory.objects = {f"k{number:05}": b"" for number in range(objects)}
    assert len(list(MeteredObjectStore(memory, meter, check=lambda: None).list())) == objects
    assert meter.pending() == {WRITES: requests}


def test_what_the_check_refuses_is_neither_made_nor_counted_and_removing_is_free(clock: SteppingClock) -> None:
    _, _, meter = made(clock)
    memory = MemoryObjectStore()
    memory.put("a", b"kept")

    def refuse() -> None:
        raise NotFoundError("refused")

    store = MeteredObjectStore(memory, meter, check=refuse)
    for ask in (
        lambda: store.get("a"),
        lambda: store.stat("a"),
        lambda: store.put("b", b""),
        lambda: next(store.list()),
    ):
        with pytest.raises(NotFoundError, match="refused"):
            ask()
    assert meter.pending() == {}
    store.delete("a")
    assert (dict(memory.objects), meter.pending()) == ({}, {DELETES: 1})


def test_counts_are_written_once_a_minute_and_at_the_end(clock: SteppingClock) -> None:
    written, steady, meter = made(clock)
    for _ in range(1_000):
        meter.count(READS)
        meter.flush_if_due()
    assert written.written == []
    steady.seconds = 60.0
    meter.flush_if_due()
    assert written.written == [(date(2026, 3, 1), {READS: 1_000})]
    meter.count(WRITES, 2)
    clock.advance(86_400)
    assert meter.flush()
    assert meter.flush()  # nothing more
    assert written.written[1:] == [(date(2026, 3, 2), {WRITES: 2})]


def test_counts_that_cannot_be_written_wait(clock: SteppingClock) -> None:
    written, _, meter = made(clock)
    meter.count(READS, 3)
    written.full = True
    assert not meter.flush()
    meter.count(READS)
    written.full = False
    assert meter.flush()
    assert [counts for _, counts in written.written] == [{READS: 4}]


def test_counts_of_many_threads_are_all_there_while_others_write_them_down(clock: SteppingClock) -> None:
    written, _, meter = made(clock)
    ready = threading.Barrier(5)

    def count() -> None:
        ready.wait()
        for number in range(2_000):
            meter.count(READS)
            if not number % 100:
                meter.flush()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    ready.wait()
    for thread in threads:
        thread.join()
    meter.flush()
    assert sum(counts[READS] for _, counts in written.written) == 8_000
