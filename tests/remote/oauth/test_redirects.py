"""Where a login may lead to."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.remote.oauth.redirects import allowed_redirect, is_registered, parse_redirect

CLAUDE = "https://claude.ai/api/mcp/auth_callback"


@pytest.mark.parametrize(
    "uri",
    [
        CLAUDE,
        "https://claude.com/api/mcp/auth_callback",
        "http://localhost:33418/callback",
        "http://127.0.0.1:1/",
        "http://127.0.0.1/callback?a=b",
        "http://[::1]:8080/cb",
        "http://localhost",
    ],
)
def test_claude_and_programs_on_the_device_are_allowed(uri):
    assert allowed_redirect(uri, ()) is not None


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/callback",
        "https://claude.ai/api/mcp/auth_callback/",
        "https://claude.ai/api/mcp/auth_callback?x=1",
        "https://claude.ai.evil.example/api/mcp/auth_callback",
        "https://claude.ai@evil.example/api/mcp/auth_callback",
        "https://evil.example#https://claude.ai/api/mcp/auth_callback",
        "HTTPS://claude.ai/api/mcp/auth_callback",
        "https://claude.ai/api/mcp/auth_callback\n",
        "http://claude.ai/api/mcp/auth_callback",
        "http://localhost.evil.example/cb",
        "http://localhost@evil.example/cb",
        "http://localhost:80@evil.example/cb",
        "http://localhost\\@evil.example/cb",
        "http://127.0.0.2/cb",
        "http://0.0.0.0/cb",
        "http://2130706433/cb",
        "http://localhost/cb#fragment",
        "http://localhost:port/cb",
        "http://localhost:123456/cb",
        "http://localhost/<script>",
        "http://localhost/ cb",
        "http://localhost/$(id)",
        "http://localhost/`id`",
        "http://localhost/a'b",
        'http://localhost/a"b',
        "https://localhost/cb",
        "//localhost/cb",
        "localhost:80/cb",
        "javascript:alert(1)",
        "javascript://localhost/%0aalert(1)",
        "data:text/html,hello",
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "",
        "http://localhost/" + "a" * 512,
        "http://lоcalhost/cb",
    ],
)
def test_anything_else_is_not(uri):
    assert allowed_redirect(uri, ()) is None


@pytest.mark.parametrize("uri", ["cursor://anysphere.cursor-mcp/oauth/callback", "https://own.example/cb"])
def test_what_the_user_added_is_allowed_as_it_stands(uri):
    assert allowed_redirect(uri, (uri,)) is not None
    assert allowed_redirect(uri + "/", (uri,)) is None


@pytest.mark.parametrize("uri", ["javascript://x/%0aalert(1)", "https://a b/", "data://x/y", "file://x/y"])
def test_what_browsers_would_run_is_not_allowed_even_if_it_was_added(uri):
    assert allowed_redirect(uri, (uri,)) is None


@pytest.mark.parametrize(
    ("asked", "registered", "fits"),
    [
        ("http://localhost:5000/callback", "http://localhost:4000/callback", True),
        ("http://localhost:5000/callback", "http://localhost/callback", True),
        ("http://localhost:5000/callback", "http://127.0.0.1/callback", False),
        ("http://localhost:5000/other", "http://localhost/callback", False),
        ("http://localhost:5000/callback?x=1", "http://localhost/callback", False),
        (CLAUDE, CLAUDE, True),
        (CLAUDE, "https://claude.com/api/mcp/auth_callback", False),
        ("https://own.example:444/cb", "https://own.example/cb", False),
    ],
)
def test_only_the_port_of_a_program_on_the_device_may_differ(asked, registered, fits):
    assert is_registered(parse_redirect(asked), [registered]) is fits


@given(
    st.builds(
        "".join,
        st.lists(
            st.sampled_from(["http", "https", ":", "/", "@", "#", "?", "\\", "localhost", "[::1]", "evil.example"])
            | st.characters(max_codepoint=0x2FF),
            max_size=12,
        ),
    )
)
def test_every_reader_of_addresses_sees_the_same_host(uri):
    redirect = parse_redirect(uri)
    if redirect is None:
        return
    for host in (urlsplit(uri).hostname, httpx2.URL(uri).host):
        assert host == redirect.host.strip("[]").lower()
    assert not urlsplit(uri).fragment
    assert urlsplit(uri).username is None


@pytest.mark.parametrize("uri", ["http://localhost/cb", "http://localhost/cb?kept=1", "http://localhost"])
def test_parameters_are_added_to_what_is_there(uri):
    made = parse_redirect(uri).with_parameters([("code", "a&b=c"), ("state", "é #")])
    assert made.startswith(uri)
    assert parse_qs(urlsplit(made).query) == {
        **({"kept": ["1"]} if "kept" in uri else {}),
        "code": ["a&b=c"],
        "state": ["é #"],
    }


def test_a_person_is_shown_host_and_port():
    assert parse_redirect("http://localhost:5000/cb").place == "localhost:5000"
    assert parse_redirect(CLAUDE).place == "claude.ai"
    assert parse_redirect("cursor://anysphere.cursor-mcp/cb").place == "cursor://anysphere.cursor-mcp"
