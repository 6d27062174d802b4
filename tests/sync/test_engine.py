"""One sync: what one device has made the others have, and nothing is lost where the bucket is away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from dualmem_mcp.durable_files import file_lock
from dualmem_mcp.errors import NotFoundError, StoreRefusedError, TamperedError
from dualmem_mcp.model.cost import USD_PER_READ_REQUEST, USD_PER_WRITE_REQUEST
from dualmem_mcp.model.oplog import physical_ticks
from dualmem_mcp.stores.erasure_rows import ErasedConversations
from dualmem_mcp.stores.logical_state import logical_hash
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.sync.deadline import DeadlineObjectStore
from dualmem_mcp.sync.engine import Merged, sync
from tests.conftest import SteppingClock
from tests.crypto.conftest import MemoryObjectStore
from tests.sync.conftest import Bench, Device


def state(device: Device) -> str:
    with device.database.read() as connection:
        return logical_hash(connection)


def test_what_one_device_makes_the_other_has(folder_bench: Bench) -> None:
    desk, phone = folder_bench.device("desk"), folder_bench.device("phone")
    desk.add("Ada", "Engine")
    desk.observe("Ada", "née Byron")
    sent = desk.sync()
    assert (sent.pushed.segments, sent.pushed.ops, sent.queued) == (1, 3, 0)
    got = phone.sync()
    assert (got.pulled.segments, got.pulled.ops, got.warnings) == (1, 3, [])
    assert got.pulled.bytes == sent.pushed.bytes > 4096
    assert phone.content() == {
        "Ada": ("thing", frozenset({"Ada is here", "née Byron"})),
        "Engine": ("thing", frozenset({"Engine is here"})),
    }
    assert state(phone) == state(desk)


def test_three_devices_come_to_the_same(bench: Bench) -> None:
    desk, phone, pad = (bench.device(name) for name in ("desk", "phone", "pad"))
    desk.add("Ada", "Engine")
    bench.settle()
    desk.observe("Ada", "from the desk")
    phone.graph.delete_entities(["Engine"])
    pad.observe("Ada", "from the pad")
    bench.settle()
    assert phone.content()["Ada"][1] == {"Ada is here", "from the desk", "from the pad"}
    assert len({state(device) for device in bench.devices}) == 1
    assert desk.names() == {"Ada"}


def test_a_report_says_what_looks_different_now(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    assert desk.sync().merged.subjects == frozenset()
    assert len(phone.sync().merged.subjects) == 1
    assert phone.sync().merged.subjects == frozenset()


@pytest.mark.parametrize("probe", [True, False])
def test_nothing_is_transferred_when_nothing_changed(bench: Bench, probe: bool) -> None:
    for name in ("desk", "phone", "pad"):
        bench.device(name).add(name)
    bench.settle()
    before = dict(bench.objects.objects)
    report = bench.devices[0].sync(probe=probe)
    assert (report.pushed.bytes, report.pulled.bytes, report.queued) == (0, 0, 0)
    assert report.requests.put == report.requests.delete == 0
    assert bench.objects.objects == before


def test_a_probe_lists_nothing(bench: Bench) -> None:
    for name in ("desk", "phone", "pad"):
        bench.device(name).add(name)
    bench.settle()
    desk = bench.devices[0]
    idle = desk.sync(probe=True)
    # vault.json, the next roster entry, and the next segment of each of two other devices
    assert (idle.requests.get, idle.requests.list, idle.requests.stat) == (4, 0, 0)
    assert bench.devices[1].sync().requests.list > 0


def test_a_probe_finds_what_is_new_and_who(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    bench.settle()
    desk.add("Ada")
    desk.sync(probe=True)
    assert phone.sync(probe=True).pulled.ops == 1
    pad = bench.device("pad")
    pad.add("Tablet")
    pad.sync()
    assert phone.sync(probe=True).pulled.ops == 1
    assert phone.names() == {"Ada", "Tablet"}


def test_requests_have_their_list_price(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    assert desk.sync().cost_usd == 0  # neither a folder nor memory costs anything
    bench.objects.location = "s3://bucket"
    desk.add("Engine")
    report = desk.sync()
    reads, writes = report.requests.get + report.requests.stat, report.requests.put + report.requests.list
    assert report.requests.put == 1
    assert report.cost_usd == pytest.approx(reads * USD_PER_READ_REQUEST + writes * USD_PER_WRITE_REQUEST)


def test_a_bucket_that_is_away_is_no_error(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    bench.objects.away = True
    report = desk.sync()
    assert (report.away, report.queued, report.pushed.ops) == (True, 1, 0)
    assert "away" in report.warnings[0]
    desk.add("Engine")
    assert desk.sync(probe=True).queued == 2
    bench.objects.away = False
    assert desk.sync().queued == 0
    phone.sync()
    assert state(phone) == state(desk)


@dataclass
class Refusing(MemoryObjectStore):
    """A bucket that answers every request that begins so, and grants none."""

    objects: dict[str, bytes]
    requests: tuple[str, ...]
    location: str = "s3://bucket"

    def __post_init__(self) -> None:
        kept = self.objects
        super().__init__()
        self.objects = kept

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._check("get")
        return super().get(key, start=start, length=length)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        self._check("put")
        return super().put(key, data, if_absent=if_absent, if_match=if_match)

    def _check(self, request: str) -> None:
        if request in self.requests:
            raise StoreRefusedError(
                f"could not {request} it in s3://bucket: AccessDenied (403)",
                hint="Give these credentials the rights.",
            )


@pytest.mark.parametrize("requests", [("get", "put"), ("put",)])
def test_a_bucket_that_refuses_is_not_away(bench: Bench, requests: tuple[str, ...]) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    phone.add("Engine")
    phone.sync()
    told: list[Merged] = []
    refusing = Refusing(bench.objects.objects, requests)
    report = sync(desk.exchange(objects=refusing, on_merged=told.append))
    assert (report.away, report.refused, report.queued) == (False, True, 1)
    assert not report.went_through
    assert report.to_json()["refused"] is True
    [warning] = report.warnings
    assert warning.startswith("the bucket refuses this device: could not ")
    assert warning.endswith(
        "AccessDenied (403); everything waits on this device. Give these credentials the rights."
    )
    assert told == ([report.merged] if "get" not in requests else [])
    report = desk.sync()
    assert (report.refused, report.queued, report.went_through) == (False, 0, True)


def test_what_came_in_is_told_though_the_sync_fails_then(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    desk.sync()
    told: list[Merged] = []
    with monkeypatch.context() as patch:

        def damaged(_size: int, _bytes: int) -> None:
            raise TamperedError("the log is damaged")

        exchange = phone.exchange(on_merged=told.append)
        patch.setattr(exchange.log, "unsealed", damaged)
        with pytest.raises(TamperedError):
            sync(exchange)
    assert [len(merged.subjects) for merged in told] == [1]
    assert phone.names() == {"Ada"}


def test_a_bucket_that_goes_away_on_the_way(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    for number in range(3):
        desk.add(*(f"{number}-{item}" for item in range(500)))

    def leave(key: str) -> None:
        if key.endswith("2"):
            bench.objects.away = True
            bench.objects._reach()

    bench.objects.before_put = leave
    report = desk.sync()
    assert (report.pushed.segments, report.pushed.ops, report.queued, report.away) == (1, 500, 2, True)
    bench.objects.before_put, bench.objects.away = None, False
    assert phone.sync().pulled.ops == 500
    report = desk.sync()
    assert (report.pushed.segments, report.pushed.ops, report.queued) == (2, 1000, 0)
    phone.sync()
    assert state(phone) == state(desk)


def test_one_sync_at_a_time(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    with file_lock(desk.home / "sync.lock"):
        report = desk.sync()
    assert report.busy
    assert "another process" in report.warnings[0]
    assert report.requests.get == 0
    assert desk.sync().pushed.ops == 1


def test_a_sync_whose_time_is_over_leaves_the_rest(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    for ends_at in (0.0, 3.0, 5.0):
        ticks = iter(range(1000))
        over = DeadlineObjectStore(bench.objects, ends_at, lambda ticks=ticks: float(next(ticks)))
        report = sync(desk.exchange(objects=over))
        assert (report.pushed.segments, report.queued) == (0, 1)
        assert "time for this sync is over" in report.warnings[0]
    assert desk.sync().pushed.ops == 1
    assert phone.sync().pulled.ops == 1


def test_packages_wait_for_a_connection_that_is_not_metered(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.outbox.add("packages/aa", b"large")
    desk.outbox.add("manifests/a/b", b"names it")
    desk.add("Ada")
    report = desk.sync(large_objects=False)
    assert (report.pushed.ops, report.queued) == (1, 2)
    assert "packages/aa" not in bench.objects.objects
    desk.sync()
    assert {"packages/aa", "manifests/a/b"} <= set(bench.objects.objects)


def test_an_emptied_bucket_is_refused(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    bench.settle()
    kept = dict(bench.objects.objects)
    bench.objects.objects.clear()
    phone.add("Engine")
    for probe in (True, False):
        with pytest.raises(NotFoundError, match="no vault"):
            phone.sync(probe=probe)
    assert bench.objects.objects == {}
    assert phone.names() == {"Ada", "Engine"}
    bench.objects.objects.update(kept)
    bench.settle()
    assert desk.names() == {"Ada", "Engine"}


def test_a_bucket_set_back_is_refused(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    bench.settle()
    kept = dict(bench.objects.objects)
    desk.add("Engine")
    bench.settle()
    later = dict(bench.objects.objects)
    bench.objects.objects = dict(kept)
    desk.add("Wheel")
    with pytest.raises(TamperedError, match="set back"):
        desk.sync()
    assert bench.objects.objects == kept
    assert desk.names() == {"Ada", "Engine", "Wheel"}
    report = phone.sync()
    assert "segment 2 is missing" in report.warnings[0]
    assert phone.names() == {"Ada", "Engine"}
    bench.objects.objects = later
    bench.settle()
    assert state(desk) == state(phone)


def test_another_vault_in_the_bucket_is_refused(bench: Bench, tmp_path) -> None:
    desk = bench.device("desk")
    other = Bench(tmp_path / "other", type(bench.objects)())
    other.device("stranger")
    bench.objects.objects = other.objects.objects
    desk.add("Ada")
    for probe in (True, False):
        with pytest.raises(TamperedError, match="another vault"):
            desk.sync(probe=probe)
    other.close()


def test_the_contract_of_a_report(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    values = desk.sync().to_json()
    assert values["pushed"]["segments"] == values["pushed"]["ops"] == 1
    assert values["pulled"] == {"segments": 0, "ops": 0, "bytes": 0}
    assert (values["conflicts"], values["queued"], values["warnings"]) == (0, 0, [])
    assert values["duration_ms"] > 0
    assert set(values["requests"]) == {"get", "put", "list", "stat", "delete"}


def test_a_clock_years_ahead_is_noticed_before_anything_goes_out(bench: Bench) -> None:
    """The bucket's clock is right, and its answers tell it."""
    right = SteppingClock()
    bench.objects.clock = right.time
    desk, phone = bench.device("desk", SteppingClock(right.time + timedelta(days=2000))), bench.device("phone")
    desk.add("Ada")
    desk.observe("Ada", "said in the future")
    assert desk.sync().warnings == []
    report = phone.sync()
    assert (report.pulled.ops, report.warnings) == (2, [])
    assert phone.content() == desk.content()
    phone.observe("Ada", "later")
    bench.settle()
    assert state(desk) == state(phone)
    [op] = phone.log.own_ops(0, 1)
    assert op.stamp.ticks < physical_ticks(right.time + timedelta(hours=1))


