"""Moves that were begun and not ended, of items that are not at hand any more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.search import SearchItem
from tests.tiers.home import CHAT, SharedService, TierDevice

DAY = 86_400


def here(tier: str, request: str) -> None:
    pass


@pytest.fixture
def item(desk: TierDevice) -> SearchItem:
    """An item of several passages in critical that belongs in historical now."""
    made = desk.turn(1, " ".join(f"word{number}" for number in range(200)))
    desk.apply()
    desk.clock.advance(20 * DAY)
    return made


def fail_at(desk: TierDevice, service: SharedService, wanted: str) -> None:
    def fail(tier: str, request: str) -> None:
        if request == wanted:
            raise StoreUnreachableError("away")

    service.fault = fail
    assert desk.apply()["away"] is True
    service.fault = here
    assert desk.tiers.status()["moving"] == 1


def lose_vectors(desk: TierDevice) -> None:
    for index in desk.indexes.values():
        index.use_model("another", desk.embedder.dimensions)


@pytest.mark.parametrize("wanted", ["upsert", "fetch", "remove"])
def test_without_vectors_at_hand_they_are_finished_from_what_the_service_has(
    desk: TierDevice, service: SharedService, item: SearchItem, wanted: str
) -> None:
    fail_at(desk, service, wanted)
    lose_vectors(desk)
    done = desk.apply()
    assert done["done"] == {"finished": 1}
    assert desk.tiers.status()["moving"] == 0
    assert {tier for tier, _ in desk.all_points()} == {"historical"}
    assert desk.tier_of(item) == "historical"


def test_what_was_marked_and_never_written_has_no_row_then(
    desk: TierDevice, service: SharedService, item: SearchItem
) -> None:
    row = desk.placements.get([item.key])[item.key]
    new = desk.turn(2, chat="new")
    desk.placements.put([replace(row, key=new.key, passages=1, moving_to="critical")])
    lose_vectors(desk)
    assert desk.apply()["done"] == {"finished": 1}
    assert desk.tier_of(new) is None


def test_what_was_deleted_meanwhile_goes_from_both_tiers(
    desk: TierDevice, service: SharedService, item: SearchItem
) -> None:
    fail_at(desk, service, "remove")
    assert len({tier for tier, _ in desk.all_points()}) == 2
    for index in desk.indexes.values():
        index.remove([item.key])
    desk.apply()
    assert list(desk.all_points()) == []
    assert desk.rows() == []


def test_of_an_erased_conversation_nothing_is_finished(
    desk: TierDevice, service: SharedService, item: SearchItem
) -> None:
    fail_at(desk, service, "remove")
    desk.erased.add(CHAT)
    desk.apply()
    assert list(desk.all_points()) == []


def test_a_text_that_changed_meanwhile_is_the_one_that_is_written(desk: TierDevice, service: SharedService) -> None:
    note = desk.item("note", "n1", " ".join(f"word{number}" for number in range(400)))
    desk.apply()
    desk.clock.advance(20 * DAY)
    fail_at(desk, service, "remove")
    desk.item("note", "n1", "short now")
    desk.apply()
    ((tier, _),) = desk.all_points()
    assert tier == desk.tier_of(note)
    assert desk.tiers.plan().moves == []
    assert desk.tiers.check(repair=False)["changed"] == 0


def test_placing_a_conversation_finishes_what_was_being_written(desk: TierDevice, service: SharedService) -> None:
    made = desk.turn(1)

    def fail(tier: str, request: str) -> None:
        if request == "upsert":
            raise StoreUnreachableError("away")

    service.fault = fail
    assert desk.tiers.place(CHAT, max_seconds=10)["ok"] is False
    service.fault = here
    assert desk.tier_of(made) == "critical"
    assert list(desk.all_points()) == []
    done = desk.tiers.place(CHAT, max_seconds=10)
    assert (done["points"], done["ok"]) == (1, True)
    assert desk.where() == {made.key: ["critical"]}
