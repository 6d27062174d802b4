"""How much of everything requests may take: bodies, time, numbers at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio

from dualmem_mcp.remote.interfaces import CALLER_KEY, Caller
from dualmem_mcp.remote.oauth.attempts import network_of
from dualmem_mcp.remote.options import Limits
from dualmem_mcp.remote.refusals import Header, Refusal, busy

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STREAM_RETRY_SECONDS: Final = 10
_LOOK_SECONDS: Final = 2.0
_LOOKED_AT_ONCE: Final = 256
_SHARES: Final = 4


class ClientLeftError(Exception):
    """The client went away before its request was whole: nobody waits for an answer."""


class _Tally:
    """How much each of them has, and all together."""

    def __init__(self) -> None:
        self.all = 0
        self.of: dict[str, int] = {}

    def add(self, who: str, number: int) -> None:
        """From now on they have so much more, or less."""
        self.all += number
        self.of[who] = self.of.get(who, 0) + number
        if not self.of[who]:
            del self.of[who]

    def has_room(self, who: str, number: int, *, most: int, most_of_one: int) -> bool:
        """Whether they can have so much more."""
        return self.all + number <= most and self.of.get(who, 0) + number <= most_of_one


class Bodies:
    """Bodies of requests, read whole before anything is done with them.

    Each is bounded in size and time, all that are held at once in size together, of which one user, or the network
    of strangers, has a share. None may be compressed: what a few kilobytes of it become is known only once it is
    unpacked.
    """

    def __init__(self, most_bytes: int, all_bytes: int, seconds: float) -> None:
        self._most_bytes = most_bytes
        self._all_bytes = all_bytes
        self._bytes_of_one = max(most_bytes, all_bytes // _SHARES)
        self._seconds = seconds
        self._held = _Tally()

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
        who = _who(scope)
        try:
            refusal = await self._fill(parts, who, receive)
            size = sum(map(len, parts))
            yield refusal or _replaying(parts, receive)
        finally:
            self._held.add(who, -(size or sum(map(len, parts))))

    async def _fill(self, parts: list[bytes], who: str, receive: Receive) -> Refusal | None:
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
                    most, most_of_one = self._all_bytes, self._bytes_of_one
                    if not self._held.has_room(who, len(chunk), most=most, most_of_one=most_of_one):
                        return busy("Too many large requests at once.")
                    parts.append(chunk)
                    self._held.add(who, len(chunk))
                    more = message.get("more_body", False)
        except TimeoutError:
            return Refusal(408, "request_timeout", "The request's body came too slowly.", ends_connection=True)
        return None


def _who(scope: Scope) -> str:
    """Whose request it is, by user; of a stranger, the network it comes from."""
    caller: Caller | None = scope.get(CALLER_KEY)
    if caller is not None:
        return caller.grant.user
    return network_of(scope["client"][0]) if scope.get("client") else ""


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
        self._running = _Tally()

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer, unless too many are at it or it takes too long."""
        caller: Caller | None = scope.get(CALLER_KEY)
        who = "" if caller is None else caller.grant.user
        if not self._running.has_room(who, 1, most=self._most, most_of_one=self._most_of_one):
            await busy("Too many requests at once.").send(send)
            return
        answer = _Answer(send)
        self._running.add(who, 1)
        time = asyncio.timeout(self._seconds)
        try:
            async with time:
                await app(scope, receive, answer)
        except TimeoutError:
            if not time.expired():
                raise
        finally:
            self._running.add(who, -1)
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
        self._number = _Tally()

    def __len__(self) -> int:
        return len(self._open)

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer for as long as client and server like."""
        user = scope[CALLER_KEY].grant.user
        most, most_of_one = self._limits.streams, self._limits.streams_per_user
        if not self._number.has_room(user, 1, most=most, most_of_one=most_of_one):
            await busy("Too many streams are open.", seconds=_STREAM_RETRY_SECONDS).send(send)
            return
        answer = _Answer(send)
        with anyio.CancelScope() as stream:
            self._open[stream] = scope
            self._number.add(user, 1)
            try:
                await app(scope, receive, answer)
            finally:
                del self._open[stream]
                self._number.add(user, -1)
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
