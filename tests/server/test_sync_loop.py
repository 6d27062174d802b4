"""What the loop does when, on real devices over a real bucket, in seconds that a test counts."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.app import App, open_app
from dualmem_mcp.durable_files import file_lock
from dualmem_mcp.edge.moving import VectorMoves
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.server.sync_loop import SyncLoop
from dualmem_mcp.server.sync_worker import SyncWorker
from dualmem_mcp.settings import load_settings
from dualmem_mcp.sharing import LOCK_FILE
from dualmem_mcp.stores.placements import DatabasePlacements
from dualmem_mcp.tiers.state import TierState
from tests.conftest import SteppingClock

PASSPHRASE = "four or five random words"


@dataclass
class Driven:
    """An application with its loop, whose clocks stand still between turns."""

    app: App
    clock: SteppingClock
    now: float = 0.0
    reports: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    loop: SyncLoop = field(init=False)

    def __post_init__(self) -> None:
        self.loop = self.another()

    def another(self, **changes: Any) -> SyncLoop:
        return SyncLoop(
            self.app,
            report=self.reports.append,
            problem=self.problems.append,
            clock=lambda: self.now,
            chance=lambda: 0.0,
            **changes,
        )

    def at(self, now: float) -> list[dict[str, Any]]:
        """Let it be that late, and the loop do what is due: the results of its syncs."""
        self.clock.advance(now - self.now)
        self.now = now
        self.reports.clear()
        while self.loop.turn() == 0.0:
            pass
        return list(self.reports)

    def add(self, name: str) -> None:
        self.app.graph.create_entities([Entity(name, "thing", ())])

    def names(self) -> list[str]:
        return [entity.name for entity in self.app.graph.read_graph().entities]


@pytest.fixture
def open_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Driven]]:
    for name in list(os.environ):
        if name.startswith(("DUALMEM_", "CLAUDE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DUALMEM_KEYSTORE", "file")
    opened: list[App] = []

    def open_one(name: str, **timing: Any) -> Driven:
        settings = load_settings(tmp_path / name, bucket=str(tmp_path / "bucket"))
        profile = replace(settings.profile, sync=replace(settings.sync, **timing))
        clock = SteppingClock()
        opened.append(open_app(replace(settings, profile=profile), clock=clock))
        return Driven(opened[-1], clock)

    yield open_one
    for app in opened:
        app.close()


@pytest.fixture
def desk(open_device: Callable[..., Driven]) -> Driven:
    """The first device of a vault, started and synced at second 1."""
    driven = open_device("desk")
    driven.app.init(PASSPHRASE, device_name="desk")
    assert len(driven.at(1.0)) == 1
    return driven


def test_the_first_sync_comes_after_a_moment_and_lists(open_device: Callable[..., Driven]) -> None:
    device = open_device("desk")
    device.app.init(PASSPHRASE)
    assert device.at(0.9) == []
    (first,) = device.at(1.0)
    assert first["requests"]["list"] > 0
    assert device.at(10.9) == []
    (probe,) = device.at(11.0)
    assert (probe["requests"]["list"], probe["requests"]["put"]) == (0, 0)


def test_a_device_without_a_vault_is_left_alone_until_it_has_one(
    open_device: Callable[..., Driven], tmp_path: Path
) -> None:
    device = open_device("desk")
    device.add("before")
    device.loop.changed()
    for now in (1.0, 61.0, 200.0):
        assert device.at(now) == []
    assert not (tmp_path / "bucket").exists()
    device.app.init(PASSPHRASE)
    (first,) = device.at(500.0)
    assert first["pushed"]["ops"] == 1
    assert device.problems == []


def test_a_change_is_sent_half_a_second_later_and_comes_in_on_the_other_device(
    desk: Driven, open_device: Callable[..., Driven]
) -> None:
    phone = open_device("phone")
    phone.app.join(PASSPHRASE, device_name="phone")
    phone.at(1.0)
    desk.add("crane")
    desk.loop.changed()
    assert desk.at(1.4) == []
    (sent,) = desk.at(1.5)
    assert sent["pushed"]["ops"] == 1
    assert phone.at(10.9) == []
    (received,) = phone.at(11.0)
    assert received["pulled"]["ops"] == 1
    assert phone.names() == ["crane"]


def test_three_changes_are_sent_at_once(desk: Driven) -> None:
    for name in ("a", "b", "c"):
        desk.add(name)
        desk.loop.changed()
    (sent,) = desk.at(1.1)
    assert sent["pushed"] | {"bytes": 0} == {"segments": 1, "ops": 3, "bytes": 0}


def test_a_call_that_changed_nothing_costs_no_request(desk: Driven) -> None:
    desk.loop.changed()
    assert desk.at(2.0) == []
    assert len(desk.at(11.0)) == 1


def test_what_others_wrote_into_the_data_home_is_sent_within_a_minute(open_device: Callable[..., Driven]) -> None:
    device = open_device("desk", poll_seconds=1000.0, idle_seconds=1000.0)
    device.app.init(PASSPHRASE)
    device.at(1.0)
    device.add("indexed meanwhile")
    assert device.at(60.9) == []
    (sent,) = device.at(61.0)
    assert sent["pushed"]["ops"] == 1
    assert device.at(121.0) == []


def test_without_the_bucket_it_waits_ever_longer_and_says_so_once(desk: Driven, tmp_path: Path) -> None:
    (tmp_path / "bucket").rename(tmp_path / "elsewhere")
    for now in (11.0, 12.0, 14.0, 18.0, 26.0):
        (tried,) = desk.at(now)
        assert tried["away"]
        assert desk.at(now + 0.9) == []
    assert len(desk.problems) == 1
    assert "bucket" in desk.problems[0]
    # A write tries at once, and the next pause is longer still.
    desk.add("made offline")
    desk.loop.changed()
    (tried,) = desk.at(27.5)
    assert (tried["away"], tried["queued"]) == (True, 1)
    assert desk.at(59.0) == []
    (tmp_path / "elsewhere").rename(tmp_path / "bucket")
    (sent,) = desk.at(60.0)
    assert (sent["pushed"]["ops"], sent["queued"], sent["away"]) == (1, 0, False)
    assert len(desk.at(70.0)) == 1


def test_a_sync_by_hand_ends_the_waiting(desk: Driven, tmp_path: Path) -> None:
    (tmp_path / "bucket").rename(tmp_path / "elsewhere")
    for now in (11.0, 12.0, 14.0, 18.0, 26.0):
        desk.at(now)
    (tmp_path / "elsewhere").rename(tmp_path / "bucket")
    desk.loop.synced()
    assert desk.at(35.9) == []
    assert len(desk.at(36.0)) == 1


def test_an_error_is_told_with_what_to_do_and_once(desk: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> dict[str, Any]:
        raise TamperedError("the roster is not what it was", hint="See the threat model.")

    monkeypatch.setattr(desk.app, "sync", refuse)
    for now in (11.0, 12.0, 14.0):
        assert desk.at(now) == []
    assert desk.problems == ["the roster is not what it was. See the threat model."]


def test_a_fault_of_the_program_is_logged_once_and_not_the_end(
    desk: Driven, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = "what the user keeps here"

    def fail(**_: Any) -> dict[str, Any]:
        raise ValueError(words)

    with monkeypatch.context() as patch:
        patch.setattr(desk.app, "sync", fail)
        for now in (11.0, 12.0, 14.0):
            assert desk.at(now) == []
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert words not in record.getMessage()
    assert len(desk.at(18.0)) == 1


def test_of_several_processes_of_a_device_one_asks_the_bucket(desk: Driven) -> None:
    desk.loop = desk.another()
    assert desk.at(2.5) == []  # its first look: the other loop listed at second 1
    assert desk.at(10.9) == []
    (probe,) = desk.at(11.0)
    assert probe["requests"]["list"] == 0
    # A call wants to know what there is now.
    desk.loop.used()
    assert desk.at(11.9) == []
    third = desk.another()
    desk.loop.used()
    assert len(desk.at(12.0)) == 1
    desk.add("waits")
    desk.loop = third
    (sent,) = desk.at(13.0)
    assert sent["pushed"]["ops"] == 1


def test_a_listing_that_is_due_is_made_though_another_process_has_probed(
    open_device: Callable[..., Driven],
) -> None:
    device = open_device("desk")
    device.app.init(PASSPHRASE)
    device.app.sync()
    (device.app.home.root / ".last_sync").write_text(json.dumps({"synced": device.clock.time.timestamp()}))
    (listed,) = device.at(1.0)
    assert listed["requests"]["list"] > 0


@pytest.mark.parametrize("noted", ["", "[]", '{"synced": "x"}', '{"synced": 1e999}', "\ufffd{"])
def test_a_note_that_is_none_only_costs_a_request(desk: Driven, noted: str) -> None:
    (desk.app.home.root / ".last_sync").write_text(noted, encoding="utf-8")
    assert len(desk.at(11.0)) == 1


def test_while_another_process_syncs_what_waits_is_looked_at_again(desk: Driven) -> None:
    desk.add("meanwhile")
    desk.loop.changed()
    with file_lock(desk.app.home.root / LOCK_FILE):
        (left,) = desk.at(1.5)
        assert (left["busy"], left["pushed"]["ops"]) == (True, 0)
    assert desk.at(2.4) == []
    (sent,) = desk.at(2.5)
    assert sent["pushed"]["ops"] == 1


@pytest.mark.parametrize("wifi_only", [False, True])
def test_packages_wait_where_the_profile_says_so(open_device: Callable[..., Driven], wifi_only: bool) -> None:
    device = open_device("desk", wifi_only=wifi_only)
    device.app.init(PASSPHRASE)
    key = f"packages/{'0' * 32}"
    device.app.outbox.add(key, b"sealed")
    device.at(1.0)
    assert (key in device.app.outbox.pending()) is wifi_only
    device.app.sync()
    assert key not in device.app.outbox.pending()


def test_the_last_push_sends_what_waits_but_not_to_a_bucket_that_is_away(desk: Driven, tmp_path: Path) -> None:
    desk.add("last words")
    desk.loop.push_last()
    assert desk.app.sync_waiting() == 0
    (tmp_path / "bucket").rename(tmp_path / "elsewhere")
    desk.at(11.0)
    desk.add("unheard")
    desk.loop.push_last()
    assert desk.app.sync_waiting() == 1


def test_the_worker_leaves_it_to_the_user_where_the_settings_do(open_device: Callable[..., Driven]) -> None:
    device = open_device("desk", automatic=False)
    device.app.init(PASSPHRASE)
    device.add("kept here")
    worker = SyncWorker()
    worker.start(device.app)
    worker.used()
    worker.changed()
    worker.stop()
    assert device.app.sync_waiting() == 1


def test_the_worker_ends_with_a_push_and_tells_of_syncs(open_device: Callable[..., Driven]) -> None:
    device = open_device("desk", poll_seconds=3600.0, idle_seconds=3600.0)
    device.app.init(PASSPHRASE)
    told = threading.Event()
    worker = SyncWorker()
    worker.on_sync(told.set)
    worker.start(device.app)
    assert told.wait(30)
    device.add("at the end")
    worker.stop()
    assert device.app.sync_waiting() == 0


def _session(folder: Path, agents: int) -> Path:
    """A session of Claude Code that launched so many agents."""
    path = folder / "projects" / "-home-you-crane" / f"{SESSION}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    parent = None
    for number in range(agents):
        content = [
            {
                "type": "tool_use",
                "id": f"toolu_{number}",
                "name": "Task",
                "input": {"subagent_type": "Explore", "description": f"look {number}", "prompt": "Find the crane."},
            }
        ]
        uuid = f"{number:08x}-0000-4000-8000-000000000000"
        message = {"role": "assistant", "content": content, "model": "claude-test"}
        line = {"type": "assistant", "uuid": uuid, "parentUuid": parent, "sessionId": SESSION, "message": message}
        lines.append(
            {**line, "timestamp": "2026-03-01T12:00:00.000Z", "isSidechain": False, "cwd": "/home/you/crane"}
        )
        parent = uuid
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


SESSION = "0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"


def test_agents_of_the_running_session_get_checkpoints_that_travel(
    desk: Driven, open_device: Callable[..., Driven], tmp_path: Path
) -> None:
    laptop = open_device("laptop")
    laptop.app.join(PASSPHRASE, device_name="laptop")
    desk.app.settings = replace(desk.app.settings, claude_dir=tmp_path / "claude", claude_session_id=SESSION)
    for agents, now in ((1, 40.0), (2, 140.0), (3, 440.0), (3, 840.0)):
        path = _session(tmp_path / "claude", agents)
        os.utime(path, times=(desk.app.clock.now().timestamp(),) * 2)
        desk.at(now)
    # None at 140 s, which is too early, and none at 840 s, when nothing had changed.
    found = desk.app.list_checkpoints(SESSION)
    assert [one["whole"] for one in found] == [True, False]
    assert len(json.loads(desk.app.restore_checkpoint(SESSION))["agents"]) == 3
    assert len(json.loads(desk.app.restore_checkpoint(SESSION, found[0]["checkpoint_id"]))["agents"]) == 1
    desk.app.sync()
    laptop.app.sync()
    assert laptop.app.list_checkpoints(SESSION) == found
    assert len(json.loads(laptop.app.restore_checkpoint(SESSION))["agents"]) == 3


def test_without_a_session_there_is_no_checkpoint(desk: Driven) -> None:
    desk.at(1000.0)
    assert desk.app.records.find(types=["checkpoint"]) == []


def test_vectors_move_after_a_full_sync_that_went_through_and_after_no_other(
    open_device: Callable[..., Driven], tmp_path: Path
) -> None:
    device = open_device("desk", poll_seconds=10)
    device.app.init(PASSPHRASE, device_name="desk")
    service = str(tmp_path / "service")
    TierState(device.app.blobs).switch(service, enabled=True, words=False, now=device.clock.now())
    moved: list[str] = []

    def look() -> None:
        device.app.vectors.close()  # ends what was begun
        moved.append((device.app.blobs.get("local/tiers/moved_at") or b"").decode())
        device.app.vectors = VectorMoves(
            url=service,
            blobs=device.app.blobs,
            placements=DatabasePlacements(device.app.database),
            clock=device.clock,
            edge=lambda: device.app.local_edge,
        )

    look()
    (full,) = device.at(1.0)
    assert full["requests"]["list"] > 0
    look()
    (probe,) = device.at(11.0)
    assert probe["requests"]["list"] == 0
    look()
    assert moved == ["", device.clock.now().replace(second=1).isoformat(), moved[1]]
    (tmp_path / "bucket").rename(tmp_path / "unplugged")
    device.at(4_000.0)
    assert device.problems
    look()
    assert moved[-1] == moved[1]
