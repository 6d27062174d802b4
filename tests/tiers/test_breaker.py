"""A tier that keeps failing is left alone, longer each time, and tried once before it is asked again."""

from __future__ import annotations

import pytest

from dualmem_mcp.tiers.breaker import FAILURES, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Breaker


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def fail(breaker: Breaker, times: int = FAILURES) -> None:
    for _ in range(times):
        assert breaker.lets_through()
        breaker.failed()


def test_it_opens_after_three_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.lets_through()
    breaker.failed()
    assert not breaker.lets_through()


def test_after_the_pause_one_trial_is_let_through(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.seconds = FIRST_PAUSE_SECONDS - 0.1
    assert not breaker.lets_through()
    clock.seconds = FIRST_PAUSE_SECONDS
    assert [breaker.lets_through() for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert [breaker.lets_through() for _ in range(3)] == [True, True, True]
    fail(breaker)
    clock.seconds += FIRST_PAUSE_SECONDS
    assert breaker.lets_through()


def test_each_trial_that_fails_doubles_the_pause_up_to_five_minutes(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    pauses = []
    for _ in range(6):
        begun = clock.seconds
        while not breaker.lets_through():
            clock.seconds += 1
        pauses.append(clock.seconds - begun)
        breaker.failed()
    assert pauses == [30, 60, 120, 240, 300, 300]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_failures_that_come_in_late_do_not_prolong_the_pause(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.seconds = 20
    breaker.failed()
    breaker.failed()
    clock.seconds = FIRST_PAUSE_SECONDS
    assert breaker.lets_through()
