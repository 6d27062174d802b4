"""What a handoff brings for the search of a small device, from desk to phone, and what is placed meanwhile."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.edge import beside_handoff
from dualmem_mcp.edge.edge import Edge
from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.handoff.preload import preload_to_bytes
from dualmem_mcp.model.index_scope import IndexScope
from dualmem_mcp.model.search import Collection

SESSION_ID = "0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"
OTHER_ID = "7d2a0f4e-0000-4000-8000-000000000001"
DECISION = "We keep the ledger in boxes of cedar wood."
TALK = [
    "where do we put the old ledger, the token is ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "Boxes are dry; cedar keeps the moths away.",
    "and the brass telescope?",
    "The telescope goes to the observatory on the hill.",
]
DINNER = [
    "what was there for dinner",
    "The telescope goes up to the hill's observatory.",
    "thanks",
    "You are welcome.",
]


@pytest.fixture
def models(model_dir: Path) -> dict[str, Any]:
    return {"model_dir": model_dir, "index": IndexScope("all")}


def ios(world: Any) -> dict[str, Any]:
    """The settings of a phone."""
    return {"profile": world.settings("x").profile_for("ios")}


def without_index(app: Any) -> None:
    """Make the indexes of a device unusable."""
    app.close()
    for folder in Collection:
        place = app.home.vector_cache / folder.value
        shutil.rmtree(place, ignore_errors=True)
        place.write_text("a file in the folder's place")


def steps(report: dict[str, Any]) -> dict[str, Any]:
    return {step["name"]: step for step in report["operations"]}


def texts(found: dict[str, Any]) -> list[str]:
    return [result["text"] for result in found["results"]]


def preload_of(app: Any) -> Any:
    return app._newest_package(SESSION_ID).preload


def test_a_phone_that_resumes_finds_the_decision_offline(world, models) -> None:
    world.write_session(TALK)
    desk = world.desktop(**models)
    desk.local_edge.index()
    report = desk.prepare_handoff(target_device="ios", decisions=[DECISION])
    assert (report["mobile_ready"], report["warnings"]) == (True, [])
    assert steps(report)["preload"]["ok"]
    assert steps(report)["preload"]["bytes"] > 4 * 384

    phone = world.phone(**models, **ios(world))
    assert phone.resume_conversation()["warnings"] == []
    without_index(phone)
    world.bucket.rename(world.root / "away")
    phone = world.open("phone", **models, **ios(world))
    assert texts(phone.local_edge.search("cedar", catch_up=True))[0] == DECISION
    # By meaning: no word of the question stands in the answer.
    found = phone.local_edge.search("optical instrument for astronomy", catch_up=True)
    assert texts(found)[0] == TALK[3]
    assert [tier["name"] for tier in found["tiers"]] == ["edge_cache"]


def test_right_after_a_resume_what_it_brought_is_found_beside_what_is_indexed(world, models) -> None:
    world.write_session(TALK)
    desk = world.desktop(**models)
    desk.prepare_handoff(target_device="ios", decisions=[DECISION])
    phone = world.phone(**models, **ios(world))
    phone.resume_conversation()
    # Nothing of the package is indexed yet.
    found = phone.local_edge.search("cedar telescope")
    assert set(texts(found)) >= {DECISION, TALK[1], TALK[3]}


def test_what_is_erased_is_at_hand_no_longer(world, models) -> None:
    world.write_session(TALK)
    desk = world.desktop(**models)
    desk.prepare_handoff(target_device="ios", decisions=[DECISION])
    phone = world.phone(**models, **ios(world))
    phone.resume_conversation()
    assert DECISION in texts(phone.local_edge.search("cedar telescope"))
    phone.erase(SESSION_ID)
    assert texts(phone.local_edge.search("cedar telescope")) == []
    assert len(phone.local_edge._cache()) == 0


def test_without_a_model_the_phone_finds_by_words(world, tmp_path) -> None:
    world.write_session(TALK)
    bare = {"model_dir": tmp_path / "no model"}
    report = world.desktop(**bare).prepare_handoff(target_device="ios", decisions=[DECISION])
    assert report["mobile_ready"]
    assert not steps(report)["preload"]["ok"]
    assert any("ios" in warning and "model" in warning for warning in report["warnings"])
    phone = world.phone(**bare, **ios(world))
    phone.resume_conversation()
    without_index(phone)
    phone = world.open("phone", **bare, **ios(world))
    assert texts(phone.local_edge.search("cedar boxes"))[0] == DECISION


def test_secrets_do_not_travel_in_it(world, models) -> None:
    world.write_session(TALK)
    desk = world.desktop(**models)
    desk.prepare_handoff(target_device="ios")
    data = preload_to_bytes(preload_of(desk))
    assert b"where do we put the old ledger" in data
    assert b"ghp_" not in data


def test_of_another_conversation_no_text_is_in_it_and_erased_it_is_not_at_hand(world, models) -> None:
    world.write_session(DINNER, OTHER_ID)
    world.write_session(TALK)
    desk = world.desktop(**models)
    desk.local_edge.index()
    desk.prepare_handoff(SESSION_ID, target_device="ios")
    near = [entry for entry in preload_of(desk).entries if entry.item is None]
    assert {entry.key.split("/")[1] for entry in near} == {OTHER_ID}
    assert near[0].relevance >= 0.85
    assert near[0].vector
    data = preload_to_bytes(preload_of(desk))
    assert not any(text.encode() in data for text in DINNER)
    desk.sync()

    phone = world.phone(**models, **ios(world))
    phone.sync()
    phone.resume_conversation(SESSION_ID)
    there = phone.local_edge._cache().entries([entry.key for entry in near])
    assert {entry.item.text for entry in there} <= {*DINNER}
    assert len(there) == len(near)
    desk.erase(OTHER_ID)
    desk.sync()
    second = world.open("second", **models, **ios(world))
    second.join("correct horse battery staple", device_name="tablet")
    second.sync()
    second.resume_conversation(SESSION_ID)
    assert second.local_edge._cache().entries([entry.key for entry in near]) == []
    assert len(second.local_edge._cache()) == len(TALK)


def test_a_desktop_target_brings_nothing_and_a_desktop_takes_nothing(world, models) -> None:
    world.write_session(TALK)
    desk = world.desktop(**models)
    assert "preload" not in steps(desk.prepare_handoff())
    assert preload_of(desk).entries == ()
    world.clock.advance(60)
    desk.prepare_handoff(target_device="pwa")
    assert len(preload_of(desk).entries) == 4
    laptop = world.phone(**models)
    laptop.resume_conversation()
    assert laptop.local_edge._cache() is None


def test_a_second_handoff_says_in_a_patch_what_the_first_said(world, talk, models) -> None:
    world.write_session(talk(40))
    desk = world.desktop(**models)
    desk.local_edge.index()
    desk.prepare_handoff(target_device="ios")
    whole = preload_of(desk)
    world.clock.advance(60)
    world.write_session(talk(42))
    desk.local_edge.index()
    second = desk.prepare_handoff(target_device="ios")
    package = desk._newest_package(SESSION_ID)
    patched = {one.name: one for one in package.manifest.patched}["preload"]
    assert patched.stored < patched.size / 2
    assert second["package_bytes"] < 12_000
    newest = package.preload
    assert newest.entries[0].key == "turn/" + SESSION_ID + "/00000029-0000-4000-8000-000000000000"
    assert newest.entries[2].vector == whole.entries[0].vector
    phone = world.phone(**models, **ios(world))
    assert phone.resume_conversation()["warnings"] == []
    assert phone.local_edge._cache().entries([newest.entries[0].key])


def test_a_damaged_set_is_a_warning_and_the_brief_stands(world, models, monkeypatch) -> None:
    world.write_session(TALK)
    desk = world.desktop(**models)
    with monkeypatch.context() as patch:
        patch.setattr(beside_handoff, "preload_to_bytes", lambda _: b"{}\n")
        patch.setattr("dualmem_mcp.handoff.reconstruct.preload_from_bytes", lambda *_: preload_of_nothing())
        assert not desk.prepare_handoff(target_device="ios")["mobile_ready"]
    brief = world.phone(**models, **ios(world)).resume_conversation()
    assert "telescope" in brief["brief"]
    assert any("at hand" in warning and "preload" in warning for warning in brief["warnings"])


def preload_of_nothing() -> Any:
    from dualmem_mcp.handoff.preload import PreloadSet

    return PreloadSet()


@pytest.mark.parametrize("fault", ["slow", "error", "bug"])
def test_an_edge_that_does_not_answer_leaves_what_is_said_last(world, monkeypatch, tmp_path, fault) -> None:
    world.write_session(TALK)
    desk = world.desktop(model_dir=tmp_path / "no model")
    going = threading.Event()

    def preload_for(*_: object, **__: object) -> dict[str, Any]:
        if fault == "slow":
            going.wait(30)
        raise StoreUnreachableError("the index is away") if fault == "error" else RuntimeError("x")

    monkeypatch.setattr(Edge, "preload_for", preload_for)
    monkeypatch.setattr(beside_handoff, "ALONE_SECONDS", 0.2)
    report = desk.prepare_handoff(target_device="ios")
    going.set()
    assert report["mobile_ready"]
    assert not steps(report)["preload"]["ok"]
    assert any("ios" in warning for warning in report["warnings"])
    assert [entry.item.text for entry in preload_of(desk).entries][:1] == [TALK[3]]


def test_without_a_bucket_a_phone_is_not_ready(world, models) -> None:
    world.write_session(TALK)
    desk = world.desktop(**models)
    world.bucket.rename(world.root / "away")
    report = desk.prepare_handoff(target_device="ios")
    assert (report["queued"], report["mobile_ready"]) == (True, False)


# Vectors in a service


PLACED = {
    "points": 7,
    "bytes": 7_000,
    "duration_ms": 1.0,
    "ok": True,
    "usd_month": 0.005,
    "waiting": 0,
    "warnings": [],
}


@pytest.fixture
def placing(monkeypatch):
    """Switches the tiers on, and answers in the place of the service."""

    def answer(desk: Any, answered: Any) -> list[float]:
        asked: list[float] = []

        def place(_: Edge, conversation_id: str, *, max_seconds: float) -> Any:
            assert conversation_id == SESSION_ID
            asked.append(max_seconds)
            return answered()

        monkeypatch.setattr(Edge, "place", place)
        monkeypatch.setattr(type(desk.vectors), "is_on", property(lambda _: True))
        return asked

    return answer


def test_what_was_placed_is_an_operation_with_its_costs_of_a_month(world, placing) -> None:
    world.write_session(TALK)
    desk = world.desktop()
    asked = placing(desk, lambda: PLACED)
    report = desk.prepare_handoff()
    assert {**steps(report)["vectors"], "duration_ms": 0} == {
        "name": "vectors",
        "bytes": 7_000,
        "duration_ms": 0,
        "ok": True,
        "cost_usd": 0.005,
    }
    assert (report["mobile_ready"], report["warnings"]) == (True, [])
    assert asked == [beside_handoff.ALONE_SECONDS]
    assert "vectors" not in steps(desk.prepare_handoff(deliver=False))


def failing() -> Any:
    raise StoreUnreachableError("nobody answers there")


@pytest.mark.parametrize(
    ("answered", "told"),
    [
        (lambda: {**PLACED, "ok": False, "warnings": ["the service is away"]}, "the service is away"),
        (lambda: {**PLACED, "waiting": 3}, "3 of its items"),
        (failing, "nobody answers there"),
        (lambda: time.sleep(0.5), "still being placed"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_service_that_is_away_leaves_the_phone_ready(world, placing, monkeypatch, answered, told) -> None:
    monkeypatch.setattr(beside_handoff, "ALONE_SECONDS", 0.1)
    world.write_session(TALK)
    desk = world.desktop()
    placing(desk, answered)
    report = desk.prepare_handoff()
    assert report["mobile_ready"]
    assert any(told in warning for warning in report["warnings"])
    assert steps(report)["vectors"]["ok"] == (told == "3 of its items")
