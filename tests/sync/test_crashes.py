"""A process that dies at any moment of a sync loses nothing: each of its effects is tried as the last one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dualmem_mcp.stores import outbox as outbox_module
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.logical_state import logical_hash
from tests.sync.conftest import Bench, Device
from tests.sync.test_push import add_turns


class Killed(BaseException):
    """Nothing catches it, as nothing goes on after kill -9."""


class Countdown:
    """Dies at the effect of that number; counts them all."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.count, self.armed = at, 0, False

    def __call__(self) -> None:
        if self.armed:
            self.count += 1
            if self.count == self.at:
                raise Killed


@pytest.fixture
def countdown(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> Countdown:
    """Before and after each commit, durable file, removal of one, and upload."""
    countdown = Countdown()
    write = Database.write

    @contextlib.contextmanager
    def counted_write(self: Database) -> Iterator[Any]:
        with write(self) as connection:
            yield connection
            countdown()  # all is written, nothing committed
        countdown()

    def around(act: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*values: Any, **named: Any) -> Any:
            countdown()
            result = act(*values, **named)
            countdown()
            return result

        return counted

    monkeypatch.setattr(Database, "write", counted_write)
    monkeypatch.setattr(outbox_module, "write_durably", around(outbox_module.write_durably))
    monkeypatch.setattr(outbox_module, "sync_folder", around(outbox_module.sync_folder))
    monkeypatch.setattr(bench.objects, "put", around(bench.objects.put))
    return countdown


def state(device: Device) -> str:
    with device.database.read() as connection:
        return logical_hash(connection)


def dies(countdown: Countdown, device: Device, at: int) -> bool:
    """Sync the device until that effect; whether it came to that."""
    countdown.at, countdown.count, countdown.armed = at, 0, True
    try:
        device.sync()
    except Killed:
        return True
    finally:
        countdown.armed = False
        device.reopen()
    return False


def test_a_push_can_die_anywhere(bench: Bench, countdown: Countdown) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    expected, number = set(), 0
    while True:
        number += 1
        desk.add(f"entity {number}")
        add_turns(desk, "c1", f"u{number}")
        expected.add(f"entity {number}")
        if not dies(countdown, desk, number):
            break
        desk.sync()
        phone.sync()
        assert phone.names() == desk.names() == expected
        assert state(phone) == state(desk)
    assert number > 12
    assert desk.id == desk.first_id
    assert list((desk.home / "sync_queue").glob("*")) == [] or desk.outbox.pending() == []


def test_a_pull_can_die_anywhere(bench: Bench, countdown: Countdown) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    number = 0
    while True:
        number += 1
        for part in (1, 2):
            desk.add(f"entity {number}.{part}")
            add_turns(desk, "c1", f"u{number}.{part}")
            desk.sync()
        if not dies(countdown, phone, number):
            break
        phone.sync()
        assert state(phone) == state(desk)
    assert number > 4


def test_a_fork_can_die_anywhere(bench: Bench, countdown: Countdown) -> None:
    first, third = bench.device("desk"), bench.device("phone")
    first.add("Ada")
    bench.settle()
    objects, number, died = dict(bench.objects.objects), 0, True
    while died:
        number += 1
        bench.objects.objects = dict(objects)
        desk, copy, phone = (
            bench.clone(device, f"{name} {number}")
            for device, name in ((first, "desk"), (first, "copy"), (third, "phone"))
        )
        desk.add("of the desk")
        desk.sync()
        copy.add("of the copy")
        add_turns(copy, "c1", "u1", "u2")
        died = dies(countdown, copy, number)
        copy.sync()
        assert copy.id == copy.vault.device_id != desk.id
        for device in (phone, copy, desk):
            device.sync()
        assert phone.names() == copy.names() == desk.names() == {"Ada", "of the desk", "of the copy"}
        assert state(phone) == state(copy) == state(desk)
        assert len(phone.vault.devices()) == 3
        for device in (desk, copy, phone):
            device.database.close()
    assert number > 15
