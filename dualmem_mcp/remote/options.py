"""How the remote endpoint is reached, and what it bears."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.device import ProfileName

# Source: Anthropic's help pages on custom connectors, "callback URLs".
CLAUDE_REDIRECTS: Final = ("https://claude.ai/api/mcp/auth_callback", "https://claude.com/api/mcp/auth_callback")
CLAUDE_ORIGINS: Final = ("https://claude.ai", "https://claude.com")

# No more than names and addresses: what stands here comes back in headers and pages.
_URL: Final = re.compile(
    r"((?P<scheme>https?)://)?(?P<host>[a-z0-9]([a-z0-9.-]{0,252}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?P<port>:[0-9]{1,5})?/?"
)
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what strangers can make the endpoint hold or do. Sizes in bytes, times in seconds.

    `requests` and `streams` are those of clients that are logged in, `…_per_user` those of one of them; what is
    called `stranger_…` is on the way to a login, or of the pages. What is beyond is told to come again.
    `idle_seconds` is longer than proxies keep a connection that they may send a request on at any moment (Caddy
    120, cloudflared 90): one that ends first loses it.
    """

    body_bytes: int = 4 << 20
    form_bytes: int = 64 << 10
    bodies_bytes: int = 128 << 20
    stranger_bodies_bytes: int = 16 << 20
    body_seconds: float = 30.0
    header_bytes: int = 32 << 10
    header_seconds: float = 10.0
    idle_seconds: float = 130.0
    write_seconds: float = 60.0
    request_seconds: float = 300.0
    stop_seconds: float = 5.0
    connections: int = 16_000
    requests: int = 4_096
    requests_per_user: int = 3_072
    stranger_requests: int = 256
    sessions_per_user: int = 256
    streams: int = 12_000
    streams_per_user: int = 10_500
    session_idle_seconds: float = 1_800.0


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """Where the endpoint listens and how the world calls it.

    `public_url` is scheme, host and port alone, as clients see it (a proxy's, where there is one); it is the OAuth
    issuer, and with `/mcp` the resource. `certificate` and `key` are PEM files; without them a proxy brings TLS.
    `profile` is the device profile of clients that name none, but for Claude Code, which is at a desk.
    """

    public_url: str
    host: str = "127.0.0.1"
    port: int = 8787
    certificate: Path | None = None
    key: Path | None = None
    extra_redirects: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    extra_origins: tuple[str, ...] = ()
    limits: Limits = Limits()
    profile: ProfileName = "ios"

    @property
    def resource(self) -> str:
        """The URL of the MCP endpoint, which access tokens are for."""
        return f"{self.public_url}/mcp"

    @property
    def secure(self) -> bool:
        """Whether clients come over https."""
        return self.public_url.startswith("https://")


def public_url(text: str) -> str:
    """The URL as browsers write it and as an OAuth issuer: without a path, and without the scheme's own port.

    Raises UsageError unless it is https, or http on this machine.
    """
    match = _URL.fullmatch(text.lower())
    scheme = (match["scheme"] or "https") if match else ""
    port = int(match["port"][1:]) if match and match["port"] else _DEFAULT_PORTS.get(scheme, 0)
    is_local = match is not None and match["host"].strip("[]") in _LOCAL
    if match is None or not (scheme == "https" or is_local) or not 0 < port < 1 << 16:
        raise UsageError(
            f"{text[:80]!r} cannot be the public URL",
            operation="serve",
            subject=text[:80],
            hint="Give it as https://host or https://host:port, without a path; http is for localhost alone.",
        )
    return f"{scheme}://{match['host']}" + (f":{port}" if port != _DEFAULT_PORTS[scheme] else "")
