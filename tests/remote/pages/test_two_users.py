"""Two users of one host with the same names of everything: neither sees a byte of the other on any page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2 as httpx
import pytest
from starlette.applications import Starlette

from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.accounts import UserAccounts
from dualmem_mcp.remote.oauth.browser import BrowserSessions
from dualmem_mcp.remote.oauth.passphrases import USUAL_PACE, PassphraseGate
from dualmem_mcp.remote.pages import Pages
from tests.conftest import SteppingClock
from tests.handoff.conftest import PASSPHRASE, SESSION_ID
from tests.remote.pages.memory import LetIn, clients
from tests.remote.two_users import NOBODYS_ID, make_two_users, marker, private_id
from tests.remote.user_host import OPTIONS, UserHost

NOBODYS_DEVICE = "f" * 32


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, environment: None) -> Iterator[UserHost]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUALMEM_KEYSTORE", "file")
        yield make_two_users(tmp_path_factory.mktemp("two"))


@dataclass
class Reader:
    """A user's browser; `seen` is every byte that came back."""

    http: httpx.AsyncClient
    name: str
    seen: bytearray = field(default_factory=bytearray)

    async def get(self, path: str) -> httpx.Response:
        answer = await self.http.get(path)
        self.seen += answer.content + repr(answer.headers).encode()
        return answer

    async def post(self, path: str, **form: str) -> httpx.Response:
        answer = await self.http.post(path, data=form)
        self.seen += answer.content + repr(answer.headers).encode()
        return answer

    async def log_in(self, passphrase: str = PASSPHRASE) -> httpx.Response:
        form = token_of(await self.http.get("/login"))
        return await self.post("/login", csrf=form, name=self.name, passphrase=passphrase)


def token_of(page: httpx.Response) -> str:
    match = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert match, page.text
    return match[1]


def without(answer: httpx.Response, *ids: str) -> tuple[int, str]:
    """An answer without what was asked for and the session's own token."""
    text = re.sub(r'name="csrf" value="[^"]+"', "", answer.text)
    for one in ids:
        text = text.replace(one, "")
    return answer.status_code, text


async def test_no_page_shows_a_byte_of_another_user(made: UserHost) -> None:
    tenants = made.tenants()
    accounts = UserAccounts(made.folder)
    sessions = BrowserSessions(SteppingClock())
    let_in = LetIn({UserId("ana"): clients(SteppingClock().time)})
    gate = PassphraseGate(accounts, bytes(32), replace(USUAL_PACE, wrong_seconds=0.0))
    pages = Pages(tenants, sessions, accounts, OPTIONS, gate=gate, connections=let_in)
    transport = httpx.ASGITransport(Starlette(routes=pages.routes()), client=("127.0.0.1", 1))
    where = {"transport": transport, "base_url": OPTIONS.public_url, "timeout": 60}
    async with (
        tenants.running(),
        httpx.AsyncClient(**where) as first,
        httpx.AsyncClient(**where) as second,
    ):
        ana, ben = Reader(first, "ana"), Reader(second, "ben")
        assert (await ana.log_in("wrong")).status_code == 403
        for reader in (ana, ben):
            assert (await reader.log_in()).status_code == 303
        home, conflicts = (await ana.get("/")).text, (await ana.get("/conflicts")).text
        thread = (await ana.get(f"/c/{private_id('ana')}/thread")).text
        assert marker("ana") in home + conflicts + thread
        cursor = re.search(r"\?at=([^\"]+)", thread)
        conflict = re.search(r'name="conflict" value="([^"]+)"', conflicts)
        seen = re.search(r'name="seen" value="([^"]+)"', conflicts)
        device = re.search(r"/devices/revoke\?device=([0-9a-f]{32})", (await ana.get("/devices")).text)
        assert cursor
        assert conflict
        assert seen
        assert device

        own = token_of(await ben.get("/state"))
        theirs = token_of(await ana.get("/state"))
        for path in (
            *(
                "/",
                "/?q=importer",
                "/?q=zq",
                "/search?q=importer",
                "/search?q=turn2+order+summary",
                "/devices",
                "/state",
            ),
            *("/clients", "/conflicts", "/export", f"/c/{SESSION_ID}", f"/c/{SESSION_ID}/thread"),
            *(f"/c/{SESSION_ID}/thread?at={cursor[1]}", f"/devices/revoke?device={device[1]}"),
        ):
            await ben.get(path)
        # What is hers is to him as what never was.
        for path in ("/c/{}", "/c/{}/thread", f"/c/{{}}/thread?at={cursor[1]}", "/c/{}/requests"):
            hers = await ben.get(path.format(private_id("ana")))
            assert hers.status_code == 404, path
            nobodys = await ben.get(path.format(NOBODYS_ID))
            assert without(hers, private_id("ana")) == without(nobodys, NOBODYS_ID), path
        for path, name, value, other in (
            ("/devices/revoke", "device", device[1], NOBODYS_DEVICE),
            ("/clients/revoke", "grant", "g1", "nobodys"),
        ):
            form = {"csrf": own, "passphrase": PASSPHRASE}
            hers = await ben.post(path, **form, **{name: value})
            assert hers.status_code == 404, path
            assert without(hers, value) == without(await ben.post(path, **form, **{name: other}), other)
        # Her token of forms is none of his, nor his session one of hers.
        for path in ("/state/sync", "/clients/revoke", "/conflicts/decide", "/export", "/logout"):
            assert (await ben.post(path, csrf=theirs, grant="g1", passphrase=PASSPHRASE)).status_code == 403, path
        exported = await ben.post("/export", csrf=own, passphrase=PASSPHRASE)
        assert marker("ben") in exported.text

        assert marker("ana").encode() not in ben.seen
        assert marker("ben").encode() not in ana.seen
        assert marker("ben").encode() in ben.seen
        assert str(made.bucket("ana")).encode() not in ben.seen
        assert len(let_in.of[UserId("ana")]) == 3
        assert (await ana.get("/conflicts")).text.count('name="conflict"') == 1
        # A logout ends one session alone.
        await ben.post("/logout", csrf=own)
        assert (await ben.get("/")).status_code == 303
        assert (await ana.get("/")).status_code == 200


async def test_a_login_of_a_user_who_is_removed_opens_nothing(made: UserHost, tmp_path: Path) -> None:
    host = UserHost(tmp_path)
    host.add("ana")
    tenants, accounts = host.tenants(), UserAccounts(host.folder)
    sessions = BrowserSessions(SteppingClock())
    gate = PassphraseGate(accounts, bytes(32), replace(USUAL_PACE, wrong_seconds=0.0))
    pages = Pages(tenants, sessions, accounts, OPTIONS, gate=gate)
    transport = httpx.ASGITransport(Starlette(routes=pages.routes()), client=("127.0.0.1", 1))
    async with tenants.running(), httpx.AsyncClient(transport=transport, base_url=OPTIONS.public_url) as http:
        ana = Reader(http, "ana")
        assert (await ana.log_in("ana correct horse battery")).status_code == 303
        assert (await ana.get("/state")).status_code == 200
        host.folder.remove(UserId("ana"))
        answer = await ana.get("/state")
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")
