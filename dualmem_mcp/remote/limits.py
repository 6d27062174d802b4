"""How much of everything requests may take: bodies, time, numbers at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio

from dualmem_mcp.remote.interfaces import CALLER_KEY, Caller
from dualmem_mcp.remote.options import Limits
from dualmem_mcp.remote.refusals import Header, Refusal, busy

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STREAM_RETRY_SECONDS: Final = 10
_LOOK_SECONDS: Final = 2.0
_LOOKED_AT_ONCE: Final = 256


class ClientLeftError(Exception):
    """The client went away before its request was whole: nobody waits for an answer."""


class Bodies:
    """Bodies of requests, read whole before anything is done with them.

    Each is bounded in size and time, all that are held at once in size together. None may be compressed: what a few
    kilobytes of it become is known only once it is unpacked.
    """

    def __init__(self, most_bytes: int, all_bytes: int, seconds: float) -> None:
        self._most_bytes = most_bytes
        self._all_bytes = all_bytes
        self._seconds = seconds
        self._held = 0

    @asynccontextmanager
    async def read(self, scope: Scope, receive: Receive) -> AsyncIterator[Receive | Refusal]:
        """A `receive` that gives the body in one message, or what to answer instead.

        Raises ClientLeftError.
        """
        refusal = _unfit(scope["headers"], self._most_bytes)
        if refusal is not None:
            yield refusal
            return
        parts: list[bytes] = []
        size = 0
        try:
            refusal = await self._fill(parts, receive)
            size = sum(map(len, parts))
            yield refusal or _replaying(parts, receive)
        finally:
            self._held -= size or sum(map(len, parts))

    async def _fill(self, parts: list[bytes], receive: Receive) -> Refusal | None:
        size = 0
        try:
            async with asyncio.timeout(self._seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise ClientLeftError
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > self._most_bytes:
                        return _too_large(self._most_bytes)
                    if self._held + len(chunk) > self._all_bytes:
                        return busy("Too many large requests at once.")
                    parts.append(chunk)
                    self._held += len(chunk)
                    more = message.get("more_body", False)
        except TimeoutError:
            return Refusal(408, "request_timeout", "The request's body came too slowly.", ends_connection=True)
        return None


def _unfit(headers: list[Header], most_bytes: int) -> Refusal | None:
    """What can be refused before anything of the body is read."""
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            # Source: RFC 7694 section 3: Accept-Encoding in a 415 says what may be sent.
            return Refusal(
                415,
                "unsupported_content_encoding",
                "Send the body uncompressed.",
                ((b"accept-encoding", b"identity"),),
            )
        if name == b"content-length" and (len(value) > 15 or int(value) > most_bytes):  # digits: the parser checked
            return _too_large(most_bytes)
    return None


def _too_large(most_bytes: int) -> Refusal:
    return Refusal(413, "request_too_large", f"The body is larger than {most_bytes} bytes.")


def _replaying(parts: list[bytes], receive: Receive) -> Receive:
    async def replay() -> Message:
        if not parts:
            return await receive()  # tells of the client's leaving
        body = b"".join(parts)
        parts.clear()  # whoever got it decides how long it is kept
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


class Requests:
    """Requests under way at once, of one user and of all; each has so long to be answered."""

    def __init__(self, most: int, most_of_one: int, seconds: float) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._seconds = seconds
        self._running = 0
        self._of: dict[str, int] = {}

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer, unless too many are at it or it takes too long."""
        caller: Caller | None = scope.get(CALLER_KEY)
        who = "" if caller is None else caller.grant.user
        of_one = self._of.get(who, 0)
        if self._running >= self._most or of_one >= self._most_of_one:
            await busy("Too many requests at once.").send(send)
            return
        answer = _Answer(send)
        self._running += 1
        self._of[who] = of_one + 1
        time = asyncio.timeout(self._seconds)
        try:
            async with time:
                await app(scope, receive, answer)
        except TimeoutError:
            if not time.expired():
                raise
        finally:
            self._running -= 1
            self._of[who] -= 1
            if not self._of[who]:
                del self._of[who]
        if time.expired():
            await answer.cut_off(
                Refusal(504, "timeout", f"No answer within {self._seconds:g} s.", ends_connection=True)
            )


class Streams:
    """Answers without an end, so many at once, each for as long as its client's login is good."""

    def __init__(self, limits: Limits, is_good: Callable[[Scope], bool]) -> None:
        self._limits = limits
        self._is_good = is_good
        self._open: dict[anyio.CancelScope, Scope] = {}
        self._of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer for as long as client and server like."""
        user = scope[CALLER_KEY].grant.user
        of_one = self._of.get(user, 0)
        if len(self._open) >= self._limits.streams or of_one >= self._limits.streams_per_user:
            await busy("Too many streams are open.", seconds=_STREAM_RETRY_SECONDS).send(send)
            return
        answer = _Answer(send)
        with anyio.CancelScope() as stream:
            self._open[stream] = scope
            self._of[user] = of_one + 1
            try:
                await app(scope, receive, answer)
            finally:
                del self._open[stream]
                self._of[user] -= 1
                if not self._of[user]:
                    del self._of[user]
        if stream.cancelled_caught:
            await answer.cut_off(busy("The stream has ended.", ends_connection=True))

    async def watch(self) -> None:
        """End the streams whose logins have ended or were revoked, within seconds."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for number, (stream, scope) in enumerate(list(self._open.items())):
                if not self._is_good(scope):
                    stream.cancel()
                if number % _LOOKED_AT_ONCE == 0:
                    await asyncio.sleep(0)  # ten thousand of them take a while

    def end_all(self) -> None:
        """End every stream as if it had come to its end: clients connect anew when they like."""
        for stream in list(self._open):
            stream.cancel()


class _Answer:
    """The `send` of one request, which knows how far the answer has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_begun = False
        self._is_ended = False
        self._is_events = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_begun = True
            self._is_events = any(
                name == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message.get("headers", ())
            )
        elif message["type"] == "http.response.body":
            self._is_ended = not message.get("more_body", False)
        await self._send(message)

    async def cut_off(self, instead: Refusal) -> None:
        """Answer with that if nothing was sent yet; end a stream of events; leave any other answer torn, so that
        nobody takes its part for the whole."""
        if not self._is_begun:
            await instead.send(self._send)
        elif self._is_events and not self._is_ended:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
