"""A data home filled with turns as a user fills one, for the benchmarks that drive the real commands and server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval_data import Dataset, write_turns_file
from stdio_server import Server, structured

from dualmem_mcp.app import App, open_app
from dualmem_mcp.crypto.keys import derive_index_key
from dualmem_mcp.model.search import Collection
from dualmem_mcp.settings import load_settings
from dualmem_mcp.stores.keystore import open_device_secret
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index

COMMAND = [sys.executable, "-m", "dualmem_mcp.cli"]
SERVER = [sys.executable, "-m", "dualmem_mcp.server.serve"]


class SearchHome:
    """A data home of its own in a folder, with a folder as bucket and no session of Claude Code in sight."""

    def __init__(self, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.place = place
        self.home = place / "home"
        self.environment = {
            "DUALMEM_HOME": str(self.home),
            "DUALMEM_BUCKET": str(place / "bucket"),
            "DUALMEM_KEYSTORE": "file",
            "CLAUDE_CONFIG_DIR": str(place / "claude"),
            "DUALMEM_MODEL_DIR": str(load_settings().model_dir),
        }

    def run(self, *arguments: str | Path) -> dict[str, Any]:
        """What `dualmem ARGUMENTS --json` prints. Raises CalledProcessError if it fails."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUALMEM_", "CLAUDE_"))}
        done = subprocess.run(
            [*COMMAND, *arguments, "--json"],
            env={**kept, **self.environment},
            check=True,
            stdout=subprocess.PIPE,
        )
        report = json.loads(done.stdout)
        assert isinstance(report, dict)
        return report

    def import_turns(self, dataset: Dataset) -> None:
        """Import the turns of the dataset, as `dualmem import` does, which indexes them."""
        path = self.place / "turns.jsonl"
        write_turns_file(dataset, path)
        report = self.run("import", path, "--format", "turns")
        path.unlink()
        if report["turns"] != dataset.turns or report["skipped"]:
            raise RuntimeError(f"of {dataset.turns} turns {report['turns']} were imported: {report['warnings']}")

    def without_model(self) -> SearchHome:
        """The same data home for commands that must not find the model."""
        other = SearchHome(self.place)
        other.environment = {**self.environment, "DUALMEM_MODEL_DIR": str(self.place / "no-model")}
        return other

    def open_index(self) -> SqliteSearchIndex:
        """The index of the conversations, apart from the application."""
        secret = open_device_secret(self.home, choice="file").secret
        folder = self.home / "vector_cache" / Collection.CONVERSATIONS
        return open_search_index(folder, derive_index_key(secret), Collection.CONVERSATIONS)

    def index_bytes(self) -> int:
        """Size of the search indexes on disk."""
        return sum(file.stat().st_size for file in (self.home / "vector_cache").rglob("*") if file.is_file())


@contextmanager
def opened(home: SearchHome) -> Iterator[App]:
    """The application on that data home, in this process."""
    before = dict(os.environ)
    os.environ.update(home.environment)
    try:
        with open_app(load_settings()) as app:
            yield app
    finally:
        os.environ.clear()
        os.environ.update(before)


def wait_until_embedded(server: Server, *, limit_seconds: float = 3600) -> None:
    """Search until the answer says that nothing is missing: the model is loaded and every item has its vector."""
    end = time.monotonic() + limit_seconds
    while structured(server.call("search_memory", {"query": "is everything there"}))["partial"]:
        if time.monotonic() > end:
            raise RuntimeError("the index did not get complete")
        time.sleep(0.2)
