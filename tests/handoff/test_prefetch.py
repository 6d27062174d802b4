"""What is opened ahead: within its bounds, for whom it was opened, and never what is out of date."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.handoff.prefetch import Open, Opened, OpenedAhead, OpenedPages


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def pages(*sizes: int, fails: bool = False) -> Open:
    """Opens sections `s0`, `s1` … of so many bytes."""

    def open_pages(_budget: int) -> Iterator[Opened]:
        for number, size in enumerate(sizes):
            yield OpenedPages(f"s{number}", {"0": ("x" * size, "")})
        if fails:
            raise NotFoundError("gone", operation="open package")

    return open_pages


def waits_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "open ahead"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ahead(clock: Clock) -> Iterator[OpenedAhead]:
    made = OpenedAhead(limit_bytes=1_000, most_callers=2, idle_seconds=60, clock=clock)
    yield made
    made.close()
    assert not threads()


def test_pages_are_given_to_their_caller_alone(ahead: OpenedAhead) -> None:
    ahead.begin("ana", "c", "1", pages(10, 20))
    assert ahead.wait("ana", 20)
    assert ahead.page("ana", "c", "1", "s1", "0") == ("x" * 20, "")
    assert ahead.page("ben", "c", "1", "s1", "0") is None
    assert ahead.page("ana", "other", "1", "s1", "0") is None
    assert ahead.page("ana", "c", "1", "s1", "7") is None
    assert ahead.page("ana", "c", "1", "s9", "0") is None


def test_no_caller_has_more_than_the_limit(ahead: OpenedAhead) -> None:
    ahead.begin("ana", "c", "1", pages(600, 600, 300))
    assert ahead.wait("ana", 20)
    assert ahead.size_bytes("ana") == 900
    assert ahead.page("ana", "c", "1", "s1", "0") is None
    assert ahead.page("ana", "c", "1", "s2", "0")


def test_a_newer_handoff_drops_what_was_opened(ahead: OpenedAhead) -> None:
    ahead.begin("ana", "c", "1", pages(10))
    assert ahead.wait("ana", 20)
    assert ahead.page("ana", "c", "2", "s0", "0") is None
    assert ahead.size_bytes("ana") == 0
    assert ahead.page("ana", "c", "1", "s0", "0") is None


def test_another_conversation_takes_the_place_of_the_one_before(ahead: OpenedAhead) -> None:
    ahead.begin("ana", "c", "1", pages(10))
    assert ahead.wait("ana", 20)
    ahead.begin("ana", "d", "1", pages(30))
    assert ahead.wait("ana", 20)
    assert ahead.size_bytes("ana") == 30
    assert ahead.page("ana", "c", "1", "s0", "0") is None


def test_the_same_conversation_is_not_opened_again(ahead: OpenedAhead) -> None:
    ahead.begin("ana", "c", "1", pages(10))
    assert ahead.wait("ana", 20)
    ahead.begin("ana", "c", "1", pages(99))
    assert ahead.page("ana", "c", "1", "s0", "0") == ("x" * 10, "")


def test_callers_are_bounded_and_the_one_used_longest_ago_goes(ahead: OpenedAhead) -> None:
    for caller in ("ana", "ben"):
        ahead.begin(caller, "c", "1", pages(10))
        assert ahead.wait(caller, 20)
    assert ahead.page("ana", "c", "1", "s0", "0")
    ahead.begin("cem", "c", "1", pages(10))
    assert ahead.wait("cem", 20)
    assert [ahead.size_bytes(caller) for caller in ("ana", "ben", "cem")] == [10, 0, 10]


def test_what_nobody_asks_for_is_dropped(ahead: OpenedAhead, clock: Clock) -> None:
    ahead.begin("ana", "c", "1", pages(10))
    assert ahead.wait("ana", 20)
    clock.now += 59
    assert ahead.page("ana", "c", "1", "s0", "0")
    clock.now += 59
    assert ahead.page("ana", "c", "1", "s0", "0")
    clock.now += 61
    assert ahead.page("ana", "c", "1", "s0", "0") is None
    assert ahead.size_bytes("ana") == 0


def test_the_thread_ends_when_nothing_is_kept() -> None:
    ahead = OpenedAhead(idle_seconds=0.05)
    ahead.begin("ana", "c", "1", pages(10))
    waits_until(lambda: not threads())
    assert ahead.size_bytes("ana") == 0
    ahead.begin("ana", "c", "2", pages(10))  # and a new one begins
    assert ahead.wait("ana", 20)
    ahead.close()
    ahead.begin("ana", "c", "3", pages(10))
    assert not threads()


def test_an_erased_conversation_is_forgotten(ahead: OpenedAhead) -> None:
    ahead.begin("ana", "c", "1", pages(10))
    ahead.begin("ben", "d", "1", pages(10))
    assert ahead.wait("ana", 20)
    assert ahead.wait("ben", 20)
    ahead.forget("c")
    assert [ahead.size_bytes(caller) for caller in ("ana", "ben")] == [0, 10]


def test_a_failure_leaves_what_was_opened_before_it(ahead: OpenedAhead) -> None:
    ahead.begin("ana", "c", "1", pages(10, fails=True))
    assert ahead.wait("ana", 20)
    assert ahead.page("ana", "c", "1", "s0", "0")
    ahead.begin("ana", "d", "1", pages(20))  # the thread goes on
    assert ahead.wait("ana", 20)
    assert ahead.size_bytes("ana") == 20


def test_beginning_waits_for_nothing_and_a_change_ends_what_is_being_opened(ahead: OpenedAhead) -> None:
    go_on, opened = threading.Event(), []

    def slowly(_budget: int) -> Iterator[Opened]:
        for number in range(100):
            opened.append(number)
            go_on.wait(20)
            yield OpenedPages("s0", {"0": ("x", "")})

    ahead.begin("ana", "c", "1", slowly)
    waits_until(lambda: opened)
    ahead.begin("ana", "d", "1", pages(5))
    go_on.set()
    assert ahead.wait("ana", 20)
    assert opened == [0]
    assert ahead.size_bytes("ana") == 5
