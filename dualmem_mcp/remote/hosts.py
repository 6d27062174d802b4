"""Which names the endpoint answers to, and from which web pages.

A page that a browser shows can send requests to any address, also to one on the user's own machine or network, by
letting its own name point there (DNS rebinding, as in CVE-2025-66416). Such a request carries the page's name in
`Host`, and its address in `Origin`: both are checked, for every path.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

from dualmem_mcp.remote.options import CLAUDE_ORIGINS, RemoteOptions
from dualmem_mcp.remote.refusals import Header, Refusal

_log = logging.getLogger(__name__)

_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MOST_TOLD: Final = 8

# Public documents that name no user; browsers' clients of any origin may read them.
_PUBLIC_PATHS: Final = "/.well-known/"


class AllowedHosts:
    """The names in `Host` and the pages in `Origin` that requests may carry."""

    def __init__(self, options: RemoteOptions) -> None:
        url = urlsplit(options.public_url)
        self._scheme = url.scheme
        own = [f"{name}:{url.port or _DEFAULT_PORTS[url.scheme]}" for name in _own_names(url.netloc)]
        self._hosts = frozenset(self._with_port(host) for host in (*own, *options.extra_hosts))
        self._origins = frozenset(
            normal
            for origin in (*(f"{url.scheme}://{host}" for host in own), *CLAUDE_ORIGINS, *options.extra_origins)
            if (normal := _normal_origin(origin)) is not None
        )
        self._told: set[str] = set()
        # As clients usually write them, so that a usual request costs no more than a look.
        self._spellings = frozenset(
            spelling.encode("latin-1", "replace")
            for host in self._hosts
            for spelling in {host, host.removesuffix(f":{_DEFAULT_PORTS[self._scheme]}")}
        )

    def refusal(self, headers: Iterable[Header], path: str) -> Refusal | None:
        """Why a request with these headers (names in lower case) is not for this endpoint; None if it is."""
        hosts: list[bytes] = []
        origins: list[bytes] = []
        for name, value in headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origins.append(value)
        if len(hosts) == 1 and not origins and hosts[0] in self._spellings:
            return None
        if len(hosts) != 1:
            return Refusal(400, "invalid_request", "A request names exactly one host.", ends_connection=True)
        host = hosts[0].decode("latin-1")
        if self._with_port(host) not in self._hosts:
            self._tell("host", host)
            return Refusal(421, "misdirected_request", "This server does not answer to that name.")
        if not origins or path.startswith(_PUBLIC_PATHS):
            return None
        origin = origins[0].decode("latin-1")
        if len(origins) > 1 or _normal_origin(origin) not in self._origins:
            self._tell("origin", origin)
            return Refusal(403, "forbidden_origin", "Pages of that origin may not use this server.")
        return None

    def _with_port(self, host: str) -> str:
        name, colon, port = host.lower().rpartition(":")
        if not colon or not port.isdecimal():  # also "[::1]", whose last part ends with a bracket
            name, port = host.lower(), str(_DEFAULT_PORTS[self._scheme])
        return f"{name.removesuffix('.')}:{int(port[:6])}"

    def _tell(self, what: str, value: str) -> None:
        """Say once what was refused: a proxy that changes the name is found so."""
        if value not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(value)
            _log.warning(
                "refused requests with the %s %r; if it is yours, add it to %r in cloud_sync_config.json",
                what,
                value[:80],
                f"remote.{what}s",
            )


def _own_names(netloc: str) -> Sequence[str]:
    """The name in the public URL; all three of this machine where it is one of them."""
    name = netloc if netloc.endswith("]") else netloc.rpartition(":")[0] or netloc
    return _LOOPBACK_NAMES if name in _LOOPBACK_NAMES else (name,)


def _normal_origin(origin: str) -> str | None:
    """Scheme, host and port as browsers write them, the port always there; None for what is no origin."""
    try:
        url = urlsplit(origin.lower())
        port = url.port
    except ValueError:
        return None
    if (
        url.scheme not in _DEFAULT_PORTS
        or not url.hostname
        or url.path not in ("", "/")
        or url.query
        or url.fragment
    ):
        return None
    return f"{url.scheme}://{url.hostname}:{port or _DEFAULT_PORTS[url.scheme]}"


def forwarded_client(headers: Iterable[Header]) -> str | None:
    """The address that the nearest proxy saw, by the last entry of `X-Forwarded-For`; None without a good one.

    Only for requests from a proxy that is trusted: anybody can send that header, and proxies add to its end.
    """
    last = b""
    for name, value in headers:
        if name == b"x-forwarded-for":
            last = value
    if not last:
        return None
    text = last.rpartition(b",")[2].strip().decode("latin-1")[:64]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


@functools.lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether only this machine's own programs reach that address; `localhost` counts."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
