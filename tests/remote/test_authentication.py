"""Tokens: who is let in, and what everybody else is told to do."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.authentication import Authentication
from dualmem_mcp.remote.interfaces import CALLER_KEY, Caller
from dualmem_mcp.remote.options import RemoteOptions
from tests.remote.http_host import AUTHORIZED, CALLER, TOKEN, KnownCallers, listening

OPTIONS = RemoteOptions("https://memory.example")
WELL_KNOWN = "https://memory.example/.well-known/oauth-protected-resource"


def scope_of(*values: str, path: str = "/mcp") -> dict:
    return {"path": path, "headers": [(b"authorization", value.encode("latin-1")) for value in values]}


@pytest.fixture
def callers() -> KnownCallers:
    return KnownCallers()


@pytest.fixture
def authentication(callers: KnownCallers) -> Authentication:
    return Authentication(callers, OPTIONS)


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN}"])
def test_a_good_token_lets_in(authentication: Authentication, value: str) -> None:
    scope = scope_of(value)
    assert authentication.admit(scope) is None
    assert scope[CALLER_KEY] is CALLER


def test_without_a_token_the_answer_says_where_to_log_in(authentication: Authentication) -> None:
    scope = scope_of()
    refusal = authentication.admit(scope)
    assert refusal is not None
    assert refusal.status == 401
    assert refusal.headers == (
        (b"www-authenticate", f'Bearer resource_metadata="{WELL_KNOWN}/mcp", scope="read write"'.encode()),
    )
    assert CALLER_KEY not in scope


def test_each_path_names_its_own_metadata(authentication: Authentication) -> None:
    refusal = authentication.admit(scope_of(path="/sse"))
    assert refusal is not None
    assert f'resource_metadata="{WELL_KNOWN}/sse"'.encode() in refusal.headers[0][1]


@pytest.mark.parametrize(
    "values",
    [
        ("",),
        ("Bearer",),
        ("Bearer ",),
        ("Basic dXNlcjpwYXNz",),
        (TOKEN,),
        (f"Bearer {TOKEN[:-1]}",),
        (f"Bearer {TOKEN} ",),
        (f"Bearer {TOKEN},{TOKEN}",),
        (f"Bearer {TOKEN}\xe9",),
        (f"Bearer {'A' * 100_000}",),
        (f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
        (f"Bearer {TOKEN}", "Bearer other"),
    ],
)
def test_a_bad_token_is_told_from_none(authentication: Authentication, values: tuple[str, ...]) -> None:
    scope = scope_of(*values)
    refusal = authentication.admit(scope)
    assert refusal is not None
    assert refusal.status == 401
    challenge = refusal.headers[0][1].decode()
    assert challenge.startswith('Bearer error="invalid_token", error_description="')
    assert TOKEN not in challenge
    assert CALLER_KEY not in scope


def test_a_token_that_allows_nothing_is_told_so(authentication: Authentication, callers: KnownCallers) -> None:
    callers.good["nothing"] = Caller(replace(CALLER.grant, scopes=frozenset()), b"")
    refusal = authentication.admit(scope_of("Bearer nothing"))
    assert refusal is not None
    assert refusal.status == 403
    assert b'error="insufficient_scope"' in refusal.headers[0][1]
    assert b'scope="read write"' in refusal.headers[0][1]


# Over the wire


async def test_no_request_gets_through_without_a_token(tmp_path: Path) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        for method, path in [
            ("GET", "/mcp"),
            ("POST", "/mcp"),
            ("DELETE", "/mcp"),
            ("GET", "/sse"),
            ("POST", "/messages"),
        ]:
            for wrong in ("", f"?access_token={TOKEN}", f"?token={TOKEN}"):
                answer = await client.request(method, path + wrong)
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"].startswith("Bearer resource_metadata=")
        answer = await client.post("/mcp", headers={"Cookie": f"__Host-dualmem={TOKEN}"}, content=b"{}")
        assert answer.status_code == 401
        assert host.tenant.seen == []


async def test_while_logins_cannot_be_checked_nobody_is_told_to_log_in(tmp_path: Path) -> None:
    async with listening(tmp_path) as host, host.client() as client:

        def away(_: str) -> Caller | None:
            raise StoreUnreachableError("logins.db cannot be read", operation="read logins")

        host.callers.caller = away
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read_graph"}}
        answer = await client.post("/mcp", headers=AUTHORIZED, json=call)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert "log in" not in answer.text
        assert "www-authenticate" not in answer.headers
        assert host.tenant.seen == []
        assert not Authentication(host.callers, OPTIONS).is_good(scope_of(f"Bearer {TOKEN}"))


async def test_a_body_is_not_waited_for_before_the_token_is_looked_at(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        head = "POST /mcp HTTP/1.1\r\nHost: memory.example\r\nContent-Length: 4000000\r\n\r\n"
        answer = await host.raw(head.encode(), seconds=1.0)
        assert answer.startswith(b"HTTP/1.1 401 ")


async def test_the_callers_own_principal_reaches_the_tenant(tmp_path: Path) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        other = Caller(replace(CALLER.grant, user=UserId("ann"), client_id="phone"), b"s" * 32)
        host.callers.good["other"] = other
        seen = (await client.post("/mcp", headers={"Authorization": "Bearer other"}, content=b"{}")).json()
        assert seen["user"] == "ann"
        seen = (await client.post("/mcp", headers=AUTHORIZED, content=b"{}")).json()
        assert seen["user"] == "owner"


async def test_the_secret_stands_in_no_answer_and_no_text(tmp_path: Path) -> None:
    assert not re.search(r"s{8}", repr(Caller(CALLER.grant, b"s" * 32)))
