"""Clients that register themselves (RFC 7591), and what is taken of what they say.

The same client registering again gets the same id: Claude registers twice for one login, from two machines, and
may come back with either. The id is no secret: what is granted under it goes to the redirects registered with it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dualmem_mcp.handoff.quoting import cut, one_line
from dualmem_mcp.model.grant import DEFAULT_SCOPES, SCOPES
from dualmem_mcp.remote.oauth.errors import OAuthError
from dualmem_mcp.remote.oauth.redirects import LONGEST, allowed_redirect
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.stores.login_store import RegisteredClient

MOST_UNUSED: Final = 1_000
"""Registrations that nobody has granted anything, which are kept; the one unused for longest goes first. Of the
last ten minutes ten times as many."""

_MOST_REDIRECTS: Final = 8
_LONGEST_NAME: Final = 60
_UNNAMED: Final = "A client without a name"
_GRANTS: Final = ("authorization_code", "refresh_token")


@dataclass(frozen=True, slots=True)
class Client:
    """A client that may ask for a login. `document_host` is where its metadata document lies, if it has one."""

    client_id: str
    name: str
    redirect_uris: tuple[str, ...]
    document_host: str = ""


def shown_name(name: object) -> str:
    """What a client calls itself, as one short line without characters that could make it look like other text."""
    text = cut(one_line(name), _LONGEST_NAME) if isinstance(name, str) else ""
    return text or _UNNAMED


def register(
    metadata: Mapping[str, Any], options: RemoteOptions, now: int
) -> tuple[RegisteredClient, dict[str, Any]]:
    """The client as it is kept, and what it is answered. Raises OAuthError.

    Whatever way of authentication it asks for, it is told `none`: there are public clients only, and a server may
    put another value in place (RFC 7591, section 3.2.1), which Claude's clients go by.
    """
    uris = _redirects(metadata.get("redirect_uris"), options)
    name = shown_name(metadata.get("client_name"))
    kept = json.dumps([options.public_url, name, uris], ensure_ascii=True).encode("ascii")
    digest = hashlib.sha256(kept).digest()[:16]
    client_id = "dm-" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
    answer: dict[str, Any] = {
        "client_id": client_id,
        "client_id_issued_at": now,
        "client_name": name,
        "redirect_uris": list(uris),
        "token_endpoint_auth_method": "none",
        "grant_types": _grant_types(metadata.get("grant_types")),
        "response_types": ["code"],
        "scope": _scope(metadata.get("scope")),
    }
    if metadata.get("application_type") in ("native", "web"):
        answer["application_type"] = metadata["application_type"]
    return RegisteredClient(client_id, name, uris, now, now), answer


def _redirects(uris: object, options: RemoteOptions) -> tuple[str, ...]:
    if not isinstance(uris, list) or not 1 <= len(uris) <= _MOST_REDIRECTS:
        raise OAuthError("invalid_redirect_uri", f"Name 1 to {_MOST_REDIRECTS} redirect_uris.")
    for uri in uris:
        if not isinstance(uri, str) or allowed_redirect(uri, options.extra_redirects) is None:
            raise OAuthError(
                "invalid_redirect_uri",
                "Logins lead to Claude and to loopback addresses (http://localhost, http://127.0.0.1) of at most "
                f"{LONGEST} characters; others the owner of this server adds as remote.redirects in "
                "cloud_sync_config.json.",
            )
    return tuple(dict.fromkeys(uris))


def _grant_types(wanted: object) -> list[str]:
    if wanted is None:
        return list(_GRANTS)
    if not isinstance(wanted, list) or "authorization_code" not in wanted:
        raise OAuthError("invalid_client_metadata", "grant_types must have authorization_code.")
    return [grant for grant in _GRANTS if grant in wanted]


def _scope(wanted: object) -> str:
    asked = wanted.split() if isinstance(wanted, str) else []
    known = [scope for scope in SCOPES if scope in asked]
    return " ".join(known or (scope for scope in SCOPES if scope in DEFAULT_SCOPES))
