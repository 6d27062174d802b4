"""The whole way of a client: registered, let in by the passphrase, its tokens, and their end."""

from __future__ import annotations

from tests.remote.oauth.hosts import CLAUDE, URL, answered


async def test_a_client_registers_is_let_in_and_is_a_caller(one):
    browser = one.browser()
    registered = await browser.register()

    page = await browser.page(registered["client_id"])
    assert page.status_code == 200
    answer = await browser.submit(page)

    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"{CLAUDE}?")
    back = answered(answer)
    assert back["state"] == "a state/+"
    assert back["iss"] == URL

    tokens = (await browser.exchange(registered["client_id"], back["code"])).json()
    caller = one.login.caller(tokens["access_token"])

    assert caller is not None
    assert caller.grant.scopes == {"read", "write"}
    assert caller.grant.user == "owner"
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 3600
    assert tokens["scope"] == "read write"