def test_a_clock_years_behind_still_takes_what_comes(bench: Bench) -> None:
    right = SteppingClock()
    bench.objects.clock = right.time
    desk, phone = bench.device("desk"), bench.device("phone", SteppingClock(right.time - timedelta(days=2000)))
    desk.add("Ada")
    phone.add("Engine")
    bench.settle()
    assert phone.names() == desk.names() == {"Ada", "Engine"}


def test_changes_from_the_future_are_told_of_and_wait(bench: Bench) -> None:
    """No clock but the devices' own: one of them is a year ahead."""
    fast = SteppingClock(SteppingClock().time + timedelta(days=365))
    desk, phone = bench.device("desk", fast), bench.device("phone")
    desk.add("Ada")
    desk.sync()
    assert "1 change of other devices is more than a day ahead" in phone.sync().warnings[0]
    assert phone.names() == set()
    phone.clock.advance(365 * 86_400)
    report = phone.sync(probe=True)
    assert report.warnings == []
    assert len(report.merged.subjects) == 1
    assert phone.names() == {"Ada"}


def test_an_erased_conversation_goes_everywhere(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    for device in (desk, phone):
        RecordStore(device.database, device.clock, device.first_id).put(
            "note", f"of {device.home.name}", {"text": "private"}, conversation_id="c1"
        )
    bench.settle()
    assert len({state(device) for device in bench.devices}) == 1
    erased = ErasedConversations(desk.database, desk.clock, desk.first_id, name_of=desk.name_of)
    assert erased.erase("c1")
    RecordStore(phone.database, phone.clock, phone.first_id).put(
        "note", "late", {"text": "private"}, conversation_id="c1"
    )
    bench.settle()
    for device in bench.devices:
        with device.database.read() as connection:
            assert connection.execute("SELECT * FROM records").fetchall() == []
            payloads = connection.execute("SELECT payload FROM ops").fetchall()
        assert not [payload for (payload,) in payloads if "private" in payload]
    assert state(desk) == state(phone)
