"""sync, conflicts and resolve as a person, a script and a timer use them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dualmem_mcp.cli import cli
from dualmem_mcp.durable_files import file_lock
from dualmem_mcp.errors import DualmemError, StoreRefusedError
from dualmem_mcp.sharing import LOCK_FILE

ADA = '{"type":"entity","name":"Ada","entityType":"%s","observations":[]}'


class Devices:
    """Two devices of one vault, as somebody at a shell has them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run("desk", "init", "--device-name", "desk")
        self.run("phone", "join", str(root / "bucket"), "--device-name", "phone")

    def environment(self, device: str) -> dict[str, str]:
        return {
            "DUALMEM_HOME": str(self.root / device),
            "DUALMEM_BUCKET": str(self.root / "bucket"),
            "DUALMEM_PASSPHRASE": "correct horse battery staple",
            "DUALMEM_KEYSTORE": "file",
            "CLAUDE_CONFIG_DIR": str(self.root / "claude"),
        }

    def invoke(self, device: str, *arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments, env=self.environment(device))

    def run(self, device: str, *arguments: str) -> str:
        done = self.invoke(device, *arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, device: str, *arguments: str) -> dict[str, Any]:
        return dict(json.loads(self.run(device, *arguments, "--json")))

    def remember(self, device: str, line: str) -> None:
        (self.root / "memory.jsonl").write_text(line)
        self.run(device, "import", str(self.root / "memory.jsonl"))

    def names(self, device: str) -> list[str]:
        path = self.root / f"{device}.jsonl"
        path.unlink(missing_ok=True)
        self.run(device, "export", str(path))
        return [json.loads(line)["name"] for line in path.read_text().splitlines()]


@pytest.fixture
def devices(tmp_path: Path) -> Devices:
    return Devices(tmp_path)


def test_a_sync_says_what_it_moved(devices: Devices) -> None:
    assert devices.run("desk", "sync").startswith("Up to date (")
    devices.remember("desk", ADA % "person")
    assert devices.run("desk", "sync").startswith("Sent 1 change in 1 segment, ")
    assert devices.run("phone", "sync").startswith("Received 1 change in 1 segment, ")
    assert devices.names("phone") == ["Ada"]
    assert devices.run("phone", "sync", "--quiet") == ""


def refuse(bucket: Path, *, again: bool = False) -> None:
    """Have the bucket refuse, as a server does that knows the user and grants nothing; or no more."""
    file, aside = bucket / "vault.json", bucket.with_name("vault.json")
    if again:
        file.unlink()
        aside.rename(file)
    else:
        file.rename(aside)
        file.symlink_to(aside)  # the store follows no link, whoever made it


def test_a_bucket_that_refuses_is_told_from_one_that_is_away(devices: Devices) -> None:
    devices.run("desk", "sync")
    well = devices.json("desk", "status")
    assert (well["last_sync"][:2], well["sync_problem"]) == ("20", None)
    devices.remember("desk", ADA % "person")
    refuse(devices.root / "bucket")
    done = devices.invoke("desk", "sync")
    assert done.exit_code == 6
    assert done.stderr.startswith("warning: the bucket refuses this device: ")
    assert "Remove the link" in done.stderr
    assert done.stdout.startswith("Nothing was exchanged")
    result = json.loads(devices.invoke("desk", "sync", "--json").stdout)
    assert (result["refused"], result["away"], result["queued"]) == (True, False, 1)
    facts = devices.json("desk", "status")
    assert facts["last_sync"] == well["last_sync"]
    assert "the bucket refuses this device: " in facts["sync_problem"]
    assert facts["sync_problem"].startswith(("20", "21"))
    for command in (["compact"], ["revoke", "phone"]):
        refused = devices.invoke("desk", *command)
        assert isinstance(refused.exception, StoreRefusedError)
        assert "this device could not sync first: the bucket refuses this device" in str(refused.exception)
    refuse(devices.root / "bucket", again=True)
    devices.run("desk", "sync")
    assert devices.json("desk", "status")["sync_problem"] is None


