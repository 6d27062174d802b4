"""Access counts and the working set in memory.db."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from dualmem_mcp.model.search import SearchItem, key_digest
from dualmem_mcp.model.tiers import ACTIVE_SCORE
from dualmem_mcp.model.use import interaction_score
from dualmem_mcp.ports import Access, CachedItem
from dualmem_mcp.stores import migrations
from dualmem_mcp.stores.access_log import DatabaseAccessLog
from dualmem_mcp.stores.columns import to_column, to_time
from dualmem_mcp.stores.database import Database

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HALF_PAIR = "entity/half \ud83d pair"


@pytest.fixture
def log(tmp_path: Path) -> DatabaseAccessLog:
    return DatabaseAccessLog(Database.open(tmp_path / "memory.db", bytes(32)))


def test_accesses_are_counted_with_the_time_of_the_last(log: DatabaseAccessLog) -> None:
    log.add([("turn/c/1", 0.5), (HALF_PAIR, 0.5)], NOON)
    log.add([("turn/c/1", 0.5)], NOON + timedelta(hours=1))
    log.add([("turn/c/1", 0.5)], NOON - timedelta(days=1))  # a device whose clock was set back
    log.add([], NOON)
    found = log.accesses(["turn/c/1", HALF_PAIR, "turn/c/never", *map(str, range(1_200))])
    assert {key: (access.count, access.last_at) for key, access in found.items()} == {
        "turn/c/1": (3, NOON + timedelta(hours=1)),
        HALF_PAIR: (1, NOON),
    }


def test_the_weight_halves_in_a_week_and_a_clock_that_was_set_back_takes_nothing_off(
    log: DatabaseAccessLog,
) -> None:
    log.add([("a", 1.0)], NOON)
    log.add([("a", 0.0)], NOON + timedelta(days=7))
    access = log.accesses(["a"])["a"]
    assert (access.weight, access.relevance) == (pytest.approx(1.5), pytest.approx(1 / 3))
    log.add([("a", 1.0)], NOON - timedelta(days=700))
    access = log.accesses(["a"])["a"]
    assert (access.weight, access.last_at) == (pytest.approx(2.5), NOON + timedelta(days=7))


def test_what_was_asked_for_several_times_in_between_counts_as_often(log: DatabaseAccessLog) -> None:
    log.add([("a", 0.2), ("b", 1.0), ("a", 0.4)], NOON)
    access = log.accesses(["a"])["a"]
    assert (access.count, access.weight, access.relevance) == (2, 2.0, pytest.approx(0.3))


@pytest.mark.parametrize(("score", "relevance"), [(7.0, 1.0), (-7.0, 0.0), (math.nan, 0.0), (math.inf, 0.0)])
def test_scores_are_from_0_to_1(log: DatabaseAccessLog, score: float, relevance: float) -> None:
    log.add([("a", score)], NOON)
    assert log.accesses(["a"])["a"].relevance == relevance


def test_columns_hold_what_the_rows_hold_in_the_order_of_digests(log: DatabaseAccessLog) -> None:
    assert len(log.columns().keys) == 0
    keys = [f"turn/c/{number}" for number in range(50)] + [HALF_PAIR]
    for days, key in enumerate(keys):
        log.add([(key, 0.1), (key, days / 51)], NOON + timedelta(days=days, microseconds=days))
    columns = log.columns()
    rows = log.accesses(keys)
    expected = sorted((key_digest(key), row) for key, row in rows.items())
    assert columns.keys.tolist() == [digest for digest, _ in expected]
    assert [str(part.dtype) for part in (columns.keys, columns.weights, columns.relevances, columns.last_at)] == [
        "int64",
        "float32",
        "float32",
        "int64",
    ]
    for index, (_, row) in enumerate(expected):
        assert columns.last_at[index] == (row.last_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
            microseconds=1
        )
        assert columns.weights[index] == np.float32(row.weight)
        assert columns.relevances[index] == np.float32(row.relevance)


def test_accesses_counted_without_times_weigh_less_than_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "memory.db"
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "SCRIPTS", migrations.SCRIPTS[:9])
        with Database.open(path, bytes(32)) as database, database.write() as connection:
            connection.executemany(
                "INSERT INTO accesses VALUES (?, ?, ?)",
                [("once", 1, to_time(NOON)), (to_column(HALF_PAIR), 500, to_time(NOON))],
            )
    log = DatabaseAccessLog(Database.open(path, bytes(32)))
    found = log.accesses(["once", HALF_PAIR])
    assert found["once"] == Access(1, NOON, 1.0, 0.0)
    assert (found[HALF_PAIR].count, found[HALF_PAIR].last_at) == (500, NOON)
    assert 1 < found[HALF_PAIR].weight < 3.33
    assert interaction_score(found[HALF_PAIR].weight) < ACTIVE_SCORE
    assert log.columns().keys.tolist() == sorted(map(key_digest, found))
    log.add([("once", 0.8)], NOON)  # the first score that is known counts alone
    assert log.accesses(["once"])["once"] == Access(2, NOON, 2.0, 0.8)


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
