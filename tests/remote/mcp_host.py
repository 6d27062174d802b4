"""Tenants behind the real endpoint on a free port of this machine, on data homes or on servers of the tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import mcp_types as types
from mcp.server.lowlevel import Server

from dualmem_mcp.app import open_app
from dualmem_mcp.model.grant import ALL_SCOPES, Grant, Scope, UserId
from dualmem_mcp.remote.endpoint import build_endpoint
from dualmem_mcp.remote.health import Readiness
from dualmem_mcp.remote.interfaces import CALLER_KEY, Caller
from dualmem_mcp.remote.options import Limits, RemoteOptions
from dualmem_mcp.remote.run import served
from dualmem_mcp.remote.tenant import McpTenant, Transports, transports
from dualmem_mcp.settings import load_settings

Json = dict[str, Any]

HOST = {"Host": "localhost"}
MODERN = "2026-07-28"
OLDER = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
BOTH = "application/json, text/event-stream"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def request(method: str, params: Json | None = None, request_id: int | str | None = 1) -> Json:
    """A JSON-RPC request; a notification if its id is None."""
    message: Json = {"jsonrpc": "2.0", "method": method}
    if request_id is not None:
        message["id"] = request_id
    return message if params is None else {**message, "params": params}


def modern(method: str, params: Json | None = None, request_id: int | str = 1, **meta: Any) -> Json:
    """A request of 2026-07-28."""
    return request(method, {**(params or {}), "_meta": {**META, **meta}}, request_id)


def initialize(version: str = "2025-11-25") -> Json:
    """The handshake."""
    client = {"name": "test", "version": "1"}
    return request("initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": client})


def events(text: str) -> list[Json]:
    """The messages of a stream that has ended."""
    lines = (line.partition(": ") for line in text.splitlines())
    return [json.loads(data) for name, _, data in lines if name == "data"]


def token(user: str, grant: str) -> str:
    """A token as the endpoint takes it."""
    return f"dm1.{user}.{grant}"


async def until(is_so: Callable[[], object]) -> None:
    """Wait until that is so."""
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110  (what it waits for tells nobody)
            await asyncio.sleep(0.01)


class OpenTenant:
    """A tenant on a server of the tests, with the transports of the real one."""

    app = None

    def __init__(self, user: str, server: Server[Any], limits: Limits) -> None:
        self.user = UserId(user)
        self._server = server
        self._limits = limits
        self.ways: Transports

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        def grant_of(scope: Any) -> Grant:
            return scope[CALLER_KEY].grant

        async def warm_up() -> None:
            pass

        options = self._server.create_initialization_options()
        async with transports(
            self._server, options, limits=self._limits, grant_of=grant_of, warm_up=warm_up
        ) as self.ways:
            yield

    async def streamable_http(self, scope: Any, receive: Any, send: Any) -> None:
        await self.ways.streamable_http(scope, receive, send)

    async def sse(self, scope: Any, receive: Any, send: Any) -> None:
        await self.ways.event_streams.stream(scope, receive, send)

    async def messages(self, scope: Any, receive: Any, send: Any) -> None:
        await self.ways.event_streams.messages(scope, receive, send)


class Stream:
    """An open stream of events, read as the test asks."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self._lines = response.aiter_lines()

    async def event(self) -> tuple[str, str]:
        """The next event: its name and data. Raises StopAsyncIteration at the stream's end."""
        name = ""
        async with asyncio.timeout(20):
            async for line in self._lines:
                field_name, _, value = line.partition(": ")
                if field_name == "event":
                    name = value
                elif field_name == "data":
                    return name, value
        raise StopAsyncIteration

    async def message(self) -> Json:
        """The next message."""
        return json.loads((await self.event())[1])

    async def has_ended(self) -> bool:
        """Whether nothing comes any more but the end."""
        try:
            await self.event()
        except StopAsyncIteration:
            return True
        return False


