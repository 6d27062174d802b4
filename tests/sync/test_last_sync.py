"""The note of how the last sync went: shared by processes, never trusted."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dualmem_mcp.errors import StoreRefusedError
from dualmem_mcp.sync.last_sync import LAST_SYNC_FILE, Ages, LastSync, Outcome, problem_text
from tests.conftest import SteppingClock


def test_one_process_sees_what_another_noted(tmp_path: Path, clock: SteppingClock) -> None:
    one, other = LastSync(tmp_path, clock), LastSync(tmp_path, clock)
    assert other.ages() == Ages(None, None)
    one.note(listed=True)
    clock.advance(60)
    one.note(listed=False)
    clock.advance(5)
    assert other.ages() == Ages(synced=5.0, listed=65.0)
    other.note(listed=False)
    assert one.ages() == Ages(synced=0.0, listed=65.0)
    assert stat.S_IMODE((tmp_path / LAST_SYNC_FILE).stat().st_mode) == 0o600


def test_a_clock_that_was_set_back_makes_it_unknown(tmp_path: Path, clock: SteppingClock) -> None:
    last = LastSync(tmp_path, clock)
    last.note(listed=True)
    clock.advance(-3600)
    assert last.ages() == Ages(None, None)
    last.note(listed=False)
    assert last.ages().synced == 0.0


def test_a_problem_is_kept_until_a_sync_ends_well(tmp_path: Path, clock: SteppingClock) -> None:
    last = LastSync(tmp_path, clock)
    assert last.outcome() == Outcome()
    last.note(listed=True)
    well = clock.now()
    clock.advance(60)
    last.note_problem("the bucket is away", away=True)
    assert last.outcome() == Outcome(well, "the bucket is away", clock.now(), away=True)
    assert last.ages() == Ages(synced=60.0, listed=60.0)
    clock.advance(60)
    last.note_problem("no rights. Get some.", away=False)
    assert last.outcome() == Outcome(well, "no rights. Get some.", clock.now(), away=False)
    clock.advance(60)
    last.note(listed=False)
    assert last.outcome() == Outcome(clock.now())


def test_what_is_noted_of_an_error_says_what_to_do_and_no_more() -> None:
    assert problem_text(StoreRefusedError("no rights", hint="Get some.")) == "no rights. Get some."
    assert "secret" not in problem_text(ValueError("secret words"))


@pytest.mark.parametrize(
    "noted",
    [
        b"",
        b"[]",
        b"null",
        b'{"synced": []}',
        b"\xff",
        b'{"synced": "NaN"}',
        b'{"synced": NaN, "problem": 1, "problem_at": 1e300}',
        b'{"synced": Infinity, "problem": null, "problem_at": []}',
    ],
)
def test_a_note_that_is_none_is_no_note(tmp_path: Path, clock: SteppingClock, noted: bytes) -> None:
    (tmp_path / LAST_SYNC_FILE).write_bytes(noted)
    last = LastSync(tmp_path, clock)
    assert last.ages().synced is None
    assert last.outcome() == Outcome()
    last.note_problem("the bucket is away", away=True)
    assert last.outcome().problem == "the bucket is away"


def test_where_nothing_can_be_written_nothing_fails(tmp_path: Path, clock: SteppingClock) -> None:
    last = LastSync(tmp_path / "gone", clock)
    last.note(listed=True)
    assert last.ages() == Ages(None, None)
