"""An erased conversation goes from the service: by its ids, from all tiers and all epochs."""

from __future__ import annotations

import pytest

from dualmem_mcp.errors import StoreUnreachableError
from tests.tiers.home import CHAT, SharedService, TierDevice

DAY = 86_400


def away(tier: str, request: str) -> None:
    raise StoreUnreachableError(f"{tier} is away")


def here(tier: str, request: str) -> None:
    pass


def forget_in_indexes(desk: TierDevice, chat: str) -> None:
    for index in desk.indexes.values():
        columns = index.columns()
        index.remove([item.key for item in index.items(columns.ids.tolist()) if item.conversation_id == chat])


def test_points_of_all_its_items_go_and_others_stay(desk: TierDevice) -> None:
    desk.turn(1, " ".join(f"word{number}" for number in range(300)))
    desk.item("decision", "d1", "we take the red one")
    desk.item("agent", "a1", "it looked for the red one")
    other = desk.turn(1, chat="other")
    desk.apply()
    points = len(list(desk.all_points()))
    done = desk.tiers.forget(CHAT)
    assert done == {"removed": points - 1, "warnings": []}
    assert len(list(desk.all_points())) == 1
    assert [row.key for row in desk.rows()] == [other.key]


def test_what_has_left_the_indexes_goes_by_its_rows(desk: TierDevice) -> None:
    desk.turn(1)
    desk.item("note", "n1", "the red one")
    desk.apply()
    forget_in_indexes(desk, CHAT)
    assert desk.tiers.forget(CHAT)["removed"] == 2
    assert list(desk.all_points()) == []


def test_what_another_device_placed_goes_by_the_ids(desk: TierDevice, phone: TierDevice) -> None:
    desk.turn(1)
    desk.item("note", "n1", " ".join(f"word{number}" for number in range(300)))
    desk.apply()
    desk.clock.advance(31 * DAY)
    desk.turn(2)
    desk.apply()
    phone.take_from(desk)
    assert phone.tiers.forget(CHAT) == {"removed": 0, "warnings": []}  # none that it had known of
    assert len(list(desk.all_points())) == 1  # of an epoch whose key the phone has not seen
    phone.channel.vault.refresh(phone.objects)
    for key, data in desk.channel.vault.pending_epoch():
        desk.objects.put(key, data)
    phone.channel.vault.refresh(phone.objects)
    phone.tiers.forget(CHAT)
    assert list(desk.all_points()) == []


def test_with_the_service_away_it_is_done_later(desk: TierDevice, service: SharedService) -> None:
    desk.turn(1)
    desk.apply()
    service.fault = away
    desk.erased.add(CHAT)
    done = desk.tiers.forget(CHAT)
    assert done["removed"] == 0
    assert "until the next run" in done["warnings"][0]
    forget_in_indexes(desk, CHAT)
    service.fault = here
    assert len(list(desk.all_points())) == 1
    assert desk.apply()["points_removed"] >= 1
    assert list(desk.all_points()) == []
    assert desk.rows() == []
    assert desk.tiers._forgetting.waiting() == []


def test_an_item_that_was_being_moved_goes_from_both_tiers(desk: TierDevice, service: SharedService) -> None:
    desk.turn(1)
    desk.apply()
    desk.clock.advance(20 * DAY)

    def fail(tier: str, request: str) -> None:
        if request == "remove":
            away(tier, request)

    service.fault = fail
    assert desk.apply()["away"] is True
    assert len(list(desk.all_points())) == 2
    service.fault = here
    desk.tiers.forget(CHAT)
    assert list(desk.all_points()) == []
    assert desk.tiers.status()["moving"] == 0


@pytest.mark.parametrize("chat", ["cha", "chat-2", "t001"])
def test_a_conversation_with_a_similar_name_stays(desk: TierDevice, chat: str) -> None:
    item = desk.turn(1)
    desk.apply()
    desk.tiers.forget(chat)
    assert desk.where() == {item.key: ["critical"]}
