"""kill -9 at every write, fsync, rename, upload, pointer change and commit of an exchange: nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp import failpoints

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "bucket: before deletion",
    "bucket: deleted",
    "bucket: folder made",
    "bucket: folder synced",
    "bucket: in place",
    "bucket: part written",
    "bucket: written",
    "database: before commit",
    "database: committed",
    "file: folder synced",
    "file: in place",
    "file: made",
    "file: synced",
    "file: written",
    "queue: removed",
}


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for each of hundreds of failpoints")


def played(module: str) -> Any:
    """What the module prints last, run in a process of its own over an empty folder."""
    # In memory where there is such a folder: it is processes that are killed, and the disk would only take time.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="dualmem-failpoints-", dir=memory if os.access(memory, os.W_OK) else None
    ) as folder:
        done = subprocess.run(
            [sys.executable, "-m", module, folder], cwd=ROOT, capture_output=True, check=False, text=True
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@forks
def test_devices_killed_at_any_failpoint_heal_and_lose_nothing() -> None:
    passed: dict[str, list[str]] = played("tests.sync.failpoint_driver")
    assert {point for points in passed.values() for point in points} == KINDS
    assert all(len(points) > 30 for points in passed.values())


@forks
def test_a_revocation_killed_at_any_failpoint_is_finished_by_any_device() -> None:
    points: list[str] = played("tests.sync.crashes_of_revocation")
    # What lies ready, the entry in the roster, the old key, the copies, vault.json, a new epoch; then deletions.
    assert points.count("bucket: in place") == 9
    assert points.count("bucket: deleted") == 4
    assert "database: committed" in points


def test_a_process_ends_at_the_failpoint_that_it_was_told() -> None:
    code = (
        "from dualmem_mcp import failpoints; failpoints.crash_at(3)\n"
        "for n in range(1, 9): print(n, flush=True); failpoints.reach('somewhere')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout.split()) == (
        -9 if os.name == "posix" else done.returncode,
        ["1", "2", "3"],
    )
    assert done.returncode != 0


def test_failpoints_are_told_only_where_somebody_asked() -> None:
    told: list[str] = []
    failpoints.reach("before")
    with failpoints.watched(told.append):
        failpoints.reach("meanwhile")
        with failpoints.watched(lambda name: None):
            failpoints.reach("to somebody else")
        failpoints.reach("again")
    failpoints.reach("after")
    assert told == ["meanwhile", "again"]
