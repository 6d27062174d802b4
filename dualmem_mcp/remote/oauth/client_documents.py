"""Clients whose id is the https address of a document that describes them.

Source: OAuth Client ID Metadata Document (draft-ietf-oauth-client-id-metadata-document), sections 3 to 6; MCP
2025-11-25, authorization, "Client ID Metadata Documents". The host of the address is what such a client proves; its
name it chooses itself.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from dualmem_mcp.remote.oauth.attempts import Attempts, Rate, network_of
from dualmem_mcp.remote.oauth.errors import OAuthError, invalid_client, too_many
from dualmem_mcp.remote.oauth.public_fetch import Document, FetchError, PublicFetcher
from dualmem_mcp.remote.oauth.redirects import parse_redirect
from dualmem_mcp.remote.oauth.registration import Client, shown_name
from dualmem_mcp.remote.options import CLAUDE_REDIRECTS

# A name, no address, on the port that browsers take; a path that no two programs read differently (sections 3).
_URL: Final = re.compile(
    r"https://(?P<host>(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9]))"
    r"(?P<target>/[A-Za-z0-9/._~%!$&'()*+,;=:@-]+(?:\?[A-Za-z0-9/._~%!$&'()*+,;=:@?-]*)?)"
)
_DOT_SEGMENT: Final = re.compile(r"/(\.|%2e){1,2}(/|$|\?)", re.IGNORECASE)
_LONGEST: Final = 512

_MOST_KEPT: Final = 128
_AT_ONCE: Final = 4
# Besides those at once: who waits keeps a place among the requests of all strangers.
_MOST_WAITING: Final = 12
_BUSY_SECONDS: Final = 5.0
_LEAST_SECONDS, _USUAL_SECONDS, _MOST_SECONDS = 300, 3_600, 86_400
_STALE_SECONDS: Final = 7 * 86_400
_FAILED_SECONDS: Final = 30
_FETCHES: Final = Rate(20, 6.0)
_MOST_REDIRECTS: Final = 32
_MAX_AGE: Final = re.compile(r"\bmax-age=(\d{1,9})\b")


# Claude's own, for hosts that cannot fetch them and for when they are out of order (anthropics/claude-ai-mcp issue
# 518). Nothing is given away: they lead where any client may, to Claude's addresses and to programs on the device.
_KNOWN: Final = {
    known.client_id: known
    for known in (
        Client("https://claude.ai/oauth/mcp-oauth-client-metadata", "Claude", CLAUDE_REDIRECTS, "claude.ai"),
        Client(
            "https://claude.ai/oauth/claude-code-client-metadata",
            "Claude Code",
            ("http://localhost/callback", "http://127.0.0.1/callback"),
            "claude.ai",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class _Kept:
    """A document that was read at `at`, good until `until`."""

    client: Client
    at: float
    until: float


def is_document_url(client_id: str) -> bool:
    """Whether a client id is the address of a metadata document."""
    return (
        len(client_id) <= _LONGEST
        and _URL.fullmatch(client_id) is not None
        and _DOT_SEGMENT.search(client_id) is None
    )


class ClientDocuments:
    """Metadata documents, fetched when they are needed and kept in memory. For the event loop alone."""

    def __init__(
        self, fetcher: PublicFetcher | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetcher = fetcher or PublicFetcher()
        self._monotonic = monotonic
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._failed: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._fetches = Attempts(_FETCHES, monotonic=monotonic)
        self._fetching = asyncio.Semaphore(_AT_ONCE)
        self._under_way = 0

    async def client(self, client_id: str, *, address: str) -> Client:
        """The client that the document at that address describes; `address` is who asks.

        A document that was good is used for up to a week more while it cannot be fetched again, or must not be for
        that address; what Claude's own say is known without.
        Raises OAuthError.
        """
        now = self._monotonic()
        kept = self._kept.get(client_id)
        if kept is not None and kept.until > now:
            self._kept.move_to_end(client_id)
            return kept.client
        why, again_at = self._failed.get(client_id, ("", 0.0))
        wait = self._wait_seconds(address) if again_at <= now else 0.0
        if again_at <= now and not wait:
            try:
                return await self._fetched(client_id)
            except OAuthError as error:
                why = error.description
                self._failed[client_id] = (why, now + _FAILED_SECONDS)
                while len(self._failed) > _MOST_KEPT:
                    self._failed.popitem(last=False)
        if kept is not None and now - kept.at < _STALE_SECONDS:
            return kept.client
        if client_id in _KNOWN:
            return _KNOWN[client_id]
        raise too_many(wait) if wait else invalid_client(why)

    def _wait_seconds(self, address: str) -> float:
        """After how many seconds that address may cause a fetch; 0 for now, which uses one up."""
        if self._under_way >= _AT_ONCE + _MOST_WAITING:
            return _BUSY_SECONDS
        return self._fetches.take(network_of(address))

    async def _fetched(self, client_id: str) -> Client:
        match = _URL.fullmatch(client_id)
        if match is None:
            raise _unfit("its address is not one")
        self._under_way += 1
        try:
            async with self._fetching:
                document = await self._fetcher.fetch(match["host"], match["target"])
        except FetchError as error:
            raise _unfit(str(error)) from None
        finally:
            self._under_way -= 1
        client = _client(document, client_id, match["host"])
        now = self._monotonic()
        self._kept[client_id] = _Kept(client, now, now + _lifetime(document.cache_control))
        self._kept.move_to_end(client_id)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return client


def _client(document: Document, client_id: str, host: str) -> Client:
    if document.media_type != "application/json" and not document.media_type.endswith("+json"):
        raise _unfit("it is not JSON")
    try:
        metadata = json.loads(document.body)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise _unfit("it is not a JSON object")
    if metadata.get("client_id") != client_id:
        raise _unfit("it is of another client_id")
    # Section 4.1: no secret is shared with such a client; and no keys of theirs are checked here.
    if metadata.get("token_endpoint_auth_method", "none") != "none" or "client_secret" in metadata:
        raise _unfit("the client wants to authenticate itself, which this server has no way for")
    return Client(client_id, shown_name(metadata.get("client_name")), _redirects(metadata), host)


def _redirects(metadata: dict[str, Any]) -> tuple[str, ...]:
    """Those of the document that a login may lead to at all; which of them it is allowed is asked at the login."""
    uris = metadata.get("redirect_uris")
    if not isinstance(uris, list) or len(uris) > _MOST_REDIRECTS:
        raise _unfit("it has no list of redirect_uris")
    fit = tuple(uri for uri in uris if isinstance(uri, str) and parse_redirect(uri) is not None)
    if not fit:
        raise _unfit("it names no address that a login may lead to")
    return fit


def _lifetime(cache_control: str) -> int:
    match = _MAX_AGE.search(cache_control)
    return min(max(int(match[1]), _LEAST_SECONDS), _MOST_SECONDS) if match else _USUAL_SECONDS


def _unfit(why: str) -> OAuthError:
    return invalid_client(f"The document that describes the client cannot be used: {why}.")
