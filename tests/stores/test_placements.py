"""Where items' points lie, in memory.db."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dualmem_mcp.model.search import key_digest
from dualmem_mcp.model.tiers import TIER_NAMES
from dualmem_mcp.ports.placements import NOT_MOVING, Placement
from dualmem_mcp.stores import placements as module
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.placements import DatabasePlacements

HALF_PAIR = "entity/half \ud83d pair"
MOVING = Placement("turn/c/1", "historical", (7 << 32) | 0xFFFF_FFFF, 16, -(2**63), True, "context")
STILL = Placement(HALF_PAIR, "critical", 1, 1, 2**63 - 1)


@pytest.fixture
def placements(tmp_path: Path) -> DatabasePlacements:
    return DatabasePlacements(Database.open(tmp_path / "memory.db", bytes(32)))


def by_key(found: Sequence[Placement]) -> dict[str, Placement]:
    return {placement.key: placement for placement in found}


def test_rows_come_back_as_they_were(placements: DatabasePlacements) -> None:
    placements.put([MOVING, STILL])
    placements.put([])
    assert placements.get([MOVING.key, STILL.key, "turn/c/never"]) == by_key([MOVING, STILL])
    assert placements.get([]) == {}
    assert by_key(placements.of_digests([key_digest(STILL.key), 7])) == by_key([STILL])
    assert placements.moving() == [MOVING]


def test_a_row_takes_the_place_of_that_of_its_key(placements: DatabasePlacements) -> None:
    placements.put([MOVING, STILL])
    ended = replace(MOVING, tier="context", moving_to=None)
    placements.put([ended])
    assert placements.get([MOVING.key]) == {MOVING.key: ended}
    assert (placements.moving(), placements.counts()) == ([], {"critical": 1, "context": 16})


def test_the_same_key_twice_in_one_write_ends_as_the_last(placements: DatabasePlacements) -> None:
    placements.put([MOVING, replace(MOVING, moving_to=None)])
    assert (placements.counts(), placements.moving()) == ({"historical": 16}, [])


def test_what_is_removed_is_gone_and_nothing_else(placements: DatabasePlacements) -> None:
    placements.put([MOVING, STILL])
    placements.remove([MOVING.key, "turn/c/never"])
    placements.remove([])
    assert placements.of_digests([key_digest(MOVING.key), key_digest(STILL.key)]) == [STILL]


def test_points_are_counted_by_tier_and_by_epoch(placements: DatabasePlacements) -> None:
    assert (placements.counts(), placements.epochs()) == ({}, {})
    placements.put(
        [MOVING, STILL, replace(STILL, key="b", epoch=9), replace(STILL, key="none", passages=0, epoch=3)]
    )
    assert placements.counts() == {"critical": 2, "historical": 16}
    assert placements.epochs() == {1: 1, 9: 1, MOVING.epoch: 16}


def test_columns_hold_what_the_rows_hold_in_the_order_of_digests(placements: DatabasePlacements) -> None:
    assert len(placements.columns().keys) == 0
    rows = [MOVING, STILL, *(replace(MOVING, key=str(number), epoch=number) for number in range(1_200))]
    placements.put(rows)
    assert by_key(placements.of_digests([key_digest(row.key) for row in rows])) == by_key(rows)
    columns = placements.columns()
    expected = sorted(rows, key=lambda row: key_digest(row.key))
    assert columns.keys.tolist() == [key_digest(row.key) for row in expected]
    assert columns.tiers.tolist() == [TIER_NAMES.index(row.tier) for row in expected]
    assert columns.moving_to.tolist() == [
        NOT_MOVING if row.moving_to is None else TIER_NAMES.index(row.moving_to) for row in expected
    ]
    assert columns.epochs.tolist() == [row.epoch for row in expected]
    assert columns.passages.tolist() == [row.passages for row in expected]
    assert columns.contents.tolist() == [row.content for row in expected]
    assert columns.words.tolist() == [row.words for row in expected]
    types = (columns.keys, columns.tiers, columns.moving_to, columns.epochs, columns.passages, columns.contents)
    assert [str(column.dtype) for column in types] == ["int64", "uint8", "uint8", "int64", "int32", "int64"]
    assert columns.words.dtype == np.bool_


def test_keys_that_share_a_digest_are_told_apart(
    placements: DatabasePlacements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "key_digest", lambda _: 5)
    placements.put([MOVING, STILL])
    assert placements.get([STILL.key]) == {STILL.key: STILL}
    assert by_key(placements.of_digests([5])) == by_key([MOVING, STILL])
    placements.remove([STILL.key])
    assert placements.of_digests([5]) == [MOVING]


def test_the_edge_is_no_place_in_the_service(placements: DatabasePlacements) -> None:
    with pytest.raises(ValueError, match="edge"):
        placements.put([MOVING, replace(STILL, tier="edge")])
    assert placements.of_digests([key_digest(MOVING.key)]) == []
