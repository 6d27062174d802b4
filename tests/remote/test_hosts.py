"""Names and origins: what a page that points its own name at this machine can reach, which is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualmem_mcp.remote.hosts import AllowedHosts, forwarded_client, is_loopback
from dualmem_mcp.remote.options import RemoteOptions
from tests.remote.http_host import AUTHORIZED, listening

PUBLIC = RemoteOptions("https://memory.example")
LOCAL = RemoteOptions("http://localhost:8787")


def refused(options: RemoteOptions, path: str = "/mcp", **headers: str) -> int | None:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    refusal = AllowedHosts(options).refusal(pairs, path)
    return refusal.status if refusal else None


@pytest.mark.parametrize("host", ["memory.example", "MEMORY.example", "memory.example:443", "memory.example."])
def test_the_public_name_in_every_spelling(host: str) -> None:
    assert refused(PUBLIC, host=host) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "memory.example.evil.example",
        "evil.memory.example",
        "memory.example:8787",
        "memory.example@evil.example",
        "memory.example:443:443",
        "localhost",
        "127.0.0.1",
        "[::1]",
        "memory.example:",
        "memory.example:443x",
        "memory.example:" + "4" * 5_000,
        "m\xe9mory.example",
    ],
)
def test_any_other_name_is_misdirected(host: str) -> None:
    assert refused(PUBLIC, host=host) == 421


@pytest.mark.parametrize("host", ["localhost:8787", "127.0.0.1:8787", "[::1]:8787"])
def test_on_this_machine_all_its_names_are_good(host: str) -> None:
    assert refused(LOCAL, host=host, origin=f"http://{host}") is None


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "127.0.0.2:8787", "evil.example:8787"])
def test_a_rebound_name_on_this_machine_is_misdirected(host: str) -> None:
    assert refused(LOCAL, host=host) == 421


def test_exactly_one_host() -> None:
    hosts = AllowedHosts(PUBLIC)
    for headers in ([], [(b"host", b"memory.example"), (b"host", b"memory.example")]):
        refusal = hosts.refusal(headers, "/mcp")
        assert refusal is not None
        assert (refusal.status, refusal.ends_connection) == (400, True)


@pytest.mark.parametrize(
    "origin", ["https://memory.example", "https://claude.ai", "https://claude.com", "https://claude.ai:443"]
)
def test_pages_that_may_ask(origin: str) -> None:
    assert refused(PUBLIC, host="memory.example", origin=origin) is None


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://memory.example",
        "https://memory.example.evil.example",
        "https://evil.example",
        "https://evil.example/https://claude.ai",
        "https://claude.ai.evil.example",
        "https://claude.ai@evil.example",
        "http://localhost:8787",
        "https://memory.example:bad",
        "chrome-extension://abcdef",
    ],
)
def test_pages_that_may_not(origin: str) -> None:
    assert refused(PUBLIC, host="memory.example", origin=origin) == 403


def test_two_origins_are_none() -> None:
    headers = [(b"host", b"memory.example"), (b"origin", b"https://claude.ai"), (b"origin", b"https://claude.ai")]
    refusal = AllowedHosts(PUBLIC).refusal(headers, "/mcp")
    assert refusal is not None
    assert refusal.status == 403


def test_public_documents_are_for_pages_of_any_origin() -> None:
    path = "/.well-known/oauth-protected-resource/mcp"
    assert refused(PUBLIC, path, host="memory.example", origin="https://inspector.example") is None
    assert refused(PUBLIC, path, host="evil.example", origin="https://inspector.example") == 421


def test_what_the_user_adds() -> None:
    options = RemoteOptions(
        "https://memory.example",
        extra_hosts=("Other.example", "third.example:8443"),
        extra_origins=("http://localhost:6274/",),
    )
    assert refused(options, host="other.example", origin="http://localhost:6274") is None
    assert refused(options, host="third.example:8443") is None
    assert refused(options, host="third.example") == 421
    assert refused(options, host="other.example", origin="http://localhost:6275") == 403


def test_what_is_refused_is_told_once_each_and_not_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    hosts = AllowedHosts(PUBLIC)
    for number in range(100):
        for _ in range(2):
            hosts.refusal([(b"host", b"name%d\x1b[31m.example" % number)], "/mcp")
    assert len(caplog.messages) == 8
    assert "remote.hosts" in caplog.messages[0]
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ([b"203.0.113.7"], "203.0.113.7"),
        ([b"198.51.100.1, 203.0.113.7"], "203.0.113.7"),  # what stands before it, the client may have sent
        ([b"198.51.100.1", b"203.0.113.7:4711"], "203.0.113.7"),
        ([b"2001:db8::7"], "2001:db8::7"),
        ([b"[2001:db8::7]:4711"], "2001:db8::7"),
        ([b"203.0.113.7, unknown"], None),
        ([b""], None),
        ([b"x" * 10_000], None),
        ([], None),
    ],
)
def test_the_address_that_the_proxy_saw(values: list[bytes], address: str | None) -> None:
    assert forwarded_client([(b"x-forwarded-for", value) for value in values]) == address


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("memory.example", False),
        ("", False),
    ],
)
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


# Over the wire


async def test_a_rebound_page_reaches_nothing(tmp_path: Path) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        for path in ("/mcp", "/sse", "/messages", "/", "/login", "/.well-known/oauth-authorization-server"):
            answer = await client.post(path, headers={"Host": "evil.example", **AUTHORIZED})
            assert answer.status_code == 421, path
        answer = await client.post("/mcp", headers={"Origin": "http://evil.example", **AUTHORIZED})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
        assert host.tenant.seen == []


async def test_the_proxys_word_for_the_client_counts_only_on_loopback(tmp_path: Path) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        headers = {**AUTHORIZED, "X-Forwarded-For": "198.51.100.1, 203.0.113.7", "X-Forwarded-Host": "evil.example"}
        answer = await client.post("/mcp", content=b"{}", headers=headers)
        assert answer.json()["client"] == "203.0.113.7"
        answer = await client.post(
            "/mcp", headers={**headers, "Host": "evil.example", "X-Forwarded-Host": "memory.example"}
        )
        assert answer.status_code == 421
