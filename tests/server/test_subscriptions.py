"""Subscribers hear of what others changed, once for each change, and of their own changes as ever."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import Client, ClientSession, StdioServerParameters
from mcp.server.subscriptions import ResourceUpdated
from mcp.shared.memory import create_client_server_memory_streams

from dualmem_mcp.app import open_app
from dualmem_mcp.server.lazy_app import LazyApp
from dualmem_mcp.server.protocol import Built, build_server
from dualmem_mcp.server.sync_worker import SyncWorker
from dualmem_mcp.settings import load_settings

GRAPH_URI = "memory://knowledge-graph"
UPDATED = "notifications/resources/updated"
MODERN = "2026-07-28"

# Looks often, so that nobody has to wait for what is found or not found.
QUICK = """
import dualmem_mcp.server.subscriptions as subscriptions
import dualmem_mcp.server.serve as serve

subscriptions.LOOK_SECONDS = 0.02
serve.main()
"""


def entity(name: str) -> dict[str, Any]:
    return {"name": name, "entityType": "t", "observations": []}


@pytest.fixture
def listener(start_server: Any) -> Any:
    server = start_server(code=QUICK)
    server.initialize()
    assert server.ask("resources/subscribe", {"uri": GRAPH_URI})["result"] == {}
    return server


@pytest.fixture
def writer(start_server: Any) -> Any:
    server = start_server()
    server.initialize()
    return server


def test_a_change_by_another_server_of_the_data_home_is_heard_once(listener: Any, writer: Any) -> None:
    for name in ("first", "second"):
        writer.call("create_entities", {"entities": [entity(name)]})
        assert listener.hear(UPDATED) == {"uri": GRAPH_URI}
        names = [found["name"] for found in listener.call("read_graph")["structuredContent"]["entities"]]
        assert names[-1] == name
    listener.ask("ping")
    assert listener.notifications == []


def test_own_changes_are_heard_once_and_before_their_answers(listener: Any) -> None:
    for number in range(20):
        listener.call("create_entities", {"entities": [entity(f"n{number}")]})
        assert listener.notifications == [{"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": GRAPH_URI}}]
        listener.notifications.clear()
    assert listener.close_input() == 0
    assert listener.notifications == []


def test_who_has_unsubscribed_hears_nothing(listener: Any, writer: Any) -> None:
    listener.ask("resources/unsubscribe", {"uri": GRAPH_URI})
    writer.call("create_entities", {"entities": [entity("unheard")]})
    # What happened meanwhile is no news to whoever subscribes again.
    listener.ask("resources/subscribe", {"uri": GRAPH_URI})
    writer.call("create_entities", {"entities": [entity("heard")]})
    assert listener.hear(UPDATED) == {"uri": GRAPH_URI}
    assert listener.close_input() == 0
    assert listener.notifications == []


def test_nobody_hears_of_what_does_not_change(listener: Any, writer: Any) -> None:
    for uri in ("memory://other", "dualmem://conversation/0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10/brief"):
        assert listener.ask("resources/subscribe", {"uri": uri})["result"] == {}
    writer.call("create_entities", {"entities": [entity("seen")]})
    assert listener.hear(UPDATED) == {"uri": GRAPH_URI}
    assert listener.close_input() == 0
    assert listener.notifications == []


def test_a_subscription_to_what_cannot_be_opened_is_kept_until_it_can(start_server: Any, tmp_path: Any) -> None:
    (tmp_path / "data").write_text("in the way")
    server = start_server(code=QUICK)
    server.initialize()
    assert server.ask("resources/subscribe", {"uri": GRAPH_URI})["result"] == {}
    (tmp_path / "data").unlink()
    assert "isError" not in server.call("read_graph")
    writer = start_server()
    writer.initialize()
    writer.call("create_entities", {"entities": [entity("late")]})
    assert server.hear(UPDATED) == {"uri": GRAPH_URI}


@pytest.fixture
def worker() -> Iterator[SyncWorker]:
    worker = SyncWorker()
    yield worker
    worker.stop()


@pytest.fixture
def lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LazyApp]:
    """The application of a server in this process."""
    for name in list(os.environ):
        if name.startswith(("DUALMEM_", "CLAUDE_")) or name == "MEMORY_FILE_PATH":
            monkeypatch.delenv(name)
    monkeypatch.setenv("DUALMEM_KEYSTORE", "file")
    lazy = LazyApp(lambda: open_app(load_settings(tmp_path / "data", bucket=str(tmp_path / "bucket"))))
    yield lazy
    lazy.close()


@contextlib.asynccontextmanager
async def connected(built: Built) -> AsyncIterator[ClientSession]:
    """A client of the older era on a connection of its own, as HTTP gives each session one."""
    async with create_client_server_memory_streams() as (client, server), anyio.create_task_group() as tasks:
        tasks.start_soon(built.server.run, *server, built.options)
        async with ClientSession(*client) as session:
            await session.initialize()
            yield session


@pytest.mark.filterwarnings("ignore:resources/subscribe:mcp.shared.exceptions.MCPDeprecationWarning")
async def test_a_connection_is_let_go_of_when_it_ends(lazy: LazyApp, worker: SyncWorker) -> None:
    built = build_server(lazy, worker)
    subscriptions = built.subscriptions
    with anyio.fail_after(60):
        async with connected(built) as stays:
            await stays.subscribe_resource(GRAPH_URI)
            (kept,) = subscriptions._connections
            for number in range(5):
                async with connected(built) as session:
                    await session.subscribe_resource(GRAPH_URI)
                    await session.subscribe_resource(f"memory://other/{number}")
                    assert len(subscriptions._connections) == 2
                    assert len(subscriptions._wanted()) == 2
            assert list(subscriptions._connections) == [kept]
            assert subscriptions._wanted() == [GRAPH_URI]
            await stays.call_tool("create_entities", {"entities": [entity("crane")]})
        assert subscriptions._connections == {}
        assert subscriptions._wanted() == []
        assert set(subscriptions._marks) <= {""}


async def test_streams_of_the_newer_era_leave_nothing_behind(lazy: LazyApp, worker: SyncWorker) -> None:
    built = build_server(lazy, worker)
    with anyio.fail_after(60):
        async with Client(built.server, mode=MODERN) as client:
            for number in range(3):
                async with client.listen(resource_subscriptions=[GRAPH_URI, f"memory://other/{number}"]):
                    assert len(built.subscriptions._wanted()) == 2
        while built.subscriptions._wanted():
            await anyio.lowlevel.checkpoint()
    assert built.subscriptions._listened == {}
    assert set(built.subscriptions._marks) <= {""}


async def test_the_newer_eras_listeners_hear_it_too(own_environment: Any, tmp_path: Any, writer: Any) -> None:
    parameters = StdioServerParameters(command=sys.executable, args=["-c", QUICK], env=own_environment(tmp_path))
    with anyio.fail_after(60):
        async with (
            Client(parameters, mode=MODERN) as client,
            client.listen(resource_subscriptions=[GRAPH_URI]) as changes,
        ):
            await anyio.to_thread.run_sync(writer.call, "create_entities", {"entities": [entity("afar")]})
            assert await anext(aiter(changes)) == ResourceUpdated(GRAPH_URI)
            contents = (await client.read_resource(GRAPH_URI)).contents
            assert [found["name"] for found in json.loads(contents[0].text)["entities"]] == ["afar"]
