"""Makes tests/golden/handoff-v<n>: a bucket with two handoffs of one conversation, as format <n> writes them.

Run once for each format version, by hand, with the code of that version:

    python tests/golden/make_handoff.py FOLDER [MESSAGES]

What it made stays as it is; later versions must read it. FOLDER gets `bucket/` and `expected.json`. The second one
has four messages more than the first, which has MESSAGES: 20 in handoff-v1, which has no patches, 40 in the others.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dualmem_mcp.app import open_app
from dualmem_mcp.settings import load_settings

PASSPHRASE = "golden handoffs keep no secret"
CONVERSATION_ID = "6f1d8c1e-5b7a-4c57-9d0e-2a4b6c8d0e1f"
STATE = {"calm": 0.25, "ключ": [1, None, {"x": True}]}


class Clock:
    """Noon of one day, a minute later at each reading."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        self.time += timedelta(minutes=1)
        return self.time


def session_lines(count: int) -> list[str]:
    """A conversation of `count` messages; its beginning is the same for every count."""
    lines, parent = [], None
    for index in range(count):
        role = "user" if index % 2 == 0 else "assistant"
        text = (
            f"please rename step {index} of the beacon parser" if index % 2 == 0 else f"step {index - 1} is renamed"
        )
        uuid = f"{index:08x}-0000-4000-8000-00000000c0de"
        record = {
            "parentUuid": parent,
            "isSidechain": False,
            "cwd": "/home/you/beacon",
            "sessionId": CONVERSATION_ID,
            "version": "2.1.200",
            "gitBranch": "rename-steps",
            "type": role,
            "uuid": uuid,
            "timestamp": f"2026-02-01T10:{index:02d}:00.000Z",
            "message": {"role": role, "content": text if role == "user" else [{"type": "text", "text": text}]},
        }
        lines.append(json.dumps(record) + "\n")
        parent = uuid
    return lines


def main(folder: Path, messages: int) -> None:
    """Write the bucket and what is expected of it."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        project = root / "claude" / "projects" / "-home-you-beacon"
        (project / CONVERSATION_ID / "subagents").mkdir(parents=True)
        (root / "sacred").mkdir()
        (root / "sacred" / "name.md").write_bytes(b"Beacon\r\n\xff")
        session = project / f"{CONVERSATION_ID}.jsonl"
        agent = project / CONVERSATION_ID / "subagents" / "agent-a1.jsonl"
        agent.write_text(
            session_lines(2)[0].replace('"isSidechain": false', '"isSidechain": true'), encoding="utf-8"
        )
        settings = replace(
            load_settings(root / "home", bucket=str(folder / "bucket")),
            keystore="file",
            claude_dir=root / "claude",
            state=STATE,
            protected_files=("*.md",),
            protected_root=root / "sacred",
        )
        with open_app(settings, clock=Clock()) as app:
            app.init(PASSPHRASE, device_name="golden desk")
            for count in (messages, messages + 4):
                session.write_text("".join(session_lines(count)), encoding="utf-8")
                report = app.prepare_handoff(CONVERSATION_ID, decisions=["Keep the old names as aliases."])
        expected = {
            "passphrase": PASSPHRASE,
            "conversation_id": CONVERSATION_ID,
            "handoff_id": report["handoff_id"],
            "message_count": report["message_count"],
            "last_request": f"please rename step {messages + 2} of the beacon parser",
            "branch": "rename-steps",
            "state": STATE,
            "files": {
                path.relative_to(project).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in (session, agent)
            },
            "protected": {"name.md": hashlib.sha256((root / "sacred" / "name.md").read_bytes()).hexdigest()},
        }
        (folder / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40)
