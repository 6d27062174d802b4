"""An endpoint on a free port of this machine, with a tenant that shows what reaches it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
from starlette.routing import BaseRoute

from dualmem_mcp.model.grant import ALL_SCOPES, OWNER, Grant
from dualmem_mcp.remote.endpoint import Endpoint, build_endpoint
from dualmem_mcp.remote.health import Readiness
from dualmem_mcp.remote.interfaces import CALLER_KEY, Caller
from dualmem_mcp.remote.options import Limits, RemoteOptions
from dualmem_mcp.remote.run import served

TOKEN = "dm1.owner.AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
CALLER = Caller(Grant(OWNER, "a client", "a grant", ALL_SCOPES, 4_000_000_000), b"")
HOST = "memory.example"


class KnownCallers:
    """The tokens that a test makes good."""

    def __init__(self) -> None:
        self.good = {TOKEN: CALLER}

    def caller(self, token: str) -> Caller | None:
        return self.good.get(token)


class ShowingTenant:
    """Answers with what it was asked, or as the test says; counts who is in it."""

    user = OWNER
    app = None

    def __init__(self) -> None:
        self.answer = b""
        self.kind = b"application/json"
        self.parts: Sequence[bytes] = ()
        self.inside = 0
        self.finished = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Condition()
        self.seen: list[dict[str, Any]] = []

    async def streamable_http(self, scope, receive, send) -> None:
        self.inside += 1
        async with self.entered:
            self.entered.notify_all()
        try:
            await self._answer(scope, receive, send)
            self.finished += 1
        finally:
            self.inside -= 1

    async def has_inside(self, number: int) -> None:
        """Wait until so many requests are in here."""
        async with self.entered:
            await self.entered.wait_for(lambda: self.inside >= number)

    sse = messages = streamable_http

    async def _answer(self, scope, receive, send) -> None:
        body = (await receive())["body"] if scope["method"] == "POST" else b""
        seen = {
            "path": scope["path"],
            "method": scope["method"],
            "body": body.decode("latin-1"),
            "user": scope[CALLER_KEY].grant.user,
            "client": scope["client"][0],
        }
        self.seen.append(seen)
        if self.parts or scope["method"] == "GET":
            kind = b"text/event-stream" if scope["method"] == "GET" else self.kind
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
            for part in self.parts or (b": there\n\n",):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            if scope["method"] == "GET":
                await asyncio.sleep(3_600)
            await self.gate.wait()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        await self.gate.wait()
        answer = self.answer or json.dumps(seen).encode()
        headers = [(b"content-type", self.kind), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class OneTenant:
    """That tenant for everybody, unless opening it fails."""

    def __init__(self, tenant: Any) -> None:
        self.only = tenant
        self.failure: Exception | None = None

    async def tenant(self, caller: Caller) -> Any:
        if self.failure is not None:
            raise self.failure
        return self.only


@dataclass
class Listening:
    """An endpoint that takes requests."""

    endpoint: Endpoint
    options: RemoteOptions
    port: int
    callers: KnownCallers
    tenants: OneTenant
    tenant: ShowingTenant

    def client(self, **named: Any) -> httpx.AsyncClient:
        """A client that says the endpoint's name, though it connects to this machine."""
        headers = {"Host": self.options.public_url.partition("://")[2], "Accept-Encoding": "identity"}
        scheme = "http" if self.options.certificate is None else "https"
        return httpx.AsyncClient(base_url=f"{scheme}://127.0.0.1:{self.port}", headers=headers, **named)

    async def raw(self, data: bytes, *, seconds: float = 5.0) -> bytes:
        """All that comes back for these bytes until the connection ends; what came so far after so long."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answer = bytearray()
        try:
            async with asyncio.timeout(seconds):
                while chunk := await reader.read(65_536):
                    answer += chunk
        except (TimeoutError, ConnectionError):  # the server may close before it has read all of it
            pass
        finally:
            writer.close()
        return bytes(answer)

    def head(self, request_line: str, *headers: str) -> bytes:
        """A request's head, with the endpoint's name and a good token."""
        lines = [request_line, f"Host: {HOST}", f"Authorization: Bearer {TOKEN}", *headers]
        return "\r\n".join([*lines, "", ""]).encode()


@asynccontextmanager
async def listening(
    folder: Path,
    *,
    limits: Limits | None = None,
    options: RemoteOptions | None = None,
    routes: Sequence[BaseRoute] = (),
    tenant: Any = None,
) -> AsyncIterator[Listening]:
    """An endpoint on a free port."""
    options = replace(options or RemoteOptions(f"https://{HOST}"), port=0)
    options = replace(options, limits=limits or options.limits)
    showing = tenant or ShowingTenant()
    callers, tenants = KnownCallers(), OneTenant(showing)
    endpoint = build_endpoint(options, callers=callers, tenants=tenants, readiness=Readiness(folder), routes=routes)
    async with served(options, endpoint) as serving:
        yield Listening(endpoint, options, serving.port, callers, tenants, showing)
