"""A small document from a server on the public internet, and from nowhere else.

Whoever asks for a login names the address: it must not make this host ask its own network, its cloud's metadata
service or itself. The name is resolved once; every address that it has must be public; the connection goes to one
of exactly those; no redirect is followed, and no proxy used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import h11

PORT: Final = 443
MAX_BYTES: Final = 64 << 10
TOTAL_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 2.0
_MOST_ADDRESSES: Final = 16
_MAX_HEADER_BYTES: Final = 16 << 10

# Source: RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo): IPv4 addresses, private ones too, in the clothes of
# public IPv6 ones. Of the rest, only 2000::/3 is in use for hosts (RFC 4291, section 2.4).
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_TRANSLATED: Final = tuple(ipaddress.IPv6Network(net) for net in ("2002::/16", "2001::/32"))

Resolve = Callable[[str], Awaitable[Sequence[str]]]


class FetchError(Exception):
    """The document cannot be had; the text says why, for the page that a person sees."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was answered with status 200. `media_type` in lower case, without parameters."""

    body: bytes
    media_type: str
    cache_control: str


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # also one with a zone, which is of a link
        return False
    if ip.is_multicast or ip.is_reserved or not ip.is_global:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        return ip in _GLOBAL_UNICAST and not any(ip in net for net in _TRANSLATED)
    return True


async def resolve(host: str) -> Sequence[str]:
    """All addresses of the name. Raises FetchError."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, PORT, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise FetchError(f"{host} has no address") from None
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class PublicFetcher:
    """Fetches documents over https. The fields are what tests put others in place of."""

    resolve: Resolve = resolve
    is_public: Callable[[str], bool] = is_public
    port: int = PORT
    context: ssl.SSLContext | None = None
    total_seconds: float = TOTAL_SECONDS

    async def fetch(self, host: str, target: str) -> Document:
        """What `https://host` + `target` answers, at most 64 KiB within 5 s in all. Raises FetchError."""
        try:
            async with asyncio.timeout(self.total_seconds):
                addresses = await self._addresses(host)
                reader, writer = await self._connected(host, addresses)
                try:
                    return await _exchange(reader, writer, host, target)
                finally:
                    writer.transport.abort()
        except TimeoutError:
            raise FetchError(f"{host} did not answer in time") from None

    async def _addresses(self, host: str) -> Sequence[str]:
        addresses = await self.resolve(host)
        if not 0 < len(addresses) <= _MOST_ADDRESSES or not all(map(self.is_public, addresses)):
            raise FetchError(f"{host} is not a server of the public internet")
        # IPv4 first: hosts without IPv6 are more than those without IPv4.
        return sorted(addresses, key=lambda address: ":" in address)

    async def _connected(
        self, host: str, addresses: Sequence[str]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = self.context or ssl.create_default_context()
        for address in addresses[:2]:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await asyncio.open_connection(
                        address, self.port, ssl=context, server_hostname=host, limit=MAX_BYTES
                    )
            except (OSError, TimeoutError):  # ssl.SSLError is an OSError
                continue
        raise FetchError(f"{host} cannot be reached, or its certificate is not good")


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, target: str) -> Document:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER_BYTES)
    headers = [("Host", host), ("Accept", "application/json"), ("User-Agent", "dualmem"), ("Connection", "close")]
    try:
        request = connection.send(h11.Request(method="GET", target=target, headers=headers))
        writer.write((request or b"") + (connection.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        return await _answer(connection, reader, host)
    except (h11.ProtocolError, OSError):
        raise FetchError(f"{host} did not answer as a web server does") from None


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader, host: str) -> Document:
    response: h11.Response | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(8192))
        elif isinstance(event, h11.Response):
            if event.status_code != 200:
                raise FetchError(f"{host} answered with status {event.status_code}")
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BYTES:
                raise FetchError(f"{host} answered with more than {MAX_BYTES >> 10} KiB")
        elif isinstance(event, h11.EndOfMessage) and response is not None:
            return Document(bytes(body), *_described(response))
        elif not isinstance(event, h11.InformationalResponse):
            raise FetchError(f"{host} closed the connection")


def _described(response: h11.Response) -> tuple[str, str]:
    values = {name: value.decode("latin-1") for name, value in response.headers}
    media_type = values.get(b"content-type", "").partition(";")[0].strip().lower()
    return media_type, values.get(b"cache-control", "").lower()
