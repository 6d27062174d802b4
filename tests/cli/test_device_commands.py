"""dualmem devices and revoke, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on one of the devices of a bucket."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DUALMEM_", "CLAUDE_"))},
        "DUALMEM_PASSPHRASE": "correct horse battery staple",
        "DUALMEM_KEYSTORE": "file",
        "DUALMEM_BUCKET": str(tmp_path / "bucket"),
        "CLAUDE_CONFIG_DIR": str(tmp_path / "claude"),
    }

    def command(home: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dualmem_mcp.cli", *arguments],
            env={**environment, "DUALMEM_HOME": str(tmp_path / home), **changes},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return command


def test_a_device_is_revoked(run: Run, tmp_path: Path) -> None:
    bucket = str(tmp_path / "bucket")
    assert run("desk", "init", "--device-name", "desk").returncode == 0
    assert run("phone", "join", bucket, "--device-name", "phone").returncode == 0
    assert run("phone", "note", "before").returncode == 0
    assert run("phone", "sync").returncode == 0

    wrong = run("desk", "revoke", "phone", DUALMEM_PASSPHRASE="wrong horse battery")
    assert (wrong.returncode, wrong.stdout) == (4, "")
    done = run("desk", "revoke", "phone", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["name"], made["recovery_key"][:5]) == ("phone", "DMR1-")
    listed = json.loads(run("desk", "devices", "--json").stdout)["devices"]
    assert [(one["name"], one["this_device"], one["revoked"], one["segments"]) for one in listed] == [
        ("desk", True, False, 0),
        ("phone", False, True, 1),
    ]

    # What it wrote before counts, what it writes now does not.
    run("phone", "note", "after")
    late = run("phone", "sync")
    assert late.returncode == 4
    assert "was revoked by 'desk'" in late.stderr
    assert "Traceback" not in late.stderr
    assert run("desk", "sync").returncode == 0
    assert [one["text"] for one in json.loads(run("desk", "notes", "--json").stdout)["entries"]] == ["before"]
    for secret in ("correct horse battery staple", made["recovery_key"]):
        home = f"new-{len(secret)}"
        assert run(home, "join", bucket, DUALMEM_PASSPHRASE=secret).returncode == 0
        assert run(home, "sync").returncode == 0
        assert "before" in run(home, "notes").stdout


def test_devices_that_cannot_be_revoked_are_told(run: Run, tmp_path: Path) -> None:
    assert run("desk", "devices").returncode == 3
    assert run("desk", "init", "--device-name", "desk").returncode == 0
    for _ in range(2):
        assert run(f"twin-{_}", "join", str(tmp_path / "bucket"), "--device-name", "twin").returncode == 0
    for name, code, words in (("nope", 3, "no device 'nope'"), ("desk", 2, "itself"), ("twin", 2, "2 devices")):
        done = run("desk", "revoke", name)
        assert (done.returncode, done.stdout) == (code, "")
        assert words in done.stderr
        assert "hint:" in done.stderr


def test_a_snapshot_of_a_revoked_device_is_replaced(run: Run, tmp_path: Path) -> None:
    bucket = str(tmp_path / "bucket")
    assert run("desk", "init", "--device-name", "desk").returncode == 0
    for name in ("phone", "laptop"):
        assert run(name, "join", bucket, "--device-name", name).returncode == 0
    assert run("phone", "note", "before").returncode == 0
    assert run("phone", "compact", "--force").returncode == 0
    assert run("desk", "revoke", "phone").returncode == 0
    assert run("tablet", "join", bucket, "--device-name", "tablet").returncode == 0
    for name in ("desk", "laptop", "tablet"):
        synced = run(name, "sync")
        assert (synced.returncode, synced.stderr) == (0, "")
        assert "before" in run(name, "notes").stdout
    listed = json.loads(run("desk", "compact", "--dry-run", "--json").stdout)
    assert (listed["written"], listed["warnings"]) == (False, [])


def test_what_of_a_revoked_device_is_not_here_is_told(run: Run, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    assert run("desk", "init", "--device-name", "desk").returncode == 0
    assert run("phone", "join", str(bucket), "--device-name", "phone").returncode == 0
    assert run("phone", "note", "before").returncode == 0
    assert run("phone", "sync").returncode == 0
    [segment] = [path for path in bucket.glob("log/*/*") if path.is_file()]
    segment.write_bytes(segment.read_bytes()[:-1])
    done = run("desk", "revoke", "phone")
    assert done.returncode == 0
    assert "the log of phone" in done.stderr
    # A bucket that is away: why.
    bucket.rename(tmp_path / "elsewhere")
    away = run("desk", "compact")
    assert away.returncode == 6
    assert "is not there" in away.stderr
