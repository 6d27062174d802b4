"""One user's application over HTTP: what a grant allows, when the tenant is busy, and how it ends."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from dualmem_mcp.remote import tenant as tenants
from dualmem_mcp.server import subscriptions
from dualmem_mcp.server.protocol import Built, build_server
from tests.remote.mcp_host import Client, Json, hosting, memory_tenant, modern, request, until

GRAPH = "memory://knowledge-graph"


def create(name: str) -> Json:
    entity = {"name": name, "entityType": "t", "observations": []}
    return {"name": "create_entities", "arguments": {"entities": [entity]}}


READ = {"name": "read_graph", "arguments": {}}


async def test_a_client_may_do_what_its_grant_says(tmp_path: Path) -> None:
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        reader = await host.client(grant="reader", scopes=frozenset({"read"})).begin()
        writer = host.client(grant="writer", scopes=frozenset({"read", "write"}))
        for post in (
            reader.post,
            lambda message: reader.post(message, **reader.session),
            lambda message: reader.post(
                {**message, "params": {**message["params"], "_meta": modern("")["params"]["_meta"]}}
            ),
        ):
            listed = (await post(request("tools/list", {}))).json()["result"]["tools"]
            assert "read_graph" in [tool["name"] for tool in listed]
            assert "create_entities" not in [tool["name"] for tool in listed]
            refused = (await post(request("tools/call", create("no")))).json()["result"]
            assert refused["isError"]
            assert "needs the permission 'write'" in refused["content"][0]["text"]
        # The permission is that of each request, also in a session that another one began.
        more = host.client(grant="reader")
        written = await more.post(request("tools/call", create("yes")), **reader.session)
        assert "isError" not in written.json()["result"]
        graph = (await writer.post(request("tools/call", READ))).json()["result"]["structuredContent"]
        assert [entity["name"] for entity in graph["entities"]] == ["yes"]


async def test_subscribers_hear_of_other_clients_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "LOOK_SECONDS", 0.02)
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        listener, writer = await host.client(grant="one").begin(), await host.client(grant="two").begin()
        assert (await listener.ask("resources/subscribe", {"uri": GRAPH}))[-1]["result"] == {}
        async with listener.stream() as stream:
            await writer.ask("tools/call", create("first"))
            assert await stream.message() == request("notifications/resources/updated", {"uri": GRAPH}, None)
            # Without a session too.
            assert (
                await host.client(grant="three").post(request("tools/call", create("second")))
            ).status_code == 200
            assert (await stream.message())["params"] == {"uri": GRAPH}
        # A subscription without a session ends with its answer.
        assert (await writer.post(request("resources/subscribe", {"uri": GRAPH}))).json()["result"] == {}


async def test_subscriptions_are_bounded_and_end_with_their_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Built] = []

    def build(*arguments: Any) -> Built:
        made.append(build_server(*arguments))
        return made[-1]

    monkeypatch.setattr(tenants, "build_server", build)
    tenant = memory_tenant(tmp_path / "home")
    too_many = [f"memory://{number}" for number in range(subscriptions.MOST_URIS + 1)]
    async with hosting(tmp_path, tenant) as host:
        client = await host.client().begin()
        for uri in ("memory://" + "x" * subscriptions.MOST_URI_CHARACTERS, GRAPH):
            answer = (await client.ask("resources/subscribe", {"uri": uri}))[-1]
            assert ("error" in answer) == (uri != GRAPH)
        listen = modern("subscriptions/listen", {"notifications": {"resourceSubscriptions": too_many}})
        refused = await client.post(listen)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32602)
        headers = {**client.headers, "Mcp-Session-Id": client.session["Mcp_Session_Id"]}
        subscribers = made[0].subscriptions._connections
        assert list(subscribers.values()) == [{GRAPH}]
        # A request that outlives its session leaves nothing behind.
        asked = [
            asyncio.create_task(client.post(request("resources/subscribe", {"uri": GRAPH}), **client.session))
            for _ in range(20)
        ]
        await host.http.delete("/mcp", headers=headers)
        await asyncio.gather(*asked)
        await until(lambda: not tenant.busy)
        assert subscribers == {}


async def test_progress_comes_ahead_of_the_answer(tmp_path: Path) -> None:
    call = {"name": "search_memory", "arguments": {"query": "anything"}, "_meta": {"progressToken": "p"}}
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = await host.client().begin()
        *told, answer = await client.ask("tools/call", call, 3)
        assert answer["id"] == 3
        assert {message["params"]["progressToken"] for message in told} <= {"p"}
        assert (
            json.loads((await client.post(request("tools/call", call), accept="application/json")).text)["id"] == 1
        )


async def test_a_tenant_is_busy_while_a_request_or_a_stream_is_there(tmp_path: Path) -> None:
    tenant = memory_tenant(tmp_path / "home")
    async with hosting(tmp_path, tenant) as host:
        used = tenant.last_used
        assert not tenant.busy
        client = await host.client().begin()
        await until(lambda: not tenant.busy)  # a session at rest keeps nobody up
        assert tenant.last_used > used
        for path in ("/mcp", "/sse"):
            async with client.stream(path):
                assert tenant.busy
            await until(lambda: not tenant.busy)


async def test_what_runs_when_a_tenant_ends_is_answered_and_then_all_is_closed(tmp_path: Path) -> None:
    tenant = memory_tenant(tmp_path / "home")
    threads = to_thread.current_default_thread_limiter().total_tokens
    ending, running = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        async with tenant.running():
            running.set()
            await ending.wait()

    class Same:
        """That tenant, which the test runs."""

        user = tenant.user
        streamable_http, sse, messages = tenant.streamable_http, tenant.sse, tenant.messages

        def running(self) -> Any:
            return AsyncExitStack()

    async with hosting(tmp_path, Same()) as host:
        run_of_tenant = asyncio.create_task(run())
        await running.wait()
        assert to_thread.current_default_thread_limiter().total_tokens == threads + tenants.THREADS
        client = await host.client().begin()
        async with client.stream() as stream, client.stream("/sse") as own:
            await own.event()
            asked = [
                asyncio.create_task(client.post(request("tools/call", create(f"n{each}")))) for each in range(20)
            ]
            await until(lambda: len(tenant._requests) > 5)
            ending.set()
            answers = await asyncio.gather(*asked)
            assert await stream.has_ended()
            assert await own.has_ended()
        await run_of_tenant
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert 200 in {answer.status_code for answer in answers}
        assert tenant.app.opened is None
        late = await client.post(request("ping"))
        assert (late.status_code, late.headers["Retry-After"]) == (503, "5")
    assert to_thread.current_default_thread_limiter().total_tokens == threads
    # What was answered is there.
    written = sum(answer.status_code == 200 for answer in answers)
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        graph = (await host.client().post(request("tools/call", READ))).json()["result"]["structuredContent"]
        assert len(graph["entities"]) == written


async def test_a_request_of_another_user_is_a_fault_and_reads_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tenant = memory_tenant(tmp_path / "home", "ana")
    async with hosting(tmp_path, tenant) as host:
        ana = host.client("ana")
        await ana.post(request("tools/call", create("private")))
        host.tenants = {**host.tenants, "ben": tenant}
        ben: Client = host.client("ben")
        for path, method in (("/mcp", "POST"), ("/mcp", "GET"), ("/sse", "GET"), ("/messages", "POST")):
            headers = {**ben.headers, "Accept": "*/*", "Content-Type": "application/json", "Mcp-Session-Id": "x"}
            body = json.dumps(request("tools/call", READ)) if method == "POST" else None
            answer = await host.http.request(method, path, content=body, headers=headers)
            assert answer.status_code == 500
            assert "private" not in answer.text
    assert "a request of another user" in caplog.text
