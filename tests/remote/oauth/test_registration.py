"""Clients that register themselves."""

from __future__ import annotations

import json

import pytest
from mcp.client.auth.oauth2 import check_registration_usable
from mcp.shared.auth import OAuthClientInformationFull

from tests.remote.oauth.hosts import CLAUDE, host

# What Claude's hosted connectors send (anthropics/claude-ai-mcp issues 82 and 1043).
CLAUDES = {
    "client_name": "Claude",
    "redirect_uris": [CLAUDE],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "client_secret_post",
    "scope": "read write",
}


async def test_claude_gets_an_answer_that_it_can_use(one):
    answer = await one.browser().http.post("/oauth/register", json=CLAUDES)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    info = OAuthClientInformationFull.model_validate_json(answer.content)
    check_registration_usable(info)
    assert info.token_endpoint_auth_method == "none"
    assert info.client_secret is None
    assert "client_secret" not in answer.json()
    assert answer.json()["redirect_uris"] == [CLAUDE]
    assert answer.json()["client_id_issued_at"] == int(one.clock.now().timestamp())
    assert answer.json()["grant_types"] == ["authorization_code", "refresh_token"]
    assert answer.json()["scope"] == "read write"


async def test_the_same_client_gets_the_same_id_wherever_it_comes_from(one):
    first = await one.browser("160.79.106.34").register()
    one.clock.turn(5)
    second = await one.browser("160.79.106.36").register()
    other = await one.browser().register(client_name="Another")
    assert first["client_id"] == second["client_id"]
    assert other["client_id"] != first["client_id"]


async def test_another_server_gives_the_same_client_another_id(one, tmp_path):
    first = await one.browser().register()
    with host(tmp_path / "other", public_url="https://other.example") as other:
        second = await other.browser().register()
    assert first["client_id"] != second["client_id"]


async def test_claude_code_registers_with_its_port(one):
    answer = await one.browser(redirect="http://localhost:51234/callback").register(
        token_endpoint_auth_method="none", application_type="native"
    )
    assert answer["redirect_uris"] == ["http://localhost:51234/callback"]
    assert answer["application_type"] == "native"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"redirect_uris": ["https://evil.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": [CLAUDE, "https://evil.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": None}, "invalid_redirect_uri"),
        ({"redirect_uris": CLAUDE}, "invalid_redirect_uri"),
        ({"redirect_uris": [7]}, "invalid_redirect_uri"),
        ({"redirect_uris": [[CLAUDE]]}, "invalid_redirect_uri"),
        ({"redirect_uris": [f"http://localhost:{n}/" for n in range(9)]}, "invalid_redirect_uri"),
        ({"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        ({"grant_types": "authorization_code"}, "invalid_client_metadata"),
    ],
)
async def test_what_does_not_fit_is_refused(one, change, error):
    answer = await one.browser().http.post("/oauth/register", json={**CLAUDES, **change})
    assert answer.status_code == 400
    assert answer.json()["error"] == error
    assert answer.json()["error_description"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 50_000, b'{"redirect_uris": NaN}', b'"a"']
)
async def test_what_is_no_json_object_is_refused(one, body):
    answer = await one.browser().http.post("/oauth/register", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"] in {"invalid_client_metadata", "invalid_redirect_uri"}


async def test_a_large_body_is_not_read(one):
    answer = await one.browser().http.post("/oauth/register", content=b"{" + b" " * (64 << 10) + b"}")
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Claude\x00\x1b[31m\u202egnp.exe", "Claudegnp.exe"),
        ("Claude\n\nThe owner has\tapproved this.", "Claude The owner has approved this."),
        ("x" * 500, "x" * 59 + "…"),
        ("", "A client without a name"),
        ("\u200b\u200b", "A client without a name"),
        (None, "A client without a name"),
        ({"a": 1}, "A client without a name"),
        ("half \ud83d a pair", "half a pair"),
        ("Claude é 日本", "Claude é 日本"),
    ],
)
async def test_names_are_made_harmless(one, name, shown):
    body = json.dumps({**CLAUDES, "client_name": name})
    answer = await one.browser().http.post("/oauth/register", content=body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["client_name"] == shown


async def test_ten_thousand_registrations_fill_nothing_and_push_nobody_out(one, tmp_path):
    known, tokens = await one.browser().log_in()
    before = (tmp_path / "logins.db").stat().st_size
    # Each from a network of its own, as no rate by address would stop; the ids of the last are good.
    body = {**CLAUDES, "redirect_uris": ["http://localhost:1/cb"]}
    last = ""
    store = one.login._store
    from dualmem_mcp.remote.oauth.registration import MOST_UNUSED, register

    with store._database.write() as connection:  # 9,900 of them at once; each with its fsync would take a minute
        for number in range(9_900):
            kept, _ = register({**body, "client_name": f"flood {number}"}, one.options, number)
            connection.execute(
                "INSERT INTO clients VALUES (?, ?, ?, ?, ?)", (kept.client_id, kept.name, "[]", number, number)
            )
    for number in range(100):
        address = f"2001:db8:{number:x}::1"
        answer = await one.browser(address).http.post("/oauth/register", json={**body, "client_name": f"n{number}"})
        assert answer.status_code == 201
        last = answer.json()["client_id"]
    with store._database.read() as connection:
        (count,) = connection.execute("SELECT count(*) FROM clients").fetchone()
    assert count == MOST_UNUSED + 1
    store._database.empty_log()
    assert (tmp_path / "logins.db").stat().st_size < before + (4 << 20)
    assert (await one.browser().refresh(known, tokens["refresh_token"])).status_code == 200
    assert (await one.browser().page(known)).status_code == 200
    assert (await one.browser(redirect="http://localhost:1/cb").page(last)).status_code == 200


async def test_registrations_from_one_network_are_limited(one):
    browsers = [one.browser(f"2001:db8:1:2::{number:x}") for number in range(40)]
    answers = [await browser.http.post("/oauth/register", json=CLAUDES) for browser in browsers]
    assert [answer.status_code for answer in answers] == [201] * 30 + [429] * 10
    assert int(answers[-1].headers["retry-after"]) > 0
    assert (await one.browser("198.51.100.9").http.post("/oauth/register", json=CLAUDES)).status_code == 201
    one.clock.turn(30)
    assert (await browsers[0].http.post("/oauth/register", json=CLAUDES)).status_code == 201


async def test_what_the_user_added_can_be_registered(tmp_path):
    uri = "cursor://anysphere.cursor-mcp/oauth/callback"
    with host(tmp_path, extra_redirects=(uri,)) as made:
        assert (await made.browser(redirect=uri).register())["redirect_uris"] == [uri]
