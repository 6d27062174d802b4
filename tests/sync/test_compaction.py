"""Compaction: what goes, what stays and why, and that a stop anywhere leaves the bucket readable."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dualmem_mcp.errors import ConflictError, StoreUnreachableError, TamperedError
from dualmem_mcp.sync.acks import ack_key, is_due, read_ack, write_ack
from dualmem_mcp.sync.compaction import Compaction
from dualmem_mcp.sync.snapshot_format import POINTER_KEY
from tests.sync.compacting import compact, hash_of, joined, snapshots_of, state_of
from tests.sync.conftest import Bench, Device, revoke

DAY = 24 * 3600.0


def acknowledge(device: Device) -> None:
    """What a device says at a sync once it is time."""
    assert device.vault is not None
    write_ack(
        device.vault,
        device.objects,
        device.blobs,
        heads=device.log.heads(),
        snapshot=snapshots_of(device).taken(),
        now=device.clock.now(),
    )


def pass_days(bench: Bench, days: float) -> None:
    for device in bench.devices:
        device.clock.advance(days * DAY)


def segments(bench: Bench) -> list[str]:
    return sorted(key for key in bench.objects.objects if key.startswith("log/"))


def snapshot_ids(bench: Bench) -> set[str]:
    return {key.split("/")[1] for key in bench.objects.objects if key.startswith("snapshots/")} - {"latest"}


def grown(bench: Bench) -> tuple[Device, Device]:
    """Two devices with three segments each, and all of it on both."""
    desk, phone = joined(bench, "desk"), joined(bench, "phone")
    for number in range(3):
        for device in (desk, phone):
            device.add(f"{number} of {device.home.name}")
            device.sync()
    bench.settle()
    acknowledge(desk)
    acknowledge(phone)
    return desk, phone


def why(done: Any) -> dict[str, int]:
    return dict(done.why)


def test_segments_go_when_they_are_covered_acknowledged_and_past_grace(bench: Bench) -> None:
    desk, phone = grown(bench)
    first = compact(desk, force=True)
    assert (first.written, first.segments_deleted, first.kept) == (True, 0, 6)
    assert why(first) == {"a snapshot includes them for less than 14 days": 6}
    pass_days(bench, 15)
    second = compact(desk)
    assert (second.written, second.segments_deleted, second.kept) == (False, 4, 2)
    assert why(second) == {"the last of each log stays, to show where it ends": 2}
    assert [key[-1] for key in segments(bench)] == ["3", "3"]
    tablet = joined(bench, "tablet")
    assert tablet.sync().warnings == []
    assert hash_of(tablet) == hash_of(desk) == hash_of(phone)
    phone.add("later")
    bench.settle()
    assert hash_of(tablet) == hash_of(desk) == hash_of(phone)


def test_what_a_live_device_has_not_read_stays(bench: Bench) -> None:
    desk, phone = grown(bench)
    desk.add("news")
    compact(desk, force=True)
    pass_days(bench, 15)
    done = compact(desk)
    names = [one for one in why(done) if one.startswith("phone")]
    assert len(names) == 1
    assert why(done)[names[0]] == 1
    assert f"log/{desk.id}/00000000000000000004" in segments(bench)
    phone.sync()
    acknowledge(phone)
    assert names[0] not in why(compact(desk))


def test_a_device_that_never_acknowledged_is_waited_for_ninety_days(bench: Bench) -> None:
    desk = joined(bench, "desk")
    for name in ("a", "b", "c"):
        desk.add(name)
        desk.sync()
    joined(bench, "phone")
    compact(desk, force=True)
    pass_days(bench, 60)
    assert why(compact(desk)) == {f"phone ({bench.devices[1].id[:8]}) has not read them yet": 3}
    pass_days(bench, 31)
    done = compact(desk)
    assert done.segments_deleted == 2
    assert done.warnings == ("phone has not been heard of for 90 days and is not waited for",)


def test_a_device_that_was_away_for_long_starts_from_the_snapshot(bench: Bench) -> None:
    desk, phone = grown(bench)
    phone.add("said on the phone, offline")
    for number in range(5):
        desk.add(f"meanwhile {number}")
        desk.sync()
    desk.graph.delete_entities(["0 of desk"])
    compact(desk, force=True)
    pass_days(bench, 120)
    assert compact(desk).segments_deleted > 4
    report = phone.sync()
    assert report.warnings == []
    assert "0 of desk" not in phone.names()
    assert "meanwhile 4" in phone.names()
    bench.settle()
    assert hash_of(desk) == hash_of(phone)
    assert "said on the phone, offline" in desk.names()


def test_a_dry_run_changes_nothing_and_says_what_would_go(bench: Bench) -> None:
    desk, _ = grown(bench)
    compact(desk, force=True)
    pass_days(bench, 15)
    desk.sync()
    before = dict(bench.objects.objects)
    kept = {key: desk.blobs.get(key) for key in desk.blobs.keys("local/")}
    done = Compaction(snapshots_of(desk), dry_run=True).run()
    assert (done.dry_run, done.segments_deleted, done.kept) == (True, 4, 2)
    assert done.bytes_freed == sum(len(before[key]) for key in segments(bench) if not key.endswith("3"))
    assert bench.objects.objects == before
    assert {key: desk.blobs.get(key) for key in desk.blobs.keys("local/")} == kept
    assert compact(desk).segments_deleted == 4


def test_little_news_is_worth_no_snapshot_and_much_is(bench: Bench) -> None:
    desk = joined(bench, "desk")
    desk.add("Ada")
    assert not compact(desk).written
    for number in range(64):
        desk.add(f"{number}")
        desk.sync()
    assert compact(desk).written
    assert not compact(desk).written
    desk.add("more")
    assert not compact(desk).written


def test_snapshots_that_were_replaced_go_after_grace(bench: Bench) -> None:
    desk, _ = grown(bench)
    first = compact(desk, force=True).snapshot
    pass_days(bench, 5)
    desk.add("more")
    second = compact(desk, force=True).snapshot
    assert snapshot_ids(bench) == {first, second}
    pass_days(bench, 10)
    compact(desk)
    assert snapshot_ids(bench) == {first, second}
    pass_days(bench, 5)
    assert compact(desk).snapshots_deleted == 1
    assert snapshot_ids(bench) == {second}


def test_parts_of_a_snapshot_that_was_never_finished_go_later(bench: Bench) -> None:
    desk, phone = grown(bench)
    latest = compact(desk, force=True)
    stale = snapshots_of(phone).latest()
    compact(desk, force=True)
    with pytest.raises(ConflictError):
        snapshots_of(phone).write(stale)
    abandoned = "ab" * 16
    bench.objects.objects[f"snapshots/{abandoned}/00000000000000000001"] = b"part of something"
    pass_days(bench, 3)
    compact(desk, grace_days=1)
    assert latest.snapshot not in snapshot_ids(bench)
    assert abandoned in snapshot_ids(bench)
    pass_days(bench, 2)
    done = compact(desk, grace_days=1)
    assert done.snapshots_deleted >= 1
    assert len(snapshot_ids(bench)) == 1
    assert snapshots_of(phone).latest() is not None


def test_what_is_written_meanwhile_stays(bench: Bench) -> None:
    desk, phone = grown(bench)
    compact(desk, force=True)
    pass_days(bench, 15)
    compaction = Compaction(snapshots_of(desk))
    phone.add("just now")
    phone.sync()
    compaction.run()
    bench.settle()
    assert "just now" in desk.names()
    assert hash_of(desk) == hash_of(phone)


def test_a_stop_at_any_request_leaves_a_readable_bucket(bench: Bench) -> None:
    desk, _ = grown(bench)
    compact(desk, force=True)
    desk.graph.delete_entities(["1 of phone"])
    desk.sync()
    pass_days(bench, 15)
    wanted = desk.content()
    start = dict(bench.objects.objects)
    memory = {key: desk.blobs.get(key) for key in desk.blobs.keys("local/snapshot")}
    for stop_after in range(60):
        bench.objects.objects = dict(start)
        for key, value in memory.items():
            desk.blobs.put(key, value or b"")
        objects = StoppingStore(bench.objects, stop_after)
        snapshots = snapshots_of(desk)
        try:
            Compaction(
                type(snapshots)(snapshots.vault, objects, snapshots.blobs, snapshots.state, desk.clock), force=True
            ).run()
        except StoreUnreachableError:
            pass
        else:
            break
        tablet = joined(bench, f"tablet{stop_after}")
        assert tablet.sync().warnings == []
        assert tablet.content() == wanted
        tablet.database.close()
        bench.devices.remove(tablet)
    else:
        raise AssertionError("the compaction never came to its end")
    assert stop_after >= 8  # parts, manifest, pointer, acknowledgement, and the removals
    assert len(segments(bench)) < len([key for key in start if key.startswith("log/")])


class StoppingStore:
    """A bucket that is gone after so many changes of it, as for a process that is killed then."""

    def __init__(self, objects: Any, changes: int) -> None:
        self._objects = objects
        self._left = changes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def put(self, *given: Any, **how: Any) -> str:
        self._count()
        return str(self._objects.put(*given, **how))

    def delete(self, key: str) -> None:
        self._count()
        self._objects.delete(key)

    def _count(self) -> None:
        if not self._left:
            raise StoreUnreachableError("gone")
        self._left -= 1


def test_a_damaged_snapshot_is_told_of_and_replaced_with_force(bench: Bench) -> None:
    desk, _ = grown(bench)
    compact(desk, force=True)
    bench.objects.objects[POINTER_KEY] = b"not ours"
    with pytest.raises(TamperedError):
        compact(desk)
    done = compact(desk, force=True)
    assert done.written
    assert [warning for warning in done.warnings if "a new snapshot takes its place" in warning]
    tablet = joined(bench, "tablet")
    tablet.sync()
    assert hash_of(tablet) == hash_of(desk)


def test_the_local_log_loses_what_has_no_effect(bench: Bench) -> None:
    desk, _ = grown(bench)
    desk.observe("0 of desk", "a secret")
    desk.graph.delete_entities(["1 of desk"])
    desk.sync()
    before = hash_of(desk)
    done = compact(desk, force=True)
    assert done.local.removed >= 2
    assert hash_of(desk) == before
    with desk.database.read() as connection:
        texts = [row[0] for row in connection.execute("SELECT payload FROM ops")]
    assert not [text for text in texts if "1 of desk" in text]
    assert state_of(desk).thin(desk.log.heads()).removed == 0


# Acknowledgements


def test_an_ack_says_how_far_a_device_has_read(bench: Bench) -> None:
    desk, phone = grown(bench)
    assert desk.vault is not None
    entry = next(entry for entry in desk.vault.devices() if entry.device_id == phone.id)
    ack = read_ack(desk.vault, bench.objects, entry)
    assert ack is not None
    assert dict(ack.vector) == {desk.id: 3, phone.id: 3}
    assert (ack.at, ack.snapshot) == (phone.clock.now(), "")


def test_an_ack_is_of_its_device_alone(bench: Bench) -> None:
    desk, phone = grown(bench)
    assert desk.vault is not None
    objects = bench.objects.objects
    objects[ack_key(phone.id)] = objects[ack_key(desk.id)]
    entry = next(entry for entry in desk.vault.devices() if entry.device_id == phone.id)
    with pytest.raises(TamperedError):
        read_ack(desk.vault, bench.objects, entry)
    compact(desk, force=True)
    pass_days(bench, 15)
    done = compact(desk)
    assert done.segments_deleted == 2  # its own, which it must have
    assert why(done)[f"phone ({phone.id[:8]}) has not read them yet"] == 3
    assert [warning for warning in done.warnings if warning.startswith("phone")]


def test_an_ack_is_due_after_a_day_or_many_segments(bench: Bench) -> None:
    desk, phone = grown(bench)
    others = {phone.id: desk.log.heads()[phone.id]}
    now = desk.clock.now()
    assert not is_due(desk.blobs, others, now + timedelta(days=3))
    phone.add("news")
    phone.sync()
    desk.sync()
    others = {phone.id: desk.log.heads()[phone.id]}
    assert not is_due(desk.blobs, others, now + timedelta(hours=23))
    assert is_due(desk.blobs, others, now + timedelta(hours=25))
    assert is_due(desk.blobs, others, now - timedelta(days=400))
    for number in range(49):
        phone.add(f"{number}")
        phone.sync()
    desk.sync()
    assert is_due(desk.blobs, {phone.id: desk.log.heads()[phone.id]}, now + timedelta(minutes=1))


def test_a_snapshot_of_a_revoked_device_stops_no_sync_and_is_replaced(bench: Bench) -> None:
    desk, phone, laptop = joined(bench, "desk"), joined(bench, "phone"), joined(bench, "laptop")
    phone.add("Ada")
    bench.settle()
    assert compact(phone, force=True).written
    revoke(phone, by=desk)
    tablet = joined(bench, "tablet")
    for device in (desk, laptop, tablet):
        device.add(device.home.name)
        assert device.sync().warnings == []
    for device in (desk, laptop, tablet):
        assert device.sync().warnings == []
        assert device.names() == {"Ada", "desk", "laptop", "tablet"}
    planned = compact(tablet, dry_run=True)
    assert (planned.written, planned.segments_deleted) == (True, 0)
    done = compact(tablet)
    assert done.written
    [warning] = done.warnings
    assert warning.startswith("the newest snapshot was made by a device that was revoked")
    watch = joined(bench, "watch")
    assert snapshots_of(watch).catch_up(desk.id)
    assert hash_of(watch) == hash_of(desk)
    assert compact(desk).warnings == ()


def test_a_snapshot_of_a_revoked_device_that_says_more_is_replaced_by_force_alone(bench: Bench) -> None:
    desk, phone = joined(bench, "desk"), joined(bench, "phone")
    laptop = joined(bench, "laptop")
    laptop.add("Ada")
    laptop.sync()
    phone.sync()
    assert compact(phone, force=True).written
    for key in segments(bench):
        del bench.objects.objects[key]
    revoke(phone, by=desk)
    with pytest.raises(ConflictError, match="changes that this device does not have") as refused:
        compact(desk)
    assert "--force" in refused.value.hint
    assert compact(desk, force=True).written
