"""A revocation killed at every failpoint: its device finishes it, the others go on, and a new one can join.

    python -m tests.sync.crashes_of_revocation FOLDER

Prints the failpoints that there were, as JSON; exit status 1, and before it what went wrong, if anything did.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from dualmem_mcp.errors import DualmemError, LockedError
from dualmem_mcp.failpoints import crash_at
from dualmem_mcp.model.oplog import NO_HEAD
from tests.crypto.conftest import FAST_KDF, FAST_LIMITS, PASSPHRASE
from tests.sync.compacting import hash_of
from tests.sync.conftest import Device
from tests.sync.failpoint_driver import AT_ONCE, Place, in_child, points_of

ORDERS = (("others", "newcomer", "again"), ("newcomer", "again", "others"), ("again", "others", "newcomer"))


def begin(folder: Path) -> None:
    """Three devices that have each other's changes, and one change of the phone that the laptop alone has read."""
    folder.mkdir()
    with Place(folder) as place:
        devices = [place.device(name) for name in ("desk", "laptop", "phone")]
        for device in devices:
            device.add(f"of {device.home.name}")
        for device in devices * 2:
            device.sync()
        devices[2].add("late")
        devices[2].sync()
        devices[1].sync()


def revoke_phone(place: Place) -> None:
    """As the application does, but for the sync before it: so there is something that the desk has not read."""
    desk = place.device("desk")
    assert desk.vault is not None
    phone = next(one.device_id for one in desk.vault.devices() if one.name == "phone")
    desk.vault.revoke(
        phone,
        passphrase=PASSPHRASE,
        head=desk.log.heads().get(phone, NO_HEAD),
        show=lambda key: (place.folder / "shown").write_text(key) and None,
        kdf=FAST_KDF,
        limits=FAST_LIMITS,
    )


def go_on(place: Place, name: str) -> None:
    """A device changes something and syncs; it joins if it is new."""
    device = place.device(name)
    device.add(f"{name} goes on")
    report = device.sync()
    assert not report.queued, f"{name}: {report.warnings}"
    assert not [one for one in report.warnings if "handed" not in one and "hands" not in one], report.warnings


def look(folder: Path, order: tuple[str, ...]) -> None:
    """All that has to work after the kill, in that order, each as a process that starts."""
    for step in order:
        with Place(folder) as place:
            if step == "again":
                try:
                    revoke_phone(place)
                except DualmemError as error:
                    # All of it was done before, and the key was shown.
                    assert "revoked already" in error.message, error  # noqa: PT017
            else:
                go_on(place, "laptop" if step == "others" else "tablet")
    with Place(folder) as place:
        staying = [place.device(name) for name in ("desk", "laptop", "tablet")]
        for device in staying * 2:
            device.sync()
        check(staying, place.device("phone"), (folder / "shown").read_text())


def check(staying: list[Device], phone: Device, shown: str) -> None:
    """The devices that stay have the same, under the same key, which the phone has not."""
    assert len({hash_of(device) for device in staying}) == 1
    assert staying[0].names() == {"of desk", "of laptop", "of phone", "late", "laptop goes on", "tablet goes on"}
    assert {device.vault._masters.present_id for device in staying if device.vault} == {"master.2"}
    assert not list(phone.objects.list("keys/n/"))
    try:
        phone.sync()
    except LockedError as error:
        assert "revoked by 'desk'" in error.message  # noqa: PT017
    else:
        raise AssertionError("the phone was not told that it was revoked")
    assert shown.startswith("DMR1-")


def try_all(points: list[int], before: Path, folder: Path) -> int:
    """Kill at each of these failpoints; 1 and what went wrong on standard error if anything did."""
    status = 0
    for number in points:
        there = folder / f"killed-{number}"
        shutil.copytree(before, there)

        def work(number: int = number, there: Path = there) -> None:
            crash_at(number)
            revoke_phone(Place(there))

        ended = in_child(work)
        try:
            assert os.WIFSIGNALED(ended), "not killed"
            assert os.WTERMSIG(ended) == signal.SIGKILL, "not killed"
            look(there, ORDERS[number % len(ORDERS)])
        except (AssertionError, DualmemError) as fault:
            sys.stderr.write(f"killed at failpoint {number}: {type(fault).__name__} {fault}\n")
            status = 1
        shutil.rmtree(there)
    return status


def main(folder: Path) -> int:
    """Revoke, killed at every failpoint; 0 if all was well after each."""
    before = folder / "before"
    begin(before)
    shutil.copytree(before, folder / "whole")
    names = points_of(revoke_phone, folder / "whole")
    numbers = list(range(1, len(names) + 1))
    workers = []
    for share in range(AT_ONCE):
        worker = os.fork()
        if not worker:
            os._exit(try_all(numbers[share::AT_ONCE], before, folder))
        workers.append(worker)
    statuses = [os.waitpid(worker, 0)[1] for worker in workers]
    sys.stdout.write(json.dumps(names) + "\n")
    return 1 if any(statuses) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
