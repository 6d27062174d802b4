"""Daily use, conversations and packages, counted in memory.db."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from dualmem_mcp.stores.cost_counts import MOST_DAYS, DatabaseCostCounts
from dualmem_mcp.stores.database import Database
from tests.handoff.conftest import SESSION_ID, World, bare_environment, world

__all__ = ["bare_environment", "world"]

DAY = date(2026, 3, 1)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.open(tmp_path / "memory.db", bytes(32))


def test_use_adds_up_by_day(database: Database) -> None:
    counts = DatabaseCostCounts(database)
    counts.add_use(DAY, {"reads": 2, "writes": 1, "nothing": 0})
    counts.add_use(DAY, {"reads": 3})
    counts.add_use(DAY - timedelta(days=1), {"reads": 2**40})
    counts.add_use(DAY, {})
    assert counts.use(DAY) == {DAY: {"reads": 5, "writes": 1}}
    assert list(counts.use(DAY - timedelta(days=9)).items()) == [
        (DAY - timedelta(days=1), {"reads": 2**40}),
        (DAY, {"reads": 5, "writes": 1}),
    ]


def test_use_is_bounded_by_days_and_a_clock_that_jumps_costs_no_history(database: Database) -> None:
    counts = DatabaseCostCounts(database)
    for back in range(MOST_DAYS + 20, 0, -1):
        counts.add_use(DAY - timedelta(days=back), {"reads": back})
    kept = counts.use(date.min)
    assert len(kept) == MOST_DAYS
    assert min(kept) == DAY - timedelta(days=MOST_DAYS)
    counts.add_use(date(2199, 1, 1), {"reads": 1})
    assert len(counts.use(date.min)) == MOST_DAYS
    assert min(counts.use(date.min)) == DAY - timedelta(days=MOST_DAYS - 1)


def test_packages_and_conversations_are_those_of_the_catalogue(world: World) -> None:
    desk = world.desktop()
    world.write_session(["one", "two"])
    first = desk.prepare_handoff(SESSION_ID)
    world.clock.advance(3600)  # type: ignore[attr-defined]
    world.write_session(["one", "two", "three", "four"])
    second = desk.prepare_handoff(SESSION_ID)
    counts = DatabaseCostCounts(desk.database)
    assert [(one.handoff_id, one.size_bytes) for one in counts.packages()] == [
        (report["handoff_id"], report["package_bytes"]) for report in (first, second)
    ]
    assert {one.conversation_id for one in counts.packages()} == {SESSION_ID}
    assert counts.packages()[1].base in (None, first["handoff_id"])
    assert counts.conversations() == 1
    assert counts.conversations(datetime(2026, 1, 1, tzinfo=UTC)) == 1
    assert counts.conversations(datetime(2027, 1, 1, tzinfo=UTC)) == 0
