"""Pages that were opened ahead are those that would be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualmem_mcp.app import App
from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.handoff.context import ThreadTexts, thread_page
from dualmem_mcp.handoff.prefetch import LIMIT_BYTES
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.transcripts.claude_code import read_session
from tests.handoff.conftest import SESSION_ID, Talk, World


@pytest.fixture
def phone(world: World) -> App:
    write_sample_session(world.claude, cwd="/home/dev/tollgate", turns=600)
    world.desktop().prepare_handoff()
    return world.phone()


@pytest.mark.parametrize("device", ["ios", "pwa", "desktop"])
def test_every_page_that_was_opened_ahead_is_the_one_that_would_be_read(phone: App, device: str) -> None:
    brief = phone.resume_conversation(device=device, caller="ana")
    assert phone.ahead.wait("ana", 30)
    assert 0 < phone.ahead.size_bytes("ana") <= LIMIT_BYTES
    conversation = brief["conversation_id"]
    ready = 0
    for section in brief["sections"]:
        cursor = section["cursor"]
        for _ in range(4):
            given = (conversation, section["name"], cursor)
            kept = phone.ahead.page("ana", conversation, brief["handoff_id"], section["name"], cursor)
            page = phone.load_context(*given)
            assert phone.load_context(*given, caller="ana") == page
            if kept is not None:
                assert kept == (page["text"], page["next_cursor"])
                ready += 1
            if not (cursor := page["next_cursor"]):
                break
    assert ready >= len(brief["sections"])
    end = next(one for one in brief["sections"] if one["name"] == "thread")["end_cursor"]
    assert phone.ahead.page("ana", conversation, brief["handoff_id"], "thread", end)


def test_nothing_is_opened_ahead_for_whom_only_reads(phone: App) -> None:
    phone.resume_conversation()
    assert phone.ahead.size_bytes("") == 0


def test_a_thread_beyond_the_memory_of_the_profile_is_not_opened_ahead(world: World, talk: Talk) -> None:
    world.write_session([text * 2_000 for text in talk(30)])
    world.desktop().prepare_handoff()
    phone = world.phone(
        profiles={"tiny": world.settings("phone").profile_for("ios").__class__("tiny", 1, 1, 1, 2_000)}
    )
    brief = phone.resume_conversation(device="tiny", caller="ana")
    assert phone.ahead.wait("ana", 30)
    assert phone.ahead.page("ana", SESSION_ID, brief["handoff_id"], "thread", "0") is None
    assert phone.load_context(SESSION_ID, "thread", caller="ana")["text"]


def test_an_erased_conversation_is_not_given_from_memory(phone: App) -> None:
    brief = phone.resume_conversation(caller="ana")
    assert phone.ahead.wait("ana", 30)
    phone.erase(brief["conversation_id"])
    with pytest.raises(NotFoundError):
        phone.load_context(brief["conversation_id"], "thread", caller="ana")


@pytest.mark.parametrize("room", [0, 20_000, 60_000, 10_000_000])
def test_turns_kept_from_the_end_make_the_pages_of_the_whole(shared_transcripts: Path, room: int) -> None:
    for path in sorted((shared_transcripts / "claude" / "projects").glob("*/*.jsonl")):
        session = read_session(path)
        kept = ThreadTexts.of(session, room)
        assert kept.size_bytes <= max(room, len(kept.start[0].encode()) + len(kept.before))
        turns = [turn.uuid for turn in session.all_turns() if not turn.is_meta]
        cursors = [
            "",
            "0",
            *map(str, range(0, kept.count + 1, max(1, kept.count // 8))),
            *(uuid[:5] for uuid in turns[-3:]),
        ]
        for cursor in [*cursors, *(uuid[:12] for uuid in turns[-12:]), *turns[-1:]]:
            page = kept.page(cursor)
            if page is not None:
                assert page == thread_page(session, cursor)
        assert kept.page("ffffffff-none") is None
        if room > 1_000_000:
            assert kept.first == 0
