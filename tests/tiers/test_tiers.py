"""The tiers as the rest of the product uses them: switching, placing, moving."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from dualmem_mcp.durable_files import file_lock
from dualmem_mcp.errors import (
    BudgetSpentError,
    LockedError,
    NotFoundError,
    StoreRefusedError,
    StoreUnreachableError,
    UsageError,
)
from dualmem_mcp.model.tiers import Cluster
from dualmem_mcp.tiers import moving
from dualmem_mcp.tiers.applying import BUSY
from tests.crypto.conftest import MemoryObjectStore
from tests.sync.conftest import revoke
from tests.tiers.home import CHAT, PRICES, SharedService, SqliteService, TierDevice


def away(tier: str, request: str) -> None:
    raise StoreUnreachableError(f"{tier} is away", operation=request, hint="Wait.")


# Switching


def test_what_is_not_set_up_is_off_and_says_what_to_do(desk: TierDevice) -> None:
    desk.url = ""
    tiers = desk.make_tiers()
    assert not tiers.configured
    assert not tiers.enabled
    assert not tiers.words
    assert tiers.searcher() is None
    assert tiers.status()["url"] == ""
    for call in (tiers.plan, lambda: tiers.enable(words=False), lambda: tiers.init(Cluster())):
        with pytest.raises(UsageError, match="no search service is set") as caught:
            call()
        assert "DUALMEM_QDRANT_URL" in caught.value.hint
    assert tiers.forget(CHAT) == {"removed": 0, "warnings": []}


def test_what_is_not_switched_on_neither_writes_nor_is_asked(desk: TierDevice, service: SharedService) -> None:
    desk.turn(1)
    assert desk.tiers.disable(remove=False) == {"enabled": False, "removed": 0}
    service.fault = away
    for call in (desk.apply, lambda: desk.tiers.place(CHAT, max_seconds=1), lambda: desk.tiers.check(repair=True)):
        with pytest.raises(UsageError, match="not used on this device"):
            call()
    assert desk.tiers.searcher() is None
    assert desk.tiers.forget(CHAT) == {"removed": 0, "warnings": []}
    assert desk.tiers.plan().moves


def test_switching_on_needs_the_collections(tmp_path: Path, desk: TierDevice) -> None:
    other = SqliteService(tmp_path / "empty")
    desk.connect = lambda _: other
    tiers = desk.make_tiers()
    tiers.disable(remove=False)
    with pytest.raises(StoreRefusedError, match="no collection"):
        tiers.enable(words=True)
    assert not tiers.enabled
    made = tiers.init(Cluster())
    assert [one["made"] for one in made["collections"]] == [True, True, True]
    assert [one["made"] for one in tiers.init(Cluster())["collections"]] == [False, False, False]
    assert tiers.enable(words=True) == {"enabled": True, "words": True}
    assert tiers.words
    other.close()


def test_a_collection_for_another_model_is_refused(desk: TierDevice, service: SharedService) -> None:
    desk.model = ("another", 32)
    for call in (lambda: desk.tiers.enable(words=False), lambda: desk.tiers.init(Cluster())):
        with pytest.raises(StoreRefusedError, match="words-1"):
            call()
    desk.turn(1)
    done = desk.apply()
    assert done["refused"] is True
    assert done["away"] is False
    assert "words-1" in done["problem"]
    assert desk.tiers.status()["problem"] == done["problem"]


def test_without_a_model_or_a_vault_nothing_can_be_placed(desk: TierDevice) -> None:
    desk.model = None
    with pytest.raises(NotFoundError, match="model"):
        desk.apply()
    with pytest.raises(NotFoundError, match="model"):
        desk.tiers.init(Cluster())


def test_status_is_what_this_device_knows_and_asks_nobody(desk: TierDevice, service: SharedService) -> None:
    desk.turn(1)
    desk.apply()
    service.fault = away
    status = desk.tiers.status()
    json.dumps(status)
    assert (status["configured"], status["enabled"], status["words"], status["moving"]) == (True, True, False, 0)
    assert [(one["name"], one["points"], one["most"]) for one in status["tiers"]] == [
        ("critical", 1, 1_000),
        ("context", 0, 5_000),
        ("historical", 0, 20_000),
    ]
    assert (status["epochs"], status["mover"], status["problem"]) == (1, None, "")


def test_switching_off_with_removal_leaves_nothing_of_any_device(desk: TierDevice, phone: TierDevice) -> None:
    desk.turn(1)
    phone.turn(2, chat="other")
    desk.apply()
    phone.apply()
    desk.clock.advance(40 * 86_400)  # a new epoch
    desk.turn(3, chat="third")
    desk.apply()
    assert len(list(desk.all_points())) == 3
    assert desk.tiers.disable(remove=True) == {"enabled": False, "removed": 3}
    assert list(desk.all_points()) == []
    assert desk.rows() == []


def test_switched_off_it_is_even_if_the_service_is_away_for_the_removal(
    desk: TierDevice, service: SharedService
) -> None:
    desk.turn(1)
    desk.apply()
    service.fault = away
    with pytest.raises(StoreUnreachableError):
        desk.tiers.disable(remove=True)
    assert not desk.tiers.enabled
    service.fault = lambda tier, request: None
    assert desk.tiers.disable(remove=True)["removed"] == 1


# Placing


def test_a_turn_of_a_conversation_in_use_is_placed_in_critical(desk: TierDevice) -> None:
    item = desk.turn(1)
    done = desk.apply()
    assert done["done"] == {"place": 1}
    assert desk.where() == {item.key: ["critical"]}
    assert desk.apply()["done"] == {}


def test_placing_a_conversation_leaves_the_others(desk: TierDevice) -> None:
    own = desk.turn(1)
    other = desk.turn(2, chat="other")
    done = desk.tiers.place(CHAT, max_seconds=10)
    assert (done["points"], done["ok"], done["waiting"], done["warnings"]) == (1, True, 0, [])
    assert done["bytes"] > 2_000
    assert done["usd_month"] == pytest.approx(PRICES["critical"] / 1000)
    assert desk.where() == {own.key: ["critical"]}
    again = desk.tiers.place(CHAT, max_seconds=10)
    assert (again["points"], again["ok"]) == (0, True)
    assert desk.tier_of(other) is None


def test_what_has_no_vectors_yet_waits(desk: TierDevice) -> None:
    desk.item("turn", "t1", "not embedded yet", embed=False)
    done = desk.tiers.place(CHAT, max_seconds=10)
    assert (done["points"], done["ok"], done["waiting"]) == (0, False, 1)
    desk.embed()
    assert desk.tiers.place(CHAT, max_seconds=10)["ok"] is True


def test_of_an_erased_conversation_nothing_is_placed(desk: TierDevice) -> None:
    desk.turn(1)
    desk.erased.add(CHAT)
    assert desk.tiers.place(CHAT, max_seconds=10)["points"] == 0
    assert list(desk.all_points()) == []


def test_when_time_is_over_the_rest_waits(desk: TierDevice) -> None:
    for number in range(3):
        desk.turn(number)
    done = desk.tiers.place(CHAT, max_seconds=0)
    assert (done["points"], done["ok"], done["waiting"]) == (0, False, 3)


def test_a_service_that_is_away_is_a_warning(desk: TierDevice, service: SharedService) -> None:
    desk.turn(1)
    service.fault = away
    done = desk.tiers.place(CHAT, max_seconds=10)
    assert (done["points"], done["ok"], done["waiting"]) == (0, False, 1)
    assert len(done["warnings"]) == 1
    assert "away" in done["warnings"][0]
    service.fault = lambda tier, request: None
    assert desk.tiers.place(CHAT, max_seconds=10)["ok"] is True


def test_what_another_process_writes_is_left_to_it(desk: TierDevice) -> None:
    desk.turn(1)
    with file_lock(desk.folder / ".tiers.lock"):
        done = desk.apply()
        assert done["done"] == {}
        assert "already" in done["warnings"][0]
        placed = desk.tiers.place(CHAT, max_seconds=0.02)
        assert placed["ok"] is False
        assert BUSY in placed["warnings"][0]
    assert desk.apply()["done"] == {"place": 1}


def test_the_budget_is_asked_before_anything_is_written(desk: TierDevice) -> None:
    item = desk.turn(1)

    def spent() -> None:
        raise BudgetSpentError("the budget is spent", hint="Wait for the next month.")

    desk.budget = spent
    done = desk.apply()
    assert (done["over_budget"], done["away"], done["refused"], done["left"]) == (True, False, False, 1)
    placed = desk.tiers.place(CHAT, max_seconds=10)
    assert placed["ok"] is False
    assert "budget" in placed["warnings"][0]
    assert list(desk.all_points()) == []
    desk.budget = lambda: None
    assert desk.apply()["done"] == {"place": 1}
    assert desk.tier_of(item) == "critical"


# Moving


def test_what_is_no_longer_in_use_goes_to_a_colder_tier(desk: TierDevice) -> None:
    item = desk.turn(1)
    desk.apply()
    desk.clock.advance(20 * 86_400)
    done = desk.apply()
    assert done["done"] == {"demote": 1}
    assert (done["points_written"], done["points_removed"], done["mover"]) == (1, 1, None)
    assert desk.where() == {item.key: ["historical"]}
    desk.ask_for(item.key, times=5)
    assert desk.apply()["done"] == {"promote": 1}
    assert desk.where() == {item.key: ["critical"]}


def test_an_item_of_many_passages_moves_as_one(desk: TierDevice) -> None:
    item = desk.turn(1, " ".join(f"word{number}" for number in range(500)))
    desk.apply()
    passages = desk.placements.get([item.key])[item.key].passages
    assert passages > 4
    desk.clock.advance(20 * 86_400)
    assert desk.apply()["points_written"] == passages
    assert [tier for tier, _ in desk.all_points()] == ["historical"] * passages


def test_what_was_deleted_goes_once_the_indexes_are_complete(desk: TierDevice) -> None:
    item = desk.item("decision", "d1", "we take the red one")
    kept = desk.item("decision", "d2", "and no green one at all")
    desk.apply()
    desk.indexes[next(iter(desk.indexes))].remove([item.key])
    for index in desk.indexes.values():
        index.remove([item.key])
    desk.behind = True
    assert desk.apply()["done"] == {}
    desk.behind = False
    assert desk.apply()["done"] == {"remove": 1}
    assert {*desk.where()} == {kept.key}
    assert [row.key for row in desk.rows()] == [kept.key]


def test_a_text_that_changes_is_written_again_without_its_old_passages(desk: TierDevice) -> None:
    item = desk.item("note", "n1", " ".join(f"word{number}" for number in range(500)))
    desk.apply()
    many = len(list(desk.all_points()))
    desk.item("note", "n1", "short now")
    assert desk.apply()["done"] == {"renew": 1}
    assert many > 1
    assert len(list(desk.all_points())) == 1
    assert desk.where()[item.key] == ["critical"] or desk.where()[item.key] == ["context"]


def test_words_go_along_once_they_are_switched_on_and_leave_with_the_switch(desk: TierDevice) -> None:
    desk.turn(1, "the harbor at night")
    desk.apply()
    assert [point.words for _, point in desk.all_points()] == [None]
    desk.tiers.enable(words=True)
    assert desk.apply()["done"] == {"renew": 1}
    ((_, point),) = desk.all_points()
    assert point.words is not None
    assert len(point.words.indices) >= 3
    desk.tiers.enable(words=False)
    assert desk.apply()["done"] == {"renew": 1}
    assert [point.words for _, point in desk.all_points()] == [None]


def test_points_of_an_epoch_long_past_are_renewed(desk: TierDevice) -> None:
    item = desk.item("entity", "harbor", "harbor (place)\nis deep")
    desk.apply()
    first = desk.placements.get([item.key])[item.key].epoch
    for _ in range(3):  # each begins with the first write after 30 days
        desk.clock.advance(31 * 86_400)
        desk.channel.vault.current_epoch()
    done = desk.apply()
    assert sum(done["done"].values()) == 1
    row = desk.placements.get([item.key])[item.key]
    assert row.epoch != first
    assert len(list(desk.all_points())) == 1
    assert desk.where() == {item.key: [row.tier]}


def test_a_plan_made_stale_by_use_moves_nothing(desk: TierDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    item = desk.turn(1)
    desk.apply()
    desk.clock.advance(20 * 86_400)
    planner = type(desk.tiers._planner)
    plain = planner.__call__

    def plan_and_use(self: object, bench: object) -> object:
        made = plain(self, bench)  # type: ignore[arg-type]
        desk.clock.advance(1)
        desk.ask_for(item.key)
        return made

    monkeypatch.setattr(planner, "__call__", plan_and_use)
    done = desk.apply()
    assert (done["done"], done["stale"], done["left"]) == ({}, 1, 0)
    assert desk.tier_of(item) == "critical"


def test_a_plan_made_stale_by_a_deletion_or_another_placement_moves_nothing(desk: TierDevice) -> None:
    from dualmem_mcp.tiers.moving import Moving

    moved, deleted, changed = desk.turn(1), desk.turn(2, chat="b"), desk.turn(3, chat="c")
    desk.apply()
    desk.clock.advance(20 * 86_400)
    plan = desk.tiers.plan()
    assert [(move.action, len(move)) for move in plan.moves] == [("demote", 3)]
    row = desk.placements.get([moved.key])[moved.key]
    desk.placements.put([type(row)(row.key, "context", row.epoch, row.passages, row.content)])
    desk.placements.remove([deleted.key])
    with desk.tiers._bench() as bench:
        moving = Moving(bench, desk.accesses, desk.tiers._gone(bench), confirm=lambda: None)
        moving.run(plan)
    assert (moving.moved.done["demote"], moving.moved.stale) == (1, 2)
    assert desk.tier_of(changed) == "historical"


def test_an_item_that_cannot_be_sealed_is_passed_over(desk: TierDevice) -> None:
    desk.item("entity", "n" * 70_000, "a name longer than a page")
    item = desk.item("entity", "harbor", "harbor (place)\nis deep")
    done = desk.apply()
    assert (done["done"], done["stale"]) == ({"place": 1}, 1)
    assert {*desk.where()} == {item.key}


def test_time_that_is_over_leaves_the_rest_for_the_next_run(desk: TierDevice) -> None:
    desk.turn(1)
    done = desk.apply(max_seconds=0)
    assert (done["done"], done["left"], done["problem"]) == ({}, 1, "")
    assert desk.apply()["left"] == 0


# Faults


@pytest.mark.parametrize("request_name", ["open", "count", "upsert", "fetch", "remove"])
@pytest.mark.parametrize("at", [1, 3])
def test_a_service_that_fails_at_any_request_loses_nothing(
    desk: TierDevice, service: SharedService, request_name: str, at: int
) -> None:
    items = [desk.turn(number, chat=f"c{number}") for number in range(2)]
    desk.apply()
    desk.clock.advance(20 * 86_400)
    new = desk.turn(5, chat="new")
    seen = 0

    def fail(tier: str, request: str) -> None:
        nonlocal seen
        seen += request == request_name
        if request == request_name and seen >= at:
            away(tier, request)

    service.fault = fail
    desk.tiers = desk.make_tiers()
    done = desk.apply()
    failed = seen >= at
    assert done["away"] is failed
    service.fault = lambda tier, request: None
    assert all(desk.where()[item.key] for item in items)
    assert desk.apply()["away"] is False
    assert desk.where() == {items[0].key: ["historical"], items[1].key: ["historical"], new.key: ["critical"]}
    assert desk.tiers.status()["moving"] == 0
    assert desk.tiers.status()["problem"] == ""


def test_a_fault_that_passes_is_tried_again_and_a_refusal_is_not(desk: TierDevice, service: SharedService) -> None:
    desk.turn(1)
    seen: list[str] = []

    def fail_twice(tier: str, request: str) -> None:
        seen.append(request)
        if request == "upsert" and seen.count("upsert") < 3:
            away(tier, request)

    service.fault = fail_twice
    assert desk.apply()["done"] == {"place": 1}
    assert seen.count("upsert") == 3

    desk.turn(2, chat="other")
    seen.clear()

    def refuse(tier: str, request: str) -> None:
        seen.append(request)
        if request == "upsert":
            raise StoreRefusedError("the disk of the service is full", hint="Free some.")

    service.fault = refuse
    done = desk.apply()
    assert (done["refused"], done["left"], seen.count("upsert")) == (True, 1, 1)


def test_what_the_service_does_not_give_back_as_written_is_not_removed_from_where_it_was(
    desk: TierDevice, service: SharedService
) -> None:
    item = desk.turn(1)
    desk.apply()
    desk.clock.advance(20 * 86_400)

    def loses(tier: str, request: str) -> None:
        if (tier, request) == ("historical", "fetch"):
            for _, point in list(desk.all_points_of("historical")):
                service.plain("historical").remove(point.tenant, [point.id])

    service.fault = loses
    done = desk.apply()
    assert (done["done"], done["stale"]) == ({}, 1)
    service.fault = lambda tier, request: None
    assert desk.where() == {item.key: ["critical"]}
    assert desk.tiers.status()["moving"] == 0


def test_two_devices_place_what_both_know_under_the_same_ids(desk: TierDevice, phone: TierDevice) -> None:
    item = desk.turn(1)
    phone.take_from(desk)
    desk.apply()
    phone.apply()
    assert len(list(desk.all_points())) == 1
    assert desk.where() == phone.where() == {item.key: ["critical"]}


def test_only_one_device_moves(desk: TierDevice, phone: TierDevice) -> None:
    item = desk.turn(1)
    phone.take_from(desk)
    desk.apply()
    phone.apply()
    for device in (desk, phone):
        device.clock.advance(20 * 86_400)
    assert desk.apply()["done"] == {"demote": 1}
    own = phone.turn(7, chat="own")
    done = phone.apply()
    assert (done["mover"], done["done"], done["left"]) == ("desk", {"place": 1}, 1)
    status = phone.tiers.status()["mover"]
    assert status["device"] == "desk"
    assert status["until"].startswith((phone.clock.time + timedelta(days=7)).isoformat()[:10])
    assert phone.where() == {item.key: ["historical"], own.key: ["critical"]}
    assert phone.tier_of(item) == "critical"
    taken = phone.apply(take_over=True)
    # Where things lie it has looked first: the mover before it had moved this one.
    assert (taken["mover"], taken["done"], taken["left"]) == (None, {}, 0)
    assert phone.tiers.status()["mover"]["device"] == "phone"
    assert phone.tier_of(item) == "historical"
    assert phone.where()[item.key] == ["historical"]
    phone.clock.advance(8 * 86_400)
    assert phone.apply()["done"] == {"demote": 1}
    assert phone.where()[own.key] == ["historical"]


@pytest.mark.parametrize("few", [0, 1_000])
def test_what_another_device_has_placed_is_not_placed_again_in_another_tier(
    desk: TierDevice, phone: TierDevice, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(moving, "FEW", few)
    item = desk.turn(1, " ".join(f"word{number}" for number in range(200)))
    desk.apply()
    for device in (desk, phone):
        device.clock.advance(20 * 86_400)
    desk.apply()
    assert desk.tier_of(item) == "historical"
    phone.take_from(desk)
    phone.ask_for(item.key, times=9)
    new = phone.turn(2, chat="new")
    assert [(move.action, move.target) for move in phone.tiers.plan().moves] == [("place", "critical")]
    done = phone.apply()
    assert done["done"] == {"adopted": 1, "place": 1}
    assert (done["stale"], done["left"]) == (0, 0)
    assert phone.where() == {item.key: ["historical"], new.key: ["critical"]}
    assert {row.key: row for row in phone.rows()}[item.key] == desk.rows()[0]


def test_a_placement_that_cannot_have_its_turn_is_put_off_and_no_problem_of_the_service(desk: TierDevice) -> None:
    item = desk.turn(1)
    desk.tiers._state.note_problem("it was late")
    with file_lock(desk.folder / ".tiers.lock"):
        placed = desk.tiers.place(CHAT, max_seconds=0.1)
    assert (placed["ok"], placed["points"]) == (False, 0)
    assert placed["warnings"] == [f"not all is placed in the search service: {BUSY}"]
    assert desk.tiers.status()["problem"] == "it was late"
    assert desk.tier_of(item) is None
    assert desk.tiers.place(CHAT, max_seconds=5)["ok"]
    assert desk.tiers.status()["problem"] == ""


def test_a_device_that_knows_that_it_was_revoked_neither_writes_nor_asks(
    desk: TierDevice, phone: TierDevice, objects: MemoryObjectStore
) -> None:
    phone.turn(1)
    revoke(phone.device, by=desk.device)
    with pytest.raises(LockedError):
        phone.channel.vault.refresh(objects)
    for call in (
        phone.apply,
        phone.tiers.reach,
        lambda: phone.tiers.place(CHAT, max_seconds=1),
        lambda: phone.tiers.check(repair=True),
        lambda: phone.tiers.enable(words=True),
    ):
        with pytest.raises(LockedError, match="was revoked"):
            call()
    searcher = phone.tiers.searcher()
    assert searcher is not None
    asking = searcher.ask(np.ones(phone.embedder.dimensions, np.float32), ["turn"])
    assert "was revoked" in asking.wait(["critical"], 5.0)["critical"].problem
    assert [*desk.all_points()] == []
