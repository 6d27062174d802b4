"""One device at a time moves vectors, whatever clocks say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from dualmem_mcp.errors import ConflictError, StoreUnreachableError
from dualmem_mcp.tiers.mover import LEASE, MOVER_KEY, Mover, last_mover
from tests.crypto.conftest import MemoryObjectStore
from tests.tiers.home import TierDevice

DAY = 86_400


def mover(device: TierDevice) -> Mover:
    return Mover(device.channel)


def held_by(found: object) -> str:
    return getattr(found, "device_id", "")


@pytest.fixture
def both(desk: TierDevice, phone: TierDevice) -> tuple[TierDevice, TierDevice]:
    """Both know of each other."""
    desk.channel.vault.refresh(desk.objects)
    return desk, phone


def advance(days: float, *devices: TierDevice) -> None:
    for device in devices:
        device.clock.advance(days * DAY)


def test_the_first_one_is_it_and_stays_it(both: tuple[TierDevice, TierDevice]) -> None:
    desk, phone = both
    assert mover(desk).acquire() is None
    assert mover(desk).acquire() is None
    assert held_by(mover(phone).acquire()) == desk.device.first_id
    assert held_by(last_mover(phone.device.blobs)) == desk.device.first_id


def test_who_moves_each_day_stays_it_and_writes_once_a_day(
    both: tuple[TierDevice, TierDevice], objects: MemoryObjectStore
) -> None:
    desk, phone = both
    written: list[str] = []
    objects.before_put = written.append
    for _ in range(40):
        assert mover(desk).acquire() is None
        assert held_by(mover(phone).acquire()) == desk.device.first_id
        advance(0.5, desk, phone)
    assert 19 <= written.count(MOVER_KEY) <= 40


def test_after_its_lease_another_one_takes_over(both: tuple[TierDevice, TierDevice]) -> None:
    desk, phone = both
    mine = mover(desk)
    assert mine.acquire() is None
    assert held_by(mover(phone).acquire()) == desk.device.first_id
    advance(8, desk, phone)
    assert mover(phone).acquire() is None
    with pytest.raises(ConflictError, match="another device has taken over"):
        mine.confirm()
    assert held_by(mover(desk).acquire()) == phone.device.first_id


def test_who_first_looks_after_the_lease_waits_a_day_where_the_bucket_has_no_clock(
    both: tuple[TierDevice, TierDevice],
) -> None:
    desk, phone = both
    mover(desk).acquire()
    phone.clock.advance(30 * DAY)  # its clock is ahead; the mover is at work
    assert held_by(mover(phone).acquire()) == desk.device.first_id
    advance(1.5, desk, phone)
    mover(desk).acquire()  # renews
    assert held_by(mover(phone).acquire()) == desk.device.first_id
    advance(1.5, phone)
    assert mover(phone).acquire() is None


def test_by_the_clock_of_the_bucket_nobody_waits_longer(
    both: tuple[TierDevice, TierDevice], objects: MemoryObjectStore
) -> None:
    desk, phone = both
    objects.clock = desk.clock.time
    desk.clock.advance(-400 * DAY)
    phone.clock.advance(400 * DAY)
    assert mover(desk).acquire() is None
    assert held_by(mover(phone).acquire()) == desk.device.first_id
    objects.clock += LEASE + timedelta(seconds=1)
    assert mover(phone).acquire() is None


def test_a_mover_whose_clock_was_years_ahead_does_not_keep_it_for_years(
    both: tuple[TierDevice, TierDevice],
) -> None:
    desk, phone = both
    desk.clock.advance(3_650 * DAY)
    mover(desk).acquire()
    assert held_by(mover(phone).acquire()) == desk.device.first_id
    advance(6.9, phone)
    assert held_by(mover(phone).acquire()) == desk.device.first_id
    advance(0.2, phone)
    assert mover(phone).acquire() is None


def test_a_clock_that_is_set_back_takes_over_nothing_too_soon(both: tuple[TierDevice, TierDevice]) -> None:
    desk, phone = both
    mover(desk).acquire()
    advance(0.5, desk, phone)
    assert held_by(mover(phone).acquire()) == desk.device.first_id
    phone.clock.advance(-300 * DAY)
    assert held_by(mover(phone).acquire()) == desk.device.first_id
    phone.clock.advance(6 * DAY)
    assert held_by(mover(phone).acquire()) == desk.device.first_id
    desk.clock.advance(-300 * DAY)
    assert mover(desk).acquire() is None  # says so again, with a time that it believes
    assert held_by(mover(phone).acquire()) == desk.device.first_id


def test_it_can_be_taken_over_at_once(both: tuple[TierDevice, TierDevice]) -> None:
    desk, phone = both
    mover(desk).acquire()
    assert mover(phone).acquire(take_over=True) is None
    assert held_by(mover(desk).acquire()) == phone.device.first_id


def test_of_two_that_begin_at_once_one_is_it(
    both: tuple[TierDevice, TierDevice], objects: MemoryObjectStore
) -> None:
    desk, phone = both
    others: list[object] = []

    def the_other_first(key: str) -> None:
        if key == MOVER_KEY and not others:
            others.append(None)
            others[0] = mover(phone).acquire()

    objects.before_put = the_other_first
    assert held_by(mover(desk).acquire()) == phone.device.first_id
    assert others == [None]


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + b"\0", lambda data: b"", lambda data: b"x" * 5_000])
def test_a_damaged_object_is_nobodys(
    both: tuple[TierDevice, TierDevice], objects: MemoryObjectStore, damage: Callable[[bytes], bytes]
) -> None:
    desk, phone = both
    mover(desk).acquire()
    objects.objects[MOVER_KEY] = damage(objects.objects[MOVER_KEY])
    assert mover(phone).acquire() is None
    assert held_by(mover(desk).acquire()) == phone.device.first_id


def test_a_revoked_device_is_not_the_mover_any_more(
    both: tuple[TierDevice, TierDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, phone = both
    mover(phone).acquire()
    entries = [one for one in desk.channel.vault.devices() if one.device_id != phone.device.first_id]
    monkeypatch.setattr(desk.channel.vault, "devices", lambda: entries)
    assert mover(desk).acquire() is None


def test_with_the_bucket_away_nothing_moves_and_the_rest_is_done(
    desk: TierDevice, objects: MemoryObjectStore
) -> None:
    item = desk.turn(1)
    desk.apply()
    desk.clock.advance(20 * DAY)
    new = desk.turn(2, chat="new")
    objects.away = True
    with pytest.raises(StoreUnreachableError):
        mover(desk).acquire()
    done = desk.apply()
    assert (done["done"], done["left"], done["mover"]) == ({"place": 1}, 1, None)
    assert "only placed, not moved" in done["warnings"][0]
    objects.away = False
    assert desk.apply()["done"] == {"demote": 1}
    assert desk.where() == {item.key: ["historical"], new.key: ["critical"]}


def test_who_loses_it_while_it_moves_removes_nothing_more(
    both: tuple[TierDevice, TierDevice], objects: MemoryObjectStore, service: object
) -> None:
    desk, phone = both
    item = desk.turn(1)
    desk.apply()
    advance(20, desk, phone)

    def takes_over(tier: str, request: str) -> None:
        if request == "upsert":
            service.fault = lambda tier, request: None  # type: ignore[attr-defined]
            assert mover(phone).acquire(take_over=True) is None

    service.fault = takes_over  # type: ignore[attr-defined]
    done = desk.apply()
    assert done["done"] == {}
    assert "another device has taken over" in done["problem"]
    assert desk.where() == {item.key: ["critical", "historical"]}
    # Without being the mover it only says where the item is, in the warmer one.
    after = desk.apply()
    assert after["mover"] == "phone"
    assert desk.tier_of(item) == "critical"
    assert desk.tiers.status()["moving"] == 0
    assert desk.apply(take_over=True)["done"] == {"demote": 1}
    assert desk.where() == {item.key: ["historical"]}
