"""Buckets written by earlier format versions stay readable, to the last byte."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from tests.golden.make_handoff import session_lines

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
VERSIONS = ["handoff-v1", "handoff-v2", "handoff-v3"]


@pytest.mark.parametrize("name", VERSIONS)
def test_a_golden_handoff_is_resumed_and_restored(world, name: str) -> None:
    shutil.copytree(GOLDEN / name / "bucket", world.bucket)
    expected = json.loads((GOLDEN / name / "expected.json").read_text(encoding="utf-8"))
    conversation = expected["conversation_id"]
    app = world.open("phone")
    app.join(expected["passphrase"])

    brief = app.resume_conversation()
    assert brief["warnings"] == []
    assert (brief["conversation_id"], brief["handoff_id"]) == (conversation, expected["handoff_id"])
    assert brief["resumption_point"]["last_request"]["text"] == expected["last_request"]
    assert brief["resumption_point"]["git"]["branch"] == expected["branch"]
    assert expected["last_request"] in brief["brief"]
    assert json.loads(app.load_context(conversation, "state")["text"]) == expected["state"]

    restored = app.restore(conversation, claude_dir=world.root / "restored")
    folder = Path(restored["session_path"]).parent
    for file, sha256 in expected["files"].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == sha256
    carried = app.load_context(conversation, "carried_files")["text"]
    for file, sha256 in expected["protected"].items():
        assert file in carried
        assert sha256 in carried


@pytest.mark.parametrize("name", VERSIONS)
def test_a_golden_handoff_is_built_upon(world, name: str) -> None:
    shutil.copytree(GOLDEN / name / "bucket", world.bucket)
    expected = json.loads((GOLDEN / name / "expected.json").read_text(encoding="utf-8"))
    conversation = expected["conversation_id"]
    desktop = world.open("desktop")
    desktop.join(expected["passphrase"])
    session = Path(desktop.restore(conversation, claude_dir=world.claude)["session_path"])
    session.write_text("".join(session_lines(expected["message_count"] + 4)), encoding="utf-8")

    report = desktop.prepare_handoff(conversation)
    assert report["warnings"] == []
    assert desktop.catalogue.newest_handoff().base == expected["handoff_id"]
    phone = world.open("phone")
    phone.join(expected["passphrase"])
    last = f"please rename step {expected['message_count'] + 2} of the beacon parser"
    assert phone.resume_conversation()["resumption_point"]["last_request"]["text"] == last
    again = Path(phone.restore(conversation, claude_dir=world.root / "again")["session_path"])
    assert again.read_bytes() == session.read_bytes()
