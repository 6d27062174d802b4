"""A desktop and a phone that share a bucket folder, with real applications on both."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dualmem_mcp.app import App, open_app
from dualmem_mcp.settings import Settings, load_settings

PASSPHRASE = "correct horse battery staple"
SESSION_ID = "0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"


class World:
    """One user's devices, Claude Code folder and bucket, below one temporary folder."""

    def __init__(self, root: Path, clock: object) -> None:
        self.root = root
        self.clock = clock
        self.bucket = root / "bucket"
        self.claude = root / "claude"
        self.project = root / "project"
        self.project.mkdir()
        self._open: list[App] = []

    def settings(self, device: str, **changes: object) -> Settings:
        settings = load_settings(self.root / device, bucket=str(self.bucket))
        return replace(settings, **{"claude_dir": self.claude, "keystore": "file", **changes})  # type: ignore[arg-type]

    def open(self, device: str, **changes: object) -> App:
        app = open_app(self.settings(device, **changes), clock=self.clock)  # type: ignore[arg-type]
        self._open.append(app)
        return app

    def desktop(self, **changes: object) -> App:
        app = self.open("desktop", **changes)
        app.init(PASSPHRASE, device_name="desk")
        return app

    def phone(self, **changes: object) -> App:
        app = self.open("phone", **changes)
        app.join(PASSPHRASE, device_name="pocket")
        return app

    def write_session(self, texts: list[str], session_id: str = SESSION_ID, *, branch: str = "main") -> Path:
        """A session of user and assistant messages in turn; written again it only grows."""
        folder = self.claude / "projects" / str(self.project).replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{session_id}.jsonl"
        parent = None
        lines = []
        for index, text in enumerate(texts):
            role = "user" if index % 2 == 0 else "assistant"
            uuid = f"{index:08x}-0000-4000-8000-000000000000"
            record = {
                "parentUuid": parent,
                "isSidechain": False,
                "userType": "external",
                "cwd": str(self.project),
                "sessionId": session_id,
                "version": "2.1.200",
                "gitBranch": branch,
                "type": role,
                "uuid": uuid,
                "timestamp": f"2026-02-{1 + index // 1440:02d}T{index // 60 % 24:02d}:{index % 60:02d}:00.000Z",
                "message": {
                    "role": role,
                    "content": text if role == "user" else [{"type": "text", "text": text}],
                    **({"model": "claude-test"} if role == "assistant" else {}),
                },
            }
            lines.append(json.dumps(record, ensure_ascii=False))
            parent = uuid
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    def files(self) -> list[Path]:
        """Every file of the data homes and the bucket."""
        return [
            Path(folder) / name
            for place in ("desktop", "phone", "bucket")
            for folder, _, names in os.walk(self.root / place)
            for name in names
        ]

    def close(self) -> None:
        for app in self._open:
            app.close()


@pytest.fixture
def world(tmp_path: Path, clock: object) -> Iterator[World]:
    made = World(tmp_path, clock)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("DUALMEM_", "CLAUDE_")) or name == "MEMORY_FILE_PATH":
            monkeypatch.delenv(name)


Talk = Callable[[int], list[str]]


@pytest.fixture
def talk() -> Talk:
    """Messages of a made-up conversation, each with words that stand nowhere else."""

    def messages(count: int) -> list[str]:
        return [
            f"zephyrquartz{index} please change step {index} of the marmalade importer"
            if index % 2 == 0
            else f"obsidianlark{index} changed step {index}; the importer now keeps its order"
            for index in range(count)
        ]

    return messages
