"""Servers of different devices over one bucket: what one writes, the other's clients hear of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GRAPH_URI = "memory://knowledge-graph"
UPDATED = "notifications/resources/updated"
QUICK = {"sync": {"poll_seconds": 0.2, "idle_seconds": 0.2, "batch_ms": 50, "background_seconds": 1}}


def entity(name: str) -> dict[str, Any]:
    return {"name": name, "entityType": "t", "observations": []}


def names(server: Any) -> list[str]:
    return [found["name"] for found in server.call("read_graph")["structuredContent"]["entities"]]


class Vault:
    """A bucket with two devices, whose servers are started as their clients would."""

    def __init__(self, root: Path, start_process: Any, own_environment: Any) -> None:
        self._root = root
        self._start = start_process
        self._environment = own_environment
        self.command("desk", "init")
        self.command("phone", "join", str(root / "bucket"))

    def environment(self, device: str) -> dict[str, str]:
        bucket = str(self._root / "bucket")
        return self._environment(self._root / device, DUALMEM_BUCKET=bucket, DUALMEM_PASSPHRASE="a b c d e f g h")

    def command(self, device: str, *arguments: str) -> str:
        command = [sys.executable, "-m", "dualmem_mcp.cli", *arguments]
        done = subprocess.run(
            command, env=self.environment(device), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def configure(self, device: str, **settings: Any) -> None:
        path = self._root / device / "data" / "cloud_sync_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    def server(self, device: str) -> Any:
        command = [sys.executable, "-m", "dualmem_mcp.server.serve"]
        server = self._start(command, self.environment(device))
        server.initialize()
        return server

    def log_objects(self) -> list[str]:
        return sorted(str(path.relative_to(self._root)) for path in (self._root / "bucket" / "log").rglob("0*"))


@pytest.fixture
def vault(tmp_path: Path, start_process: Any, own_environment: Any) -> Vault:
    return Vault(tmp_path, start_process, own_environment)


def test_a_write_on_one_device_is_heard_on_the_other(vault: Vault) -> None:
    for device in ("desk", "phone"):
        vault.configure(device, **QUICK)
    desk, phone = vault.server("desk"), vault.server("phone")
    phone.ask("resources/subscribe", {"uri": GRAPH_URI})
    desk.call("create_entities", {"entities": [entity("crane")]})
    assert phone.hear(UPDATED) == {"uri": GRAPH_URI}
    assert names(phone) == ["crane"]
    desk.ask("resources/subscribe", {"uri": GRAPH_URI})
    phone.call("create_entities", {"entities": [entity("winch")]})
    assert desk.hear(UPDATED) == {"uri": GRAPH_URI}
    assert names(desk) == ["crane", "winch"]
    for server in (desk, phone):
        assert server.close_input() == 0
        assert server.stderr == ""
