"""Access counts and the working set in memory.db."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.ports import CachedItem
from dualmem_mcp.stores.access_log import DatabaseAccessLog
from dualmem_mcp.stores.database import Database

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HALF_PAIR = "entity/half \ud83d pair"


@pytest.fixture
def log(tmp_path: Path) -> DatabaseAccessLog:
    return DatabaseAccessLog(Database.open(tmp_path / "memory.db", bytes(32)))


def test_accesses_are_counted_with_the_time_of_the_last(log: DatabaseAccessLog) -> None:
    log.add(["turn/c/1", HALF_PAIR], NOON)
    log.add(["turn/c/1"], NOON + timedelta(hours=1))
    log.add(["turn/c/1"], NOON - timedelta(days=1))  # a device whose clock was set back
    log.add([], NOON)
    found = log.accesses(["turn/c/1", HALF_PAIR, "turn/c/never", *map(str, range(1_200))])
    assert {key: (access.count, access.last_at) for key, access in found.items()} == {
        "turn/c/1": (3, NOON + timedelta(hours=1)),
        HALF_PAIR: (1, NOON),
    }


def test_the_working_set_comes_back_as_it_was(log: DatabaseAccessLog) -> None:
    whole = SearchItem(HALF_PAIR, "entity", "text \ud83d", "c", "t", "Ana", NOON, "desk")
    plain = SearchItem("turn/c/1", "turn", "text")
    log.save_working_set("m", [CachedItem(plain, None, 1.5), CachedItem(whole, np.float32([0.6, -0.8]), 2.5)])
    first, second = log.working_set("m")
    assert (first.item, first.priority, second) == (whole, 2.5, CachedItem(plain, None, 1.5))
    assert first.vector is not None
    np.testing.assert_allclose(first.vector, [0.6, -0.8], atol=1e-3)


def test_vectors_of_another_model_are_not_compared(log: DatabaseAccessLog) -> None:
    log.save_working_set("m", [CachedItem(SearchItem("k", "note", "text"), np.float32([1, 0]), 1.0)])
    assert [entry.vector for entry in log.working_set("other")] == [None]


def test_saving_replaces_what_was_there(log: DatabaseAccessLog) -> None:
    log.save_working_set("m", [CachedItem(SearchItem("k", "note", "text"), None, 1.0)])
    log.save_working_set("m", [])
    assert log.working_set("m") == []
