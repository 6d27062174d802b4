"""What people and models are told of syncs, conflicts and saved progress."""

from __future__ import annotations

from typing import Any

import pytest

from dualmem_mcp.sync.wording import conflict_text, has_moved, saved_text, sync_text

STAMP = f"{'0' * 16}-{'a' * 32}"


def moved(segments: int = 0, ops: int = 0, size: int = 0) -> dict[str, int]:
    return {"segments": segments, "ops": ops, "bytes": size}


def result(**changes: Any) -> dict[str, Any]:
    return {
        "pushed": moved(),
        "pulled": moved(),
        "conflicts": 0,
        "queued": 0,
        "duration_ms": 1234.0,
        "cost_usd": 0.0,
        "warnings": [],
        "busy": False,
        "away": False,
        "refused": False,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "text", "news"),
    [
        ({}, "Up to date (1.2 s).", False),
        ({"busy": True}, "Nothing was exchanged (1.2 s).", False),
        ({"refused": True, "cost_usd": 0.0000004}, "Nothing was exchanged (1.2 s).", False),
        (
            {"pushed": moved(1, 1, 999), "cost_usd": 0.0000054},
            "Sent 1 change in 1 segment, 999 bytes (1.2 s, $0.000005 at list price).",
            True,
        ),
        (
            {"pushed": moved(size=5_400), "pulled": moved(2, 1_200, 1_500_000)},
            "Sent 5.4 KB; received 1,200 changes in 2 segments, 1.5 MB (1.2 s).",
            True,
        ),
        (
            {"pulled": moved(1, 2, 10), "conflicts": 1},
            "Received 2 changes in 1 segment, 10 bytes (1.2 s).\n1 conflict waits for a decision: ask.",
            True,
        ),
        (
            {"away": True, "queued": 3, "conflicts": 2},
            "Nothing was exchanged (1.2 s).\n3 objects wait to be uploaded. 2 conflicts wait for a decision: ask.",
            False,
        ),
    ],
)
def test_a_sync_in_at_most_two_lines(changes: dict[str, Any], text: str, news: bool) -> None:
    assert sync_text(result(**changes), conflicts_hint="ask") == text
    assert has_moved(result(**changes)) is news


def side(value: Any) -> dict[str, Any]:
    return {"value": value, "stamp": STAMP, "device": "desk\u202e", "at": "2026-03-01T12:00:00+00:00"}


def test_a_conflict_shows_both_sides_on_lines_of_their_own() -> None:
    conflict = {
        "conflict_id": "0123456789abcdef",
        "kind": "entity",
        "name": "Ada\n   lost: forged",
        "field": "extra.mood",
        "kept": side("calm\x1b[31m\nand red"),
        "lost": [side({"level": 3}), side("x" * 2_000)],
    }
    head, kept, first, second = conflict_text(conflict).splitlines()
    assert head == "0123456789abcdef  entity Ada lost: forged, extra.mood"
    assert kept == f"   counts now: calm and red  [desk, 2026-03-01T12:00, {STAMP}]"
    assert first.startswith('   lost: {"level": 3}  [desk, ')
    assert len(second) < 700


def test_what_a_deletion_hides_counts_as_deleted() -> None:
    conflict = {"conflict_id": "0" * 16, "kind": "record", "name": "task: x", "field": "", "kept": None, "lost": []}
    assert conflict_text(conflict) == f"{'0' * 16}  task: x\n   counts now: deleted"


def test_what_was_saved_is_counted_by_kind() -> None:
    saved = {"conversation_id": "c", "saved": {"turns": 1, "summary": 0, "next_steps": 2, "decisions": 1}}
    assert saved_text(saved) == "Saved to conversation c: 1 turn, 2 next steps, 1 decision."
    assert saved_text({**saved, "saved": {"turns": 0}}) == "Saved to conversation c: nothing new."
