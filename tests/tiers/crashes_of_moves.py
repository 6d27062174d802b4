"""A run that places, moves, renews, removes and erases, ended at every point there is; run by test_crashes in a
process of its own.

After each end every item that had been placed lies in a tier with all its points; and after the next run, and one
more check, everything lies where the plan has it, and nothing else is there.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from dualmem_mcp.failpoints import crash_at, watched
from dualmem_mcp.model.tiers import Cluster
from dualmem_mcp.stores.objects import open_object_store
from tests.conftest import SteppingClock
from tests.tiers.home import SqliteService, TierDevice

LATER = 20 * 86_400


class Home:
    """The device in a folder, as a process of its own has it."""

    def __init__(self, folder: Path, *, days: int = 20) -> None:
        self.folder = folder
        clock = SteppingClock()
        clock.advance(days * 86_400)
        self.service = SqliteService(folder / "service")
        objects = open_object_store(str(folder / "bucket"), create=not (folder / "bucket").exists())
        self.desk = TierDevice(folder / "desk", objects, clock, lambda _: self.service)

    def __enter__(self) -> TierDevice:
        return self.desk

    def __exit__(self, *_: object) -> None:
        self.desk.close()
        self.service.close()


def begin(folder: Path) -> None:
    """What lies in the service before: two turns, a long note, a decision, and a conversation that is erased."""
    with Home(folder, days=0) as desk:
        desk.tiers.init(Cluster())
        desk.tiers.enable(words=True)
        desk.turn(1, chat="one")
        desk.turn(1, chat="two")
        desk.item("note", "n1", " ".join(f"word{number}" for number in range(400)), chat="one")
        desk.item("decision", "d1", "we take the red one", chat="two")
        desk.turn(1, "to be erased", chat="gone")
        desk.apply()
        assert {tier for tiers in desk.where().values() for tier in tiers} == {"critical"}
        desk.turn(2, chat="new", days_ago=-20)  # not placed yet, and in use when time has gone on
        desk.item("note", "n1", "shorter now", chat="one")
        for index in desk.indexes.values():
            index.remove(["decision/two/d1"])


def act(desk: TierDevice) -> None:
    """Three weeks later the conversation is erased, and a run brings all where it belongs."""
    desk.erased.add("gone")
    desk.tiers.forget("gone")
    for index in desk.indexes.values():
        index.remove(["turn/gone/t001"])
    done = desk.apply()
    assert not done["problem"], done["problem"]


def act_in(folder: Path) -> None:
    """The same, in a process of its own."""
    with Home(folder) as desk:
        act(desk)


def look(desk: TierDevice) -> None:
    """Nothing that was placed and is to stay is in no tier."""
    where = desk.where()
    for key in ("turn/one/t001", "turn/two/t001"):
        assert where.get(key), f"{key} is in no tier"


def look_at_end(desk: TierDevice) -> None:
    """All is as the plan has it."""
    where = desk.where()
    assert where["turn/one/t001"] == where["turn/two/t001"] == where["note/one/n1"] == ["historical"], where
    assert where["turn/new/t002"] == ["critical"], where
    assert len(where) == len(list(desk.all_points())) == 4, where
    assert not desk.placements.moving()
    assert not desk.tiers.plan().moves
    checked = desk.tiers.check(repair=False)
    assert {name: checked[name] for name in WRONG} == dict.fromkeys(WRONG, 0), checked


WRONG = ("missing", "changed", "doubled", "unwanted", "foreign")


def main(root: Path, share: int, shares: int) -> int:
    """How many ends there were: of all points every so manieth, from the one of that number on."""
    before, now = root / "before", root / "now"
    before.mkdir(parents=True)
    begin(before)
    shutil.copytree(before, now)
    passed: list[str] = []
    with watched(passed.append):
        act_in(now)
    with Home(now) as desk:
        look_at_end(desk)
    numbers = range(share + 1, len(passed) + 1, shares)
    for number in numbers:
        shutil.rmtree(now)
        shutil.copytree(before, now)
        assert ended_at(number, now), f"nothing ended at {passed[number - 1]!r}"
        with Home(now) as desk:
            look(desk)
            act(desk)
            look_at_end(desk)
    return len(numbers)


def ended_at(number: int, folder: Path) -> bool:
    """Whether a child process was ended there."""
    child = os.fork()
    if child == 0:
        crash_at(number)
        act_in(folder)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
