"""A sync over every kind of bucket: what one device makes the others have, for the requests it should take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.ports import ObjectStore
from dualmem_mcp.sync.segments import segment_key
from tests.sync.conftest import Bench, Device

SECTION_BYTES = 4096


@pytest.fixture
def bench(store: ObjectStore, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "homes", store)
    yield bench
    bench.close()


def converge(bench: Bench) -> set[str]:
    bench.settle()
    [content] = {frozenset(device.content().items()) for device in bench.devices}
    return {name for name, _ in content}


def test_devices_share_a_memory_and_an_idle_one_asks_little(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    phone.add("Engine")
    assert converge(bench) == {"Ada", "Engine"}
    idle = desk.sync(probe=True)
    assert (idle.requests.get, idle.requests.list, idle.requests.put) == (3, 0, 0)
    assert (idle.pushed.bytes, idle.pulled.bytes, idle.warnings) == (0, 0, [])
    phone.observe("Ada", "née Byron")
    sent = phone.sync(probe=True)
    assert (sent.requests.put, sent.pushed.ops) == (1, 1)
    assert sent.pushed.bytes > SECTION_BYTES
    assert desk.sync(probe=True).pulled.ops == 1
    assert desk.content() == phone.content()


def test_an_upload_whose_answer_was_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    put = bench.objects.put

    def lose(key: str, data: bytes, **how: object) -> str:
        put(key, data, **how)
        raise StoreUnreachableError("the answer did not come")

    with monkeypatch.context() as patch:
        patch.setattr(bench.objects, "put", lose)
        assert desk.sync().queued == 1
    assert desk.sync().queued == 0
    assert desk.id == desk.first_id
    assert converge(bench) == {"Ada"}
    assert phone.log.heads()[desk.id].segment == 1


def test_a_copied_data_home_and_an_object_that_nobody_can_open(bench: Bench) -> None:
    desk, _ = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    bench.settle()
    copy = bench.clone(desk, "copy")
    for device, name in ((desk, "of the desk"), (copy, "of the copy")):
        device.add(name)
        device.sync()
    assert copy.id != desk.id
    bench.objects.put(next_key(copy), b"torn", if_absent=True)
    copy.add("later")
    assert "written again" in copy.sync().warnings[0]
    assert converge(bench) == {"Ada", "of the desk", "of the copy", "later"}


def next_key(device: Device) -> str:
    return segment_key(device.id, device.log.heads()[device.id].segment + 1)
