"""What a device without a network finds of a conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.handoff.context import load_section
from dualmem_mcp.transcripts.carried import parse_session

SESSION_ID = "0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"
TOKEN = "ghp_" + "q7Zr2XwT9bLm4KdN8sVc3HjP6yFa1GuE5tQo"


def _append(path: Path, parent: str, role: str, content: list[dict[str, Any]] | str) -> str:
    uuid = f"f{path.stat().st_size:07x}-0000-4000-8000-000000000000"
    record = {
        "parentUuid": parent,
        "isSidechain": False,
        "type": role,
        "uuid": uuid,
        "timestamp": "2026-02-03T10:00:00.000Z",
        "message": {"role": role, "content": content},
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    return uuid


def _call(tool: str, **values: object) -> list[dict[str, Any]]:
    return [{"type": "tool_use", "id": f"toolu_{tool}", "name": tool, "input": values}]


@pytest.fixture
def pack(world, talk) -> str:
    path = world.write_session(talk(20))
    last = "00000013-0000-4000-8000-000000000000"
    last = _append(path, last, "assistant", _call("Write", file_path="/p/old.py", content="OLD = 1\n"))
    last = _append(path, last, "assistant", _call("Write", file_path="/p/crane.py", content="FIRST = 1\n"))
    last = _append(
        path, last, "assistant", _call("Edit", file_path="/p/crane.py", old_string="FIRST", new_string="LIFT = 2\n")
    )
    last = _append(
        path,
        last,
        "assistant",
        _call("MultiEdit", file_path="/p/hook.py", edits=[{"new_string": "A"}, {"new_string": f'KEY = "{TOKEN}"'}]),
    )
    _append(path, last, "assistant", [{"type": "text", "text": "The hook holds."}])
    (world.project / "CLAUDE.md").write_text("Cranes are tested on Mondays.\n")
    world.desktop().prepare_handoff()
    return str(world.phone().load_context(SESSION_ID, "offline")["text"])


def test_it_has_the_last_ten_messages_and_what_was_asked_last(pack: str) -> None:
    messages = pack.partition("## Last messages")[2]
    assert "The hook holds." in messages
    assert messages.count("zephyrquartz") == 4
    assert messages.count("obsidianlark") == 5
    assert "obsidianlark9" not in messages
    assert "zephyrquartz18" in pack.partition("## Last request")[2].partition("##")[0]


def test_it_has_the_project_with_its_folder_branch_and_instructions(pack: str, world) -> None:
    project = pack.partition("## Project")[2].partition("\n## ")[0]
    assert str(world.project) in project
    assert "Branch: main" in project
    assert "Cranes are tested on Mondays." in project


def test_it_has_what_was_written_last_into_each_file_the_newest_first(pack: str) -> None:
    code = pack.partition("## Code")[2].partition("\n## ")[0]
    assert "LIFT = 2" in code
    assert "FIRST = 1" not in code
    assert code.index("/p/hook.py") < code.index("/p/crane.py") < code.index("/p/old.py")


def test_no_secret_stands_in_it(pack: str) -> None:
    assert "KEY =" in pack
    assert TOKEN not in pack


def test_it_works_without_the_bucket_once_the_package_is_kept(world, talk) -> None:
    world.write_session(talk(20))
    world.desktop().prepare_handoff()
    phone = world.phone()
    phone.resume_conversation()
    world.bucket.rename(world.root / "away")
    assert "obsidianlark19" in phone.load_context(SESSION_ID, "offline")["text"]


def test_every_real_conversation_has_one(world, shared_transcripts: Path) -> None:
    desktop = world.desktop()
    read = 0
    for path in sorted(shared_transcripts.rglob("*.jsonl")):
        if "subagents" in path.parts or not 50_000 < path.stat().st_size < 1_000_000:
            continue
        report = desktop.prepare_handoff(transcript=path)
        text, _ = load_section(
            desktop._newest_package(report["conversation_id"]), "offline", "", parse=parse_session
        )
        assert "## Last messages" in text
        read += 1
    assert read >= 3
