"""What is wrong with one device's log stops that log alone, and a cursor never passes a gap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from dualmem_mcp.crypto.roster import RosterEntry
from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.oplog import NO_HEAD, LogHead
from dualmem_mcp.ports import ObjectInfo
from dualmem_mcp.sync.listing import list_logs
from dualmem_mcp.sync.op_lines import op_line
from dualmem_mcp.sync.pull import Pulled, pull
from dualmem_mcp.sync.segments import Segment, open_segment, seal_segment, segment_key
from tests.sync.conftest import Bench, Device, revoke


@pytest.fixture
def trio(bench: Bench) -> tuple[Device, Device, Device]:
    """A reader, a writer of three segments, and another writer, nothing of which the reader has pulled."""
    reader, writer, other = bench.device("reader"), bench.device("writer"), bench.device("other")
    reader.sync()
    for number in (1, 2, 3):
        writer.add(f"w{number}")
        writer.sync()
    other.add("o1")
    other.sync()
    return reader, writer, other


def key_of(device: Device, number: int) -> str:
    return segment_key(device.id, number)


def opened(by: Device, device: Device, number: int, data: bytes) -> Segment:
    assert by.vault is not None
    return open_segment(by.vault, key_of(device, number), device.keys.ed25519_public, data)


def head_of(device: Device, of: Device) -> int:
    heads = device.log.heads()
    return heads[of.id].segment if of.id in heads else 0


def flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize(("position", "probe"), [(9, True), (70, False), (150, True), (300, False), (-1, True)])
def test_a_damaged_segment(bench: Bench, trio, position: int, probe: bool) -> None:
    reader, writer, _ = trio
    key, whole = key_of(writer, 2), bench.objects.objects[key_of(writer, 2)]
    bench.objects.objects[key] = flip(whole, position % len(whole))
    report = reader.sync(probe=probe)
    assert reader.names() == {"w1", "o1"}
    [warning] = report.warnings
    assert "the log of writer" in warning
    assert head_of(reader, writer) == 1
    bench.objects.objects[key] = whole
    assert reader.sync(probe=probe).warnings == []
    assert reader.names() == {"w1", "w2", "w3", "o1"}


@pytest.mark.parametrize("length", [0, 255, 5000])
def test_a_torn_segment(bench: Bench, trio, length: int) -> None:
    reader, writer, _ = trio
    key = key_of(writer, 1)
    bench.objects.objects[key] = bench.objects.objects[key][:length]
    assert "the log of writer" in reader.sync().warnings[0]
    assert reader.names() == {"o1"}


@pytest.mark.parametrize("extra", [1, 25 << 20])
def test_a_segment_made_longer(bench: Bench, trio, extra: int) -> None:
    reader, writer, _ = trio
    bench.objects.objects[key_of(writer, 1)] += bytes(extra)
    assert "the log of writer" in reader.sync().warnings[0]
    assert reader.names() == {"o1"}


@pytest.mark.parametrize(("source", "target"), [(1, 2), (2, 1), (3, 2), (1, 4)])
def test_replayed_and_reordered_segments(bench: Bench, trio, source: int, target: int) -> None:
    reader, writer, _ = trio
    bench.objects.objects[key_of(writer, target)] = bench.objects.objects[key_of(writer, source)]
    assert "another place" in reader.sync().warnings[0] or "does not authenticate" in reader.sync().warnings[0]
    assert reader.names() == {f"w{number}" for number in range(1, target)} | {"o1"}


def test_a_segment_of_another_device(bench: Bench, trio) -> None:
    reader, writer, other = trio
    bench.objects.objects[key_of(writer, 1)] = bench.objects.objects[key_of(other, 1)]
    assert "the log of writer" in reader.sync().warnings[0]
    assert reader.names() == {"o1"}


def test_a_segment_of_another_vault(bench: Bench, trio, tmp_path) -> None:
    reader, writer, _ = trio
    elsewhere = Bench(tmp_path / "elsewhere", type(bench.objects)())
    stranger = elsewhere.device("stranger")
    stranger.add("secret")
    stranger.sync()
    bench.objects.objects[key_of(writer, 1)] = elsewhere.objects.objects[key_of(stranger, 1)]
    assert "the log of writer" in reader.sync().warnings[0]
    assert reader.names() == {"o1"}
    elsewhere.close()


def test_two_segments_exchanged(bench: Bench, trio) -> None:
    reader, writer, _ = trio
    objects = bench.objects.objects
    first, second = key_of(writer, 1), key_of(writer, 2)
    objects[first], objects[second] = objects[second], objects[first]
    assert "the log of writer" in reader.sync().warnings[0]
    assert reader.names() == {"o1"}


@pytest.mark.parametrize("probe", [True, False])
def test_a_cursor_never_passes_a_gap(bench: Bench, trio, probe: bool) -> None:
    reader, writer, _ = trio
    gone = bench.objects.objects.pop(key_of(writer, 2))
    report = reader.sync(probe=probe)
    # Who asks for one object at a time cannot tell a gap from an end.
    assert bool(report.warnings) is not probe
    assert head_of(reader, writer) == 1
    assert reader.names() == {"w1", "o1"}
    writer.add("w4")
    reader.sync(probe=probe)
    assert head_of(reader, writer) == 1
    bench.objects.objects[key_of(writer, 2)] = gone
    reader.sync(probe=probe)
    assert reader.names() == {"w1", "w2", "w3", "o1"}


def test_a_gap_that_a_snapshot_fills(bench: Bench, trio) -> None:
    reader, writer, _ = trio
    gone = bench.objects.objects.pop(key_of(writer, 1))
    asked = []

    def catch_up(device_id, into) -> bool:
        asked.append(device_id)
        if device_id != writer.id:
            return False
        first = open_segment(writer.vault, key_of(writer, 1), writer.keys.ed25519_public, gone)
        into(reader.log.take_in(writer.id, first.ops, first.head))
        return True

    reader.catch_up = catch_up
    report = reader.sync()
    assert writer.id in asked
    assert (report.pulled.ops, report.pulled.segments, report.warnings) == (4, 3, [])
    assert head_of(reader, writer) == 3
    assert reader.names() == {"w1", "w2", "w3", "o1"}


class StaleStore:
    """A bucket whose listings show an earlier state, or one that is past, than its objects."""

    def __init__(self, bench: Bench, *, hide: str = "", show: str = "") -> None:
        self.objects, self.hide, self.show = bench.objects, hide, show

    def __getattr__(self, name: str):
        return getattr(self.objects, name)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        infos = [info for info in self.objects.list(prefix, start_after=start_after) if info.key != self.hide]
        if self.show and self.show.startswith(prefix) and self.show > start_after:
            infos.append(ObjectInfo(self.show, 1, ""))
        yield from sorted(infos, key=lambda info: info.key)


def pull_with(reader: Device, objects):
    pulled = Pulled()
    devices = {entry.device_id for entry in reader.vault.devices()}
    listed = list_logs(objects, devices, {device: head.segment for device, head in reader.log.heads().items()})
    pull(reader.vault, objects, reader.log, listed=listed, catch_up=lambda device_id, into: False, into=pulled)
    return pulled


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_listing_that_lags_behind(bench: Bench, trio, number: int) -> None:
    reader, writer, _ = trio
    pulled = pull_with(reader, StaleStore(bench, hide=key_of(writer, number)))
    assert (pulled.ops, pulled.problems) == (4, [])
    pulled = pull_with(reader, StaleStore(bench, hide=key_of(writer, 3)))
    assert pulled.problems == []


def test_a_listing_that_shows_what_is_not_there(bench: Bench, trio) -> None:
    reader, writer, _ = trio
    pulled = pull_with(reader, StaleStore(bench, show=key_of(writer, 4)))
    assert pulled.ops == 4
    assert "segment 4 is missing" in pulled.problems[0]
    assert pull_with(reader, bench.objects).problems == []


def test_a_log_that_was_set_back(bench: Bench, trio) -> None:
    reader, writer, _ = trio
    reader.sync()
    last = bench.objects.objects.pop(key_of(writer, 3))
    assert "segment 3 is missing" in reader.sync().warnings[0]
    assert reader.names() == {"w1", "w2", "w3", "o1"}
    bench.objects.objects[key_of(writer, 3)] = last
    assert reader.sync().warnings == []


def test_logs_of_nobody_are_named(bench: Bench, trio) -> None:
    reader, _writer, _ = trio
    for name in ("0" * 32, "f" * 32, "notes"):
        bench.objects.objects[f"log/{name}/{1:020d}"] = b"x"
        bench.objects.objects[f"log/{name}/{2:020d}"] = b"x"
    report = reader.sync()
    assert reader.names() == {"w1", "w2", "w3", "o1"}
    [warning] = report.warnings
    assert all(name in warning for name in ("0" * 32, "f" * 32, "notes"))


def test_other_objects_beside_segments_are_left_alone(bench: Bench, trio) -> None:
    reader, writer, _ = trio
    bench.objects.objects[f"log/{writer.id}/notes.txt"] = b"x"
    bench.objects.objects[f"log/{writer.id}/{1:020d}.tmp"] = b"x"
    assert reader.sync().warnings == []
    assert reader.names() == {"w1", "w2", "w3", "o1"}


@pytest.mark.parametrize(("revoked_after", "counted"), [(0, 0), (2, 2), (3, 3)])
def test_later_segments_of_a_revoked_device_count_for_nobody(
    bench: Bench, trio, monkeypatch, revoked_after: int, counted: int
) -> None:
    reader, writer, _ = trio
    devices = reader.vault.devices()
    data = bench.objects.objects.get(key_of(writer, revoked_after), b"")
    last = opened(reader, writer, revoked_after, data).head.object_hash if data else bytes(32)

    def revoked() -> list[RosterEntry]:
        return [
            replace(one, revoked_after=revoked_after, revoked_hash=last) if one.device_id == writer.id else one
            for one in devices
        ]

    monkeypatch.setattr(reader.vault, "devices", revoked)
    report = reader.sync()
    assert reader.names() == {f"w{number}" for number in range(1, counted + 1)} | {"o1"}
    assert report.warnings == []
    for number in (1, 2, 3):  # what it wrote may be removed, and is not missed
        bench.objects.objects.pop(key_of(writer, number))
    assert reader.sync().warnings == []


def forged(bench: Bench, device: Device, number: int, after: LogHead) -> LogHead:
    """The device, which was revoked, has its keys still: it seals other changes under a number that counts."""
    key = key_of(device, number)
    assert device.vault is not None
    genuine = opened(device, device, number, bench.objects.objects[key])
    lines = [op_line(replace(op, payload=op.payload.replace("w", "W"))) for op in genuine.ops]
    sealed = seal_segment(device.vault, lines, last_sequence=genuine.head.sequence, after=after)
    bench.objects.objects[key] = sealed.data
    return sealed.head


@pytest.mark.parametrize(
    ("read", "first", "upto"),
    [(0, 1, 1), (0, 1, 2), (0, 1, 3), (0, 2, 2), (0, 2, 3), (0, 3, 3), (1, 2, 2), (1, 2, 3), (1, 3, 3), (2, 3, 3)],
)
def test_a_revoked_device_cannot_write_its_log_anew(bench: Bench, trio, read: int, first: int, upto: int) -> None:
    """Neither the last segment that counts nor those before it, for whoever has not read them."""
    reader, writer, other = trio
    objects = bench.objects.objects
    genuine = {number: objects[key_of(writer, number)] for number in (1, 2, 3)}
    for number in range(read + 1, 4):
        del objects[key_of(writer, number)]
    reader.sync()
    assert head_of(reader, writer) == read
    objects |= {key_of(writer, number): data for number, data in genuine.items()}
    other.sync()
    revoke(writer, by=other)
    head = opened(other, writer, first, genuine[first]).before
    for number in range(first, upto + 1):
        head = forged(bench, writer, number, head)
    before = reader.names()
    assert "before it was revoked" in reader.sync().warnings[0]
    assert reader.names() == before
    assert head_of(reader, writer) == read
    objects |= {key_of(writer, number): data for number, data in genuine.items()}
    assert reader.sync().warnings == []
    assert reader.names() == {"w1", "w2", "w3", "o1"}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_of_a_revoked_device_with_a_gap_nothing_is_read_until_it_is_filled(bench: Bench, trio, number: int) -> None:
    reader, writer, other = trio
    other.sync()
    revoke(writer, by=other)
    gone = bench.objects.objects.pop(key_of(writer, number))
    [warning] = reader.sync().warnings
    assert f"segment {number} is missing" in warning
    assert "the log of writer" in warning
    assert reader.names() == {"o1"}
    bench.objects.objects[key_of(writer, number)] = gone
    assert reader.sync().warnings == []
    assert reader.names() == {"w1", "w2", "w3", "o1"}


def test_a_snapshot_fills_the_gap_of_a_revoked_device(bench: Bench, trio) -> None:
    reader, writer, other = trio
    other.sync()
    snapshots = other.snapshots()
    snapshots.write(snapshots.latest())
    writer.add("w4")
    writer.sync()
    other.sync()
    revoke(writer, by=other)
    for number in (1, 2):
        del bench.objects.objects[key_of(writer, number)]
    assert reader.sync().warnings == []
    assert reader.names() == {"w1", "w2", "w3", "w4", "o1"}
    assert head_of(reader, writer) == 4


def test_the_first_look_at_a_revoked_device_reads_the_heads_of_its_segments(bench: Bench, trio) -> None:
    reader, writer, other = trio
    other.sync()
    revoke(writer, by=other)
    del bench.objects.objects[key_of(writer, 1)]
    bench.objects.reads.clear()
    reader.sync()
    read = [(start, length) for key, start, length in bench.objects.reads if key.startswith(f"log/{writer.id}/")]
    assert read == [(0, 1296)] * 3
    bench.objects.reads.clear()
    reader.sync(probe=True)  # without haste
    assert not [key for key, _, _ in bench.objects.reads if key.startswith(f"log/{writer.id}/")]


def test_another_segment_than_counts_that_was_read_before_is_told(bench: Bench, trio) -> None:
    """A hostile device showed its first segment in two forms: whose log it was does not go on here."""
    reader, writer, other = trio
    other.sync()
    objects = bench.objects.objects
    genuine = {key_of(writer, number): objects.pop(key_of(writer, number)) for number in (1, 2, 3)}
    objects[key_of(writer, 1)] = genuine[key_of(writer, 1)]
    forged(bench, writer, 1, NO_HEAD)
    reader.sync()
    objects |= genuine
    revoke(writer, by=other)
    [warning] = reader.sync().warnings
    assert "another than the one that this device has read" in warning
    assert reader.names() == {"W1", "o1"}


def test_a_segment_under_a_key_that_is_not_there_yet_waits(bench: Bench, trio) -> None:
    reader, writer, _ = trio
    for device in (reader, writer):
        device.clock.advance(40 * 86_400)
    writer.add("w4")
    writer.sync()
    epochs = [key for key in bench.objects.objects if key.startswith("keys/0")]
    assert len(epochs) == 2
    newest = max(epochs)
    kept = bench.objects.objects.pop(newest)
    report = reader.sync()
    assert "the log of writer" in report.warnings[0]
    assert head_of(reader, writer) == 3
    bench.objects.objects[newest] = kept
    assert reader.sync().warnings == []
    assert "w4" in reader.names()


def test_what_came_in_before_the_bucket_went_away_stays(bench: Bench, trio, monkeypatch) -> None:
    reader, writer, _ = trio
    get = bench.objects.get

    def failing(key: str, **how) -> bytes:
        if key == key_of(writer, 2):
            raise StoreUnreachableError("the line is cut")
        return get(key, **how)

    monkeypatch.setattr(bench.objects, "get", failing)
    report = reader.sync()
    assert (report.away, report.pulled.segments) == (True, 1)
    assert "w1" in reader.names()
    monkeypatch.undo()
    reader.sync()
    assert reader.names() == {"w1", "w2", "w3", "o1"}
