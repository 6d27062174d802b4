"""Which agents are taken up, and in which order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dualmem_mcp.handoff.activation import by_activation, taken_up
from dualmem_mcp.model.device import PROFILES
from dualmem_mcp.model.digest import AgentEntry

_NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def entry(order: int, status: str = "completed", minutes: int | None = None, tokens: int = 0) -> AgentEntry:
    at = None if minutes is None else _NOON + timedelta(minutes=minutes)
    return AgentEntry(id=f"a{order}", status=status, order=order, active_at=at, context_tokens=tokens)


def test_unfinished_agents_come_first_then_those_that_did_something_last() -> None:
    agents = [
        entry(0, minutes=90),  # launched first, and gone on with last
        entry(1, minutes=10),
        entry(2, "interrupted", minutes=5),
        entry(3, "running"),
        entry(4, "interrupted", minutes=30),
        entry(5),
        entry(6),
    ]
    assert [index for index, _ in by_activation(agents)] == [4, 2, 3, 0, 1, 6, 5]


@pytest.mark.parametrize(("device", "number"), [("ios", 2), ("android", 3), ("pwa", 1), ("desktop", 6)])
def test_a_device_takes_up_its_number_of_agents(device: str, number: int) -> None:
    assert taken_up([entry(order, tokens=150_000) for order in range(6)], PROFILES[device]) == number


def test_a_device_takes_up_no_more_than_fits_its_memory() -> None:
    tight = replace(PROFILES["android"], memory_mb=1)
    # The two active last need 960,000 bytes together, with the third 1,360,000 of the 1,048,576 that there are.
    agents = [entry(order, minutes=order, tokens=tokens) for order, tokens in enumerate((100_000, 150_000, 90_000))]
    assert taken_up(agents, tight) == 2
    assert taken_up(agents[:1], tight) == 1
    assert taken_up([entry(0, tokens=300_000)], tight) == 0
    assert taken_up([], tight) == 0
