"""A small writer of session files: records with only the fields a test is about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


class SessionWriter:
    """Records of one session file; each hangs below the one before unless it says otherwise."""

    def __init__(self, folder: Path, name: str = "11111111-1111-4111-8111-111111111111") -> None:
        self.path = folder / f"{name}.jsonl"
        self.folder = folder / name
        self.lines: list[bytes] = []
        self.parent: str | None = None
        self.count = 0

    def raw(self, line: bytes) -> None:
        self.lines.append(line)

    def record(self, **members: Any) -> str:
        self.count += 1
        record = {
            "uuid": f"u{self.count}",
            "parentUuid": self.parent,
            "isSidechain": False,
            "timestamp": f"2026-03-01T10:{self.count // 60:02d}:{self.count % 60:02d}.000Z",
            "cwd": "/home/dev/app",
            "sessionId": self.path.stem,
            "version": "2.1.217",
            "gitBranch": "main",
            **members,
        }
        self.raw(json.dumps(record).encode() + b"\n")
        self.parent = record["uuid"]
        return record["uuid"]

    def beside(self, kind: str, **members: Any) -> None:
        self.raw(json.dumps({"type": kind, "sessionId": self.path.stem, **members}).encode() + b"\n")

    def user(self, content: Any, **members: Any) -> str:
        return self.record(type="user", message={"role": "user", "content": content}, **members)

    def assistant(self, *blocks: Any, message_id: str = "", **members: Any) -> str:
        content = [{"type": "text", "text": block} if isinstance(block, str) else block for block in blocks]
        message = {
            "role": "assistant",
            "id": message_id or f"msg{self.count}",
            "model": "claude-x",
            "content": content,
        }
        return self.record(type="assistant", message=message, **members)

    def result(self, call: str, content: Any = "done", *, is_error: bool = False, **members: Any) -> str:
        block = {"type": "tool_result", "tool_use_id": call, "content": content, "is_error": is_error}
        return self.record(type="user", message={"role": "user", "content": [block]}, **members)

    def boundary(self, logical: str | None, **metadata: Any) -> str:
        return self.record(
            type="system",
            subtype="compact_boundary",
            parentUuid=None,
            logicalParentUuid=logical,
            compactMetadata={"trigger": "auto", "preTokens": 1000, **metadata},
        )

    def summary(self, text: str = "what was before") -> str:
        return self.user(text, isCompactSummary=True)

    def write(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"".join(self.lines))
        return self.path


def tool_use(call: str, name: str = "Bash", **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call, "name": name, "input": given}


@pytest.fixture
def writer(tmp_path: Path) -> SessionWriter:
    """A session in the project folder of /home/dev/app."""
    return SessionWriter(tmp_path / "claude" / "projects" / "-home-dev-app")


@pytest.fixture
def use():
    """Builds a tool_use block: use("call id", "Tool", **input)."""
    return tool_use
