"""The documents by which clients find the login: of the protected resource and of the authorization server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dualmem_mcp.model.grant import DEFAULT_SCOPES, SCOPES
from dualmem_mcp.remote.options import RemoteOptions

AUTHORIZE_PATH: Final = "/oauth/authorize"
TOKEN_PATH: Final = "/oauth/token"  # noqa: S105 - a path
REGISTER_PATH: Final = "/oauth/register"
REVOKE_PATH: Final = "/oauth/revoke"

_PROTECTED: Final = "/.well-known/oauth-protected-resource"
_SERVER: Final = "/.well-known/oauth-authorization-server"
_OPENID: Final = "/.well-known/openid-configuration"

# Which endpoint of MCP each of the paths is about; clients compare the resource with the address they were given.
RESOURCE_PATHS: Final = {
    _PROTECTED: "/mcp",
    f"{_PROTECTED}/mcp": "/mcp",
    f"{_PROTECTED}/sse": "/sse",
    f"{_PROTECTED}/messages": "/sse",
}
# With the path of the resource: clients of 2025-03-26 to 2025-06-18 look there, too.
SERVER_PATHS: Final = (_SERVER, f"{_SERVER}/mcp", f"{_SERVER}/sse", _OPENID, f"{_OPENID}/mcp", f"{_OPENID}/sse")


def resource_metadata(options: RemoteOptions, path: str) -> Mapping[str, Any]:
    """Of the endpoint at that path. Source: RFC 9728, section 2; scopes: the least that a client needs (MCP
    2025-11-25, authorization, "Scope selection strategy")."""
    return {
        "resource": f"{options.public_url}{path}",
        "authorization_servers": [options.public_url],
        "scopes_supported": [scope for scope in SCOPES if scope in DEFAULT_SCOPES],
        "bearer_methods_supported": ["header"],
        "resource_name": "dualmem",
    }


def server_metadata(options: RemoteOptions) -> Mapping[str, Any]:
    """Of the authorization server. Source: RFC 8414, section 2; RFC 9207, section 3; OAuth Client ID Metadata
    Document, section 5. Claude takes such documents only where `none` is among the methods as well."""
    url = options.public_url
    return {
        "issuer": url,
        "authorization_endpoint": f"{url}{AUTHORIZE_PATH}",
        "token_endpoint": f"{url}{TOKEN_PATH}",
        "registration_endpoint": f"{url}{REGISTER_PATH}",
        "revocation_endpoint": f"{url}{REVOKE_PATH}",
        "scopes_supported": list(SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": True,
    }


def is_resource(indicator: str, options: RemoteOptions) -> bool:
    """Whether a resource indicator (RFC 8707) names this server: one of its endpoints, or the server as a whole."""
    return indicator.removesuffix("/") in {f"{options.public_url}{path}" for path in ("", "/mcp", "/sse")}
