"""Answers compressed as the client accepts: zstd, brotli, gzip.

Left alone are answers below two kilobytes, kinds that are compressed in themselves, streams without an end, HTML,
and all on the way to a login: where a secret (a form's token) and something that a stranger chose (a link's words
to search for) stand side by side, the size of the whole tells of the secret (BREACH). What is behind an access
token no stranger's page can ask for.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

from anyio import to_thread

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dualmem_mcp.remote.refusals import Header

# Below, it spares one packet at most, and on a busy server takes longer than that packet.
_LEAST_BYTES: Final = 2 << 10
_KINDS: Final = re.compile(
    rb"(text/(?!html)|application/(json|jsonl|x-ndjson|javascript|xml|[a-z.-]+\+json)|image/svg\+xml)"
)
_SECRET_PATHS: Final = ("/login", "/logout", "/oauth/")

# Worth of CPU: brotli 4 and zstd 3 take about a millisecond for the largest answer that Claude reads.
_ZSTD_LEVEL: Final = 3
_BROTLI_QUALITY: Final = 4
_GZIP_LEVEL: Final = 5

# 256 KiB: more than the largest answer that Claude reads, and it bounds what each stream holds.
_WINDOW_BITS: Final = 18

# What takes longer than a few milliseconds must not keep everybody else waiting.
_IN_THREAD_BYTES: Final = 256 << 10

_LONGEST_ACCEPT: Final = 512

_VARY: Final = (b"vary", b"Accept-Encoding")

# The order among those that a client likes as much.
_CODINGS: Final = ("zstd", "br", "gzip")


class Compressor(Protocol):
    """One answer's compression."""

    def compress(self, data: bytes) -> bytes:
        """What can be sent after these bytes; may be nothing."""
        ...

    def flush(self) -> bytes:
        """What makes everything so far readable."""
        ...

    def finish(self) -> bytes:
        """The rest."""
        ...


@functools.lru_cache(maxsize=256)
def coding_for(accepts: bytes) -> str | None:
    """The best coding by the client's `Accept-Encoding`; None where that is none of ours.

    Source: RFC 9110 section 12.5.3.
    """
    weights: dict[str, float] = {}
    for part in accepts.decode("latin-1").lower().split(","):
        name, _, parameters = part.partition(";")
        weights[name.strip()] = _weight(parameters)
    anything = weights.get("*", 0.0)
    best = max(_CODINGS, key=lambda coding: weights.get(coding, anything))  # the first of equals
    weight = weights.get(best, anything)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else None


def _weight(parameters: str) -> float:
    match = re.search(r"(?:^|;)\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)", parameters)
    if match is None:
        return 0.0 if parameters.strip() else 1.0
    return float(match[1])


def compressor_for(coding: str) -> Compressor:
    """A new compressor of that coding, for an answer that comes in parts."""
    if coding == "zstd":
        return _Zstd()
    return _Brotli() if coding == "br" else _Gzip()


def compress_whole(coding: str, data: bytes) -> bytes:
    """The data in that coding; what is known of its size makes that cheaper than by parts."""
    if coding == "zstd":
        import zstandard  # noqa: PLC0415

        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data)
    if coding == "br":
        import brotli  # noqa: PLC0415

        return bytes(brotli.compress(data, quality=_BROTLI_QUALITY, lgwin=_WINDOW_BITS))
    stream = _Gzip()
    return stream.compress(data) + stream.finish()


class _Zstd:
    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415

        self._flush_block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        parameters = zstandard.ZstdCompressionParameters.from_level(_ZSTD_LEVEL, window_log=_WINDOW_BITS)
        self._stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def compress(self, data: bytes) -> bytes:
        return bytes(self._stream.compress(data))

    def flush(self) -> bytes:
        return bytes(self._stream.flush(self._flush_block))

    def finish(self) -> bytes:
        return bytes(self._stream.flush())


