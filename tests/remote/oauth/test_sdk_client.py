"""The MCP SDK's own client finds the login, registers, is let in, refreshes and calls, over real HTTP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from dualmem_mcp.remote.endpoint import build_endpoint
from dualmem_mcp.remote.health import Readiness
from dualmem_mcp.remote.oauth.client_documents import ClientDocuments
from dualmem_mcp.remote.run import served
from tests.remote.http_host import OneTenant, ShowingTenant
from tests.remote.oauth.hosts import PASSPHRASE, action, answered, csrf, host
from tests.remote.oauth.test_client_documents import Web, described
from tests.remote.pages.memory import free_port

REDIRECT = "http://localhost:33418/callback"
DOCUMENT = "https://claude.ai/oauth/claude-code-client-metadata"


class Storage:
    """What the client keeps."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


class Person:
    """Who lets the client in, at a browser without anything of a browser's."""

    def __init__(self) -> None:
        self.let_in = 0
        self.answer: dict[str, str] = {}

    async def open(self, url: str) -> None:
        async with httpx2.AsyncClient() as http:
            page = await http.get(url)
            assert page.status_code == 200, page.text
            target = f"{url.partition('/oauth/')[0]}{action(page)}"
            form = {"csrf": csrf(page), "decision": "allow", "passphrase": PASSPHRASE, "scope": "write"}
            self.answer = answered(await http.post(target, data=form))
            self.let_in += 1

    async def back(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**{name: self.answer.get(name) for name in ("code", "state", "iss")})


@asynccontextmanager
async def serving(folder: Path):
    port = free_port()
    documents = ClientDocuments(Web({DOCUMENT: described(DOCUMENT, redirect_uris=["http://localhost/callback"])}))
    with host(folder, public_url=f"http://localhost:{port}", port=port, documents=documents) as made:
        endpoint = build_endpoint(
            made.options,
            callers=made.login,
            tenants=OneTenant(ShowingTenant()),
            readiness=Readiness(folder),
            routes=made.login.routes(),
        )
        async with served(made.options, endpoint):
            yield made


def client(url: str, storage: Storage, person: Person, document: str | None = None) -> httpx2.AsyncClient:
    metadata = OAuthClientMetadata(
        client_name="An SDK client", redirect_uris=[REDIRECT], token_endpoint_auth_method="none"
    )
    login = OAuthClientProvider(url, metadata, storage, person.open, person.back, document)
    return httpx2.AsyncClient(auth=login)


@pytest.mark.parametrize("path", ["/mcp", "/sse"])
@pytest.mark.parametrize("document", [None, DOCUMENT])
async def test_the_sdks_client_logs_in(tmp_path, path, document):
    async with serving(tmp_path) as made:
        storage, person = Storage(), Person()
        url = f"{made.options.public_url}{path}"
        async with client(url, storage, person, document) as http, http.stream("GET", url) as answer:
            assert answer.status_code == 200
        assert person.let_in == 1
        assert storage.tokens.scope == "read write"
        registered = storage.client.client_id
        assert registered == document if document else registered.startswith("dm-")
        (connection,) = made.login.connections("owner")
        assert connection.redirect_host == "localhost:33418"


async def test_the_sdks_client_goes_on_with_its_refresh_token(tmp_path):
    async with serving(tmp_path) as made:
        storage, person = Storage(), Person()
        url = f"{made.options.public_url}/mcp"
        async with client(url, storage, person) as http:
            assert (await http.post(url, json={})).status_code == 200
            first = storage.tokens
            made.clock.turn(3_600)
            http.auth.context.token_expiry_time = 1.0
            assert (await http.post(url, json={})).status_code == 200
        assert person.let_in == 1
        assert storage.tokens.refresh_token != first.refresh_token


async def test_the_sdks_client_logs_in_anew_when_it_was_shut_out(tmp_path):
    async with serving(tmp_path) as made:
        storage, person = Storage(), Person()
        url = f"{made.options.public_url}/mcp"
        async with client(url, storage, person) as http:
            assert (await http.post(url, json={})).status_code == 200
            assert made.login.revoke("owner")
            assert (await http.post(url, json={})).status_code == 200
        assert person.let_in == 2


async def test_a_login_that_another_server_answers_is_refused_by_the_client(tmp_path):
    """Mix-up: the answer names who gave it, so a code of one server is not taken to another."""
    async with serving(tmp_path) as made:
        storage, person = Storage(), Person()
        url = f"{made.options.public_url}/mcp"

        async def mixed_up() -> AuthorizationCodeResult:
            return AuthorizationCodeResult(**{**person.answer, "iss": "https://evil.example"})

        async with client(url, storage, person) as http:
            http.auth.context.callback_handler = mixed_up
            with pytest.raises(Exception, match="iss"):
                await http.post(url, json={})
        assert storage.tokens is None
