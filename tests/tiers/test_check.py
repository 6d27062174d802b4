"""What the service holds is compared with what it should hold, and mended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dualmem_mcp.crypto.vector_payload import open_payload, seal_payload
from dualmem_mcp.model.search import Collection, SearchItem
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports.tiers import TierPoint
from dualmem_mcp.search.likeness import likeness
from dualmem_mcp.search.passages import passages
from tests.tiers.home import CHAT, SharedService, TierDevice

NOTHING = {"missing": 0, "changed": 0, "doubled": 0, "unwanted": 0, "foreign": 0, "mended": 0}


def wrong(checked: dict[str, Any]) -> dict[str, int]:
    return {name: checked[name] for name in NOTHING if checked[name]}


def mended(desk: TierDevice) -> dict[str, int]:
    """What a check finds; after it one more finds nothing."""
    seen = wrong(desk.tiers.check(repair=False))
    found = wrong(desk.tiers.check(repair=True))
    assert {name: count for name, count in found.items() if name != "mended"} == seen
    assert wrong(desk.tiers.check(repair=False)) == {}
    assert desk.placements.moving() == []
    return found


@pytest.fixture
def placed(desk: TierDevice) -> list[SearchItem]:
    """Three items of which one has several passages, placed with their words."""
    desk.tiers.enable(words=True)
    items = [
        desk.turn(1, "the harbor at night"),
        desk.turn(2, " ".join(f"word{number}" for number in range(300))),
        desk.item("decision", "d1", "we take the red one"),
    ]
    desk.apply()
    return items


def points_of(desk: TierDevice, item: SearchItem) -> list[tuple[TierName, TierPoint]]:
    row = desk.placements.get([item.key])[item.key]
    keys = desk.tiers._service.keys(row.epoch)
    own = [keys.point_id(item.key, passage) for passage in range(row.passages)]
    return sorted((one for one in desk.all_points() if one[1].id in own), key=lambda one: own.index(one[1].id))


@pytest.mark.usefixtures("placed")
def test_what_is_as_it_should_be_stays(desk: TierDevice) -> None:
    checked = desk.tiers.check(repair=True)
    assert {name: checked[name] for name in NOTHING} == NOTHING
    assert checked["points"] == len(list(desk.all_points())) >= 6
    assert desk.tiers.status()["checked_at"] == desk.clock.time.isoformat(timespec="seconds")


def test_what_lacks_is_written_again(desk: TierDevice, service: SharedService, placed: list[SearchItem]) -> None:
    for item in placed:
        tier, point = points_of(desk, item)[-1]
        service.plain(tier).remove(point.tenant, [point.id])
    assert mended(desk) == {"missing": 3, "mended": 3 - 1 + len(points_of(desk, placed[1]))}
    assert desk.where() == {item.key: ["critical"] for item in placed}


def test_a_service_that_lost_everything_is_filled_again(
    desk: TierDevice, service: SharedService, placed: list[SearchItem]
) -> None:
    before = {point.id: point.payload for _, point in desk.all_points()}
    for tier, point in list(desk.all_points()):
        service.plain(tier).remove(point.tenant, [point.id])
    assert mended(desk) == {"missing": len(before), "mended": len(before)}
    assert {point.id: point.payload for _, point in desk.all_points()} == before


@pytest.mark.parametrize("part", ["payload", "vector", "words"])
def test_what_was_changed_is_written_again(
    desk: TierDevice, service: SharedService, placed: list[SearchItem], part: str
) -> None:
    ((tier, point),) = points_of(desk, placed[0])
    assert point.words is not None
    changes: dict[str, Any] = {
        "payload": point.payload[:-1] + bytes([point.payload[-1] ^ 1]),
        "vector": -point.vector,
        "words": replace(point.words, indices=point.words.indices + 1),
    }
    service.plain(tier).upsert([replace(point, **{part: changes[part]})])
    assert mended(desk) == {"changed": 1, "mended": 1}
    assert points_of(desk, placed[0])[0][1].payload == point.payload


def test_payloads_that_were_exchanged_between_points_are_written_again(
    desk: TierDevice, service: SharedService, placed: list[SearchItem]
) -> None:
    (tier, one), (_, other) = points_of(desk, placed[0])[0], points_of(desk, placed[2])[0]
    service.plain(tier).upsert([replace(one, payload=other.payload), replace(other, payload=one.payload)])
    assert mended(desk) == {"changed": 2, "mended": 2}


def test_of_what_lies_in_two_tiers_the_warmer_one_stays(
    desk: TierDevice, service: SharedService, placed: list[SearchItem]
) -> None:
    points = [point for _, point in points_of(desk, placed[1])]
    service.plain("historical").upsert(points)
    assert mended(desk) == {"doubled": len(points), "mended": len(points)}
    assert desk.where()[placed[1].key] == ["critical"]


def test_what_lies_in_a_warmer_tier_than_its_row_says_stays_there(
    desk: TierDevice, service: SharedService, placed: list[SearchItem]
) -> None:
    row = desk.placements.get([placed[0].key])[placed[0].key]
    desk.placements.put([replace(row, tier="historical")])  # another device moved it
    assert mended(desk) == {}
    assert desk.tier_of(placed[0]) == "critical"


def test_half_of_an_item_in_another_tier_goes(
    desk: TierDevice, service: SharedService, placed: list[SearchItem]
) -> None:
    points = [point for _, point in points_of(desk, placed[1])]
    service.plain("context").upsert(points[:1])
    assert mended(desk) == {"doubled": 1, "mended": 1}


def test_what_another_device_placed_is_taken_in(desk: TierDevice, phone: TierDevice) -> None:
    item = desk.turn(1, "the harbor at night")
    desk.apply()
    phone.take_from(desk)
    assert wrong(phone.tiers.check(repair=False)) == {}
    assert phone.rows() == []
    assert wrong(phone.tiers.check(repair=True)) == {}
    assert phone.rows() == desk.rows()
    assert phone.where() == {item.key: ["critical"]}


def test_what_another_device_has_and_this_one_does_not_stays(desk: TierDevice, phone: TierDevice) -> None:
    item = desk.turn(1)
    desk.apply()
    checked = phone.tiers.check(repair=True)
    assert wrong(checked) == {}
    assert "not on this device" in checked["warnings"][0]
    assert desk.where() == {item.key: ["critical"]}


def test_what_another_device_embedded_after_another_turn_is_left(desk: TierDevice, phone: TierDevice) -> None:
    first, second = "what shall we paint", "the harbor at night"
    desk.turn(1, first)
    desk.turn(2, second)
    desk.apply()
    phone.turn(2, second)  # the turns came here the other way round
    phone.turn(1, first)
    before = {point.id: point.payload for _, point in desk.all_points()}
    assert wrong(phone.tiers.check(repair=True)) == {}
    assert wrong(phone.tiers.check(repair=False)) == {}
    assert {point.id: point.payload for _, point in desk.all_points()} == before


def test_a_vector_that_is_not_that_of_its_payload_is_written_again_whoever_made_it(
    desk: TierDevice, phone: TierDevice, service: SharedService
) -> None:
    desk.turn(1, "what shall we paint")
    desk.turn(2, "the harbor at night")
    desk.apply()
    phone.turn(2, "the harbor at night")
    phone.turn(1, "what shall we paint")
    for tier, point in list(desk.all_points()):
        service.plain(tier).upsert([replace(point, vector=-point.vector)])
    assert wrong(phone.tiers.check(repair=True)) == {"changed": 2, "mended": 2}


def test_points_of_an_erased_conversation_go(desk: TierDevice, phone: TierDevice) -> None:
    desk.turn(1)
    desk.apply()
    phone.erased.add(CHAT)  # it was erased there, and this device does not know it yet
    assert wrong(phone.tiers.check(repair=False)) == {"unwanted": 1}
    assert wrong(phone.tiers.check(repair=True)) == {"unwanted": 1, "mended": 1}
    assert list(desk.all_points()) == []


def test_points_of_what_was_deleted_go_once_the_indexes_are_complete(
    desk: TierDevice, placed: list[SearchItem]
) -> None:
    for index in desk.indexes.values():
        index.remove([placed[2].key])
    desk.behind = True
    assert wrong(desk.tiers.check(repair=True)) == {}
    desk.behind = False
    assert mended(desk) == {"unwanted": 1, "mended": 1}
    assert {row.key for row in desk.rows()} == {item.key for item in placed[:2]}


def test_a_passage_too_many_goes(desk: TierDevice, service: SharedService, placed: list[SearchItem]) -> None:
    row = desk.placements.get([placed[0].key])[placed[0].key]
    ((_, point),) = points_of(desk, placed[0])
    keys = desk.tiers._service.keys(row.epoch)
    payload = open_payload(keys, point.id, point.payload)
    sealed = seal_payload(keys, replace(payload, passage=7))
    more = replace(point, id=keys.point_id(payload.item.key, 7), payload=sealed, words=None)
    service.plain("critical").upsert([more])
    assert mended(desk) == {"unwanted": 1, "mended": 1}


def test_what_does_not_open_is_removed_and_never_used(
    desk: TierDevice, service: SharedService, placed: list[SearchItem]
) -> None:
    ((_, point),) = points_of(desk, placed[0])
    strange = [
        replace(point, id="00000000-0000-4000-8000-000000000001"),  # of another point
        replace(point, id="00000000-0000-4000-8000-000000000002", payload=b"\1" + bytes(3_000)),
        replace(point, id="00000000-0000-4000-8000-000000000003", payload=b""),
    ]
    service.plain("context").upsert(strange)
    assert mended(desk) == {"foreign": 3, "mended": 3}
    assert desk.where() == {item.key: ["critical"] for item in placed}


def test_points_of_a_newer_version_are_left(
    desk: TierDevice, service: SharedService, placed: list[SearchItem]
) -> None:
    ((_, point),) = points_of(desk, placed[0])
    newer = replace(point, id="00000000-0000-4000-8000-000000000001", payload=b"\2" + point.payload[1:])
    service.plain("context").upsert([newer])
    checked = desk.tiers.check(repair=True)
    assert wrong(checked) == {"foreign": 1}
    assert "newer version" in checked["warnings"][0]
    assert newer.id in {one.id for _, one in desk.all_points()}


def test_points_of_other_tenants_are_neither_read_nor_removed(
    desk: TierDevice, service: SharedService, placed: list[SearchItem]
) -> None:
    ((_, point),) = points_of(desk, placed[0])
    other = replace(point, id="00000000-0000-4000-8000-000000000001", tenant="0b" * 16)
    service.plain("context").upsert([other])
    assert mended(desk) == {}
    assert service.plain("context").count("0b" * 16) == 1


def test_what_was_renewed_under_another_epoch_by_another_device_is_found_there(
    desk: TierDevice, phone: TierDevice
) -> None:
    item = desk.item("entity", "harbor", "harbor (place)\nis deep")
    desk.apply()
    phone.take_from(desk)
    phone.tiers.check(repair=True)
    for device in (desk, phone):
        device.clock.advance(31 * 86_400)
    desk.channel.vault.current_epoch()
    for key, data in desk.channel.vault.pending_epoch():
        desk.objects.put(key, data)
    phone.channel.vault.refresh(phone.objects)
    desk.apply()  # moves it, and with that renews it
    assert wrong(phone.tiers.check(repair=True)) == {}
    assert phone.rows() == desk.rows()
    assert phone.where() == {item.key: ["historical"]}


def test_what_lies_under_two_epochs_is_kept_under_the_newer_one(desk: TierDevice, service: SharedService) -> None:
    item = desk.item("entity", "harbor", "harbor (place)\nis deep")
    desk.apply()
    old = [point for _, point in desk.all_points()]
    desk.clock.advance(31 * 86_400)
    desk.apply()
    service.plain("context").upsert(old)
    assert mended(desk) == {"doubled": 1, "mended": 1}
    assert desk.where() == {item.key: ["historical"]}


def test_what_cannot_be_made_again_is_told(
    desk: TierDevice, service: SharedService, placed: list[SearchItem]
) -> None:
    tier, point = points_of(desk, placed[0])[0]
    for index in desk.indexes.values():
        index.use_model("another", desk.embedder.dimensions)  # no item has vectors now
    service.plain(tier).remove(point.tenant, [point.id])
    checked = desk.tiers.check(repair=True)
    assert wrong(checked) == {"missing": 1}
    assert "dualmem index" in checked["warnings"][0]
    assert len(list(desk.all_points())) >= 4


def test_what_lies_in_two_tiers_is_left_to_the_device_that_moves(
    desk: TierDevice, phone: TierDevice, service: SharedService
) -> None:
    desk.turn(1)
    phone.take_from(desk)
    desk.apply()
    phone.tiers.check(repair=True)
    desk.clock.advance(20 * 86_400)
    phone.clock.advance(20 * 86_400)
    desk.apply()  # moves, and so is the mover
    ((_, point),) = desk.all_points()
    service.plain("context").upsert([point])
    checked = phone.tiers.check(repair=True)
    assert wrong(checked) == {"doubled": 1}
    assert "desk" in checked["warnings"][0]
    assert mended(desk) == {"doubled": 1, "mended": 1}


def test_a_check_that_failed_goes_on(desk: TierDevice, service: SharedService, placed: list[SearchItem]) -> None:
    from dualmem_mcp.errors import StoreUnreachableError

    for tier, point in list(desk.all_points()):
        service.plain(tier).remove(point.tenant, [point.id])

    def away(tier: str, request: str) -> None:
        if request == "upsert":
            raise StoreUnreachableError("away")

    service.fault = away
    with pytest.raises(StoreUnreachableError):
        desk.tiers.check(repair=True)
    service.fault = lambda tier, request: None
    desk.tiers.check(repair=True)
    assert wrong(desk.tiers.check(repair=False)) == {}
    assert desk.where() == {item.key: ["critical"] for item in placed}


def test_a_good_copy_stays_while_what_should_be_there_cannot_be_mended(
    desk: TierDevice, service: SharedService, placed: list[SearchItem]
) -> None:
    ((tier, point),) = points_of(desk, placed[0])
    service.plain("historical").upsert([point])
    service.plain(tier).upsert([replace(point, payload=point.payload[:-1] + b"\0\0")])
    for index in desk.indexes.values():
        index.use_model("another", desk.embedder.dimensions)
    assert wrong(desk.tiers.check(repair=True)) == {"changed": 1}
    assert point.payload in {one.payload for _, one in desk.all_points()}
    for index in desk.indexes.values():
        index.use_model(desk.embedder.model_id, desk.embedder.dimensions)
    desk.embed()
    assert mended(desk) == {"changed": 1, "doubled": 1, "mended": 2}


def test_a_check_learns_that_another_device_has_renewed_the_words(desk: TierDevice, phone: TierDevice) -> None:
    for one in (desk, phone):
        one.tiers.enable(words=True)
    desk.turn(1, "the harbor at night")
    desk.apply()
    phone.take_from(desk)
    assert phone.apply()["done"] == {"adopted": 1}
    for one in (desk, phone):
        one.tiers.enable(words=False)
    assert wrong(phone.tiers.check(repair=True)) == {}
    assert [row.words for row in phone.rows()] == [True]
    assert desk.apply()["done"] == {"renew": 1}
    assert wrong(phone.tiers.check(repair=True)) == {}
    assert [row.words for row in phone.rows()] == [False]
    assert not phone.tiers.plan().moves


def embed_alike(device: TierDevice) -> None:
    """As indexing does it: items are known to say the same."""
    for index in device.indexes.values():
        waiting = index.unembedded(10)
        texts = [passages(one.item, one.previous) for one in waiting]
        index.put_vectors(
            device.embedder.model_id,
            [(one.id, device.embedder.embed(some)) for one, some in zip(waiting, texts, strict=True)],
            {one.id: likeness(some) for one, some in zip(waiting, texts, strict=True)},
        )


def test_what_says_the_same_as_an_item_of_this_device_is_left_to_the_one_that_placed_it(
    desk: TierDevice, phone: TierDevice
) -> None:
    text = "the harbor at night"
    first = desk.item("turn", "t1", text, days_ago=0.01, embed=False)
    again = phone.item("turn", "t2", text, "other", embed=False)
    embed_alike(phone)
    phone.apply()
    desk.indexes[Collection.CONVERSATIONS].put([again])
    embed_alike(desk)
    assert desk.apply()["done"] == {"place": 1}
    checked = desk.tiers.check(repair=True)
    assert (wrong(checked), checked["warnings"]) == ({}, [])
    assert desk.apply()["done"] == {}
    assert [row.key for row in desk.rows()] == [first.key]
    assert wrong(phone.tiers.check(repair=True)) == {}
    # As soon as that one knows of the earlier item it removes its own.
    phone.indexes[Collection.CONVERSATIONS].put([first])
    embed_alike(phone)
    assert phone.apply()["done"]["remove"] == 1
    assert {key for key, tiers in desk.where().items() if tiers} == {first.key}