class Client:
    """One client: a user's grant, and the session that it has begun."""

    def __init__(self, http: httpx.AsyncClient, user: str, grant: str) -> None:
        self.http = http
        self.user = user
        self.grant = grant
        self.headers = {"Authorization": f"Bearer {token(user, grant)}"}
        self.session: dict[str, str] = {}

    async def post(
        self,
        body: Any,
        *,
        accept: str | None = BOTH,
        path: str = "/mcp",
        content_type: str = "application/json",
        **headers: str,
    ) -> httpx.Response:
        """Post that to /mcp, with these headers alone (`_` for `-`); bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**self.headers, "Content-Type": content_type, "Accept-Encoding": "identity"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        # httpx adds `*/*` where no Accept is given.
        built = self.http.build_request("POST", path, content=content, headers=sent)
        if accept is None:
            del built.headers["Accept"]
        else:
            built.headers["Accept"] = accept
        return await self.http.send(built)

    async def begin(self, version: str = "2025-11-25") -> Client:
        """Shake hands, and keep the session."""
        answer = await self.post(initialize(version))
        assert answer.status_code == 200, answer.text
        self.session = {"Mcp_Session_Id": answer.headers["Mcp-Session-Id"]}
        assert (
            await self.post(request("notifications/initialized", None, None), **self.session)
        ).status_code == 202
        return self

    async def ask(self, method: str, params: Json | None = None, request_id: int | str = 1) -> list[Json]:
        """All messages that come back for a request of the session, its answer last."""
        answer = await self.post(request(method, params, request_id), **self.session)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Mcp-Session-Id"] == self.session["Mcp_Session_Id"]
        return events(answer.text) if answer.headers["Content-Type"] == "text/event-stream" else [answer.json()]

    @asynccontextmanager
    async def stream(self, path: str = "/mcp", **headers: str) -> AsyncIterator[Stream]:
        """An open GET stream, of the session on /mcp."""
        named = {name.replace("_", "-"): value for name, value in {**self.session, **headers}.items()}
        sent = {"Accept": "text/event-stream", "Accept-Encoding": "identity", **self.headers, **named}
        async with self.http.stream("GET", path, headers=sent, timeout=30) as response:
            yield Stream(response)


@dataclass
class Host:
    """Users' tenants, served."""

    base_url: str
    http: httpx.AsyncClient
    tenants: Mapping[str, Any]
    callers: dict[str, Caller] = field(default_factory=dict)

    def caller(self, text: str) -> Caller | None:
        return self.callers.get(text)

    async def tenant(self, caller: Caller) -> Any:
        return self.tenants[caller.grant.user]

    def client(self, user: str = "ana", grant: str = "desk", scopes: frozenset[Scope] = ALL_SCOPES) -> Client:
        """A client that the user has let in."""
        given = Grant(UserId(user), "client", grant, scopes, 4_000_000_000)
        self.callers[token(user, grant)] = Caller(given, b"")
        return Client(self.http, user, grant)


@asynccontextmanager
async def hosting(folder: Path, *tenants: Any, limits: Limits | None = None) -> AsyncIterator[Host]:
    """These tenants behind an endpoint."""
    options = RemoteOptions("http://localhost", port=0, limits=limits or Limits())
    host = Host("", httpx.AsyncClient(), {tenant.user: tenant for tenant in tenants})
    endpoint = build_endpoint(options, callers=host, tenants=host, readiness=Readiness(folder))
    async with AsyncExitStack() as stack:
        for tenant in tenants:
            await stack.enter_async_context(tenant.running())
        serving = await stack.enter_async_context(served(options, endpoint))
        host.base_url = f"http://127.0.0.1:{serving.port}"
        host.http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=host.base_url, headers=HOST, timeout=30, limits=httpx.Limits())
        )
        yield host


def memory_tenant(home: Path, user: str = "ana", limits: Limits | None = None) -> McpTenant:
    """A tenant on a data home of its own."""
    options = RemoteOptions("http://localhost", limits=limits or Limits())
    return McpTenant(UserId(user), lambda: open_app(replace(load_settings(home), keystore="file")), options)


def tool(name: str) -> types.Tool:
    """A tool that takes anything."""
    return types.Tool(name=name, input_schema={"type": "object"})
