"""Kills a small exchange of devices at every failpoint, one after the other, and looks whether anything was lost.

    python -m tests.sync.failpoint_driver FOLDER

Runs by itself, in a process without threads, since it forks: a child for each failpoint does a phase of the story
until it is killed there, another one finds what was left, heals it and compares. The last line that is printed is
JSON with the failpoints of each phase; exit status 1, and before it what differed, if anything was lost.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from dualmem_mcp import failpoints
from dualmem_mcp.crypto.vault_file import VAULT_KEY
from dualmem_mcp.errors import DualmemError
from dualmem_mcp.model.conversation import Block, Session, Turn
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.objects import open_object_store
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.sync.own_log import OwnLog
from dualmem_mcp.sync.push import seal_waiting
from tests.conftest import SteppingClock
from tests.sync.compacting import compact, erased_of, view_of
from tests.sync.conftest import Device

AT_ONCE = 2
MOST_ROUNDS = 8
Phase = Callable[["Place"], None]


class Place:
    """A folder with a bucket, data homes, and a list of what was acknowledged; it outlives the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = open_object_store(str(folder / "bucket"), create=True)
        self.clock = SteppingClock()
        self.opened: list[Device] = []

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        for device in self.opened:
            device.database.close()

    def device(self, name: str) -> Device:
        """The device of that name, opened as a process that starts; it joins if it does not belong to the vault."""
        device = Device(self.folder / name, self.objects, SteppingClock(self.clock.time))
        self.opened.append(device)
        if device.blobs.get(VAULT_KEY) is not None:
            device.reopen()
        elif any(True for _ in self.objects.list("vault.json")):
            device.join(name)
        else:
            device.create(name)
        return device

    def acknowledge(self, *item: str) -> None:
        """Note that the write was acknowledged: from now on it must never be lost."""
        with (self.folder / "acknowledged").open("a") as file:
            file.write(json.dumps(item) + "\n")

    def acknowledged(self) -> list[list[str]]:
        path = self.folder / "acknowledged"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def names(self) -> list[str]:
        return sorted(path.parent.name for path in self.folder.glob("*/memory.db"))


# The story


def first_words(place: Place) -> None:
    """A device makes the vault and sends what it knows."""
    desk = place.device("desk")
    remember(place, desk, "Ada")
    talk(place, desk, "chat-1", 2)
    desk.outbox.add("packages/one", b"sealed elsewhere" * 10)
    desk.sync()


def another_device(place: Place) -> None:
    """A second device joins, takes that in, and answers."""
    phone = place.device("phone")
    phone.sync()
    remember(place, phone, "Engine")
    note(place, phone, "1")
    phone.sync()


def both_change(place: Place) -> None:
    """Both change the same, and exchange it; one deletes."""
    desk, phone = place.device("desk"), place.device("phone")
    desk.sync()
    phone.observe("Ada", "née Byron")
    place.acknowledge("observations", "Ada", "née Byron")
    note(place, desk, "1")
    note(place, phone, "1")
    place.acknowledge("-entities", "Engine")  # who is killed meanwhile may or may not have deleted it
    desk.graph.delete_entities(["Engine"])
    talk(place, phone, "chat-1", 3)
    for device in (phone, desk, phone):
        device.sync()


def two_machines(place: Place) -> None:
    """A copied data home writes under the same id: one of the two takes a new one."""
    if not (place.folder / "copy").exists():
        shutil.copytree(place.folder / "desk", place.folder / "copy.part")
        (place.folder / "copy.part").rename(place.folder / "copy")
    desk, copy = place.device("desk"), place.device("copy")
    remember(place, desk, "Loom")
    remember(place, copy, "Card")
    talk(place, copy, "chat-2", 2)
    seal_offline(copy)
    desk.sync()
    copy.sync()


def erased(place: Place) -> None:
    """A conversation is erased, and a snapshot takes the place of the logs."""
    desk, phone = place.device("desk"), place.device("phone")
    place.acknowledge("erased", "chat-1")
    erased_of(desk).erase(ConversationId("chat-1"))
    compact(desk, grace_days=0, force=True)
    compact(phone, grace_days=0)
    compact(desk, grace_days=0)


def late_comer(place: Place) -> None:
    """A new device begins with the snapshot."""
    tablet = place.device("tablet")
    tablet.sync()
    remember(place, tablet, "Slate")
    tablet.sync()


STORY: tuple[Phase, ...] = (first_words, another_device, both_change, erased, two_machines, late_comer)


def remember(place: Place, device: Device, name: str) -> None:
    device.add(name)
    place.acknowledge("entities", name)


