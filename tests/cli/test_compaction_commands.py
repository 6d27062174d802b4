"""dualmem compact and erase, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.test_device_commands import Run, run
from tests.handoff.conftest import SESSION_ID, World

__all__ = ["run"]


def test_the_log_is_compacted(run: Run, tmp_path: Path) -> None:
    assert run("desk", "compact").returncode == 3
    assert run("desk", "init", "--device-name", "desk").returncode == 0
    assert run("desk", "note", "one").returncode == 0
    assert run("desk", "sync").returncode == 0
    assert run("desk", "note", "two").returncode == 0

    little = run("desk", "compact")
    assert (little.returncode, little.stderr) == (0, "")
    assert "too little in the log for a snapshot; --force writes one" in little.stdout
    forced = json.loads(run("desk", "compact", "--force", "--json").stdout)
    assert (forced["written"], forced["segments_deleted"], forced["kept"]) == (True, 0, 2)
    assert forced["why"] == [{"reason": "a snapshot includes them for less than 14 days", "segments": 2}]

    bucket = tmp_path / "bucket"
    segments = sorted((bucket / "log").glob("*/*"))
    dry = run("desk", "compact", "--dry-run", "--grace-days", "0")
    assert "1 segment and 0 old snapshots would be removed" in dry.stdout
    assert "the last of each log stays, to show where it ends" in dry.stdout
    assert sorted((bucket / "log").glob("*/*")) == segments
    done = run("desk", "compact", "--grace-days", "0")
    assert "1 segment and 0 old snapshots were removed" in done.stdout
    assert sorted((bucket / "log").glob("*/*")) == segments[1:]

    assert run("phone", "join", str(bucket)).returncode == 0
    assert run("phone", "sync").returncode == 0
    assert {one["text"] for one in json.loads(run("phone", "notes", "--json").stdout)["entries"]} == {"one", "two"}
    usage = run("desk", "compact", "--grace-days", "-1")
    assert (usage.returncode, usage.stderr.startswith("error: ")) == (2, True)
    (bucket / "snapshots" / "latest").write_bytes(b"not ours")
    damaged = run("desk", "compact")
    assert (damaged.returncode, "Traceback" in damaged.stderr) == (5, False)
    bucket.rename(tmp_path / "away")
    assert run("desk", "compact").returncode == 6


def test_a_conversation_is_erased(run: Run, tmp_path: Path) -> None:
    World(tmp_path, None).write_session(["What holds the harbour?", "Rust."])
    assert run("desk", "init", "--device-name", "desk").returncode == 0
    assert run("desk", "handoff", SESSION_ID).returncode == 0

    unsure = run("desk", "erase", SESSION_ID)
    assert (unsure.returncode, unsure.stdout) == (2, "")
    assert "Add --yes" in unsure.stderr
    assert SESSION_ID in run("desk", "conversations").stdout
    done = run("desk", "erase", SESSION_ID, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Erased conversation {SESSION_ID}: 1 key destroyed, 1 package and 1 record removed." in done.stdout
    assert "What this does not reach:" in done.stdout
    assert SESSION_ID not in run("desk", "conversations").stdout

    again = run("desk", "handoff", SESSION_ID)
    assert (again.returncode, "was erased, which is for good" in again.stderr) == (3, True)
    for command in (["resume"], ["restore"], ["show", "--section", "thread"]):
        asked = run("desk", *command, SESSION_ID)
        assert (asked.returncode, asked.stdout) == (3, "")
        assert asked.stderr.startswith(f"error: conversation {SESSION_ID} was erased, which is for good\nhint: ")
    unknown = run("desk", "erase", "nobody-knows-this", "--yes")
    assert (unknown.returncode, "there is no conversation" in unknown.stderr) == (3, True)
    assert run("desk", "erase", "../x", "--yes").returncode == 2
    repeated = json.loads(run("desk", "erase", SESSION_ID, "--yes", "--json").stdout)
    assert (repeated["conversation_id"], repeated["keys"], repeated["queued"]) == (SESSION_ID, 0, False)
