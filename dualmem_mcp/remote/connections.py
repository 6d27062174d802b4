"""Connections of HTTP/1.1 that cost little while they rest and cannot be held open by saying little.

uvicorn waits for the head of a request for as long as the client likes, reads as much of it as comes, takes
trailers for headers, as many as come, and keeps what a client does not read: here all of these are bounded. On
httptools rather than h11, which takes a tenth of a millisecond longer for every request.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dualmem_mcp.remote.options import Limits

_TOO_LATE: Final = (408, b"Request Timeout")
_TOO_LARGE: Final = (431, b"Request Header Fields Too Large")
_TOO_MANY: Final = (503, b"Service Unavailable")

# A client that sends single bytes as chunks needs six for each.
_FRAMING_FACTOR: Final = 16


class BoundedProtocol(HttpToolsProtocol):
    """One connection, within the limits. `resting` has those of the server that were answered and ask nothing now,
    the one that rests longest first: it is closed when there are too many."""

    def __init__(self, *arguments: Any, limits: Limits, resting: dict[BoundedProtocol, None], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits = limits
        self._resting = resting
        self._head_bytes = 0
        self._in_body = False
        self._body_bytes = 0
        self._message_bytes = 0
        self._head_deadline: asyncio.TimerHandle | None = None
        self._rest_deadline: asyncio.TimerHandle | None = None
        self._read_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            if not self._resting:
                self._refuse(_TOO_MANY)
                return
            longest = next(iter(self._resting))
            del self._resting[longest]
            longest.transport.close()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._resting.pop(self, None)
        self._has_head()
        self._is_read()
        if self._rest_deadline is not None:
            self._rest_deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._resting.pop(self, None)
        awaiting = self._head_deadline is not None
        message = self.scope if self._in_body else None
        super().data_received(data)
        if message is not None and self._in_body and self.scope is message:
            self._message_bytes += len(data)
            if self._message_bytes > self._limits.header_bytes + _FRAMING_FACTOR * self._body_bytes:
                self.transport.abort()  # extensions of chunks or trailers without end: no client sends them
        elif awaiting and self._head_deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.header_bytes:
                self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after the body is no header (RFC 9110, section 6.5.1): the request was let in by those before.
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._has_head()
        self._in_body, self._body_bytes, self._message_bytes = True, 0, 0
        if not self.url.startswith(b"/"):
            # A proxy's kind of request, which names a host besides that in `Host`; the parser makes this a 400.
            raise ValueError("not a path of this server")
        # Each line has a colon, a space and an end besides.
        if sum(len(name) + len(value) + 4 for name, value in self.headers) > self._limits.header_bytes - len(
            self.url
        ):
            raise ValueError("a head that came whole, and is too large")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()
        if self._rest_deadline is not None:
            self._rest_deadline.cancel()
            self._rest_deadline = None
            self._rest()

    def on_response_complete(self) -> None:
        is_whole, is_last = not self.cycle.more_body, not self.pipeline
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if not is_whole:
            # Answered before its body was there, as when it is too large: closed at once, the client would lose the
            # answer; without a time, it could keep the connection by sending nothing more.
            self._rest_deadline = self.loop.call_later(self._limits.header_seconds, self.transport.close)
        elif is_last:
            self._resting[self] = None
        if self.transport.get_write_buffer_size():
            self._expect_reading()

    def _rest(self) -> None:
        self._resting[self] = None
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._is_read()

    def _expect_reading(self) -> None:
        if self._read_deadline is None:
            self._read_deadline = self.loop.call_later(self._limits.write_seconds, self._end_unread)

    def _is_read(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None

    def _end_unread(self) -> None:
        self._read_deadline = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing would wait for a client that does not read

    def _expect_head(self) -> None:
        if self._head_deadline is None:
            self._head_bytes = 0
            self._head_deadline = self.loop.call_later(self._limits.header_seconds, self._refuse, _TOO_LATE)

    def _has_head(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _refuse(self, answer: tuple[int, bytes]) -> None:
        self._has_head()
        if self.transport.is_closing():
            return
        # In the middle of another answer it would stand for a part of that.
        if getattr(self.cycle, "response_complete", True):  # uvicorn's first cycle is None
            status, reason = answer
            self.transport.write(
                b"HTTP/1.1 %d %s\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 5\r\n\r\n"
                % (status, reason)
            )
        self.transport.close()


def bounded_protocol(limits: Limits) -> Callable[..., asyncio.Protocol]:
    """What makes the protocol of each connection, as uvicorn calls it."""
    return functools.partial(BoundedProtocol, limits=limits, resting={})
