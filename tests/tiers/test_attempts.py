"""What may pass is tried again, what does not is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dualmem_mcp.errors import (
    BudgetSpentError,
    DiskFullError,
    DualmemError,
    StoreRefusedError,
    StoreUnreachableError,
)
from dualmem_mcp.tiers.attempts import Attempts


@pytest.fixture(autouse=True)
def no_waiting() -> None:
    """Here nobody waits in any case."""


class Work:
    """Fails so many times, and then gives 7."""

    def __init__(self, failures: int, error: type[DualmemError] = StoreUnreachableError) -> None:
        self.failures = failures
        self.error = error
        self.tries = 0

    def __call__(self) -> int:
        self.tries += 1
        if self.tries <= self.failures:
            raise self.error("away")
        return 7


def attempts(waits: list[float], *, chance: float = 1.0, ends_at: float | None = None) -> Attempts:
    return Attempts(ends_at, sleep=waits.append, chance=lambda: chance, steady=lambda: 100.0)


def test_two_failures_are_outlived_with_growing_waits() -> None:
    waits: list[float] = []
    work = Work(2)
    assert attempts(waits)(work) == 7
    assert waits == [0.5, 1.0]


def test_the_third_failure_is_raised() -> None:
    waits: list[float] = []
    work = Work(9)
    with pytest.raises(StoreUnreachableError):
        attempts(waits)(work)
    assert (work.tries, len(waits)) == (3, 2)


@pytest.mark.parametrize("error", [StoreRefusedError, DiskFullError, BudgetSpentError])
def test_what_does_not_pass_is_raised_at_once(error: type[DualmemError]) -> None:
    waits: list[float] = []
    work = Work(1, error)
    with pytest.raises(error):
        attempts(waits)(work)
    assert (work.tries, waits) == (1, [])


def test_waits_are_drawn_from_the_whole_span() -> None:
    waits: list[float] = []
    assert attempts(waits, chance=0.25)(Work(1)) == 7
    assert waits == [0.125]


@pytest.mark.parametrize(("ends_at", "tries"), [(100.0, 1), (100.5, 1), (101.5, 2), (110.0, 3)])
def test_nothing_is_tried_beyond_the_time_there_is(ends_at: float, tries: int) -> None:
    waits: list[float] = []
    work = Work(9)
    now = [100.0]

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    steady: Callable[[], float] = lambda: now[0]  # noqa: E731
    with pytest.raises(StoreUnreachableError):
        Attempts(ends_at, sleep=sleep, chance=lambda: 1.0, steady=steady)(work)
    assert work.tries == tries
