"""A host of two users from the login on: their tokens and pages show each their own, and opened is closed again."""

from __future__ import annotations

import asyncio
import gc
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import pytest

from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.host import hosted
from dualmem_mcp.remote.interfaces import Caller
from dualmem_mcp.remote.run import served
from dualmem_mcp.settings import load_settings
from dualmem_mcp.stores.login_store import open_logins
from tests.handoff.conftest import SESSION_ID
from tests.remote.oauth.hosts import Browser
from tests.remote.two_users import NOBODYS_ID, PRIVATE_IDS, Client, make_two_users, marker
from tests.remote.user_host import OPTIONS, UserHost, passphrase_of

ADDRESS = "localhost:8787"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
OPENED = re.compile(r"dm1\.(ana|ben)\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserHost]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("DUALMEM_", "CLAUDE_")):
                patch.delenv(name)
        yield make_two_users(tmp_path_factory.mktemp("two users"))


@asynccontextmanager
async def serving(host: UserHost) -> AsyncIterator[str]:
    """The address of the whole host, as `dualmem serve --users` makes it."""
    settings = replace(load_settings(host.folder.root), keystore="file")
    options = replace(OPTIONS, port=0)
    async with hosted(options, settings, host.folder.root) as endpoint, served(options, endpoint) as server:
        yield f"http://127.0.0.1:{server.port}"


def visitor(address: str) -> httpx.AsyncClient:
    """A browser of its own."""
    return httpx.AsyncClient(base_url=address, headers={"Host": ADDRESS, "Origin": f"http://{ADDRESS}"}, timeout=60)


class Login(Browser):
    """The way of a client from its registration to its tokens."""

    async def tokens(self, name: str) -> dict[str, object]:
        _, tokens = await self.log_in(name=name)
        return tokens

    def query(self, client_id: str, **other: str | None) -> str:
        return super().query(client_id, resource=f"http://{ADDRESS}/mcp", **other)


async def test_each_token_and_each_browser_shows_its_own_users_memory(made: UserHost) -> None:
    async with serving(made) as address:
        for name, other in (("ana", "ben"), ("ben", "ana")):
            async with visitor(address) as http:
                tokens = await Login(http).tokens(name)
                assert OPENED.fullmatch(str(tokens["access_token"]))
                client = Client(http, str(tokens["access_token"]))
                assert marker(name) in str(await client.call("resume_conversation", conversation_id=SESSION_ID))
                assert marker(other).encode() not in client.seen
            async with visitor(address) as browser:
                pages = await _logged_in(browser, name)
                assert marker(name) in pages["/"].text
                for path, page in pages.items():
                    assert page.status_code == 200, path
                    assert marker(other) not in page.text, path
                for section in ("", "/thread", f"/../../{other}/user.json"):
                    answers = [
                        await browser.get(f"/c/{each}{section}") for each in (PRIVATE_IDS[other], NOBODYS_ID)
                    ]
                    texts = [
                        answer.text.replace(PRIVATE_IDS[other], "ID").replace(NOBODYS_ID, "ID")
                        for answer in answers
                    ]
                    assert [answer.status_code for answer in answers] == [404, 404]
                    assert texts[0] == texts[1]


async def _logged_in(browser: httpx.AsyncClient, name: str) -> dict[str, httpx.Response]:
    """The pages that a user sees once logged in."""
    form = await browser.get("/login")
    token = form.text.partition('name="csrf" value="')[2].partition('"')[0]
    fields = {"csrf": token, "name": name, "passphrase": "correct horse battery staple", "next": "/"}
    assert (await browser.post("/login", data=fields)).status_code == 303
    paths = ["/", f"/c/{SESSION_ID}", f"/c/{SESSION_ID}/thread", "/search?q=importer"]
    paths += ["/devices", "/clients", "/conflicts", "/state", "/export"]
    return {path: await browser.get(path) for path in paths}


async def test_neither_the_disk_nor_a_token_of_another_opens_a_users_home(made: UserHost) -> None:
    async with serving(made) as address, visitor(address) as http:
        tokens = [str((await Login(http).tokens(name))["access_token"]) for name in ("ana", "ben")]
        ana, ben = tokens
        prefix = ana.rsplit(".", 1)[0]
        for forged in (
            f"{prefix}.{ben.rsplit('.', 1)[1]}",
            ana.replace("dm1.ana", "dm1.ben"),
            f"{prefix}.{'A' * 43}",
        ):
            refused = await Client(http, forged).post(PING)
            unknown = await Client(http, f"dm1.ana.{'B' * 22}.{'B' * 43}").post(PING)
            assert (refused.status_code, refused.content) == (401, unknown.content)
    # What is left on the disk holds neither tokens nor secrets.
    needles = [token.rsplit(".", 1)[1].encode() for token in tokens]
    needles += made.secrets.values()
    for path in made.folder.root.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert [needle for needle in needles if needle in data] == [], path


async def test_a_closed_user_leaves_no_key_in_memory(made: UserHost) -> None:
    """The key of a token's caller goes with the application that it opened."""
    settings = replace(load_settings(made.folder.root), keystore="file")
    options = replace(OPTIONS, port=0)
    async with hosted(options, settings, made.folder.root) as endpoint, served(options, endpoint) as server:
        async with visitor(f"http://127.0.0.1:{server.port}") as http:
            token = str((await Login(http).tokens("ana"))["access_token"])
            assert "result" in (await Client(http, token).post(PING)).json()
        assert _callers_of("ana")
        await endpoint._tenants.close(UserId("ana"))
        assert _callers_of("ana") == []
        async with visitor(f"http://127.0.0.1:{server.port}") as http:
            # The token brings the key back.
            assert "result" in (await Client(http, token).post(PING)).json()


async def test_whoever_goes_away_leaves_no_key_in_memory(made: UserHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody comes any more, so nothing but time ends what was given."""
    monkeypatch.setattr("dualmem_mcp.remote.host._FORGET_SECONDS", 0.01)
    settings = replace(load_settings(made.folder.root), keystore="file")
    options = replace(OPTIONS, port=0)
    async with hosted(options, settings, made.folder.root) as endpoint, served(options, endpoint) as server:
        async with visitor(f"http://127.0.0.1:{server.port}") as http:
            await _logged_in(http, "ben")
        await endpoint._tenants.close(UserId("ben"))
        await asyncio.sleep(0.1)
        assert _callers_of("ben")  # the browser is still logged in
        monkeypatch.setattr("dualmem_mcp.remote.oauth.browser.IDLE_SECONDS", 0)
        await asyncio.sleep(0.1)
        assert _callers_of("ben") == []


def _callers_of(name: str) -> list[object]:
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, Caller) and one.grant.user == name]


async def test_a_removed_user_is_out_at_once_though_the_host_goes_on(tmp_path: Path) -> None:
    host = UserHost(tmp_path)
    host.add("cy")
    passphrase = passphrase_of("cy")
    async with serving(host) as address, visitor(address) as http:
        browser = Login(http)
        client_id, tokens = await browser.log_in(name="cy", passphrase=passphrase)
        client = Client(http, str(tokens["access_token"]))
        assert "result" in (await client.post(PING)).json()
        # Even before the logins are ended, as another process does right after it.
        host.folder.remove(UserId("cy"))
        assert (await client.post(PING)).status_code == 401
        with open_logins(host.folder.root, choice="file") as logins:
            assert logins.revoke(user=UserId("cy")) == 1
        assert (await browser.refresh(client_id, str(tokens["refresh_token"]))).status_code == 400
        page = await browser.page(client_id)
        assert (await browser.submit(page, name="cy", passphrase=passphrase)).status_code == 403
