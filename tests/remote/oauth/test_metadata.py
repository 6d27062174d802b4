"""The documents by which clients find the login."""

from __future__ import annotations

import pytest
from mcp.shared.auth import OAuthMetadata, ProtectedResourceMetadata
from mcp.shared.auth_utils import check_resource_allowed

from dualmem_mcp.errors import UsageError
from dualmem_mcp.remote.oauth.metadata import is_resource
from dualmem_mcp.remote.options import RemoteOptions, public_url
from tests.remote.oauth.hosts import URL

PROTECTED = "/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("path", "resource"),
    [("", "/mcp"), ("/mcp", "/mcp"), ("/sse", "/sse"), ("/messages", "/sse")],
)
async def test_the_resource_is_the_endpoint_that_the_client_was_given(one, path, resource):
    answer = await one.browser().http.get(f"{PROTECTED}{path}")
    document = ProtectedResourceMetadata.model_validate_json(answer.content)
    assert str(document.resource) == URL + resource
    assert [str(server).rstrip("/") for server in document.authorization_servers] == [URL]
    assert document.scopes_supported == ["read", "write"]
    assert check_resource_allowed(requested_resource=URL + resource, configured_resource=str(document.resource))


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/mcp",
        "/.well-known/openid-configuration",
    ],
)
async def test_the_server_says_what_it_does(one, path):
    answer = await one.browser().http.get(path)
    document = OAuthMetadata.model_validate_json(answer.content)
    assert answer.json()["issuer"] == URL  # compared character for character (RFC 8414, section 3.3)
    assert document.code_challenge_methods_supported == ["S256"]
    assert document.token_endpoint_auth_methods_supported == ["none"]
    assert document.authorization_response_iss_parameter_supported is True
    assert document.client_id_metadata_document_supported is True
    assert document.scopes_supported == ["read", "write", "erase", "export"]
    for endpoint in ("authorization", "token", "registration", "revocation"):
        assert answer.json()[f"{endpoint}_endpoint"].startswith(f"{URL}/oauth/")


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example/$(calc)",
        "https://a.example;calc",
        "https://a.example?x=`id`",
        "https://u:$(id)@a.example",
        "http://a.example",
        "file:///c:/windows/system32/calc.exe",
        "javascript:alert(1)",
    ],
)
def test_no_address_in_the_documents_can_be_more_than_an_address(url):
    """What a client opens in a browser or hands to a shell comes from here (CVE-2025-6514)."""
    with pytest.raises(UsageError):
        public_url(url)


@pytest.mark.parametrize("path", [PROTECTED, "/.well-known/oauth-authorization-server"])
async def test_pages_of_any_origin_may_read_the_documents(one, path):
    browser = one.browser()
    answer = await browser.http.get(path, headers={"Origin": "http://localhost:6274"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["cache-control"] == "public, max-age=300"


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/register", "/oauth/revoke"])
async def test_browsers_clients_may_ask_for_tokens(one, path):
    headers = {
        "Origin": "http://localhost:6274",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,mcp-protocol-version",
    }
    answer = await one.browser().http.options(path, headers=headers)
    assert answer.status_code == 200
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in answer.headers


async def test_no_page_of_another_origin_may_use_the_consent_page(one):
    answer = await one.browser().http.get("/oauth/authorize", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("indicator", "fits"),
    [
        (f"{URL}/mcp", True),
        (f"{URL}/mcp/", True),
        (URL, True),
        (f"{URL}/", True),
        (f"{URL}/sse", True),
        ("https://other.example/mcp", False),
        (f"{URL}.evil.example/mcp", False),
        (f"{URL}/mcp/../admin", False),
        (f"{URL}//mcp", False),
        ("", False),
    ],
)
def test_a_resource_indicator_names_this_server_or_not(indicator, fits):
    assert is_resource(indicator, RemoteOptions(public_url=URL)) is fits
