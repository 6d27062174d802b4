"""HTTP+SSE, the transport of 2024-11-05: one stream down, one path for posts up.

All that a session's client is told, its answers too, goes down the session's own stream.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

import anyio
from anyio.abc import TaskGroup
from mcp.shared.dispatcher import as_request_id
from mcp_types import INVALID_REQUEST
from starlette.requests import Request

from dualmem_mcp.remote import wire
from dualmem_mcp.remote.exchange import IN_THREADS, Exchange, OneWay, until_gone
from dualmem_mcp.remote.sessions import MOST_INTRODUCTION_BYTES, Outbox, Principal, Session, Sessions
from dualmem_mcp.remote.wire import Json, UnfitBodyError, checked_message

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from dualmem_mcp.model.grant import Grant

MESSAGES_PATH: Final = "/messages"

_MOST_UNDER_WAY: Final = 64


class _Down(OneWay):
    """The way down a session's stream."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def emit(self, message: Json) -> None:
        if self._outbox.streams:
            self._outbox.say(message)


class EventStreams:
    """The two ASGI applications of one user: `stream` for GET, `messages` for POST."""

    def __init__(
        self,
        sessions: Sessions,
        tasks: TaskGroup,
        *,
        grant_of: Callable[[Scope], Grant],
        threads: anyio.CapacityLimiter,
        body_bytes: int,
    ) -> None:
        self._sessions = sessions
        self._tasks = tasks
        self._grant_of = grant_of
        self._threads = threads
        self._body_bytes = body_bytes

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A session for as long as this stream is open; its first event names the path for posts."""
        if scope["method"] != "GET":
            await wire.refuse(send, 405, "Method not allowed", allow="GET")
            return
        if not wire.accepted(scope).stream and wire.header(scope, b"accept"):
            await wire.refuse(send, 406, "The answer is a stream: accept text/event-stream")
            return
        session = await self._sessions.open(Principal.of(self._grant_of(scope)), make_room=False)
        if session is None:
            await wire.refuse(send, 503, "Too many streams are open", retry_seconds=30)
            return
        try:
            path = f"{scope.get('root_path', '').rstrip('/')}{MESSAGES_PATH}?session_id={session.id}"
            await send(wire.start_of_stream())
            await send(wire.part_of_stream(wire.event(path.encode(), b"endpoint")))
            await until_gone(receive, session.outbox.stream(send))
            await send(wire.part_of_stream(b"", last=True))
        finally:
            await self._sessions.end(session)

    async def messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What a session's client has to say; what there is to answer goes down its stream."""
        if scope["method"] != "POST":
            await wire.refuse(send, 405, "Method not allowed", allow="POST")
            return
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        session_id = next(iter(query.get("session_id", ())), "")
        session = self._sessions.find(session_id, Principal.of(self._grant_of(scope)))
        if session is None:
            await wire.refuse(send, 404, "Session not found")
            return
        try:
            body = await wire.read_body(receive, self._body_bytes)
            message = checked_message(wire.parse(body))
            if message.get("method") == "initialize" and len(body) > MOST_INTRODUCTION_BYTES:
                raise UnfitBodyError(413, INVALID_REQUEST, f"initialize may have {MOST_INTRODUCTION_BYTES} bytes")
            await self._take(session, message, Request(scope), send)
        except UnfitBodyError as unfit:
            await wire.refuse(send, unfit.status, unfit.text, unfit.code)

    async def _take(self, session: Session, message: Json, request: Request, send: Send) -> None:
        method, params = message.get("method"), message.get("params")
        if method is None:
            session.reply(message)
        elif "id" not in message:
            if method == "notifications/cancelled":
                if (request_id := as_request_id((params or {}).get("requestId"))) is not None:
                    session.cancel(request_id)
            else:
                exchange = Exchange(request, None, params, OneWay())
                self._tasks.start_soon(session.hear, exchange, method, params)
        elif session.under_way >= _MOST_UNDER_WAY:
            await wire.refuse(send, 503, "Too many requests are under way", retry_seconds=1)
            return
        elif method == "initialize":  # at once: what the client posts next builds on it
            await self._answer(session, message, request)
        else:
            self._tasks.start_soon(self._answer, session, message, request)
        await wire.answer(send, 202)

    async def _answer(self, session: Session, message: Json, request: Request) -> None:
        method, params = message["method"], message.get("params")
        way = _Down(session.outbox)
        exchange = Exchange(request, message["id"], params, session.outlet(way))
        async with self._threads if method in IN_THREADS else nullcontext():
            await way.emit(await session.run(exchange, method, params))
