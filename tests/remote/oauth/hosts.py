"""A login on a real file of logins, what browsers and programs do with it, and a clock that tests turn."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
from starlette.applications import Starlette

from dualmem_mcp.errors import LockedError
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.interfaces import Unlocked
from dualmem_mcp.remote.oauth.attempts import Rate
from dualmem_mcp.remote.oauth.login import Login
from dualmem_mcp.remote.oauth.passphrases import Pace
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.stores.login_store import open_logins

URL = "https://memory.example"
CLAUDE = "https://claude.ai/api/mcp/auth_callback"
PASSPHRASE = "correct horse battery staple"

FREE = Rate(1_000_000, 0.0)
QUICK = Pace(address=FREE, client=FREE, account=FREE, device=FREE, wrong_seconds=0.0)


@dataclass
class Turned:
    """A clock and a counter of seconds that stand still until they are turned."""

    at: datetime = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    seconds: float = 1_000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.seconds

    def turn(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.seconds += seconds


@dataclass
class Users:
    """The users of a host, by name, with their passphrase and secret; one without a name is the only one."""

    known: dict[str, tuple[str, bytes]] = field(default_factory=lambda: {"": (PASSPHRASE, b"")})
    asked: int = 0

    @property
    def several(self) -> bool:
        return "" not in self.known

    def unlock(self, name: str, passphrase: str) -> Unlocked:
        self.asked += 1
        key = name if self.several else ""
        expected, secret = self.known.get(key, ("", b""))
        if not expected or expected != passphrase:
            raise LockedError("name and passphrase do not fit", operation="log in", hint="Type it again.")
        return Unlocked(UserId(key or "owner"), secret)


@dataclass
class Browser:
    """What a person's browser and a client's program do with the login, over ASGI."""

    http: httpx2.AsyncClient
    redirect: str = CLAUDE
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    async def register(self, **metadata: object) -> dict[str, object]:
        document = {"client_name": "Claude", "redirect_uris": [self.redirect], **metadata}
        answer = await self.http.post("/oauth/register", json=document)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def query(self, client_id: str, **other: str | None) -> str:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        fields = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": self.redirect,
            "state": "a state/+",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "resource": f"{URL}/mcp",
            **other,
        }
        return urlencode({name: value for name, value in fields.items() if value is not None})

    async def page(self, client_id: str, **other: str | None) -> httpx2.Response:
        return await self.http.get(f"/oauth/authorize?{self.query(client_id, **other)}")

    async def submit(self, page: httpx2.Response, **form: object) -> httpx2.Response:
        """The page's own form, filled in."""
        fields = {"csrf": csrf(page), "decision": "allow", "passphrase": PASSPHRASE, "scope": ["write"], **form}
        return await self.http.post(action(page), data=fields)

    async def code(self, client_id: str, **form: object) -> str:
        answer = await self.submit(await self.page(client_id), **form)
        assert answer.status_code == 303, answer.text
        return answered(answer)["code"]

    async def token(self, client_id: str, **fields: str) -> httpx2.Response:
        return await self.http.post("/oauth/token", data={"client_id": client_id, **fields})

    async def exchange(self, client_id: str, code: str, **other: str) -> httpx2.Response:
        fields = {"code": code, "redirect_uri": self.redirect, "code_verifier": self.verifier, **other}
        return await self.token(client_id, grant_type="authorization_code", **fields)

    async def refresh(self, client_id: str, token: str) -> httpx2.Response:
        return await self.token(client_id, grant_type="refresh_token", refresh_token=token)

    async def log_in(self, client_id: str = "", **form: object) -> tuple[str, dict[str, object]]:
        """Register, let in, fetch tokens: the client's id and its tokens."""
        client_id = client_id or str((await self.register())["client_id"])
        answer = await self.exchange(client_id, await self.code(client_id, **form))
        assert answer.status_code == 200, answer.text
        return client_id, answer.json()


def csrf(page: httpx2.Response) -> str:
    match = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)
    assert match, page.text
    return match[1]


def action(page: httpx2.Response) -> str:
    match = re.search(r'<form method="post" action="([^"]*)"', page.text)
    assert match, page.text
    return match[1].replace("&amp;", "&")


def answered(response: httpx2.Response) -> dict[str, str]:
    """The parameters with which the browser is sent back to the client."""
    return {name: values[0] for name, values in parse_qs(urlsplit(response.headers["location"]).query).items()}


@dataclass
class Host:
    """A host's login, and what stands behind it."""

    folder: Path
    clock: Turned
    users: Users
    options: RemoteOptions
    login: Login

    def browser(self, address: str = "203.0.113.7", **other: str) -> Browser:
        transport = httpx2.ASGITransport(Starlette(routes=self.login.routes()), client=(address, 1))
        return Browser(httpx2.AsyncClient(transport=transport, base_url=self.options.public_url), **other)


@contextmanager
def host(folder: Path, *, users: Users | None = None, pace: Pace = QUICK, **other: object) -> Iterator[Host]:
    clock, users = Turned(), users or Users()
    options = RemoteOptions(**{"public_url": URL, **{k: v for k, v in other.items() if k != "documents"}})
    with open_logins(folder, choice="file") as store:
        login = Login(
            store,
            users,
            options,
            clock,
            pace=pace,
            documents=other.get("documents"),
            monotonic=clock.monotonic,
        )
        yield Host(folder, clock, users, options, login)
