"""Every client's requests are answered: all versions, with a session and without, whatever the headers say."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from mcp import Client as SdkClient
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from dualmem_mcp.remote.options import Limits
from tests.remote.mcp_host import (
    BOTH,
    HOST,
    META,
    MODERN,
    OLDER,
    Client,
    events,
    hosting,
    initialize,
    memory_tenant,
    modern,
    request,
)

READ = {"name": "read_graph", "arguments": {}}


def fits(method: str, answer: httpx.Response, era: str) -> bool:
    """Whether that is the right answer to that method."""
    if method.startswith("notifications/"):
        return answer.status_code == 202 and not answer.content
    if method == "ping" and era == MODERN:  # was taken out of it
        return answer.status_code == 404 and answer.json()["error"]["code"] == -32601
    body = answer.json()
    if answer.status_code != 200 or body.get("id") != 7:
        return False
    result = body["result"]
    if (result.get("resultType") == "complete") != (era == MODERN):
        return False
    if method == "tools/list":
        return "read_graph" in [tool["name"] for tool in result["tools"]]
    if method == "tools/call":
        return json.loads(result["content"][0]["text"]) == {"entities": [], "relations": []}
    return method == "ping" and result == {}


METHODS = {"tools/list": None, "tools/call": READ, "ping": None, "notifications/roots/list_changed": None}


@pytest.mark.parametrize("version", OLDER)
async def test_an_older_client_is_answered_whatever_it_says_beside_its_body(version: str, tmp_path: Path) -> None:
    other = OLDER[OLDER.index(version) - 1]
    wrong = []
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = host.client()
        sessions: list[dict[str, str]] = [{}]
        for header in (None, version, other, MODERN):
            headers = {} if header is None else {"MCP_Protocol_Version": header}
            answer = await client.post(initialize(version), **headers)
            assert (answer.status_code, answer.json()["result"]["protocolVersion"]) == (200, version)
            sessions.append({"Mcp_Session_Id": answer.headers["Mcp-Session-Id"]})
        assert len({str(session) for session in sessions}) == 5
        for session, header, (method, params) in itertools.product(
            sessions[:2], (None, version, other), METHODS.items()
        ):
            headers = {**session, **({} if header is None else {"MCP_Protocol_Version": header})}
            number = None if method.startswith("notifications/") else 7
            answer = await client.post(request(method, params, number), **headers)
            if not fits(method, answer, version) or ("Mcp-Session-Id" in answer.headers) != bool(
                session and number
            ):
                wrong.append((headers, method, answer.status_code, answer.text[:200]))
    assert wrong == []


async def test_a_body_of_2026_is_answered_with_any_older_header_or_none(tmp_path: Path) -> None:
    wrong = []
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = await host.client().begin()
        for session, header, (method, params) in itertools.product(
            ({}, client.session, {"Mcp_Session_Id": "unknown"}), (None, *OLDER, MODERN), METHODS.items()
        ):
            headers = {**session, **({} if header is None else {"MCP_Protocol_Version": header})}
            if header == MODERN:
                headers["Mcp_Method"] = method
                if params:
                    headers["Mcp_Name"] = params["name"]
            if method.startswith("notifications/"):
                if header != MODERN and session.get("Mcp_Session_Id") == "unknown":
                    continue  # names nothing but an unknown session
                body = request(method, {"_meta": META}, None)
            else:
                body = modern(method, params, 7)
            answer = await client.post(body, **headers)
            if not fits(method, answer, MODERN) or "Mcp-Session-Id" in answer.headers:
                wrong.append((headers, method, answer.status_code, answer.text[:200]))
        discovered = await client.post(modern("server/discover"), MCP_Protocol_Version="2025-11-25")
        assert discovered.json()["result"]["supportedVersions"] == [MODERN]
    assert wrong == []


async def test_an_older_version_in_the_body_counts_before_a_newer_header(tmp_path: Path) -> None:
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        body = modern("ping")
        body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2025-06-18"
        answer = await host.client().post(body, MCP_Protocol_Version=MODERN)
        assert (answer.status_code, answer.json()) == (200, {"jsonrpc": "2.0", "id": 1, "result": {}})


async def test_what_contradicts_itself_otherwise_is_refused_as_2026_demands(tmp_path: Path) -> None:
    strict = {"MCP_Protocol_Version": MODERN, "Mcp_Method": "tools/call", "Mcp_Name": "read_graph"}
    call = modern("tools/call", READ)
    future = modern("tools/call", READ)
    future["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2030-01-01"
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = host.client()
        for body, headers, code in (
            (call, {**strict, "Mcp_Name": "delete_entities"}, -32020),
            (call, {**strict, "Mcp_Method": "tools/list"}, -32020),
            (call, {"MCP_Protocol_Version": MODERN}, -32020),
            # An older header does not excuse others that name something else than the body.
            (call, {"MCP_Protocol_Version": "2025-11-25", "Mcp_Name": "delete_entities"}, -32020),
            (call, {"Mcp_Method": "tools/list"}, -32020),
            (future, {**strict, "MCP_Protocol_Version": "2030-01-01"}, -32022),
            (request("tools/list"), {"MCP_Protocol_Version": "1.0"}, -32022),
            (request("notifications/initialized", None, None), {"MCP_Protocol_Version": "1.0"}, -32022),
            (request("tools/call", READ), strict, -32602),
        ):
            answer = await client.post(body, **headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), (headers, answer.text)
        unsupported = await client.post(request("tools/list"), MCP_Protocol_Version="1.0")
        assert unsupported.json()["error"]["data"] == {"supported": [MODERN], "requested": "1.0"}
        gone = await client.post(
            modern("initialize", initialize()["params"]), MCP_Protocol_Version=MODERN, Mcp_Method="initialize"
        )
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, -32601)


async def test_nothing_but_a_listener_has_the_time_of_one(tmp_path: Path) -> None:
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = host.client()
        older = modern("tools/call", READ)
        older["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2025-06-18"
        notification = request("notifications/initialized", None, None)
        for body in (request("tools/call", READ), older, [request("tools/call", READ)], initialize(), notification):
            for version in ({}, {"MCP_Protocol_Version": "2025-03-26"}, {"MCP_Protocol_Version": MODERN}):
                answer = await client.post(body, Mcp_Method="subscriptions/listen", **version)
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020), (body, version)


async def test_without_a_header_the_version_is_that_of_the_clients_last_handshake(tmp_path: Path) -> None:
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        connector, stranger = host.client(), host.client(grant="other")

        async def has_batches(client: Client) -> bool:
            return (await client.post([request("ping")])).status_code == 200

        assert await has_batches(connector)  # 2025-03-26, as the specification has it
        await connector.post(initialize("2025-11-25"))
        assert not await has_batches(connector)
        assert await has_batches(stranger)
        await connector.post(initialize("2024-11-05"))
        assert await has_batches(connector)


async def test_the_answer_has_a_form_that_the_client_takes(tmp_path: Path) -> None:
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = host.client()
        for accept in (None, "*/*", "application/json", "application/json;q=0.9", "application/*", BOTH):
            answer = await client.post(request("tools/list"), accept=accept)
            assert answer.headers["Content-Type"] == "application/json"
            assert answer.json()["id"] == 1
        only_stream = await client.post(request("ping"), accept="text/event-stream")
        assert only_stream.headers["Content-Type"] == "text/event-stream"
        assert events(only_stream.text) == [{"jsonrpc": "2.0", "id": 1, "result": {}}]
        assert (await client.post(request("ping"), accept="text/html")).status_code == 406
        # A session is for who can have a stream.
        assert "Mcp-Session-Id" not in (await client.post(initialize(), accept="application/json")).headers
        assert "Mcp-Session-Id" in (await client.post(initialize(), accept="*/*")).headers
        listening = await client.post(
            modern("subscriptions/listen", {"notifications": {}}), accept="application/json"
        )
        assert listening.status_code == 406


async def test_what_is_no_message_is_refused_and_harms_nobody(tmp_path: Path) -> None:
    cases: list[tuple[bytes, int]] = [
        (b"", -32700),
        (b"{", -32700),
        (b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}', -32700),
        (b"[" * 200_000, -32700),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, -32700),
        (b'{"jsonrpc":"2.0","id":' + b"9" * 5_000 + b',"method":"ping"}', -32700),
        (b"7", -32600),
        (b"null", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', -32600),
        (b'{"jsonrpc":"2.0","id":1}', -32600),
    ]
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = await host.client().begin()
        for headers in ({}, client.session):
            for body, code in cases:
                answer = await client.post(body, **headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), body[:60]
                assert answer.json()["id"] is None
        for params in (None, {}, {"name": 7}, {"name": "read_graph", "arguments": [1]}):
            answer = await client.post(request("tools/call", params))
            assert (answer.status_code, answer.json()["error"]["code"]) == (200, -32602)
        assert (await client.post(b"{}", content_type="text/plain")).status_code == 415
        assert (await client.ask("ping"))[-1]["result"] == {}


async def test_half_a_surrogate_pair_comes_back_as_it_was_sent(tmp_path: Path) -> None:
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = host.client()
        body = json.dumps(request("ping", None, "half \ud83d")).encode()
        assert rb"\ud83d" in body
        for accept in (BOTH, "text/event-stream"):
            answer = await client.post(body, accept=accept)
            message = events(answer.text)[0] if accept != BOTH else answer.json()
            assert message == {"jsonrpc": "2.0", "id": "half \ud83d", "result": {}}
        entity = {"name": "n \ud83d", "entityType": "t", "observations": ["a\u2028b\x85c"]}
        created = await client.post(
            request("tools/call", {"name": "create_entities", "arguments": {"entities": [entity]}})
        )
        assert created.status_code == 200
        read = await client.post(request("tools/call", READ), accept="text/event-stream")
        # No line end but the stream's own: clients split at these too.
        assert not {"\u2028", "\x85"} & set(read.text)
        graph = json.loads(events(read.text)[0]["result"]["content"][0]["text"])
        assert graph["entities"][0]["observations"] == ["a\u2028b\x85c"]


async def test_batches_are_of_the_versions_that_have_them(tmp_path: Path) -> None:
    notified = request("notifications/initialized", None, None)
    batch: list[Any] = [request("ping", None, 1), notified, request("no/such", None, "b"), request("ping", None, 3)]
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        for version in OLDER:
            client = await host.client(grant=version).begin(version)
            for headers in ({}, client.session, {"MCP_Protocol_Version": version}):
                answer = await client.post(batch, **headers)
                if version > "2025-03-26":
                    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32600)
                    continue
                assert [(each["id"], "result" in each) for each in answer.json()] == [
                    (1, True),
                    ("b", False),
                    (3, True),
                ]
        client = host.client(grant="2025-03-26")
        streamed = await client.post(batch, accept="text/event-stream")
        assert [each["id"] for each in events(streamed.text)] == [1, "b", 3]
        assert (await client.post([notified, notified])).status_code == 202
        for unfit in ([], [7], [initialize()], [request("ping")] * 101, [batch]):
            assert (await client.post(unfit)).status_code == 400


async def test_an_unknown_session_is_not_found_and_none_is_not_needed(tmp_path: Path) -> None:
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = host.client()
        unknown = {"Mcp_Session_Id": "0" * 32}
        assert (await client.post(request("ping"), **unknown)).status_code == 404
        assert (await client.post(request("notifications/initialized", None, None), **unknown)).status_code == 404
        # What a client does next: with the stale id still there, or without it.
        assert (await client.post(initialize(), **unknown)).status_code == 200
        for method in ("GET", "DELETE"):
            headers = {**client.headers, "Accept": "text/event-stream"}
            without = await client.http.request(method, "/mcp", headers=headers)
            assert (without.status_code, without.headers["Allow"]) == (405, "POST")
            with_unknown = await client.http.request(
                method, "/mcp", headers={**headers, "Mcp-Session-Id": "0" * 32}
            )
            assert with_unknown.status_code == 404


async def test_a_session_that_was_deleted_is_unknown(tmp_path: Path) -> None:
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = await host.client().begin()
        headers = {**client.headers, "Mcp-Session-Id": client.session["Mcp_Session_Id"]}
        async with client.stream() as stream:
            assert (await client.http.delete("/mcp", headers=headers)).status_code == 200
            assert await stream.has_ended()
        assert (await client.post(request("ping"), **client.session)).status_code == 404
        assert (await client.http.delete("/mcp", headers=headers)).status_code == 404


async def test_a_handshake_that_fails_leaves_no_session(tmp_path: Path) -> None:
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = host.client()
        answer = await client.post(request("initialize", {"protocolVersion": "2025-11-25"}))
        assert (answer.status_code, answer.json()["error"]["code"]) == (200, -32602)
        assert "Mcp-Session-Id" not in answer.headers
        unknown = await client.post(initialize("2030-01-01"))
        assert unknown.json()["result"]["protocolVersion"] == "2025-11-25"


async def test_a_client_with_too_much_to_say_of_itself_gets_no_session(tmp_path: Path) -> None:
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = host.client()
        long = initialize()
        long["params"]["capabilities"] = {"experimental": {"x": {"y": "z" * 100_000}}}
        answer = await client.post(long)
        assert answer.status_code == 200
        assert "Mcp-Session-Id" not in answer.headers
        async with client.stream("/sse") as stream:
            _, path = await stream.event()
            assert (await client.post(long, path=path)).status_code == 413
            assert (await client.post(initialize(), path=path)).status_code == 202


async def test_a_flood_of_handshakes_ends_what_is_idle_and_never_what_has_a_stream(tmp_path: Path) -> None:
    limits = Limits(sessions_per_user=4)
    async with hosting(tmp_path, memory_tenant(tmp_path / "home", limits=limits)) as host:
        kept, used = await host.client(grant="kept").begin(), await host.client(grant="used").begin()
        flood = host.client(grant="flood")
        async with kept.stream() as stream:
            given = [(await flood.post(initialize())).headers["Mcp-Session-Id"] for _ in range(20)]
            assert len(set(given)) == 20
            # Those whose clients never came back go first; then the one that was idle the longest.
            assert (await used.ask("ping"))[-1]["result"] == {}
            assert (await kept.ask("ping"))[-1]["result"] == {}
            statuses = [(await flood.post(request("ping"), Mcp_Session_Id=each)).status_code for each in given]
            assert statuses == [404] * 18 + [200] * 2
            assert stream.status == 200


async def test_where_every_session_has_a_stream_a_further_client_goes_without_one(tmp_path: Path) -> None:
    limits = Limits(sessions_per_user=1)
    async with hosting(tmp_path, memory_tenant(tmp_path / "home", limits=limits)) as host:
        first = await host.client(grant="first").begin()
        async with first.stream():
            late = host.client(grant="late")
            answer = await late.post(initialize())
            assert answer.status_code == 200
            assert "Mcp-Session-Id" not in answer.headers
            assert (await late.post(request("tools/call", READ))).status_code == 200
            async with late.stream("/sse") as own:  # counted by themselves
                assert own.status == 200
                async with first.stream("/sse") as refused:
                    assert (refused.status, refused.headers["Retry-After"]) == (503, "30")


@pytest.mark.parametrize("mode", ["auto", "legacy", MODERN])
async def test_the_sdks_client_is_served(mode: str, tmp_path: Path) -> None:
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        client = host.client()
        async with httpx.AsyncClient(headers={**client.headers, **HOST}) as http:
            transport = streamable_http_client(f"{host.base_url}/mcp", http_client=http)
            async with SdkClient(transport, mode=mode) as sdk:
                assert "read_graph" in [tool.name for tool in (await sdk.list_tools()).tools]
                entity = {"name": "Ada", "entityType": "person", "observations": ["writes engines"]}
                created = await sdk.call_tool("create_entities", {"entities": [entity]})
                assert not created.is_error
                (contents,) = (await sdk.read_resource("memory://knowledge-graph")).contents
                assert "writes engines" in contents.text


async def test_the_sdks_client_is_served_over_http_and_sse(tmp_path: Path) -> None:
    async with hosting(tmp_path, memory_tenant(tmp_path / "home")) as host:
        transport = sse_client(f"{host.base_url}/sse", headers={**host.client().headers, **HOST})
        async with SdkClient(transport, mode="legacy") as sdk:
            assert "read_graph" in [tool.name for tool in (await sdk.list_tools()).tools]
            assert not (await sdk.call_tool("read_graph", {})).is_error
