"""A host put together: one user's data home, login, MCP and pages, behind one endpoint on a real socket."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client

from dualmem_mcp.app import open_app
from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.grant import ALL_SCOPES, DEFAULT_SCOPES, OWNER
from dualmem_mcp.ports import SystemClock
from dualmem_mcp.remote.host import hosted
from dualmem_mcp.remote.interfaces import Unlocked
from dualmem_mcp.remote.oauth.grants import Grants
from dualmem_mcp.remote.oauth.redirects import Redirect
from dualmem_mcp.remote.oauth.registration import Client
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.remote.run import served
from dualmem_mcp.settings import Settings, load_settings
from dualmem_mcp.stores.login_store import open_logins

PASSPHRASE = "correct horse battery staple"
OPTIONS = RemoteOptions("http://localhost:8787", port=0)
NAMED = {"Host": "localhost:8787"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in list(os.environ):
        if name.startswith(("DUALMEM_", "CLAUDE_")) or name == "MEMORY_FILE_PATH":
            monkeypatch.delenv(name)
    monkeypatch.setenv("DUALMEM_KEYSTORE", "file")
    monkeypatch.setenv("DUALMEM_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "claude"))
    return load_settings(tmp_path / "host", bucket=str(tmp_path / "bucket"))


@pytest.fixture
def vault(settings: Settings) -> Settings:
    with open_app(settings) as app:
        app.init(PASSPHRASE)
    return settings


def token(settings: Settings, scopes: frozenset = DEFAULT_SCOPES) -> str:
    """As a login gives it; the server reads it where it is kept."""
    redirect = Redirect("http://localhost:1/callback", "http", "localhost", "1", "/callback")
    with open_logins(settings.home, choice="file") as store:
        grants = Grants(store, OPTIONS, SystemClock())
        client = Client("phone", "Claude", (redirect.uri,))
        return grants.issue(client, redirect, Unlocked(OWNER, b""), scopes)[1]["access_token"]


@asynccontextmanager
async def client_of(settings: Settings, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a host that serves meanwhile."""
    async with hosted(OPTIONS, settings) as endpoint, served(OPTIONS, endpoint) as serving:
        base = f"http://127.0.0.1:{serving.port}"
        async with httpx.AsyncClient(base_url=base, headers={**NAMED, **headers}) as client:
            yield client


async def test_what_the_phone_saves_is_in_the_bucket_once_the_host_has_stopped(
    vault: Settings, tmp_path: Path
) -> None:
    async with (
        client_of(vault, Authorization=f"Bearer {token(vault)}") as http,
        streamable_http_client(f"{str(http.base_url).rstrip('/')}/mcp", http_client=http) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        await session.initialize()
        names = {tool.name for tool in (await session.list_tools()).tools}
        assert "save_progress" in names
        assert "delete_entities" not in names  # erasing was not ticked
        crane = {"name": "crane", "entityType": "machine", "observations": ["lifts 40 t"]}
        done = await session.call_tool("create_entities", {"entities": [crane]})
        assert not done.is_error
    other = load_settings(tmp_path / "desk", bucket=vault.bucket)
    with open_app(other) as desk:
        desk.join(PASSPHRASE)
        desk.sync()
        assert [entity.name for entity in desk.graph.read_graph().entities] == ["crane"]


async def test_each_401_names_a_document_that_is_there(vault: Settings) -> None:
    async with client_of(vault) as client:
        for method, path in [("POST", "/mcp"), ("GET", "/sse"), ("POST", "/messages")]:
            refused = await client.request(method, path)
            assert refused.status_code == 401
            url = refused.headers["www-authenticate"].partition('resource_metadata="')[2].partition('"')[0]
            document = await client.get(url.removeprefix(OPTIONS.public_url))
            assert document.status_code == 200, url
            assert document.json()["authorization_servers"] == [OPTIONS.public_url]
        server = await client.get("/.well-known/oauth-authorization-server")
        assert server.json()["issuer"] == OPTIONS.public_url


async def test_pages_and_consent_stand_beside_mcp(vault: Settings) -> None:
    async with client_of(vault) as client:
        first = await client.get("/")
        assert (first.status_code, first.headers["location"]) == (303, "/login")
        login = await client.get("/login")
        assert login.status_code == 200
        assert "<script" not in login.text
        assert (await client.get("/static/style.css")).headers["content-type"].startswith("text/css")
        assert (await client.get("/static/../../host.py")).status_code == 404
        # Without a client and a redirect that are known nobody is sent anywhere.
        assert (await client.get("/oauth/authorize?redirect_uri=https://evil.example")).status_code == 400
        assert (await client.get("/oauth/token")).status_code in (404, 405)


async def test_a_token_that_another_process_revokes_is_refused(vault: Settings) -> None:
    given = token(vault, ALL_SCOPES)
    async with client_of(vault, Authorization=f"Bearer {given}") as client:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        ping = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
        assert (await client.post("/mcp", content=ping, headers=headers)).status_code == 200
        with open_logins(vault.home, choice="file") as store:
            assert store.revoke(user=OWNER) == 1
        for _ in range(40):
            answer = await client.post("/mcp", content=ping, headers=headers)
            if answer.status_code == 401:
                break
            await _pause()
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def _pause() -> None:
    import anyio

    await anyio.sleep(0.05)


async def test_a_data_home_without_a_vault_says_that_nobody_can_log_in(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(settings) as client:
        assert (await client.get("/readyz")).status_code == 200
    assert "nobody can log in" in caplog.text
    assert "dualmem init" in caplog.text


async def test_a_folder_of_users_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder") as caught:
        async with hosted(OPTIONS, settings, tmp_path / "nobody"):
            raise AssertionError("unreachable")
    assert "dualmem users add" in caught.value.hint
