"""Whole sections in pages."""

from __future__ import annotations

import pytest

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.handoff.brief.sections import PAGE_CHARACTERS, SECTIONS, section_text, whole_section
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.model.digest import Digest, Request
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
