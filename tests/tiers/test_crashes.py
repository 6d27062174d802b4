"""A run ended at every moment loses nothing, and the next one brings all where it belongs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHARES = 3
"""Processes at once: they mostly wait for the disk."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that can be copied")
def test_a_run_that_is_ended_at_any_moment_leaves_nothing_in_no_tier(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.tiers.crashes_of_moves"]
    running = [
        subprocess.Popen(
            [*command, str(tmp_path / str(share)), str(share), str(SHARES)],
            cwd=Path(__file__).resolve().parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for share in range(SHARES)
    ]
    ended = 0
    for one in running:
        output, faults = one.communicate(timeout=300)
        assert one.returncode == 0, faults
        ended += int(output)
    assert ended >= 60
