"""What people read of tiers: every number where it belongs, in words that fit it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from dualmem_mcp.edge.tier_results import nothing_moved
from dualmem_mcp.model.tier_plan import Move, Plan
from dualmem_mcp.tiers.wording import (
    checked_text,
    has_moved,
    made_text,
    moved_text,
    moved_warnings,
    plan_fields,
    plan_text,
    status_text,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)

STATUS: dict[str, Any] = {
    "configured": True,
    "url": "https://qdrant.example.org:6333",
    "enabled": True,
    "words": True,
    "tiers": [
        {
            "name": "critical",
            "points": 2_000,
            "most": 1_000,
            "target_latency_ms": 50,
            "usd_per_1k_vectors_month": 0.75,
        }
    ],
    "epochs": 2,
    "moving": 1,
    "mover": {"device": "desk", "until": "2026-11-08T12:00:00+00:00"},
    "checked_at": "2026-10-31T08:15:00+00:00",
    "problem": "Qdrant cannot be reached",
}


def move(action: Any, source: Any, target: Any, items: int, points: int) -> Move:
    some = np.arange(items)
    return Move(action, source, target, "old and asked for", np.zeros(items, np.uint8), some, some, points)


def plan(*moves: Move, **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "made_at": NOW,
        "moves": moves,
        "items": 900,
        "waiting": 3,
        "duplicates": 1,
        "points_before": {"critical": 0, "context": 40, "historical": 1_200, "edge": 9_000},
        "points_after": {"critical": 0, "context": 1_240, "historical": 0, "edge": 9_000},
        "usd_month_before": 0.158,
        "usd_month_after": 1.434,
        "latency_ms_before": 299.96,
        "latency_ms_after": None,
    }
    return Plan(**{**fields, **changes})


def test_a_plan_counts_and_never_lists_items() -> None:
    fields = plan_fields(plan(move("promote", "historical", "context", 400, 1_200)))
    assert fields["moves"] == [
        {
            "action": "promote",
            "from": "historical",
            "to": "context",
            "items": 400,
            "points": 1_200,
            "why": "old and asked for",
        }
    ]
    assert (fields["made_at"], fields["latency_ms_before"], fields["latency_ms_after"]) == (
        "2026-11-01T12:00:00+00:00",
        300.0,
        None,
    )
    assert fields["points_after"]["context"] == 1_240


def test_a_plan_is_a_table_with_what_it_changes() -> None:
    told = plan_text(plan_fields(plan(move("promote", "historical", "context", 400, 1_200)))).splitlines()
    assert told[0].split() == ["from", "to", "items", "points", "why"]
    assert told[1].split(maxsplit=5) == ["promote", "historical", "context", "400", "1,200", "old and asked for"]
    changes = {line.rsplit(maxsplit=2)[0].strip(): line.rsplit(maxsplit=2)[1:] for line in told[3:7]}
    assert changes["context, points"] == ["40", "1,240"]
    assert changes["historical, points"] == ["1,200", "0"]
    assert changes["cost a month"] == ["$0.1580", "$1.43"]
    assert "300 ms" in told[7]
    assert "nothing asked for" in told[7]
    assert not any(line.startswith(("critical", "edge")) for line in told)
    assert "3 items still without vectors; `dualmem index` makes them." in told
    assert "1 item with the same text as another, which is placed once." in told


def test_a_plan_without_moves_says_so() -> None:
    told = plan_text(plan_fields(plan(waiting=0, duplicates=0)))
    assert told.startswith("Everything lies where it belongs.")
    assert "vectors" not in told


def test_a_plan_of_an_empty_index_does_not_say_that_all_is_well() -> None:
    told = plan_text({**plan_fields(plan(waiting=0, duplicates=0)), "items": 0})
    assert told.startswith("Nothing is indexed on this device yet; `dualmem index` does that.")


def test_the_status_has_what_lies_where_and_what_is_wrong() -> None:
    told = status_text(STATUS)
    for expected in (
        "Search service: https://qdrant.example.org:6333",
        "In use on this device: vectors and words",
        "2,000",
        "1,000",
        "50 ms",
        "$0.7500",
        "$1.50",
        "under 2 keys",
        "1 item on the way between tiers",
        "desk moves vectors for this vault, until 2026-11-08 12:00 UTC.",
        "Last checked: 2026-10-31 08:15 UTC.",
        "Problem: Qdrant cannot be reached",
    ):
        assert expected in told
    alone = {**STATUS, "epochs": 1, "moving": 0, "mover": None, "checked_at": "", "problem": "", "words": False}
    told = status_text(alone)
    assert "vectors, no words" in told
    assert "never (`dualmem tiers check`)" in told
    assert "keys" not in told
    assert "Problem" not in told
    empty = {**STATUS, "tiers": [{**tier, "points": 0} for tier in STATUS["tiers"]]}
    assert "keys" not in status_text(empty)
    off = status_text({**alone, "enabled": False})
    assert "In use on this device: no (`dualmem tiers enable`)" in off
    assert "Last checked" not in off
    assert "none is set (DUALMEM_QDRANT_URL)" in status_text({**alone, "configured": False, "url": ""})


def test_what_moved_is_told_with_what_is_left() -> None:
    moved = {
        **nothing_moved(),
        "done": {"place": 12, "demote": 1, "finished": 2, "evict": 0},
        "points_written": 40,
        "points_removed": 4,
        "bytes": 123_456,
        "duration_ms": 2_345.0,
        "stale": 1,
        "left": 7,
        "mover": "de\x1b[2Jsk",
    }
    told = moved_text(moved)
    assert told.startswith(
        "Vectors: 12 placed, 1 demoted, 2 of an earlier run ended (40 points written, 4 removed; "
    )
    assert "123.5 KB, 2.3 s" in told
    assert "1 item changed meanwhile" in told
    assert "7 items left for the next time." in told
    assert "`--take-over`" in told
    assert "\x1b" not in told
    assert "evicted" not in told
    assert has_moved(moved)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "all lie where they belong"),
        ({"left": 1}, "nothing was moved"),
        ({"stale": 1}, "nothing was moved"),
        ({"problem": "the service is away"}, "nothing was moved"),
        ({"warnings": ["another process of this device is writing vectors"]}, "nothing was moved"),
    ],
)
def test_a_move_that_moved_nothing(changes: dict[str, Any], expected: str) -> None:
    moved = {**nothing_moved(), **changes}
    assert expected in moved_text(moved)
    assert not has_moved(moved)


def test_warnings_begin_with_the_problem() -> None:
    assert moved_warnings({**nothing_moved("away"), "warnings": ["only placed"]}) == ["away", "only placed"]
    assert moved_warnings(nothing_moved()) == []


def test_a_check_says_what_it_found_and_did() -> None:
    checked = {
        "points": 1_000,
        "missing": 2,
        "changed": 1,
        "doubled": 0,
        "unwanted": 3,
        "foreign": 4,
        "mended": 10,
        "duration_ms": 1_500.0,
        "warnings": [],
    }
    told = checked_text(checked, dry_run=False)
    assert told.splitlines() == [
        "1,000 points looked at in 1.5 s.",
        "2 missing, 1 not as they were written, 3 of items that are no more, 4 that nobody here knows of.",
        "10 mended.",
    ]
    assert "without --dry-run it is mended" in checked_text(checked, dry_run=True)
    well = {**checked, "missing": 0, "changed": 0, "unwanted": 0, "foreign": 0}
    assert checked_text(well, dry_run=False).endswith("All are as they should be.")


def test_collections_that_were_made_and_those_that_were_there() -> None:
    made = {
        "collections": [
            {"tier": "critical", "name": "dualmem-critical", "made": True},
            {"tier": "context", "name": "dualmem-context", "made": False},
        ],
        "model": "MiniLM",
        "dimensions": 384,
    }
    told = made_text(made, enabled=False)
    assert "Made: dualmem-critical, for vectors of MiniLM (384 dimensions)." in told
    assert "left as they are: dualmem-context." in told
    assert "tiers enable" in told
    assert "tiers enable" not in made_text(made, enabled=True)
