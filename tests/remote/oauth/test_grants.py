"""Refresh tokens that rotate, callers, and what ends both."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import pytest

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.oauth.grants import REFRESH_SECONDS
from dualmem_mcp.remote.oauth.login import Login
from dualmem_mcp.stores.login_store import open_logins
from tests.remote.oauth.hosts import Users, host

OWNER = UserId("owner")


async def test_a_refresh_gives_new_tokens_and_the_access_token_before_stays_good(one):
    browser = one.browser()
    client_id, first = await browser.log_in()
    second = (await browser.refresh(client_id, first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    assert second["scope"] == "read write"
    for tokens in (first, second):
        assert one.login.caller(tokens["access_token"]) is not None


async def test_the_very_same_refresh_gets_the_very_same_answer_for_a_moment(one):
    browser = one.browser()
    client_id, first = await browser.log_in()
    second = (await browser.refresh(client_id, first["refresh_token"])).json()
    one.clock.turn(7)
    again = (await browser.refresh(client_id, first["refresh_token"])).json()
    assert again == {**second, "expires_in": 3593}
    assert (await browser.refresh(client_id, second["refresh_token"])).status_code == 200


async def test_many_that_refresh_at_once_share_one_good_chain(one):
    browser = one.browser()
    client_id, first = await browser.log_in()
    answers = await asyncio.gather(*(browser.refresh(client_id, first["refresh_token"]) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    (refresh,) = {answer.json()["refresh_token"] for answer in answers}
    assert (await browser.refresh(client_id, refresh)).status_code == 200


async def test_a_used_refresh_token_that_comes_late_ends_the_login(one):
    browser = one.browser()
    client_id, first = await browser.log_in()
    second = (await browser.refresh(client_id, first["refresh_token"])).json()
    one.clock.turn(31)
    late = await browser.refresh(client_id, first["refresh_token"])
    assert (late.status_code, late.json()["error"]) == (400, "invalid_grant")
    assert one.login.caller(second["access_token"]) is None
    assert (await browser.refresh(client_id, second["refresh_token"])).status_code == 400
    assert one.login.connections(OWNER) == []


async def test_a_used_refresh_token_ends_the_login_at_once_when_its_successor_was_used(one):
    browser = one.browser()
    client_id, first = await browser.log_in()
    second = (await browser.refresh(client_id, first["refresh_token"])).json()
    third = (await browser.refresh(client_id, second["refresh_token"])).json()
    assert (await browser.refresh(client_id, first["refresh_token"])).status_code == 400
    assert one.login.caller(third["access_token"]) is None


@pytest.mark.parametrize("thief_first", [True, False])
async def test_a_stolen_refresh_token_is_of_use_until_the_next_refresh_of_the_two(one, thief_first):
    owner, thief = one.browser(), one.browser("198.51.100.66")
    client_id, stolen = await owner.log_in()
    one.clock.turn(3_000)
    first, second = (thief, owner) if thief_first else (owner, thief)
    taken = (await first.refresh(client_id, stolen["refresh_token"])).json()
    one.clock.turn(3_000)
    assert (await second.refresh(client_id, stolen["refresh_token"])).status_code == 400
    assert one.login.caller(taken["access_token"]) is None
    assert (await first.refresh(client_id, taken["refresh_token"])).status_code == 400


async def test_a_thief_within_the_moment_shares_the_chain_and_is_found_out_at_the_next_refresh(one):
    owner, thief = one.browser(), one.browser("198.51.100.66")
    client_id, stolen = await owner.log_in()
    owners = (await owner.refresh(client_id, stolen["refresh_token"])).json()
    one.clock.turn(2)
    thiefs = (await thief.refresh(client_id, stolen["refresh_token"])).json()
    assert thiefs["refresh_token"] == owners["refresh_token"]
    one.clock.turn(3_500)
    next_one = (await thief.refresh(client_id, thiefs["refresh_token"])).json()
    one.clock.turn(60)
    assert (await owner.refresh(client_id, owners["refresh_token"])).status_code == 400
    assert one.login.caller(next_one["access_token"]) is None


async def test_after_a_restart_a_retry_gets_nothing_and_accuses_nobody(one):
    browser = one.browser()
    client_id, first = await browser.log_in()
    second = (await browser.refresh(client_id, first["refresh_token"])).json()
    one.login = Login(one.login._store, one.users, one.options, one.clock, monotonic=one.clock.monotonic)
    browser = one.browser()
    one.clock.turn(5)
    assert (await browser.refresh(client_id, first["refresh_token"])).status_code == 400
    assert one.login.caller(second["access_token"]) is not None
    one.clock.turn(60)
    assert (await browser.refresh(client_id, first["refresh_token"])).status_code == 400
    assert one.login.caller(second["access_token"]) is None


async def test_reuse_is_noticed_after_the_clock_was_set_back(one):
    browser = one.browser()
    client_id, first = await browser.log_in()
    second = (await browser.refresh(client_id, first["refresh_token"])).json()
    one.clock.seconds += 60
    one.clock.at -= timedelta(days=1)
    assert (await browser.refresh(client_id, first["refresh_token"])).status_code == 400
    assert one.login.caller(second["access_token"]) is None


async def test_another_client_gets_nothing_for_a_refresh_token(one):
    browser = one.browser()
    client_id, tokens = await browser.log_in()
    other = str((await browser.register(client_name="Another"))["client_id"])
    assert (await browser.refresh(other, tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await browser.refresh(client_id, tokens["refresh_token"])).status_code == 200


async def test_tokens_are_not_taken_for_each_other(one):
    browser = one.browser()
    client_id, tokens = await browser.log_in()
    assert one.login.caller(tokens["refresh_token"]) is None
    assert (await browser.refresh(client_id, tokens["access_token"])).status_code == 400


@pytest.mark.parametrize("part", [1, 2, 3])
async def test_a_token_of_which_a_part_is_another_is_unknown(one, part):
    browser = one.browser()
    client_id, tokens = await browser.log_in()
    _, others = await browser.log_in()
    for kind in ("access_token", "refresh_token"):
        parts, other = tokens[kind].split("."), others[kind].split(".")
        parts[part] = "other" if part == 1 else other[part]
        mixed = ".".join(parts)
        assert one.login.caller(mixed) is None
        assert (await browser.refresh(client_id, mixed)).status_code == 400
    assert one.login.caller(tokens["access_token"]) is not None


async def test_an_access_token_ends_after_an_hour_and_a_refresh_token_unused_for_thirty_days(one):
    browser = one.browser()
    client_id, tokens = await browser.log_in()
    one.clock.turn(3_599)
    assert one.login.caller(tokens["access_token"]) is not None
    one.clock.turn(1)
    assert one.login.caller(tokens["access_token"]) is None
    one.clock.turn(REFRESH_SECONDS - 3_601)
    tokens = (await browser.refresh(client_id, tokens["refresh_token"])).json()
    one.clock.turn(REFRESH_SECONDS)
    assert (await browser.refresh(client_id, tokens["refresh_token"])).status_code == 400
    assert one.login.connections(OWNER) == []


async def test_a_login_in_use_goes_on_for_longer_than_thirty_days(one):
    browser = one.browser()
    client_id, tokens = await browser.log_in()
    for _ in range(6):
        one.clock.turn(20 * 86_400)
        tokens = (await browser.refresh(client_id, tokens["refresh_token"])).json()
    assert one.login.caller(tokens["access_token"]) is not None
    (connection,) = one.login.connections(OWNER)
    assert (connection.used_at - connection.granted_at).days == 120


async def test_tokens_of_another_public_url_are_not_good(one):
    browser = one.browser()
    client_id, tokens = await browser.log_in()
    moved = dataclasses.replace(one.options, public_url="https://moved.example")
    login = Login(one.login._store, one.users, moved, one.clock, monotonic=one.clock.monotonic)
    assert login.caller(tokens["access_token"]) is None
    one.login, one.options = login, moved
    assert (await one.browser().refresh(client_id, tokens["refresh_token"])).status_code in {400, 401}


async def test_a_revocation_of_another_process_is_seen_within_a_second(one):
    _, tokens = await one.browser().log_in()
    assert one.login.caller(tokens["access_token"]) is not None
    with open_logins(one.folder, choice="file") as other:
        assert other.revoke() == 1
    one.clock.turn(1)
    assert one.login.caller(tokens["access_token"]) is None


async def test_a_revocation_on_a_page_is_seen_at_once_and_only_by_its_user(tmp_path):
    users = Users({"anna": ("a", b"a" * 32), "ben": ("b", b"b" * 32)})
    with host(tmp_path, users=users) as made:
        browser = made.browser()
        anna = (await browser.log_in(name="anna", passphrase="a"))[1]["access_token"]
        ben = (await browser.log_in(name="ben", passphrase="b"))[1]["access_token"]
        (connection,) = made.login.connections(UserId("anna"))
        assert (connection.name, connection.redirect_host) == ("Claude", "claude.ai")
        assert connection.granted_at == made.clock.now()
        assert not made.login.revoke(UserId("ben"), connection.grant_id)
        assert made.login.caller(anna).secret == b"a" * 32
        assert made.login.revoke(UserId("anna"), connection.grant_id)
        assert made.login.caller(anna) is None
        assert made.login.caller(ben).secret == b"b" * 32
        assert made.login.revoke(UserId("ben"))
        assert made.login.caller(ben) is None


async def test_a_caller_that_is_known_costs_no_look_at_the_disk(one, monkeypatch):
    _, tokens = await one.browser().log_in()
    caller = one.login.caller(tokens["access_token"])
    looked = []
    monkeypatch.setattr(one.login._store, "token", lambda *_: looked.append(1))
    monkeypatch.setattr(one.login._store, "revision", lambda: looked.append(2))
    for _ in range(50):
        assert one.login.caller(tokens["access_token"]) is caller
    assert looked == []


async def test_what_opens_a_users_data_home_is_forgotten_when_it_is_closed(tmp_path):
    secrets = {"anna": bytes(range(32)), "ben": bytes(range(50, 82))}
    users = Users({name: (name, secret) for name, secret in secrets.items()})
    with host(tmp_path, users=users) as made:
        browser = made.browser()
        tokens = {}
        for name in secrets:
            client_id, first = await browser.log_in(name=name, passphrase=name)
            tokens[name] = (await browser.refresh(client_id, first["refresh_token"])).json()
            await browser.code(client_id, name=name, passphrase=name)  # never fetched
            assert made.login.caller(tokens[name]["access_token"])
        made.clock.turn(60)
        made.login.forget(UserId("anna"))
        grants, codes = made.login._grants, made.login._codes
        assert [one.grant.user for one in grants._callers.values()] == ["ben"]
        assert grants._answers == {}
        assert codes._open == {}
        for name, secret in secrets.items():
            assert made.login.caller(tokens[name]["access_token"]).secret == secret


async def test_no_token_is_good_or_bad_while_the_store_cannot_be_read(one, monkeypatch):
    _, tokens = await one.browser().log_in()
    assert one.login.caller(tokens["access_token"])
    revision = one.login._store.revision

    def away() -> int:
        raise StoreUnreachableError("logins.db cannot be read", operation="read logins")

    monkeypatch.setattr(one.login._store, "revision", away)
    one.clock.turn(1)
    for _ in range(2):
        with pytest.raises(StoreUnreachableError):
            one.login.caller(tokens["access_token"])
    monkeypatch.setattr(one.login._store, "revision", revision)
    assert one.login.caller(tokens["access_token"])


async def test_what_has_ended_is_forgotten_though_nobody_comes(tmp_path):
    with host(tmp_path, users=Users({"anna": ("a", b"a" * 32)})) as made:
        browser = made.browser()
        client_id, first = await browser.log_in(name="anna", passphrase="a")
        second = (await browser.refresh(client_id, first["refresh_token"])).json()
        await browser.code(client_id, name="anna", passphrase="a")  # never fetched
        assert made.login.caller(second["access_token"])
        grants, codes = made.login._grants, made.login._codes
        made.clock.turn(59)
        made.login.forget_ended()
        assert (len(grants._callers), len(grants._answers), len(codes._open)) == (1, 0, 1)
        made.clock.turn(3_600)
        made.login.forget_ended()
        assert (grants._callers, codes._open) == ({}, {})


async def test_what_is_kept_on_the_disk_opens_nothing(tmp_path):
    secret = bytes(range(100, 132))
    with host(tmp_path, users=Users({"anna": ("a", secret)})) as made:
        browser = made.browser()
        client_id, first = await browser.log_in(name="anna", passphrase="a")
        second = (await browser.refresh(client_id, first["refresh_token"])).json()
        with made.login._store._database.read() as connection:
            rows = [
                bytes(value) if isinstance(value, bytes) else str(value).encode()
                for table in ("state", "clients", "grants", "tokens")
                for row in connection.execute(f"SELECT * FROM {table}").fetchall()
                for value in row
            ]
        everything = b"\n".join(rows)
        for tokens in (first, second):
            for kind in ("access_token", "refresh_token"):
                assert tokens[kind].encode() not in everything
                assert tokens[kind].rpartition(".")[2].encode() not in everything
        assert secret not in everything
        assert made.login.caller(second["access_token"]).secret == secret


@pytest.mark.parametrize("token", ["", "Bearer x", "dm1.owner." + "A" * 22 + "." + "B" * 43, "\ud800", "é" * 90])
async def test_what_is_no_token_is_nobody(one, token):
    assert one.login.caller(token) is None
