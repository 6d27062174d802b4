"""scripts/sync.py as cron and systemd run it: alone, quiet, without an environment; and what docs/cron.md shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dualmem_mcp.app import App, open_app
from dualmem_mcp.durable_files import file_lock
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.settings import load_settings
from dualmem_mcp.tiers.state import TierState

NOBODY = "http://127.0.0.1:1"
ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "sync.py"
DOCUMENT = (ROOT / "docs" / "cron.md").read_text(encoding="utf-8")
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO|WARNING|ERROR) \S.*\n")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cron and systemd are of POSIX")


@dataclass(frozen=True)
class Done:
    """What a run left: its exit status and what it printed."""

    status: int
    out: str
    err: str


QUIET = Done(0, "", "")


@dataclass(frozen=True)
class Devices:
    """Two data homes of one vault, and runs of the script on the first."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "desk"

    def run(self, *arguments: str) -> Done:
        """Run the script without any environment."""
        return self.shell(f"{sys.executable} {SCRIPT} --home {self.home} {' '.join(arguments)}")

    def shell(self, line: str) -> Done:
        """Run a line as cron does, with less of an environment than cron gives."""
        command = ["env", "-i", "/bin/sh", "-c", line]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd="/")
        return Done(done.returncode, done.stdout, done.stderr)

    def add(self, name: str) -> None:
        with self.opened("desk") as app:
            app.graph.create_entities([Entity(name, "thing", ())])

    def waiting(self) -> int:
        with self.opened("desk") as app:
            return app.sync_waiting()

    def received(self) -> list[str]:
        """What the other device has once it has synced."""
        with self.opened("phone") as app:
            app.sync()
            return [entity.name for entity in app.graph.read_graph().entities]

    def opened(self, device: str) -> App:
        return open_app(load_settings(self.root / device, bucket=str(self.root / "bucket")))


@pytest.fixture(scope="module")
def new_devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    devices = Devices(tmp_path_factory.mktemp("new"))
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("DUALMEM_", "CLAUDE_")) or name == "MEMORY_FILE_PATH":
                patch.delenv(name)
        patch.setenv("DUALMEM_KEYSTORE", "file")
        with devices.opened("desk") as desk:
            desk.init("four or five random words", device_name="desk")
        with devices.opened("phone") as phone:
            phone.join("four or five random words", device_name="phone")
        yield devices


@pytest.fixture
def devices(new_devices: Devices, tmp_path: Path) -> Devices:
    shutil.copytree(new_devices.root, tmp_path / "devices")
    config = tmp_path / "devices" / "desk" / "cloud_sync_config.json"
    config.write_text(config.read_text().replace(str(new_devices.root), str(tmp_path / "devices")))
    return Devices(tmp_path / "devices")


def test_it_says_in_a_line_what_it_did_and_nothing_when_there_was_nothing(devices: Devices) -> None:
    devices.add("crane")
    done = devices.run()
    assert (done.status, done.err) == (0, "")
    assert LOG_LINE.fullmatch(done.out)
    assert "INFO Sent 1 change in 1 segment, " in done.out
    assert devices.received() == ["crane"]
    assert devices.run() == QUIET


def test_the_log_takes_what_is_said_for_its_owner_alone(devices: Devices, tmp_path: Path) -> None:
    log = tmp_path / "sync.log"
    devices.add("crane")
    assert devices.run(f"--log {log}") == QUIET
    assert "Sent 1 change" in log.read_text()
    assert "crane" not in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    before = log.read_text()
    assert devices.run(f"--log {log}") == QUIET
    assert log.read_text() == before


def test_the_log_keeps_to_its_size(devices: Devices, tmp_path: Path) -> None:
    log = tmp_path / "sync.log"
    for name in ("a", "b", "c"):
        devices.add(name)
        assert devices.run(f"--log {log} --log-bytes 100 --log-files 1") == QUIET
    kept = sorted(tmp_path.glob("sync.log*"))
    assert [path.name for path in kept] == ["sync.log", "sync.log.1"]
    assert all(LOG_LINE.fullmatch(path.read_text()) for path in kept)


@pytest.mark.parametrize("lock", [".sync_script.lock", ".sync.lock"])
def test_a_second_run_leaves_it_to_the_first(devices: Devices, lock: str) -> None:
    devices.add("crane")
    with file_lock(devices.home / lock):
        assert devices.run() == QUIET
    assert devices.waiting() == 1
    assert "Sent 1 change" in devices.run().out