def test_how_the_last_sync_went_is_known_whatever_came_between(devices: Devices) -> None:
    assert devices.json("desk", "status")["last_sync"] is None
    devices.run("desk", "sync", "--max-seconds", "0.000001")
    facts = devices.json("desk", "status")
    assert (facts["last_sync"], facts["sync_problem"]) == (None, None)  # its time was over: nothing is wrong
    (devices.root / "bucket").rename(devices.root / "elsewhere")
    assert devices.invoke("desk", "sync").exit_code == 6
    assert "everything waits on this device" in devices.json("desk", "status")["sync_problem"]
    checks = {one["name"]: one for one in json.loads(devices.invoke("desk", "doctor", "--json").stdout)["checks"]}
    assert (checks["sync"]["ok"], "none ended well yet" in checks["sync"]["detail"]) == (True, True)
    assert "everything waits on this device" in checks["sync"]["hint"]
    (devices.root / "elsewhere").rename(devices.root / "bucket")
    devices.run("desk", "sync")
    told = devices.run("desk", "doctor")
    assert "ok    sync: the last ended well at 20" in told


def test_as_json_it_has_the_tools_fields(devices: Devices) -> None:
    devices.remember("desk", ADA % "person")
    result = devices.json("desk", "sync")
    assert set(result) >= {"pushed", "pulled", "conflicts", "queued", "duration_ms", "cost_usd", "warnings"}
    assert result["pushed"]["ops"] == 1
    assert set(result["pulled"]) == {"segments", "ops", "bytes"}


def test_without_the_bucket_everything_waits_and_the_status_says_so(devices: Devices, tmp_path: Path) -> None:
    devices.remember("desk", ADA % "person")
    (tmp_path / "bucket").rename(tmp_path / "elsewhere")
    done = devices.invoke("desk", "sync")
    assert done.exit_code == 6
    assert "1 object waits to be uploaded" in done.stdout
    assert "bucket" in done.stderr
    (tmp_path / "elsewhere").rename(tmp_path / "bucket")
    assert devices.run("desk", "sync").startswith("Sent 1 change")


def test_a_second_sync_waits_a_little_and_then_leaves_it_to_the_first(devices: Devices, tmp_path: Path) -> None:
    with file_lock(tmp_path / "desk" / LOCK_FILE):
        done = devices.invoke("desk", "sync", "--max-seconds", "0.3")
    assert done.exit_code == 0
    assert done.stdout.startswith("Nothing was exchanged")
    assert "another process" in done.stderr


def test_time_that_is_over_is_no_failure(devices: Devices) -> None:
    devices.remember("desk", ADA % "person")
    done = devices.invoke("desk", "sync", "--max-seconds", "0.000001")
    assert done.exit_code == 0
    assert devices.json("phone", "sync")["pulled"]["ops"] == 0
    assert devices.json("desk", "sync", "--max-seconds", "60")["pushed"]["ops"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("sync", "--watch", "--max-seconds", "5"),
        ("sync", "--max-seconds", "0"),
        ("resolve", "0123456789abcdef"),
        ("resolve", "0123456789abcdef", "--keep", "--take"),
        ("conflicts", "--limit", "0"),
    ],
)
def test_arguments_that_do_not_fit(devices: Devices, arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, arguments, env=devices.environment("desk"), standalone_mode=False)
    error = done.exception
    assert (error.exit_code if isinstance(error, DualmemError) else getattr(error, "exit_code", None)) == 2


def test_a_device_without_a_vault_is_told_how_to_get_one(tmp_path: Path) -> None:
    environment = {"DUALMEM_HOME": str(tmp_path / "home"), "DUALMEM_KEYSTORE": "file"}
    for arguments in (["sync"], ["sync", "--watch"]):
        done = CliRunner().invoke(cli, arguments, env=environment, standalone_mode=False)
        assert isinstance(done.exception, DualmemError)
        assert done.exception.exit_code == 3
        assert "dualmem join" in done.exception.hint


