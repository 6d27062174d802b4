"""The structured form of briefs on devices where a model may be shown it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dualmem_mcp.handoff.slim import LONGEST
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.server.handoff_tools import HANDOFF_TOOLS
from tests.handoff.conftest import Talk, World

CONTRACT = next(tool for tool in HANDOFF_TOOLS if tool.name == "resume_conversation").output_schema["properties"]


def texts_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return (
        [text for one in (value.values() if isinstance(value, dict) else value) for text in texts_in(one)]
        if (isinstance(value, (dict, list)))
        else []
    )


@pytest.fixture
def handed_over(world: World) -> World:
    write_sample_session(world.claude, cwd="/home/dev/tollgate", turns=600)
    world.desktop().prepare_handoff(summary="The store is shared now.", decisions=["Redis first"])
    return world


@pytest.mark.parametrize(("device", "tokens"), [("ios", 4_000), ("android", 6_000), ("pwa", 2_000)])
def test_on_a_small_device_the_structured_form_is_short_and_has_every_field(
    handed_over: World, device: str, tokens: int
) -> None:
    phone = handed_over.phone()
    brief = phone.resume_conversation(device=device)
    whole = phone.resume_conversation(device="desktop")
    assert set(CONTRACT) <= set(brief)
    assert set(brief) == set(whole)
    assert brief["brief_tokens"] <= tokens
    rest = {name: value for name, value in brief.items() if name not in ("brief", "sections", "completeness")}
    assert len(json.dumps(rest, ensure_ascii=False)) <= tokens * 3 + 1_500
    assert brief["resumption_point"]["last_request"] == whole["resumption_point"]["last_request"]
    del rest["resumption_point"]
    assert max(map(len, texts_in(rest))) <= LONGEST
    for name in ("requests", "decisions", "active_files", "commands", "tasks"):
        known = [one.get("uuid", "") + str(one.get("path", "")) for one in whole[name]]
        given = [one.get("uuid", "") + str(one.get("path", "")) for one in brief[name]]
        assert set(given) <= set(known)
    assert brief["requests"]


def test_on_a_desktop_the_lists_are_whole(handed_over: World) -> None:
    phone = handed_over.phone()
    brief = phone.resume_conversation(device="desktop")
    for name, section in (("requests", "requests"), ("active_files", "files"), ("tasks", "tasks")):
        page = phone.load_context(brief["conversation_id"], section)["text"]
        assert len(brief[name]) >= page.count("\n- [") or page.count("\n- [") == 0
    assert all(agent["restored"] for agent in brief["agents"])


def test_agents_beyond_the_device_are_named(handed_over: World) -> None:
    phone = handed_over.phone()
    whole = phone.resume_conversation(device="desktop")["agents"]
    small = phone.resume_conversation(device="pwa")["agents"]
    assert len(whole) > 1
    assert [one["restored"] for one in small] == [True] + [False] * (len(whole) - 1)
    assert {one["id"] for one in small} == {one["id"] for one in whole}
    assert all(set(one) == {"id", "description", "status", "restored"} for one in small[1:])


def test_what_came_since_is_loaded_in_full(world: World, talk: Talk) -> None:
    world.write_session(talk(60))
    world.desktop().prepare_handoff()
    phone = world.phone()
    first = phone.resume_conversation(device="pwa")
    assert "since" not in [section["name"] for section in first["sections"]]
    world.clock.advance(60)
    long = "The migration must keep its order. " * 300
    phone.save_progress(
        first["conversation_id"], messages=[{"role": "user", "text": long}], notes=[{"text": "Ask Ada about it"}]
    )
    brief = phone.resume_conversation(device="pwa")
    section = next(one for one in brief["sections"] if one["name"] == "since")
    assert brief["sections"].index(section) == 1
    assert section["left_out"] == 1  # the note stands in the brief
    page = phone.load_context(first["conversation_id"], "since", section["cursor"])
    assert long.strip() in page["text"]
    assert "Ask Ada" not in page["text"]
    assert page["next_cursor"] == ""
    assert "Ask Ada" in phone.load_context(first["conversation_id"], "since")["text"]


def test_the_last_exchange_of_the_thread_has_a_cursor(handed_over: World) -> None:
    phone = handed_over.phone()
    brief = phone.resume_conversation(device="ios")
    thread = next(one for one in brief["sections"] if one["name"] == "thread")
    page = phone.load_context(brief["conversation_id"], "thread", thread["end_cursor"])
    assert page["text"].startswith(f"[{brief['resumption_point']['last_request']['uuid']}] user")
    assert phone.load_context(brief["conversation_id"], "thread", thread["cursor"])["text"] != page["text"]