def test_a_bucket_that_is_away_is_told_but_not_mailed_where_there_is_a_log(
    devices: Devices, tmp_path: Path
) -> None:
    (devices.root / "bucket").rename(devices.root / "elsewhere")
    devices.add("crane")
    done = devices.run()
    assert (done.status, done.out) == (6, "")
    assert done.err.startswith("error: ")
    log = tmp_path / "sync.log"
    assert devices.run(f"--log {log}") == Done(6, "", "")
    assert "bucket" in log.read_text()
    assert "(exit status 6)" in log.read_text()
    (devices.root / "elsewhere").rename(devices.root / "bucket")
    assert "Sent 1 change" in devices.run().out


def test_a_bucket_that_refuses_is_mailed_in_any_case(devices: Devices, tmp_path: Path) -> None:
    vault = devices.root / "bucket" / "vault.json"
    vault.rename(tmp_path / "vault.json")
    vault.symlink_to(tmp_path / "vault.json")  # the store follows no link, whoever made it
    done = devices.run(f"--log {tmp_path / 'sync.log'}")
    assert (done.status, done.out) == (6, "")
    assert done.err.startswith("error: the bucket refuses this device: ")


def test_time_that_is_over_is_no_failure(devices: Devices) -> None:
    devices.add("crane")
    done = devices.run("--max-seconds 0.000001")
    assert (done.status, done.err) == (0, "")
    assert "the time for this sync is over" in done.out
    assert devices.received() == []
    assert "Sent 1 change" in devices.run("--max-seconds 60").out


def test_what_is_wrong_has_its_exit_status_and_says_what_to_do(devices: Devices, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with open_app(load_settings(tmp_path / "bare")):
        pass
    (devices.home / "device.key").rename(tmp_path / "device.key")
    expected = (
        (f"--home {tmp_path / 'nowhere'}", 3, "there is no data home"),
        (f"--home {tmp_path / 'bare'}", 3, "no vault"),
        ("--max-seconds 0", 2, "--max-seconds"),
        ("--log-files none", 2, "--log-files"),
        (f"--log {tmp_path / 'no' / 'folder.log'}", 6, "No such file"),
        ("", 4, "key"),
    )
    for arguments, status, words in expected:
        done = devices.run(arguments)
        assert (done.status, done.out) == (status, ""), done.err
        assert words in done.err
        assert re.fullmatch(r"error: [^\n]+\nhint: [^\n]+\n", done.err)
    assert not (tmp_path / "nowhere").exists()


def test_a_python_without_the_package_is_told(devices: Devices) -> None:
    done = devices.shell(f"{sys.executable} -I -S {SCRIPT} --home {devices.home}")
    assert (done.status, done.out) == (2, "")
    assert "hint: run this script with the Python" in done.err


def test_the_documented_crontab_line_does_it(devices: Devices, tmp_path: Path) -> None:
    (line,) = re.findall(r"```crontab\n(.*)\n```", DOCUMENT)
    assert line.startswith("*/5 * * * * ")
    assert "%" not in line  # to cron that is the end of the line
    command = line.removeprefix("*/5 * * * * ")
    for shown, here in (
        ("/home/you/dualmem/bin/python", sys.executable),
        ("/home/you/dualmem-mcp", str(ROOT)),
        ("/home/you/dualmem-sync.log", str(tmp_path / "sync.log")),
    ):
        assert shown in command
        command = command.replace(shown, here)
    devices.add("crane")
    assert devices.shell(f"{command} --home {devices.home}") == QUIET
    assert "Sent 1 change" in (tmp_path / "sync.log").read_text()


def test_the_documented_units_are_well_formed(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    named = re.findall(r"`~/\.config/systemd/user/(\S+)`:\n\n```ini\n(.*?)```", DOCUMENT, re.DOTALL)
    assert [name for name, _ in named] == ["dualmem-sync.service", "dualmem-sync.timer"]
    for name, text in named:
        here = text.replace("%h/dualmem/bin/python", sys.executable).replace("%h/dualmem-mcp", str(ROOT))
        (tmp_path / name).write_text(here)
    (tmp_path / "run").mkdir(mode=0o700)
    command = [analyze, "--user", "verify", "--man=no", *(str(tmp_path / name) for name, _ in named)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_vectors_that_cannot_move_are_a_warning_every_ten_minutes_at_most(devices: Devices) -> None:
    with devices.opened("desk") as desk:
        TierState(desk.blobs).switch(NOBODY, enabled=True, words=False, now=desk.clock.now())
    config = devices.home / "cloud_sync_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tiers": {"url": NOBODY}}))
    done = devices.run()
    assert (done.status, done.err) == (0, "")
    assert "WARNING vectors do not move: " in done.out
    assert devices.run() == QUIET
