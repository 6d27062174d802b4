"""/oauth/token and /oauth/revoke: what codes and refresh tokens give, and to whom not."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from mcp.shared.auth import OAuthToken

from dualmem_mcp.errors import StoreUnreachableError
from tests.remote.oauth.hosts import URL


async def prepared(one, **other):
    browser = one.browser(**other)
    client_id = str((await browser.register())["client_id"])
    return browser, client_id, await browser.code(client_id)


async def test_tokens_are_answered_as_the_specification_says(one):
    browser, client_id, code = await prepared(one)
    answer = await browser.exchange(client_id, code, resource=f"{URL}/mcp")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    token = OAuthToken.model_validate_json(answer.content)
    assert (token.token_type, token.expires_in, token.scope) == ("Bearer", 3600, "read write")
    assert token.refresh_token != token.access_token


async def test_a_code_used_twice_gives_nothing_and_ends_what_it_gave(one):
    browser, client_id, code = await prepared(one)
    tokens = (await browser.exchange(client_id, code)).json()
    assert one.login.caller(tokens["access_token"]) is not None
    again = await browser.exchange(client_id, code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert one.login.caller(tokens["access_token"]) is None
    assert (await browser.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_code_used_twice_at_once_gives_nothing(one):
    browser, client_id, code = await prepared(one)
    answers = await asyncio.gather(*(browser.exchange(client_id, code) for _ in range(5)))
    given = [answer.json()["access_token"] for answer in answers if answer.status_code == 200]
    assert len(given) <= 1
    assert [one.login.caller(token) for token in given] == [None] * len(given)
    assert one.login.connections("owner") == []


@pytest.mark.parametrize(("seconds", "status"), [(59, 200), (60, 400), (3_600, 400)])
async def test_a_code_is_good_for_a_minute(one, seconds, status):
    browser, client_id, code = await prepared(one)
    one.clock.turn(seconds)
    assert (await browser.exchange(client_id, code)).status_code == status


@pytest.mark.parametrize(
    "change",
    [
        {"code_verifier": secrets.token_urlsafe(48)},
        {"code_verifier": ""},
        {"code_verifier": "short"},
        {"code_verifier": "é" * 50},
        {"redirect_uri": "https://claude.com/api/mcp/auth_callback"},
        {"redirect_uri": ""},
        {"code": "x" * 43},
        {"code": ""},
    ],
)
async def test_a_code_with_anything_else_than_its_own_gives_nothing(one, change):
    browser, client_id, code = await prepared(one)
    answer = await browser.exchange(client_id, **{"code": code, **change})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


async def test_a_code_without_its_verifier_is_used_up_by_the_attempt(one):
    browser, client_id, code = await prepared(one)
    await browser.exchange(client_id, code, code_verifier=secrets.token_urlsafe(48))
    assert (await browser.exchange(client_id, code)).status_code == 400


async def test_a_code_put_into_another_login_gives_nothing(one):
    """Code injection: the victim's client exchanges it with the verifier of its own login."""
    thief, _, code = await prepared(one)
    victim = one.browser()
    client_id = str((await victim.register())["client_id"])
    assert thief.verifier != victim.verifier
    answer = await victim.exchange(client_id, code)
    assert answer.json()["error"] == "invalid_grant"


async def test_a_code_of_another_client_gives_nothing(one):
    browser, _, code = await prepared(one)
    other = str((await browser.register(client_name="Another"))["client_id"])
    answer = await browser.exchange(other, code)
    assert answer.json()["error"] == "invalid_grant"


@pytest.mark.parametrize("client_id", ["dm-unknown", "x" * 3_000, "http://claude.ai/x"])
@pytest.mark.parametrize("grant_type", ["authorization_code", "refresh_token"])
async def test_an_unknown_client_is_told_to_register_again(one, client_id, grant_type):
    answer = await one.browser().token(client_id, grant_type=grant_type, code="x", refresh_token="x")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_a_request_without_client_is_refused(one):
    answer = await one.browser().http.post("/oauth/token", data={"grant_type": "refresh_token"})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("resource", ["https://other.example/mcp", "", f"{URL}.evil.example/mcp"])
async def test_tokens_for_another_resource_are_not_given(one, resource):
    browser, client_id, code = await prepared(one)
    answer = await browser.exchange(client_id, code, resource=resource)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_target")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "password", "username": "a", "password": "b"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token"}, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, "invalid_grant"),
        ({"grant_type": "authorization_code"}, "invalid_grant"),
    ],
)
async def test_what_does_not_fit_is_refused(one, fields, error):
    browser = one.browser()
    client_id = str((await browser.register())["client_id"])
    answer = await browser.token(client_id, **fields)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"client_id=a&client_id=b", "application/x-www-form-urlencoded", 400),
        (b"client_id=%ff", "application/x-www-form-urlencoded", 400),
        (b"client_id=\xff", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a%d=1" % n for n in range(50)), "application/x-www-form-urlencoded", 400),
        (b'{"grant_type": "refresh_token"}', "application/json", 400),
        (b"a=" + b"x" * (64 << 10), "application/x-www-form-urlencoded", 413),
    ],
)
async def test_what_is_no_form_is_refused(one, body, kind, status):
    answer = await one.browser().http.post("/oauth/token", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.json()["error"] == "invalid_request"


async def test_failures_from_one_address_are_limited(one):
    browser = one.browser()
    statuses = [(await browser.token("dm-unknown", grant_type="refresh_token")).status_code for _ in range(70)]
    assert statuses == [401] * 60 + [429] * 10
    one.clock.turn(60)
    other, client_id, code = await prepared(one, address="198.51.100.3")
    assert (await other.exchange(client_id, code)).status_code == 200


async def test_a_store_that_is_away_is_told_as_such(one, monkeypatch):
    browser, client_id, code = await prepared(one)

    def away(*_):
        raise StoreUnreachableError("logins.db cannot be read or written")

    monkeypatch.setattr(one.login._store, "add_grant", away)
    answer = await browser.exchange(client_id, code)
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert answer.headers["retry-after"] == "10"


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_a_client_can_end_its_own_login(one, kind):
    browser = one.browser()
    client_id, tokens = await browser.log_in()
    answer = await browser.http.post("/oauth/revoke", data={"client_id": client_id, "token": tokens[kind]})
    assert answer.status_code == 200
    assert one.login.caller(tokens["access_token"]) is None
    assert (await browser.refresh(client_id, tokens["refresh_token"])).status_code == 400


async def test_nobody_ends_anothers_login(one):
    browser = one.browser()
    _, tokens = await browser.log_in()
    other = str((await browser.register(client_name="Another"))["client_id"])
    for token in (tokens["access_token"], tokens["refresh_token"][:-1] + "A", "x", ""):
        answer = await browser.http.post("/oauth/revoke", data={"client_id": other, "token": token})
        assert answer.status_code == 200
    assert one.login.caller(tokens["access_token"]) is not None
