"""Two users of a host with the same names of everything, and other words in all of it; served on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx

from dualmem_mcp.app import open_app
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.model.graph import Entity, Relation
from dualmem_mcp.remote.endpoint import build_endpoint
from dualmem_mcp.remote.health import Readiness
from dualmem_mcp.remote.interfaces import Caller
from dualmem_mcp.remote.run import served
from dualmem_mcp.remote.tenants import UserTenants
from dualmem_mcp.settings import load_hosted_settings
from tests.conftest import SteppingClock
from tests.handoff.conftest import PASSPHRASE, SESSION_ID, World
from tests.remote.user_host import ADDED_AT, OPTIONS, UserHost

PRIVATE_IDS = {"ana": "11111111-2222-4333-8444-555555555555", "ben": "22222222-2222-4333-8444-555555555555"}
"""Conversations that one user has and the other does not."""

NOBODYS_ID = "99999999-2222-4333-8444-555555555555"

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "Claude", "version": "1"},
    },
}

TOKENS = {name: f"dm1.{name}.{'A' * 22}.{'A' * 43}" for name in ("ana", "ben")}


def marker(name: str) -> str:
    """A word that stands in everything that is that user's, and nowhere else."""
    return f"zq{name}mark"


def private_id(name: str) -> str:
    """The conversation that only this user has."""
    return PRIVATE_IDS[name]


def make_two_users(root: Path) -> UserHost:
    """The host, with both; each has two more devices, conversations, a graph, notes, a task and a conflict."""
    host = UserHost(root)
    for name in ("ana", "ben"):
        (root / name).mkdir()
        world = World(root / name, SteppingClock())
        _fill(world, name)
        world.close()
        user = UserId(name)
        aside, secret = host.folder.begin(user)
        with open_app(replace(load_hosted_settings(aside), bucket=str(world.bucket)), secret=secret) as app:
            app.join(PASSPHRASE, device_name="host")
            app.sync()
        host.folder.finish(user, aside, secret, PASSPHRASE, now=ADDED_AT)
        host.secrets[user] = secret
    return host


def _fill(world: World, name: str) -> None:
    word = marker(name)
    desk, phone = world.desktop(), world.phone()
    for session_id in (SESSION_ID, private_id(name)):
        # Long enough for a second page.
        texts = [f"step {index} of the importer {word}turn{index} " + "and so on " * 400 for index in range(40)]
        world.write_session(texts, session_id)
        desk.prepare_handoff(
            session_id, summary=f"where it stands {word}summary", decisions=[f"decided {word}decision"]
        )
    for index in range(3):
        extra = f"0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7b{index:02d}"
        world.write_session([f"small talk {word}{index}", "yes"], extra)
        desk.prepare_handoff(extra)
    desk.graph.create_entities(
        [Entity("importer", "program", (f"keeps {word}order",)), Entity("Ada", "person", ())]
    )
    desk.graph.create_relations([Relation("Ada", "importer", "maintains")])
    desk.notebook.add_note(f"a note {word}note", title="note")
    desk.graph.create_entities([Entity("crane", f"machine {word}here", ())])
    phone.graph.create_entities([Entity("crane", f"landmark {word}there", ())])
    for app in (desk, phone, desk):
        app.sync()


@dataclass
class KnownCallers:
    """Both users' tokens."""

    good: Mapping[str, Caller] = field(default_factory=dict)

    def caller(self, token: str) -> Caller | None:
        return self.good.get(token)


@dataclass
class Client:
    """A user's client, in raw JSON-RPC; `seen` is every byte that came back."""

    http: httpx.AsyncClient
    token: str
    seen: bytearray = field(default_factory=bytearray)

    def headers(self, **more: str) -> dict[str, str]:
        """The headers of a request."""
        return {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            **more,
        }

    async def post(self, message: Any, path: str = "/mcp", **more: str) -> httpx.Response:
        """What comes back for a message."""
        answer = await self.http.post(path, content=json.dumps(message), headers=self.headers(**more))
        self.seen += answer.content
        self.seen += repr(answer.headers).encode()
        return answer

    async def ask(self, method: str, params: Any = None, request_id: int = 7, **more: str) -> dict[str, Any]:
        """The result of a request without a session, or its error."""
        message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}}
        body = (await self.post(message, **more)).json()
        assert body["id"] == request_id
        found: dict[str, Any] = body.get("result") or body
        return found

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """A tool's answer."""
        return await self.ask("tools/call", {"name": tool, "arguments": arguments})

    async def initialize(self) -> str:
        """The id of a new session."""
        answer = await self.post(INITIALIZE, Accept="application/json, text/event-stream")
        return str(answer.headers["mcp-session-id"])


@dataclass
class Serving:
    """The host while it serves, with a client of each user."""

    host: UserHost
    tenants: UserTenants
    ana: Client
    ben: Client


@asynccontextmanager
async def serving(host: UserHost) -> AsyncIterator[Serving]:
    """The host's endpoint on a free port of loopback."""
    callers = KnownCallers({token: host.caller(name) for name, token in TOKENS.items()})
    tenants = host.tenants()
    options = replace(OPTIONS, port=0)
    endpoint = build_endpoint(options, callers=callers, tenants=tenants, readiness=Readiness(host.root))
    async with tenants.running(), served(options, endpoint) as server:
        where = {
            "base_url": f"http://127.0.0.1:{server.port}",
            "headers": {"Host": "localhost:8787"},
            "timeout": 60,
        }
        async with httpx.AsyncClient(**where) as first, httpx.AsyncClient(**where) as second:
            yield Serving(host, tenants, Client(first, TOKENS["ana"]), Client(second, TOKENS["ben"]))
