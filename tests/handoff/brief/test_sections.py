"""Whole sections in pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.handoff.brief import BriefSection, build_brief
from dualmem_mcp.handoff.brief.sections import (
    PAGE_CHARACTERS,
    SECTIONS,
    cursor_of,
    entries_page,
    flat,
    left_out,
    section_items,
    section_text,
    whole_section,
)
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.handoff.quoting import clean, defuse
from dualmem_mcp.model.digest import Digest, Request
from dualmem_mcp.transcripts.claude_code import read_session
from tests.handoff.dialogue import Dialogue, agent


def read_all(digest: Digest, name: str) -> str:
    text, cursor = section_text(digest, name)
    pages = [text]
    while cursor:
        text, cursor = section_text(digest, name, cursor)
        pages.append(text)
    assert all(len(page) <= PAGE_CHARACTERS + 1 for page in pages)
    return "".join(pages) if len(pages) == 1 else "\n".join(pages)


def test_pages_together_hold_the_whole_section() -> None:
    digest = Digest(
        requests=tuple(Request(text=f"request {number} " + "x" * 500, uuid=f"u{number}") for number in range(100))
    )
    assert section_text(digest, "requests")[1]
    whole = read_all(digest, "requests")
    assert all(f"[u{number}] request {number} " in whole for number in range(100))


def test_an_entry_longer_than_a_page_is_continued() -> None:
    long = "".join(f"{number:07d} " for number in range(6_000))
    digest = Digest(requests=(Request(text=long, uuid="u1"), Request(text="short", uuid="u2")))
    assert long.strip() in read_all(digest, "requests").replace("\n", "")
    assert "short" in read_all(digest, "requests")


def test_every_section_reads_whole_and_with_full_uuids() -> None:
    dialogue = Dialogue()
    asked = dialogue.user("build it, but never touch main")
    dialogue.edit("a.py")
    dialogue.bash("pytest -q", "== 1 failed in 0.1s ==\nError: x", error=True)
    dialogue.bash("git commit -am x", "[main 1a2b3c4] x")
    dialogue.tool("TaskCreate", {"subject": "parse", "description": "all\nof it"}, "Task #1 created")
    dialogue.tool("ExitPlanMode", {"plan": "# Plan\nstep"}, "User has approved your plan")
    dialogue.model("The root cause is `x` in `a.py`, because 3 rows are missing.")
    dialogue.compact("Summary:\n1. Pending Tasks: ship it")
    dialogue.user("go on")
    digest = build_digest(dialogue.session(agents=(agent(0, "look", result="found"),)), summary="half done")
    found = {name: read_all(digest, name) for name in SECTIONS}
    expected = {
        "resumption": "go on",
        "notes": "half done",
        "tasks": "of it",
        "requests": "never touch main",
        "files": "a.py",
        "commands": "pytest -q",
        "errors": "Error: x",
        "commits": "1a2b3c4",
        "plan": "# Plan",
        "agents": "found",
        "decisions": "The root cause",
        "compaction_summary": "ship it",
    }
    assert {name: text in found[name] for name, text in expected.items()} == dict.fromkeys(SECTIONS, True)
    assert asked in found["requests"]


def test_empty_sections_are_empty() -> None:
    assert all(section_text(Digest(), name) == ("", "") for name in SECTIONS if name != "resumption")
    assert all(not whole_section(Digest(), name) for name in SECTIONS if name != "resumption")


def test_an_unknown_section_names_those_there_are() -> None:
    with pytest.raises(NotFoundError) as caught:
        section_text(Digest(), "../secrets")
    assert "requests" in caught.value.hint


@pytest.mark.parametrize("cursor", ["9:0", "-1:0", "x", "0:99", "1", "0:0:0", "⁴:0", "1" * 40 + ":0"])
def test_a_cursor_that_was_never_given_is_refused(cursor: str) -> None:
    with pytest.raises(UsageError):
        section_text(Digest(requests=(Request(text="a", uuid="u"),)), "requests", cursor)


# --- what a brief leaves out, and the cursors that give it ---


def rest_of(digest: Digest, section: BriefSection) -> str:
    """All pages of a section from the cursor that a brief names."""
    pages = []
    cursor = section.cursor
    while cursor:
        text, cursor = section_text(digest, section.name, cursor)
        pages.append(text)
    return "\n".join(pages)


def assert_nothing_is_lost_or_twice(digest: Digest, budget: int) -> None:
    brief = build_brief(digest, token_budget=budget)
    line = flat(brief.text)
    assert [section.name for section in brief.sections] == [
        name for name in SECTIONS if whole_section(digest, name)
    ]
    for section in brief.sections:
        items = section_items(digest, section.name)
        missing = left_out(items, line, brief.shown)
        assert section.left_out == len(missing)
        rest = rest_of(digest, section)
        # Pages end where an entry does, or inside of one that is longer than a page.
        assert rest.replace("\n", "") == defuse("\n".join(items[at].text for at in missing)).replace("\n", "")
        for index, item in enumerate(items):
            if index not in missing:  # looked for without what the brief's maker says of itself
                for part in item.parts:
                    assert " ".join(defuse(clean(part)).split()) in " ".join(brief.text.split())


@pytest.mark.parametrize("budget", [0, 200, 600, 2_000, 6_000, 20_000])
def test_a_brief_and_what_its_cursors_give_hold_every_entry_once(budget: int) -> None:
    dialogue = Dialogue(branch="feature/x")
    for step in range(40):
        dialogue.user(f"please change step {step} and never touch module {step}, {'very ' * step} carefully")
        dialogue.edit(f"src/part{step % 3}/module_{step}.py")
        dialogue.bash(f"make step-{step}", f"error in step {step}\n" * 3, error=step % 4 == 0)
        dialogue.model(f"I changed step {step}. It failed with code {step}12 before, since the cache was stale.")
    agents = tuple(agent(number, f"explore part {number}", result="fine\n" * 2_000) for number in range(9))
    assert_nothing_is_lost_or_twice(build_digest(dialogue.session(agents=agents)), budget)


@pytest.mark.parametrize("budget", [1_000, 2_000, 4_000, 6_000])
def test_real_sessions_lose_nothing_on_any_device(shared_transcripts: Path, budget: int) -> None:
    for path in sorted((shared_transcripts / "claude" / "projects").glob("*/*.jsonl")):
        assert_nothing_is_lost_or_twice(build_digest(read_session(path)), budget)


@given(st.sets(st.integers(0, 199), max_size=40), st.integers(1, 4_000))
def test_a_cursor_gives_the_entries_that_it_was_made_for(wanted: set[int], size: int) -> None:
    entries = [f"{index}:" + "x" * size for index in range(200)]
    cursor, given = cursor_of(sorted(wanted), 200), []
    while cursor:
        text, cursor = entries_page(entries, cursor, "requests")
        given += text.split("\n")
    assert given == [entries[index] for index in sorted(wanted)]


def test_a_cursor_of_very_many_gaps_stays_short_and_loses_nothing() -> None:
    cursor = cursor_of(range(3, 400, 2), 400)
    assert cursor == "3:0"
    assert cursor_of(range(1, 120, 2), 200).count(".") == 59
    assert cursor_of([], 5) == ""


@pytest.mark.parametrize("cursor", ["2-1:0", "0-1.1-2:0", "1-2.0-0:0", "0-9:0", "0-1.:0", "0-.2-3:0", "-:0", "0-1"])
def test_spans_that_no_brief_gives_are_refused(cursor: str) -> None:
    with pytest.raises(UsageError, match="no cursor"):
        entries_page(["a", "b", "c", "d"], cursor, "requests")
