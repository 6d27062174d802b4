"""However long work hangs, there are never more than two threads for a tier."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dualmem_mcp.tiers.lane import MOST_AT_ONCE, Lane


@pytest.fixture
def lane() -> Iterator[Lane]:
    made = Lane("of this test")
    yield made
    made.close()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tier of this test"]


def until_free(lane: Lane) -> None:
    done = threading.Event()
    while not lane.run(done.set):
        pass
    assert done.wait(5)


def test_what_hangs_takes_two_threads_at_most(lane: Lane) -> None:
    free = threading.Event()
    assert [lane.run(free.wait) for _ in range(5)] == [True] * MOST_AT_ONCE + [False] * (5 - MOST_AT_ONCE)
    assert len(threads()) == MOST_AT_ONCE
    free.set()
    until_free(lane)
    assert len(threads()) <= MOST_AT_ONCE


def test_a_thread_is_kept(lane: Lane) -> None:
    seen = []
    for _ in range(5):
        done = threading.Event()
        while not lane.run(lambda done=done: (seen.append(threading.get_ident()), done.set())):
            pass
        assert done.wait(5)
    assert len(seen) == 5
    assert len(set(seen)) <= MOST_AT_ONCE
    assert all(thread.daemon for thread in threads())


def test_work_that_fails_leaves_room_for_other_work(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Semaphore(0)
    monkeypatch.setattr(threading, "excepthook", lambda _: told.release())

    def fail() -> None:
        raise ZeroDivisionError

    for _ in range(3):
        while not lane.run(fail):
            pass
        assert told.acquire(timeout=5)
    until_free(lane)


def test_closed_its_threads_end(lane: Lane) -> None:
    until_free(lane)
    running = threads()
    assert running
    lane.close()
    lane.join(5)
    assert not any(thread.is_alive() for thread in running)


def test_what_hangs_is_not_waited_for_longer_than_told(lane: Lane) -> None:
    free = threading.Event()
    assert lane.run(free.wait)
    assert lane.run(free.wait)
    lane.close()
    begun = time.monotonic()
    lane.join(0.05)
    assert time.monotonic() - begun < 4
    assert len(threads()) == 2
    free.set()
    lane.join(5)
    assert threads() == []
