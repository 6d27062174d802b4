"""Clients whose id is the address of their metadata document."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest

from dualmem_mcp.remote.oauth.client_documents import ClientDocuments, is_document_url
from dualmem_mcp.remote.oauth.errors import OAuthError
from dualmem_mcp.remote.oauth.public_fetch import Document, FetchError
from tests.remote.oauth.hosts import CLAUDE, PASSPHRASE, Turned, answered, host

ID = "https://client.example/metadata"
CLAUDES = "https://claude.ai/oauth/mcp-oauth-client-metadata"


def described(client_id: str = ID, **change: object) -> bytes:
    document = {
        "client_id": client_id,
        "client_name": "Claude",
        "redirect_uris": [CLAUDE, "https://claude.com/api/mcp/auth_callback"],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        **change,
    }
    return json.dumps(document).encode()


@dataclass
class Web:
    """What the addresses answer, and which were asked for. What fetching itself does has tests of its own."""

    pages: dict[str, bytes | str] = field(default_factory=lambda: {ID: described()})
    asked: list[str] = field(default_factory=list)
    media_type: str = "application/json"
    cache_control: str = ""

    async def fetch(self, name: str, target: str) -> Document:
        self.asked.append(f"https://{name}{target}")
        page = self.pages.get(self.asked[-1], "there is nothing")
        if isinstance(page, str):
            raise FetchError(page)
        return Document(page, self.media_type, self.cache_control)


@pytest.fixture
def web():
    return Web()


@pytest.fixture
def clock():
    return Turned()


@pytest.fixture
def documents(web, clock):
    return ClientDocuments(web, clock.monotonic)


async def refused(documents: ClientDocuments, client_id: str = ID, address: str = "a") -> OAuthError:
    with pytest.raises(OAuthError) as caught:
        await documents.client(client_id, address=address)
    return caught.value


@pytest.mark.parametrize(
    "url",
    [
        ID,
        "https://claude.ai/oauth/claude-code-client-metadata",
        "https://a.example/c",
        "https://xn--bcher-kva.example/c?v=1",
    ],
)
def test_addresses_of_documents(url):
    assert is_document_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://claude.ai/c",
        "https://claude.ai",
        "https://claude.ai/",
        "https://claude.ai:443/c",
        "https://claude.ai:8443/c",
        "https://user@claude.ai/c",
        "https://user:pw@claude.ai/c",
        "https://claude.ai/c#f",
        "https://claude.ai/../c",
        "https://claude.ai/a/./c",
        "https://claude.ai/a/%2e%2E/c",
        "https://127.0.0.1/c",
        "https://2130706433/c",
        "https://0x7f.0.0.1/c",
        "https://127.1/c",
        "https://[::1]/c",
        "https://localhost/c",
        "https://metadata/c",
        "https://Claude.ai/c",
        "https://claude.ai./c",
        "https://claude..ai/c",
        "https://-a.example/c",
        "https://claude.ai/c d",
        "https://claude.ai/c\r\nX: y",
        "https://claude.ai\\@evil.example/c",
        "https://clаude.ai/c",
        "https://claude.ai/" + "c" * 600,
        "file:///etc/passwd",
        "dm-abc",
        "",
    ],
)
def test_what_is_no_address_of_a_document(url):
    assert not is_document_url(url)


async def test_a_document_describes_the_client(documents):
    client = await documents.client(ID, address="a")
    assert (client.client_id, client.name, client.document_host) == (ID, "Claude", "client.example")
    assert client.redirect_uris == (CLAUDE, "https://claude.com/api/mcp/auth_callback")


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": ID + "/"},
        {"client_id": "https://evil.example/c"},
        {"client_id": None},
        {"redirect_uris": None},
        {"redirect_uris": []},
        {"redirect_uris": CLAUDE},
        {"redirect_uris": ["javascript:alert(1)", "https://x@y/", 7, None]},
        {"redirect_uris": [f"http://localhost:{n}/" for n in range(33)]},
        {"token_endpoint_auth_method": "client_secret_post"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"client_secret": "x"},
    ],
)
async def test_a_document_that_does_not_fit_is_refused(documents, web, change):
    web.pages[ID] = described(**change)
    error = await refused(documents)
    assert (error.error, error.status) == ("invalid_client", 401)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"\xff", b"[" * 60_000, b'"x"'])
async def test_what_is_no_document_is_refused(documents, web, body):
    web.pages[ID] = body
    assert (await refused(documents)).error == "invalid_client"


@pytest.mark.parametrize("media_type", ["text/html", "", "text/plain", "application/javascript"])
async def test_only_json_is_a_document(documents, web, media_type):
    web.media_type = media_type
    assert "not JSON" in (await refused(documents)).description


async def test_hostile_values_in_a_document_are_harmless(documents, web):
    web.pages[ID] = described(
        client_name="Claude\u202e\n<script>",
        redirect_uris=[CLAUDE, "http://a:$(calc)@x/", "file:///bin/sh", "http://localhost/`id`"],
        logo_uri="http://169.254.169.254/",
        jwks_uri="http://127.0.0.1/",
    )
    client = await documents.client(ID, address="a")
    assert client.name == "Claude <script>"
    assert client.redirect_uris == (CLAUDE,)
    assert web.asked == [ID]


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [
        ("", 3_600),
        ("max-age=600", 600),
        ("public, max-age=0", 300),
        ("max-age=999999999", 86_400),
        ("no-store", 3_600),
    ],
)
async def test_a_document_is_kept_as_long_as_it_says_within_bounds(documents, web, clock, cache_control, seconds):
    web.cache_control = cache_control
    await documents.client(ID, address="a")
    clock.turn(seconds - 1)
    await documents.client(ID, address="a")
    assert len(web.asked) == 1
    clock.turn(1)
    await documents.client(ID, address="a")
    assert len(web.asked) == 2


async def test_while_it_cannot_be_fetched_again_the_last_good_one_counts_for_a_week(documents, web, clock):
    await documents.client(ID, address="a")
    web.pages[ID] = "claude.ai answered with status 500"
    clock.turn(3 * 86_400)
    assert (await documents.client(ID, address="a")).name == "Claude"
    clock.turn(4 * 86_400)
    assert "status 500" in (await refused(documents)).description


@pytest.mark.parametrize(
    ("client_id", "redirect", "fits"),
    [
        (CLAUDES, CLAUDE, True),
        (CLAUDES, "http://localhost:3118/callback", False),
        ("https://claude.ai/oauth/claude-code-client-metadata", "http://localhost:3118/callback", True),
        ("https://claude.ai/oauth/claude-code-client-metadata", CLAUDE, False),
        ("https://claude.ai/oauth/another", CLAUDE, False),
    ],
)
async def test_claude_can_log_in_while_its_documents_cannot_be_fetched(
    tmp_path, web, documents, client_id, redirect, fits
):
    with host(tmp_path, documents=documents) as made:
        page = await made.browser(redirect=redirect).page(client_id)
        assert web.asked == [client_id]
        assert page.status_code == (200 if fits else 400)
        assert ("<form" in page.text) is fits


async def test_what_claudes_document_says_goes_before_what_is_known(documents, web):
    web.pages[CLAUDES] = described(CLAUDES, client_name="Claude anew", redirect_uris=[CLAUDE])
    client = await documents.client(CLAUDES, address="a")
    assert (client.name, client.redirect_uris) == ("Claude anew", (CLAUDE,))


async def test_a_failure_is_not_tried_again_at_once(documents, web, clock):
    web.pages[ID] = "claude.ai did not answer in time"
    for _ in range(5):
        await refused(documents)
    assert len(web.asked) == 1
    clock.turn(30)
    web.pages[ID] = described()
    assert (await documents.client(ID, address="a")).name == "Claude"


async def test_nobody_makes_this_host_fetch_without_end(documents, web):
    errors = [await refused(documents, f"https://evil.example/{n}", "2001:db8::1") for n in range(30)]
    assert [error.status for error in errors] == [401] * 20 + [429] * 10
    assert len(web.asked) == 20
    assert (await documents.client(ID, address="198.51.100.4")).name == "Claude"


async def test_slow_documents_do_not_pile_up(web, clock):
    class Held(Web):
        gate = asyncio.Event()

        async def fetch(self, name: str, target: str) -> Document:
            await self.gate.wait()
            return await super().fetch(name, target)

    slow = Held()
    documents = ClientDocuments(slow, clock.monotonic)
    waiting = [
        asyncio.create_task(refused(documents, f"https://evil.example/{n}", f"198.51.100.{n}")) for n in range(60)
    ]
    await asyncio.sleep(0)
    assert (await documents.client(CLAUDES, address="home")).name == "Claude"
    assert (await refused(documents, ID, "home")).status == 429
    slow.gate.set()
    errors = await asyncio.gather(*waiting)
    assert sorted(error.status for error in errors) == [401] * 16 + [429] * 44
    assert (await documents.client(ID, address="home")).name == "Claude"


async def test_what_is_kept_is_bounded(documents, web, clock):
    for number in range(300):
        name = f"https://evil.example/{number}"
        if number % 2:
            web.pages[name] = described(name)
            await documents.client(name, address=str(number))
        else:
            await refused(documents, name, address=str(number))
    assert len(documents._kept) == 128
    assert len(documents._failed) == 128


async def test_the_whole_way_of_a_client_with_a_document(tmp_path, web, documents):
    with host(tmp_path, documents=documents) as made:
        browser = made.browser()
        page = await browser.page(ID)
        assert "<strong>client.example</strong>" in page.text
        assert "Described by" in page.text
        answer = await browser.submit(page)
        tokens = (await browser.exchange(ID, answered(answer)["code"])).json()
        assert made.login.caller(tokens["access_token"]).grant.client_id == ID
        # What was given goes on without the document.
        web.pages.clear()
        made.clock.turn(30 * 86_400 - 1)
        assert (await browser.refresh(ID, tokens["refresh_token"])).status_code == 200


async def test_a_document_leads_only_where_logins_may_lead(tmp_path, web, documents):
    evil = "https://evil.example/client"
    web.pages[evil] = described(evil, client_name="Claude", redirect_uris=["https://evil.example/cb", CLAUDE])
    with host(tmp_path, documents=documents) as made:
        browser = made.browser(redirect="https://evil.example/cb")
        answer = await browser.page(evil)
        assert answer.status_code == 400
        assert "location" not in answer.headers
        # To Claude's own address it may lead; the page tells whose document it is.
        browser.redirect = CLAUDE
        page = await browser.page(evil)
        assert "<strong>evil.example</strong>" in page.text
        browser.redirect = "https://claude.com/api/mcp/auth_callback"
        assert (await browser.page(evil)).status_code == 400
        assert PASSPHRASE not in page.text
