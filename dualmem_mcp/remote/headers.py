"""Headers of every answer: what browsers must not do with it, and which web pages may read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.remote.refusals import Header

if TYPE_CHECKING:
    from starlette.types import Message, Scope, Send

# A page may state its own policy; what states none may load and show nothing.
_DEFAULTS: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    # Not no-referrer: browsers then send `Origin: null` with our own forms.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
)
_HTTPS_ONLY: Final[Header] = (b"strict-transport-security", b"max-age=31536000")

_METHODS: Final = b"GET, POST, DELETE, OPTIONS"
_REQUEST_HEADERS: Final = b", ".join(
    (
        b"authorization",
        b"content-type",
        b"accept",
        b"last-event-id",
        b"mcp-session-id",
        b"mcp-protocol-version",
        b"mcp-method",
        b"mcp-name",
    )
)
_ANSWER_HEADERS: Final = b"mcp-session-id, mcp-protocol-version, www-authenticate, retry-after"


class AnswerHeaders:
    """Adds to answers what they do not state themselves."""

    def __init__(self, options: RemoteOptions) -> None:
        self._defaults = (*_DEFAULTS, _HTTPS_ONLY) if options.secure else _DEFAULTS

    def on(self, send: Send) -> Send:
        """A `send` that adds them."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                given = {name for name, _ in headers}
                headers += [header for header in self._defaults if header[0] not in given]
                message = {**message, "headers": headers}
            await send(message)

        return with_headers


def readable_by(scope: Scope, send: Send) -> Send:
    """A `send` whose answers the page that asked may read; its origin has been checked."""
    origin = next((value for name, value in scope["headers"] if name == b"origin"), None)

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), (b"vary", b"Origin")]
            if origin is not None:
                headers += [
                    (b"access-control-allow-origin", origin),
                    (b"access-control-expose-headers", _ANSWER_HEADERS),
                ]
            message = {**message, "headers": headers}
        await send(message)

    return with_headers


async def answer_preflight(send: Send) -> None:
    """What a browser may send, to its question before the request (CORS)."""
    headers = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", _REQUEST_HEADERS),
        (b"access-control-max-age", b"7200"),
        (b"allow", _METHODS),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