@pytest.fixture
def clash(devices: Devices) -> dict[str, Any]:
    """Both devices made the same entity, of another type each: the conflict, as both see it."""
    devices.remember("desk", ADA % "person")
    devices.remember("phone", ADA % "countess")
    for device in ("desk", "phone", "desk"):
        devices.run(device, "sync")
    seen = [devices.json(device, "conflicts") for device in ("desk", "phone")]
    assert seen[0] == seen[1]
    assert seen[0]["count"] == 1
    return dict(seen[0]["conflicts"][0])


def types(devices: Devices) -> list[str]:
    """The entity's type on both devices, after both have synced."""
    for device in ("desk", "phone"):
        devices.run(device, "sync")
    found = []
    for device in ("desk", "phone"):
        path = devices.root / f"{device}.jsonl"
        path.unlink(missing_ok=True)
        devices.run(device, "export", str(path))
        found.append(json.loads(path.read_text().splitlines()[0])["entityType"])
    return found


def test_a_conflict_is_shown_with_both_sides(devices: Devices, clash: dict[str, Any]) -> None:
    told = devices.run("desk", "conflicts")
    assert f"{clash['conflict_id']}  entity Ada, entityType\n   counts now: countess  [phone, " in told
    assert "\n   lost: person  [desk, " in told
    assert "1 conflict waits for a decision: `dualmem conflicts`" in devices.run("desk", "sync")


@pytest.mark.parametrize(
    ("how", "outcome"), [(["--keep"], "countess"), (["--take"], "person"), (["--take", "STAMP"], "person")]
)
def test_a_decision_counts_on_all_devices(
    devices: Devices, clash: dict[str, Any], how: list[str], outcome: str
) -> None:
    how = [word.replace("STAMP", clash["lost"][0]["stamp"]) for word in how]
    assert devices.json("desk", "resolve", clash["conflict_id"], *how)["count"] == 0
    assert types(devices) == [outcome, outcome]
    for device in ("desk", "phone"):
        assert devices.run(device, "conflicts") == "No conflicts.\n"


def test_a_conflict_that_is_none(devices: Devices, clash: dict[str, Any]) -> None:
    for arguments, status in (
        (["resolve", "0123456789abcdef", "--keep"], 3),
        (["resolve", clash["conflict_id"], "--take", f"{'0' * 16}-{'0' * 32}"], 2),
    ):
        done = CliRunner().invoke(cli, arguments, env=devices.environment("desk"), standalone_mode=False)
        assert isinstance(done.exception, DualmemError)
        assert done.exception.exit_code == status
        assert "dualmem conflicts" in done.exception.hint


class Watch:
    """A `dualmem sync --watch` that looks every 0.2 seconds."""

    def __init__(self, devices: Devices, device: str, *arguments: str) -> None:
        config = devices.root / device / "cloud_sync_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "sync": {"poll_seconds": 0.2}}))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dualmem_mcp.cli", "sync", "--watch", *arguments],
            env={**os.environ, **devices.environment(device)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, number: int) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_watch_brings_what_comes_and_ends_well(devices: Devices, number: int) -> None:
    devices.remember("desk", ADA % "person")
    devices.run("desk", "sync")
    watch = Watch(devices, "phone")
    assert watch.process.stdout.readline().startswith("Received 1 change")
    devices.remember("desk", ADA.replace("Ada", "Grace") % "person")
    devices.run("desk", "sync")
    assert watch.process.stdout.readline().startswith("Received 1 change")
    assert watch.end(number) == (0, "", "")
    assert devices.names("phone") == ["Ada", "Grace"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_watch_sends_what_other_programs_wrote_one_document_a_line(devices: Devices) -> None:
    watch = Watch(devices, "phone", "--json")
    devices.remember("phone", ADA % "person")
    assert json.loads(watch.process.stdout.readline())["pushed"]["ops"] == 1
    assert watch.end(signal.SIGINT) == (0, "", "")
    assert devices.json("desk", "sync")["pulled"]["ops"] == 1
