"""Whatever devices did before one of them was revoked, and in whatever order they hear of it: all agree."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dualmem_mcp.errors import ConflictError
from dualmem_mcp.model.oplog import NO_HEAD
from tests.conftest import SteppingClock
from tests.crypto.conftest import MemoryObjectStore
from tests.sync.compacting import compact, erased_of, hash_of, view_of
from tests.sync.conftest import Bench, Device, revoke
from tests.sync.test_revoked_log import CHAT, records, say

NAMES = ("desk", "laptop", "phone", "lost")
ACTS = ("sync", "sync", "sync", "add", "observe", "change", "delete", "note", "say", "erase", "compact")
STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(ACTS)), min_size=4, max_size=16)
LATER = st.lists(st.tuples(st.sampled_from(NAMES[:3]), st.sampled_from(ACTS)), max_size=10)


@cache
def joined() -> tuple[Path, dict[str, bytes]]:
    """Data homes of a vault right after its devices joined, and its bucket."""
    folder, bucket = Path(tempfile.mkdtemp(prefix="dualmem-homes-")), MemoryObjectStore()
    bench = Bench(folder, bucket)
    for name in NAMES:
        bench.device(name)
    bench.close()
    return folder, dict(bucket.objects)


def act(device: Device, what: str, number: int) -> None:
    """Something that changes few things, so that devices meet in them."""
    if what in {"note", "say"} and erased_of(device).is_erased(CHAT):
        return  # as the application does
    match what:
        case "sync":
            device.sync()
        case "add":
            device.add(f"n{number % 3}")
        case "observe":
            device.add("Ada")
            device.observe("Ada", f"text {number}")
        case "change":
            records(device).put("note", "1", {"text": f"{device.home.name} {number}"})
        case "delete":
            device.graph.delete_entities([f"n{number % 3}", "Ada"] if number % 2 else ["Ada"])
            records(device).delete("note", "1")
        case "note":
            records(device).put("note", "2", {"text": f"{number}"}, conversation_id=CHAT)
        case "say":
            say(device, *(f"{device.home.name}{n}" for n in range(number % 4 + 1)), title=f"title {number}")
        case "erase":
            if number % 3 == 0 and device.vault is not None:
                erased_of(device).erase(CHAT)
        case _ if device.home.name == "lost":
            device.sync()  # that a snapshot of a revoked device is replaced, is another matter
        case _:
            # One that lacks what the newest snapshot has is told so.
            with suppress(ConflictError):
                compact(device, grace_days=0, force=True)


@given(STEPS, LATER, st.permutations(NAMES[:3]))
@example(
    [("lost", "change")],
    [("laptop", "change"), ("laptop", "change"), ("laptop", "sync"), ("desk", "compact")],
    ["desk", "phone", "laptop"],
)
@settings(max_examples=12)
def test_all_that_stay_agree(before: list[tuple[str, str]], after: list[tuple[str, str]], order: list[str]) -> None:
    folder, objects = joined()
    with tempfile.TemporaryDirectory(prefix="dualmem-revocations-") as place:
        bench = Bench(Path(place), MemoryObjectStore())
        bench.objects.objects = dict(objects)
        for name in NAMES:
            shutil.copytree(folder / name, bench.root / name)
            bench.devices.append(Device(bench.root / name, bench.objects, SteppingClock()))
            bench.devices[-1].reopen()
        try:
            play(bench, before, after, order)
        finally:
            bench.close()


def play(bench: Bench, before: list[tuple[str, str]], after: list[tuple[str, str]], order: list[str]) -> None:
    devices = {device.home.name: device for device in bench.devices}
    for number, (name, what) in enumerate(before):
        act(devices[name], what, number)
    lost = devices["lost"]
    lost.sync()  # the desk has not read all of it, and others may read it yet
    read = {name: device.log.heads().get(lost.id, NO_HEAD).segment for name, device in devices.items()}
    bucket = bench.objects.objects
    late = [key for key in bucket if key.startswith(f"log/{lost.id}/") and int(key[-20:]) > read["desk"]]
    devices["laptop"].sync()
    revoke(lost, by=devices["desk"])
    for number, (name, what) in enumerate(after, start=len(before)):
        act(devices[name], what, number)
    staying = [devices[name] for name in order]
    for _ in range(4):
        warnings = [warning for device in staying for warning in device.sync().warnings]
    assert warnings == [], (late, warnings)
    views = [view_of(device) for device in staying]
    for view in views[1:]:
        for section, items in view.items():
            assert items == views[0][section], section
    assert len({hash_of(device) for device in staying}) == 1
    newcomer = bench.device("new", SteppingClock(staying[0].clock.time))
    newcomer.sync()
    for section, items in view_of(newcomer).items():
        assert items == views[0][section], f"{section} of a newcomer"
