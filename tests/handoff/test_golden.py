"""Buckets written by earlier format versions stay readable, to the last byte."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.mark.parametrize("name", ["handoff-v1", "handoff-v2", "handoff-v3"])
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