def talk(place: Place, device: Device, chat: str, turns: int) -> None:
    ConversationStore(device.database, device.clock, lambda: device.home.name).save_session(
        Session(
            conversation_id=ConversationId(chat),
            project="p",
            title=f"a talk in {chat}",
            cwd="/c",
            git_branch="",
            version="",
            model="",
            permission_mode="",
            started_at=None,
            ended_at=device.clock.time + timedelta(seconds=turns),
            turns=tuple(
                Turn(f"t{n}", None, "user", None, (Block("text", f"said in {chat}"),)) for n in range(turns)
            ),
            earlier=(),
            agents=(),
            files=(),
        )
    )
    for number in range(turns):
        place.acknowledge("turns", chat, f"t{number}")


def seal_offline(device: Device) -> None:
    """What waits is sealed, and not sent."""
    exchange = device.exchange()
    own = OwnLog(exchange.vault, exchange.objects, exchange.outbox, exchange.log, exchange.identity)
    own.finish_fork()
    seal_waiting(own, {})


def note(place: Place, device: Device, name: str) -> None:
    RecordStore(device.database, device.clock, device.first_id).put("note", name, {"text": device.home.name})
    place.acknowledge("records", "note", name)


# Killing and healing


def heal(place: Place) -> None:
    """All devices sync until all agree; raises AssertionError if they never do, or something is gone."""
    devices = [place.device(name) for name in place.names()]
    for _ in range(MOST_ROUNDS):
        queued = sum(device.sync().queued for device in devices)
        views = [view_of(device) for device in devices]
        if not queued and all(view == views[0] for view in views):
            break
    for view, device in zip(views, devices, strict=True):
        for section, items in view.items():
            theirs, ours = ({json.dumps(item) for item in one} for one in (items, views[0][section]))
            assert theirs == ours, (
                f"{device.home.name} and {devices[0].home.name} differ in {section}: {theirs ^ ours}"
            )
    assert not queued, "what waits is not sent"
    missing = list(lost(place.acknowledged(), views[0]))
    assert not missing, f"lost: {missing}"


def lost(acknowledged: list[list[str]], view: dict[str, list[list[str]]]) -> Iterator[list[str]]:
    """What was acknowledged and neither is there nor was deleted later."""
    gone = {tuple(item) for item in acknowledged if item[0] in {"-entities", "erased"}}
    for section, *name in acknowledged:
        may_be_gone = {("-entities", name[0]), ("erased", name[0])} & gone
        if section in view and not may_be_gone and all(item[: len(name)] != name for item in view[section]):
            yield [section, *name]


def in_child(work: Callable[[], object]) -> int:
    """Do it in a process of its own; how that ended, as os.waitpid tells."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        work()
        status = 0
    except BaseException as fault:  # noqa: BLE001 - the parent has to hear of it, whatever it is
        sys.stderr.write(f"{type(fault).__name__}: {fault}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)
    raise AssertionError


def points_of(phase: Phase, folder: Path) -> list[str]:
    """Do the phase in the folder; the failpoints that it passes."""
    names: list[str] = []
    with failpoints.watched(names.append), Place(folder) as place:
        phase(place)
    return names


def killed_at(phase: Phase, number: int, before: Path, folder: Path) -> str:
    """Kill the phase at that failpoint, and heal; what went wrong, empty if nothing did."""
    shutil.copytree(before, folder)

    def work() -> None:
        failpoints.crash_at(number)
        phase(Place(folder))

    ended = in_child(work)
    if not os.WIFSIGNALED(ended) or os.WTERMSIG(ended) != signal.SIGKILL:
        return f"{phase.__name__} was not killed at its failpoint {number}"
    try:
        with Place(folder) as place:
            heal(place)
    except (AssertionError, DualmemError) as fault:
        return f"{phase.__name__}, killed at its failpoint {number}, did not heal: {fault}"
    shutil.rmtree(folder)
    return ""


def main(folder: Path) -> int:
    """Play the story, killed at every failpoint; 0 if all healed."""
    (folder / "0").mkdir()
    trials: list[tuple[int, int, str]] = []
    passed: dict[str, list[str]] = {}
    for number, phase in enumerate(STORY):
        after = folder / str(number + 1)
        shutil.copytree(folder / str(number), after)
        points = points_of(phase, after)
        passed[phase.__name__] = points
        trials += [(number, at, name) for at, name in enumerate(points, start=1)]
    workers = []
    for share in range(AT_ONCE):
        worker = os.fork()
        if not worker:
            os._exit(try_all(trials[share::AT_ONCE], folder))
        workers.append(worker)
    statuses = [os.waitpid(worker, 0)[1] for worker in workers]
    sys.stdout.write(json.dumps(passed) + "\n")
    return 1 if any(statuses) else 0


def try_all(trials: list[tuple[int, int, str]], folder: Path) -> int:
    """Kill at each of these failpoints; 1 and what went wrong on standard error if anything did."""
    status = 0
    for number, at, name in trials:
        wrong = killed_at(STORY[number], at, folder / str(number), folder / f"killed-{number}-{at}")
        if wrong:
            sys.stderr.write(f"{wrong} ({name})\n")
            sys.stderr.flush()
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
