"""A data home with turns in its memory, and the edge on it: in this process, or in one of its own."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.app import App, open_app
from dualmem_mcp.edge.client import EdgeProcess
from dualmem_mcp.settings import load_settings

TALK = (
    ("boat", "Jonas", "The harbour master wants the cutter moved before the regatta."),
    ("boat", "Ines", "Then let us sail it round to the old shipyard on Thursday."),
    ("boat", "Jonas", "The anchor winch is still broken, I ordered a new pawl."),
    ("kiln", "Wren", "The glaze came out blistered, the kiln climbed too fast."),
    ("kiln", "Ines", "Hold it at nine hundred degrees for half an hour next time."),
    ("kiln", "Wren", "I wrote the firing schedule on the blue card."),
)


def turns(talk: tuple[tuple[str, str, str], ...] = TALK) -> str:
    """The file of turns of a conversation."""
    return "".join(
        json.dumps(
            {
                "conversation_id": conversation,
                "id": f"t{number}",
                "role": "user",
                "author": author,
                "text": text,
                "timestamp": f"2026-02-{1 + number // 60:02d}T10:{number % 60:02d}:00Z",
            }
        )
        + "\n"
        for number, (conversation, author, text) in enumerate(talk)
    )


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the developer's; processes started inherit it."""
    for name in list(os.environ):
        if name.startswith(("DUALMEM_", "CLAUDE_")) or name == "MEMORY_FILE_PATH":
            monkeypatch.delenv(name)
    monkeypatch.setenv("DUALMEM_KEYSTORE", "file")
    monkeypatch.setenv("DUALMEM_BUCKET", str(tmp_path / "bucket"))
    monkeypatch.setenv("DUALMEM_MODEL_DIR", str(tmp_path / "no model"))
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "claude"))


@pytest.fixture(scope="session")
def filled_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data home whose turns are imported; to be copied, not used."""
    root = tmp_path_factory.mktemp("edge")
    (root / "talk.jsonl").write_text(turns())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUALMEM_KEYSTORE", "file")
        patch.setenv("DUALMEM_MODEL_DIR", str(root / "no model"))
        patch.setenv("CLAUDE_CONFIG_DIR", str(root / "claude"))
        with open_app(load_settings(root / "home")) as app:
            app.import_file(root / "talk.jsonl", "turns")
    return root / "home"


@pytest.fixture
def home(filled_home: Path, tmp_path: Path) -> Path:
    """A data home with the turns of TALK."""
    return Path(shutil.copytree(filled_home, tmp_path / "home"))


OpenApp = Callable[..., App]


@pytest.fixture
def open_home(home: Path) -> Iterator[OpenApp]:
    """Opens the data home in this process, as often as wanted."""
    opened: list[App] = []

    def open_it(**given: Any) -> App:
        opened.append(open_app(load_settings(home), **given))
        return opened[-1]

    yield open_it
    for app in opened:
        app.close()


def children() -> list[int]:
    """Processes that this one started and that are not reaped: running ones and zombies."""
    own = Path(f"/proc/{os.getpid()}/task")
    if not own.is_dir():
        pytest.skip("needs /proc")
    found: list[int] = []
    for task in own.iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:  # a thread that has ended meanwhile
            continue
    return found


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


StartEdge = Callable[..., EdgeProcess]


@pytest.fixture
def start_edge(home: Path) -> Iterator[StartEdge]:
    """Makes clients of edge processes, and sees that nothing is left of these afterwards."""
    before = set(children())
    made: list[EdgeProcess] = []

    def start(**given: Any) -> EdgeProcess:
        made.append(EdgeProcess(home, **given))
        return made[-1]

    yield start
    for edge in made:
        edge.close()
    assert set(children()) <= before


def texts(found: dict[str, Any]) -> list[str]:
    return [result["text"] for result in found["results"]]
