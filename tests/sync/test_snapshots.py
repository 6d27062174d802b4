"""Snapshots: a device that starts from one has what the others have; one that does not hold counts for nothing."""

from __future__ import annotations

import json

import pytest

from dualmem_mcp.crypto.canonical import canonical_json
from dualmem_mcp.crypto.envelope import ObjectKind, Section, seal_object
from dualmem_mcp.errors import ConflictError, TamperedError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.sync.snapshot_format import POINTER_KEY, manifest_key, part_key
from tests.sync.compacting import hash_of, joined, snapshots_of
from tests.sync.conftest import Bench, Device, revoke


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


def far_ahead(device: Device, by: Device, *, key_id: str = "epoch") -> bytes:
    """A pointer as a device seals it that knows no later keys: to the snapshot that counts, with a great number."""
    assert by.vault is not None
    latest = snapshots_of(device).latest()
    assert latest is not None
    sequence = 2**53 - 1
    content = {
        "format": 1,
        "snapshot": latest.pointer.snapshot_id,
        "manifest": latest.pointer.manifest_hash.hex(),
        "sequence": sequence,
    }
    epoch = by.vault.current_epoch()
    keys = {"epoch": by.vault.epoch_key(epoch), "master.1": by.vault._masters.wrapping_key}
    return seal_object(
        [Section("pointer", canonical_json(content), compress=False)],
        place=by.vault.place(ObjectKind.POINTER, POINTER_KEY, sequence=sequence),
        key_id=key_id,
        key_epoch=epoch if key_id == "epoch" else device.vault.current_epoch() if device.vault else 0,
        wrapping_key=keys[key_id],
    )


@pytest.fixture
def revoked(bench: Bench) -> tuple[Device, Device, Device]:
    """A desk that wrote a snapshot, a laptop that has read it, and a phone that was revoked after it."""
    desk, laptop, phone = (bench.device(name) for name in ("desk", "laptop", "phone"))
    desk.add("Ada")
    bench.settle()
    snapshots_of(desk).write(None)
    snapshots_of(laptop).latest()
    revoke(phone, by=desk)
    desk.sync()
    laptop.sync()
    return desk, laptop, phone


@pytest.mark.parametrize("key_id", ["epoch", "master.1"])
@pytest.mark.parametrize("snapshot_since", [False, True])
def test_a_pointer_of_a_revoked_device_far_ahead_stops_nobody(
    bench: Bench, revoked: tuple[Device, Device, Device], key_id: str, snapshot_since: bool
) -> None:
    desk, laptop, phone = revoked
    if snapshot_since:
        snapshots_of(desk).write(snapshots_of(desk).latest())
        snapshots_of(laptop).latest()
    bench.objects.objects[POINTER_KEY] = far_ahead(desk, phone, key_id=key_id)
    tablet = joined(bench, "tablet")
    tablet.add("Slate")
    tablet.sync()
    for device in (desk, laptop, desk):
        device.sync()
    assert desk.names() == laptop.names() == {"Ada", "Slate"}
    # And what members write now is later than that.
    if not snapshot_since and key_id == "epoch":
        snapshots_of(laptop).write(snapshots_of(laptop).latest())
    else:
        with pytest.raises(TamperedError):
            snapshots_of(laptop).latest()
        snapshots_of(laptop).write(None, replace=True)
    for device in (desk, laptop, tablet):
        latest = snapshots_of(device).latest()
        assert latest is not None
        assert latest.manifest.made_by == laptop.id
        assert latest.pointer.generation == 2
        assert latest.pointer.sequence < 5
    assert tablet.sync().warnings == []
    assert tablet.names() == {"Ada", "Slate"}


def test_a_pointer_from_before_a_revocation_leads_a_newcomer(
    bench: Bench, revoked: tuple[Device, Device, Device]
) -> None:
    desk, _, _ = revoked
    for key in [key for key in bench.objects.objects if key.startswith("log/")]:
        del bench.objects.objects[key]
    newcomer = joined(bench, "new")
    newcomer.sync()
    assert newcomer.names() == desk.names() == {"Ada"}


def test_a_pointer_that_this_device_saw_before_there_were_generations(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    desk.sync()
    snapshots_of(desk).write(None)
    kept = json.loads(desk.blobs.get("local/snapshot/seen") or b"")
    del kept["generation"]
    desk.blobs.put("local/snapshot/seen", canonical_json(kept))
    latest = snapshots_of(desk).latest()
    assert latest is not None
    assert snapshots_of(desk).write(latest)


def test_a_snapshot_that_does_not_hold_stops_no_log_that_is_there(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    desk.sync()
    snapshots_of(desk).write(None)
    bench.objects.objects[POINTER_KEY] = b"garbage"
    phone, tablet = bench.device("phone"), bench.device("tablet")
    tablet.add("Slate")
    tablet.sync()
    [warning] = phone.sync().warnings
    assert "the newest snapshot was not taken in" in warning
    assert phone.names() == {"Ada", "Slate"}
