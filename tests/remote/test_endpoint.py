"""The way of a request: paths, methods, headers of every answer, failures, and what each is told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dualmem_mcp.errors import LockedError, OverBudgetError, StoreUnreachableError
from dualmem_mcp.remote.options import RemoteOptions
from tests.remote.http_host import AUTHORIZED, HOST, Listening, listening

ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "strict-transport-security": "max-age=31536000",
}


async def page(request) -> PlainTextResponse:
    return PlainTextResponse(f"page {request.url.path}")


def call(method: str = "tools/call", request_id: object = 7) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": {}}).encode()


# Paths and methods


async def test_each_path_leads_where_it_should(tmp_path: Path) -> None:
    routes = [Route("/", page), Route("/login", page)]
    async with listening(tmp_path, routes=routes) as host, host.client() as client:
        for method, path, seen in [
            ("POST", "/mcp", "/mcp"),
            ("DELETE", "/mcp", "/mcp"),
            ("POST", "/mcp/", "/mcp"),
            ("POST", "/messages?session_id=1", "/messages"),
        ]:
            answer = await client.request(method, path, headers=AUTHORIZED)
            assert answer.json()["path"] == seen
        assert (await client.get("/")).text == "page /"
        assert (await client.get("/login")).text == "page /login"
        for path in ("/mcpx", "/mcp/x", "/mcp//", "/MCP", "/sse/x", "/%2e%2e/mcp", "/nowhere"):
            answer = await client.get(path, headers=AUTHORIZED)
            assert answer.status_code == 404, path
        assert len(host.tenant.seen) == 4


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/mcp", "GET, POST, DELETE"),
        ("HEAD", "/mcp", "GET, POST, DELETE"),
        ("PATCH", "/mcp", "GET, POST, DELETE"),
        ("POST", "/sse", "GET"),
        ("GET", "/messages", "POST"),
    ],
)
async def test_methods_that_a_path_does_not_take(tmp_path: Path, method: str, path: str, allow: str) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        answer = await client.request(method, path, headers=AUTHORIZED)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
        assert host.tenant.seen == []


@pytest.mark.parametrize(
    "line",
    [
        "GET http://evil.example/mcp HTTP/1.1",
        "CONNECT evil.example:443 HTTP/1.1",
        "GET /mcp HTTP/9.9",
        "OPTIONS * HTTP/1.1",
        "BREW /mcp HTTP/1.1",
        "GET /m\x00cp HTTP/1.1",
        "\x16\x03\x01\x02",
    ],
)
async def test_request_lines_that_are_none(tmp_path: Path, line: str) -> None:
    async with listening(tmp_path) as host:
        answer = await host.raw(host.head(line, "Connection: close"), seconds=2)
        assert answer == b"" or int(answer.split(b" ", 2)[1]) >= 400
        assert host.tenant.seen == []


async def test_no_request_hides_in_another_one(tmp_path: Path) -> None:
    """Request smuggling: a proxy and this server must not disagree on where a body ends."""
    async with listening(tmp_path) as host:
        for headers in [
            ("Content-Length: 3", "Content-Length: 5"),
            ("Transfer-Encoding: chunked", "Content-Length: 3"),
            ("Transfer-Encoding: identity, chunked\x0b", "Content-Length: 3"),
            ("Transfer-Encoding : chunked",),
        ]:
            hidden = b"0\r\n\r\n" + host.head("DELETE /mcp HTTP/1.1")
            answer = await host.raw(host.head("POST /mcp HTTP/1.1", *headers) + hidden, seconds=2)
            assert answer.startswith(b"HTTP/1.1 400 "), headers
        assert host.tenant.seen == []


async def test_websockets_are_not_spoken(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
        answer = await host.raw(host.head("GET /nowhere HTTP/1.1", *upgrade), seconds=1)
        assert not answer.startswith(b"HTTP/1.1 101")


async def test_two_requests_in_one_packet_are_answered_in_order(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        first = host.head("POST /mcp HTTP/1.1", "Content-Length: 1") + b"1"
        second = host.head("POST /messages HTTP/1.1", "Content-Length: 1", "Connection: close") + b"2"
        answer = await host.raw(first + second)
        assert [seen["body"] for seen in host.tenant.seen] == ["1", "2"]
        assert answer.index(b'"body": "1"') < answer.index(b'"body": "2"')


# Headers


async def every_answer(host: Listening):
    async with host.client() as client:
        for method, path, headers in [
            ("GET", "/healthz", {}),
            ("POST", "/mcp", {}),
            ("POST", "/mcp", AUTHORIZED),
            ("PUT", "/mcp", AUTHORIZED),
            ("OPTIONS", "/mcp", {}),
            ("GET", "/", {}),
            ("GET", "/nowhere", {}),
            ("POST", "/", {"Host": "evil.example"}),
            ("POST", "/", {"Origin": "https://evil.example"}),
            ("POST", "/mcp", {**AUTHORIZED, "Content-Encoding": "gzip"}),
        ]:
            yield await client.request(method, path, headers=headers)


async def test_every_answer_says_what_browsers_must_not_do_with_it(tmp_path: Path) -> None:
    async with listening(tmp_path, routes=[Route("/", page)]) as host:
        statuses = set()
        async for answer in every_answer(host):
            statuses.add(answer.status_code)
            assert {name: answer.headers[name] for name in ALWAYS} == ALWAYS
            assert answer.headers["content-security-policy"].startswith(
                "default-src 'none'; frame-ancestors 'none'"
            )
            assert "server" not in answer.headers
        assert statuses == {200, 204, 401, 403, 404, 405, 415, 421}


async def test_a_page_states_its_own_policy(tmp_path: Path) -> None:
    async def own(_request) -> PlainTextResponse:
        headers = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "private"}
        return PlainTextResponse("page", headers=headers)

    async with listening(tmp_path, routes=[Route("/", own)]) as host, host.client() as client:
        answer = await client.get("/")
        assert answer.headers.get_list("content-security-policy") == ["default-src 'self'"]
        assert answer.headers.get_list("cache-control") == ["private"]


async def test_http_on_this_machine_promises_no_https(tmp_path: Path) -> None:
    async with listening(tmp_path, options=RemoteOptions("http://localhost:8787")) as host, host.client() as client:
        assert "strict-transport-security" not in (await client.get("/healthz")).headers


async def test_pages_that_may_use_mcp_may_read_its_answers(tmp_path: Path) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        origin = {"Origin": "https://claude.ai"}
        asked = await client.options("/mcp", headers={**origin, "Access-Control-Request-Method": "POST"})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "https://claude.ai")
        allowed = asked.headers["access-control-allow-headers"].split(", ")
        assert {"authorization", "content-type", "mcp-session-id", "mcp-protocol-version"} <= set(allowed)
        for headers in (origin, {**origin, **AUTHORIZED}):  # a page has to see where to log in, too
            answer = await client.post("/mcp", headers=headers)
            assert answer.headers["access-control-allow-origin"] == "https://claude.ai"
            assert "www-authenticate" in answer.headers["access-control-expose-headers"]
            assert "access-control-allow-credentials" not in answer.headers
        assert "access-control-allow-origin" not in (await client.post("/mcp", headers=AUTHORIZED)).headers


# Failures


async def test_a_login_that_opens_nothing_any_more_is_told_to_log_in(tmp_path: Path) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        host.tenants.failure = LockedError("this login does not open the data home")
        answer = await client.post("/mcp", headers=AUTHORIZED, content=call("tools/list"))
        assert answer.status_code == 401
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith('Bearer error="invalid_token"')
        assert "Log in again" in answer.json()["error_description"]
        called = await client.post("/mcp", headers=AUTHORIZED, content=call())
        assert (called.status_code, called.headers["www-authenticate"]) == (401, challenge)
        assert called.json()["result"]["isError"] is True


@pytest.mark.parametrize("token", [{}, {"Authorization": "Bearer other"}])
async def test_the_model_reads_that_a_login_is_needed(tmp_path: Path, token: dict) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        answer = await client.post("/mcp", headers=token, content=call())
        told = answer.json()
        assert (answer.status_code, told["id"], told["result"]["isError"]) == (401, 7, True)
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        text = told["result"]["content"][0]["text"]
        assert f"log in to {host.options.resource}" in text
        assert "Connectors" in text
        unfit = (b"", b"[]", b"{", b"[" * 60_000, b"\xff", call("tools/list"), call(request_id=None), b"a" * 70_000)
        for content in unfit:
            answer = await client.post("/mcp", headers=token, content=content)
            assert (answer.status_code, "error_description" in answer.json()) == (401, True), content[:20]
        odd = await client.post("/mcp", headers=token, content=call(request_id="\ud800\n</script>"))
        assert (odd.status_code, odd.json()["id"]) == (401, "\ud800\n</script>")
        assert host.tenant.seen == []


@pytest.mark.parametrize("failure", [StoreUnreachableError, OverBudgetError])
async def test_what_fails_before_the_tool_is_told_where_the_model_reads_it(tmp_path: Path, failure: type) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        host.tenants.failure = failure("the disk is away", hint="Try again in a minute.")
        answer = await client.post("/mcp", headers=AUTHORIZED, content=call())
        told = answer.json()
        assert (answer.status_code, told["id"], told["result"]["isError"]) == (200, 7, True)
        assert told["result"]["content"][0]["text"] == "error: the disk is away\nhint: Try again in a minute."
        answer = await client.post("/mcp", headers=AUTHORIZED, content=call("tools/list", "a"))
        assert (answer.json()["id"], answer.json()["error"]["code"]) == ("a", -32603)
        for unfit in (b"", b"[]", b"{", b"[" * 100_000, b'{"method":1,"id":1}', call(request_id=None), b"\xff"):
            answer = await client.post("/mcp", headers=AUTHORIZED, content=unfit)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "10"), unfit[:20]
        answer = await client.get("/mcp", headers=AUTHORIZED)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")


async def test_a_fault_is_500_and_its_words_stay_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        host.tenants.failure = ZeroDivisionError("words of the user")
        answer = await client.post("/mcp", headers=AUTHORIZED, content=call())
        assert answer.status_code == 500
        assert "words of the user" not in answer.text
        host.tenants.failure = None
        assert (await client.post("/mcp", headers=AUTHORIZED, content=call())).status_code == 200


# Streams


async def test_a_stream_ends_with_its_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualmem_mcp.remote.limits._LOOK_SECONDS", 0.05)
    async with listening(tmp_path) as host, host.client() as client:
        other = {"Authorization": "Bearer other"}
        host.callers.good["other"] = next(iter(host.callers.good.values()))
        async with (
            client.stream("GET", "/mcp", headers=AUTHORIZED) as revoked,
            client.stream("GET", "/mcp", headers=other) as kept,
        ):
            host.callers.good.pop(AUTHORIZED["Authorization"].removeprefix("Bearer "))
            async with asyncio.timeout(5):
                assert [part async for part in revoked.aiter_bytes()] == [b": there\n\n"]
            assert len(host.endpoint.streams) == 1
            assert not kept.is_closed


async def test_a_client_that_leaves_while_it_sends_disturbs_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tmp_path) as host:
        _, writer = await asyncio.open_connection("127.0.0.1", host.port)
        writer.write(host.head("POST /mcp HTTP/1.1", "Content-Length: 100") + b"a")
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        assert host.tenant.seen == []
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []
        answer = await host.raw(f"POST /mcp HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 401 ")
