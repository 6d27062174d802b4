"""The list of conversations: always what is known here, told where the bucket has more to say, safe to print."""

from __future__ import annotations

import json

from dualmem_mcp.model.handoff import HandoffRecord
from dualmem_mcp.server.resources import list_resources


def test_without_a_vault_there_is_nothing_to_look_into(world, talk) -> None:
    assert world.open("desktop").list_conversations() == {"conversations": [], "next_cursor": "", "warnings": []}


def test_a_bucket_that_lost_its_vault_is_told(world, talk) -> None:
    app = world.desktop()
    world.write_session(talk(4))
    app.prepare_handoff()
    (world.bucket / "vault.json").unlink()
    listed = app.list_conversations()
    assert len(listed["conversations"]) == 1
    assert "no vault in this bucket" in listed["warnings"][0]


def test_what_others_call_things_is_safe_to_print(world, talk) -> None:
    app = world.desktop()
    path = world.write_session(talk(4))
    title = {"type": "ai-title", "aiTitle": "plain \x1b[2J\x1b]0;owned\x07\u202eend", "sessionId": path.stem}
    path.write_text(path.read_text(encoding="utf-8") + json.dumps(title) + "\n", encoding="utf-8")
    app.prepare_handoff()
    record = app.catalogue.newest_handoff()
    assert record is not None
    fields = {name: getattr(record, name) for name in HandoffRecord.__dataclass_fields__}
    hostile = {"title": "a\nb\x1b[2J", "cwd": "/x\x1b[1A", "device_name": "phone\r\x1b[2K"}
    later = {"handoff_id": "f" * 32, "conversation_id": "other", "manifest_key": "manifests/x"}
    app.catalogue.save_handoff(HandoffRecord(**{**fields, **hostile, **later}))
    rows = {row["conversation_id"]: row for row in app.list_conversations()["conversations"]}
    assert rows[path.stem]["title"] == "plain end"
    assert (rows["other"]["title"], rows["other"]["cwd"], rows["other"]["device_name"]) == ("a b", "/x", "phone")
    assert "\x1b" not in "".join(
        f"{entry['title']}{entry['description']}" for entry in list_resources(app, "")[0][1:]
    )
