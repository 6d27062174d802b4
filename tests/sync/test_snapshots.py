"""Snapshots: a device that starts from one has what the others have; one that does not hold counts for nothing."""

from __future__ import annotations

import pytest

from dualmem_mcp.errors import ConflictError, TamperedError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.sync.snapshot_format import POINTER_KEY, manifest_key, part_key
from tests.sync.compacting import hash_of, joined, snapshots_of
from tests.sync.conftest import Bench


def test_a_device_that_starts_from_a_snapshot_has_what_the_others_have(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada", "Engine")
    desk.observe("Ada", "née Byron", "wrote notes")
    desk.graph.delete_entities(["Engine"])
    desk.sync()
    written = snapshots_of(desk).write(None)
    for key in [key for key in bench.objects.objects if key.startswith("log/")]:
        del bench.objects.objects[key]
    phone = joined(bench, "phone")
    assert snapshots_of(phone).catch_up(desk.id)
    assert (
        phone.content()
        == desk.content()
        == {"Ada": ("thing", frozenset({"Ada is here", "née Byron", "wrote notes"}))}
    )
    assert hash_of(phone) == hash_of(desk)
    assert phone.log.heads() == desk.log.heads() == written.manifest.vector


def test_what_comes_after_the_snapshot_follows_from_segments(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    desk.sync()
    snapshots_of(desk).write(None)
    desk.add("Engine")
    desk.sync()
    first = next(key for key in sorted(bench.objects.objects) if key.startswith("log/"))
    del bench.objects.objects[first]
    phone = joined(bench, "phone")
    report = phone.sync()
    assert (report.pulled.segments, report.warnings) == (1, [])
    assert hash_of(phone) == hash_of(desk)
    phone.observe("Ada", "from the phone")
    bench.settle()
    assert hash_of(phone) == hash_of(desk)


def test_without_a_snapshot_nothing_is_caught_up(bench: Bench) -> None:
    desk = bench.device("desk")
    assert not snapshots_of(desk).catch_up(DeviceId("ab" * 16))


def test_the_second_of_two_that_write_at_once_is_told_so(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    bench.settle()
    snapshots_of(desk).write(None)
    before = snapshots_of(phone).latest()
    snapshots_of(desk).write(snapshots_of(desk).latest())
    with pytest.raises(ConflictError, match="another device has written a snapshot"):
        snapshots_of(phone).write(before)
    latest = snapshots_of(phone).latest()
    assert latest is not None
    assert (latest.pointer.sequence, latest.manifest.made_by) == (2, desk.id)


def test_no_snapshot_takes_the_place_of_one_that_goes_further(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    phone.add("Ada")
    bench.settle()
    phone.add("Engine")
    phone.sync()
    snapshots_of(phone).write(None)
    latest = snapshots_of(desk).latest()
    with pytest.raises(ConflictError, match="changes that this device does not have"):
        snapshots_of(desk).write(latest)
    assert snapshots_of(desk).latest() == latest


@pytest.mark.parametrize(
    "damage", ["missing part", "changed part", "other part", "missing manifest", "cut pointer"]
)
def test_a_snapshot_that_does_not_hold_counts_for_nothing(bench: Bench, damage: str) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    desk.sync()
    written = snapshots_of(desk).write(None)
    snapshot_id = written.manifest.snapshot_id
    objects = bench.objects.objects
    part = part_key(snapshot_id, 1)
    match damage:
        case "missing part":
            del objects[part]
        case "changed part":
            objects[part] = objects[part][:-1] + bytes([objects[part][-1] ^ 1])
        case "other part":
            other = snapshots_of(desk).write(snapshots_of(desk).latest())
            objects[part_key(other.manifest.snapshot_id, 1)] = objects[part]
        case "missing manifest":
            del objects[manifest_key(snapshot_id)]
        case _:
            objects[POINTER_KEY] = objects[POINTER_KEY][:-1]
    phone = joined(bench, "phone")
    with pytest.raises(TamperedError) as raised:
        snapshots_of(phone).catch_up(desk.id)
    assert raised.value.subject.startswith("snapshots/")
    assert phone.content() == {}
    assert phone.log.heads() == {}


def test_a_pointer_that_was_set_back_is_refused(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    desk.sync()
    snapshots_of(desk).write(None)
    old = bench.objects.objects[POINTER_KEY]
    snapshots_of(desk).write(snapshots_of(desk).latest())
    bench.objects.objects[POINTER_KEY] = old
    with pytest.raises(TamperedError, match="set back"):
        snapshots_of(desk).latest()
    del bench.objects.objects[POINTER_KEY]
    with pytest.raises(TamperedError, match="is gone"):
        snapshots_of(desk).latest()


def test_a_snapshot_of_a_device_that_is_not_of_the_vault_is_refused(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    desk.sync()
    phone = joined(bench, "phone")
    phone.sync()
    snapshots_of(phone).write(None)
    with pytest.raises(TamperedError, match="not of this vault"):
        snapshots_of(desk).latest()
