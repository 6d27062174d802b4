"""Pages over a real application, for a client in this process and for a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dualmem_mcp.app import App
from dualmem_mcp.model.grant import OWNER
from dualmem_mcp.remote.options import RemoteOptions
from tests.conftest import SteppingClock
from tests.handoff.conftest import PASSPHRASE, World
from tests.remote.pages.memory import Host, fill

PUBLIC_URL = "https://memory.example"


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    """Nothing of the developer's own, until the module ends: others' tests are told where to look by it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("DUALMEM_", "CLAUDE_")) or name == "MEMORY_FILE_PATH":
                patch.delenv(name)
        yield


@pytest.fixture
def world(tmp_path: Path, clock: SteppingClock, environment: None) -> Iterator[World]:
    made = World(tmp_path, clock)
    yield made
    made.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, environment: None) -> Iterator[App]:
    """A memory with something of everything, for tests that leave it as it is."""
    made = World(tmp_path_factory.mktemp("filled"), SteppingClock())
    app = fill(made, hostile=False)
    app.local_edge.catch_up(embed=False)
    yield app
    made.close()


@pytest.fixture
def host(filled: App) -> Host:
    """Pages of the test's own on that memory."""
    return Host({OWNER: filled}, RemoteOptions(PUBLIC_URL))


@pytest.fixture
def own_host(world: World) -> Host:
    """Pages on a memory of the test's own."""
    return Host({OWNER: fill(world, hostile=False)}, RemoteOptions(PUBLIC_URL))


class Browser(TestClient):
    """A client that keeps cookies, follows nothing by itself, and can log in."""

    def __init__(self, host: Host, base_url: str = PUBLIC_URL) -> None:
        super().__init__(host.asgi, base_url=base_url, follow_redirects=False, raise_server_exceptions=True)
        self.host = host

    def token(self, path: str) -> str:
        """The token of the forms of that page."""
        return self.get(path).text.partition('name="csrf" value="')[2].partition('"')[0]

    def log_in(self, passphrase: str = PASSPHRASE, **fields: str):
        form = {"csrf": self.token("/login"), "passphrase": passphrase, "next": "/", **fields}
        return self.post("/login", data=form)

    def submit(self, path: str, **fields: str):
        """Post a form of this session."""
        [cookie] = [value for name, value in self.cookies.items() if name == "__Host-dualmem"]
        return self.post(path, data={"csrf": self.host.sessions.csrf(cookie), **fields})


@pytest.fixture
def visitor(host: Host) -> Iterator[Browser]:
    """Nobody in particular."""
    with Browser(host) as client:
        yield client


@pytest.fixture
def owner(host: Host) -> Iterator[Browser]:
    """The owner, logged in."""
    with Browser(host) as client:
        assert client.log_in().status_code == 303
        yield client
