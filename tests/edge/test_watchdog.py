"""A watchdog barks at what takes too long, whatever else it watches, and at nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dualmem_mcp.edge.watchdog import Watchdog


class Dog:
    """A watchdog whose barking is counted."""

    def __init__(self) -> None:
        self.barks = 0
        self.barked = threading.Event()
        self.watchdog = Watchdog(self._bark)

    def _bark(self) -> None:
        self.barks += 1
        self.barked.set()


@pytest.fixture
def dog() -> Iterator[Dog]:
    made = Dog()
    yield made
    made.watchdog.stop()


def test_it_barks_once_at_what_takes_too_long(dog: Dog) -> None:
    with dog.watchdog.watching(0.01), dog.watchdog.watching(0.02):
        assert dog.barked.wait(10)
        time.sleep(0.05)
    assert dog.barks == 1


def test_it_wakes_for_what_ends_before_that_for_which_it_sleeps(dog: Dog) -> None:
    with dog.watchdog.watching(3600):
        time.sleep(0.02)  # so that it sleeps
        with dog.watchdog.watching(0.01):
            assert dog.barked.wait(10)


def test_it_barks_although_others_before_and_beside_have_ended(dog: Dog) -> None:
    for _ in range(100):
        with dog.watchdog.watching(3600):
            pass
    with dog.watchdog.watching(0.05):
        for _ in range(100):
            with dog.watchdog.watching(0.04):
                pass
        assert dog.barked.wait(10)


def test_it_does_not_bark_at_what_has_ended_in_time(dog: Dog) -> None:
    for _ in range(3):
        with dog.watchdog.watching(0.05):
            pass
    with dog.watchdog.watching(3600):
        time.sleep(0.2)
    assert dog.barks == 0


def test_what_fails_has_ended_too(dog: Dog) -> None:
    with pytest.raises(ZeroDivisionError), dog.watchdog.watching(0.02):
        raise ZeroDivisionError
    time.sleep(0.1)
    assert dog.barks == 0


def test_its_thread_ends_when_it_is_stopped() -> None:
    before = set(threading.enumerate())
    for watched in (False, True):
        dog = Dog()
        (thread,) = set(threading.enumerate()) - before
        if watched:
            with dog.watchdog.watching(0.05):
                dog.watchdog.stop()
                time.sleep(0.1)
        else:
            dog.watchdog.stop()
        thread.join(10)
        assert not thread.is_alive()
        assert dog.barks == 0


def test_many_threads_are_watched_at_once(dog: Dog) -> None:
    def work() -> None:
        for _ in range(200):
            with dog.watchdog.watching(3600):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dog.barks == 0
    with dog.watchdog.watching(0.01):
        assert dog.barked.wait(10)