class _Brotli:
    def __init__(self) -> None:
        import brotli  # noqa: PLC0415

        self._stream = brotli.Compressor(quality=_BROTLI_QUALITY, lgwin=_WINDOW_BITS)

    def compress(self, data: bytes) -> bytes:
        return bytes(self._stream.process(data))

    def flush(self) -> bytes:
        return bytes(self._stream.flush())

    def finish(self) -> bytes:
        return bytes(self._stream.finish())


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)

    def compress(self, data: bytes) -> bytes:
        return self._stream.compress(data)

    def flush(self) -> bytes:
        return self._stream.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._stream.flush()


class Compression:
    """ASGI middleware that compresses answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(_SECRET_PATHS) or scope["method"] == "HEAD":
            await self._app(scope, receive, send)
            return
        accepts = next((value for name, value in scope["headers"] if name == b"accept-encoding"), b"")
        if len(accepts) < _LONGEST_ACCEPT and (coding := coding_for(accepts)) is not None:
            send = _Compressing(send, coding, is_stream=scope["method"] == "GET")
        else:
            send = _varying(send)
        await self._app(scope, receive, send)


class _Compressing:
    """The `send` of one request."""

    def __init__(self, send: Send, coding: str, *, is_stream: bool) -> None:
        self._send = send
        self._coding = coding
        self._is_stream = is_stream
        self._held_start: Message | None = None  # until it is known how much comes
        self._compressor: Compressor | None = None
        self._is_events = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] != "http.response.body":
            await self._send(message)
        elif self._held_start is not None:
            start, self._held_start = self._held_start, None
            await self._first(start, message)
        elif self._compressor is not None:
            await self._next(self._compressor, message)
        else:
            await self._send(message)

    async def _begin(self, start: Message) -> None:
        self._is_events = _value(start["headers"], b"content-type").startswith(b"text/event-stream")
        if not _is_compressible(start) or (self._is_events and self._is_stream):
            await self._send(start)
            return
        start = {**start, "headers": [*start["headers"], _VARY]}
        if self._is_events:
            await self._send(self._encoded(start))  # whoever waits for events has to see that they will come
            self._compressor = compressor_for(self._coding)
        else:
            self._held_start = start

    async def _first(self, start: Message, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        if more:
            self._compressor = compressor_for(self._coding)
            await self._send(self._encoded(start))
            await self._next(self._compressor, message)
        elif len(body) < _LEAST_BYTES:
            await self._send(start)
            await self._send(message)
        else:
            if len(body) < _IN_THREAD_BYTES:
                whole = compress_whole(self._coding, body)
            else:
                whole = await to_thread.run_sync(compress_whole, self._coding, body)
            await self._send(self._encoded(start, (b"content-length", b"%d" % len(whole))))
            await self._send({**message, "body": whole})

    async def _next(self, compressor: Compressor, message: Message) -> None:
        data = compressor.compress(message.get("body", b""))
        more = message.get("more_body", False)
        if not more:
            data += compressor.finish()
        elif self._is_events:
            data += compressor.flush()  # an event that waits for the next one to be complete comes too late
        if data or not more:
            await self._send({**message, "body": data})

    def _encoded(self, start: Message, *more: Header) -> Message:
        kept = [header for header in start["headers"] if header[0] not in (b"content-length", b"etag")]
        return {**start, "headers": [*kept, (b"content-encoding", self._coding.encode()), *more]}


def _is_compressible(start: Message) -> bool:
    headers = start["headers"]
    return (
        start["status"] not in (204, 206, 304)
        and _KINDS.match(_value(headers, b"content-type")) is not None
        and not _value(headers, b"content-encoding")
    )


def _varying(send: Send) -> Send:
    """A `send` for a client that takes no coding: a cache has to know that others get another answer."""

    async def with_vary(message: Message) -> None:
        if message["type"] == "http.response.start" and _is_compressible(message):
            message = {**message, "headers": [*message["headers"], _VARY]}
        await send(message)

    return with_vary


def _value(headers: Iterable[Header], name: bytes) -> bytes:
    return next((value.lower() for key, value in headers if key == name), b"")
