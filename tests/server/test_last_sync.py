"""The note of the last sync: shared by processes, never trusted."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dualmem_mcp.server.last_sync import LAST_SYNC_FILE, Ages, LastSync
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


@pytest.mark.parametrize("noted", [b"", b"[]", b"null", b'{"synced": []}', b"\xff", b'{"synced": "NaN"}'])
def test_a_note_that_is_none_is_no_note(tmp_path: Path, clock: SteppingClock, noted: bytes) -> None:
    (tmp_path / LAST_SYNC_FILE).write_bytes(noted)
    assert LastSync(tmp_path, clock).ages().synced is None


def test_where_nothing_can_be_written_nothing_fails(tmp_path: Path, clock: SteppingClock) -> None:
    last = LastSync(tmp_path / "gone", clock)
    last.note(listed=True)
    assert last.ages() == Ages(None, None)
