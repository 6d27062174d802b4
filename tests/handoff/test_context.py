"""Secrets in what `load_context` gives beside the digest."""

from __future__ import annotations

import json
from typing import Any

SESSION_ID = "0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"
TOKEN = "ghp_" + "q7Zr2XwT9bLm4KdN8sVc3HjP6yFa1GuE5tQo"
PASSWORD = "h7Gx09qLmZ2w"


def _append(path: Any, parent: str, role: str, block: dict[str, Any]) -> str:
    uuid = f"f{path.stat().st_size:07x}-0000-4000-8000-000000000000"
    record = {
        "parentUuid": parent,
        "isSidechain": False,
        "type": role,
        "uuid": uuid,
        "timestamp": "2026-02-03T10:00:00.000Z",
        "message": {"role": role, "content": [block]},
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    return uuid


def test_no_page_of_the_thread_shows_a_secret_nor_half_of_one(world, talk) -> None:
    path = world.write_session(talk(2))
    given = {"command": f'export PASSWORD="{PASSWORD}"\nmake'}
    call = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": given}
    # Shown to 2,000 characters, which ends in the middle of the token.
    answer = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "x" * 1_980 + " " + TOKEN + "\nafter"}
    last = _append(path, "00000001-0000-4000-8000-000000000000", "assistant", call)
    _append(path, last, "user", answer)
    world.desktop().prepare_handoff()
    text = world.phone().load_context(SESSION_ID, "thread")["text"]
    assert "export PASSWORD" in text
    assert "x" * 1_900 in text
    assert PASSWORD not in text
    assert TOKEN[:8] not in text


def test_a_cut_private_key_takes_nothing_else_of_the_page_with_it(world, talk) -> None:
    path = world.write_session(talk(2))
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBg\n" * 200 + "-----END PRIVATE KEY-----\n"
    call = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "cat id_rsa"}}
    answer = {"type": "tool_result", "tool_use_id": "toolu_1", "content": key}
    last = _append(path, "00000001-0000-4000-8000-000000000000", "assistant", call)
    last = _append(path, last, "user", answer)
    _append(path, last, "assistant", {"type": "text", "text": "That is the deploy key."})
    world.desktop().prepare_handoff()
    text = world.phone().load_context(SESSION_ID, "thread")["text"]
    assert "MIIEvQ" not in text
    assert "That is the deploy key." in text


def test_a_carried_file_whose_name_holds_a_secret_is_listed_without_it(world, talk) -> None:
    world.write_session(talk(2))
    kept = world.project / "kept"
    kept.mkdir()
    (kept / f"{TOKEN}.md").write_text("x", encoding="utf-8")
    world.desktop(protected_files=("kept/*.md",)).prepare_handoff()
    text = world.phone().load_context(SESSION_ID, "carried_files")["text"]
    assert "kept/[redacted: GitHub token]" in text
    assert TOKEN[:8] not in text
