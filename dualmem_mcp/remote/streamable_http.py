"""Streamable HTTP: a request's way to its session, or to an answer without one.

A request without `Mcp-Session-Id` is answered as it stands, whatever came before it: Claude's connectors do not
keep the id that `initialize` gave them, and send from several addresses.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio
from mcp.server.connection import Connection
from mcp.server.runner import aclose_shielded
from mcp.shared.dispatcher import as_request_id
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_METHOD_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    InboundLadderRejection,
    InboundModernRoute,
    validate_mcp_param_headers,
)
from mcp_types import DEFAULT_NEGOTIATED_VERSION, HEADER_MISMATCH, INVALID_REQUEST
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION, MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request

from dualmem_mcp.remote import wire
from dualmem_mcp.remote.exchange import IN_THREADS, Exchange, OneWay, Outlet, Response, attended, until_gone
from dualmem_mcp.remote.sessions import MOST_INTRODUCTION_BYTES, MakeRunner, Principal, Session, Sessions
from dualmem_mcp.remote.versions import (
    BATCH_VERSIONS,
    claimed_version,
    is_modern_handshake,
    modern_route,
    refused_version,
)
from dualmem_mcp.remote.wire import Accept, Json, UnfitBodyError, checked_message
from dualmem_mcp.server.protocol import TOOLS

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from dualmem_mcp.model.grant import Grant

_SESSION: Final = b"mcp-session-id"
_METHOD: Final = MCP_METHOD_HEADER.lower().encode("ascii")

InputSchema = Callable[[str], Mapping[str, Any] | None]
"""The input schema of a tool; None if there is no such tool."""

# Looked up by equality: a client may send anything as a name.
_SHARED: Final = tuple(tool.name for tool in TOOLS if tool.shared)

_ENDLESS: Final = "subscriptions/listen"
_MOST_IN_BATCH: Final = 100
_MOST_REMEMBERED: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Post:
    """A POST whose body was read."""

    request: Request
    receive: Receive
    send: Send
    accept: Accept
    principal: Principal
    size: int


class _NoSuchSessionError(Exception):
    """There is no session of that id, or it is somebody else's."""


class StreamableHttp:
    """The ASGI application of one user's MCP endpoint."""

    def __init__(
        self,
        make_runner: MakeRunner,
        sessions: Sessions,
        *,
        grant_of: Callable[[Scope], Grant],
        warm_up: Callable[[], Awaitable[None]],
        input_schema: InputSchema | None,
        threads: anyio.CapacityLimiter,
        body_bytes: int,
    ) -> None:
        self._make_runner = make_runner
        self._input_schema = input_schema
        self._sessions = sessions
        self._grant_of = grant_of
        self._warm_up = warm_up
        self._threads = threads
        self._body_bytes = body_bytes
        # What each client's last `initialize` came to, for requests that say nothing of versions.
        self._negotiated: OrderedDict[Principal, str] = OrderedDict()
        self._endless: set[Exchange] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] == "POST":
                await self._post(scope, receive, send)
            else:
                await self._other(scope, receive, send)
        except UnfitBodyError as unfit:
            await wire.refuse(send, unfit.status, unfit.text, unfit.code)
        except _NoSuchSessionError:
            await wire.refuse(send, 404, "Session not found")

    @property
    def streams(self) -> int:
        """How many streams of the newer era are open."""
        return len(self._endless)

    def end_streams(self) -> None:
        """End the streams of the newer era; a session's end with it."""
        for exchange in self._endless:
            exchange.cancel()

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET: the session's stream. DELETE: its end."""
        session_id = wire.header(scope, _SESSION)
        if scope["method"] not in {"GET", "DELETE"} or session_id is None:
            # Claude's clients take 405 for "no stream here", and anything else for a failure of the server.
            allow = "POST" if session_id is None else "GET, POST, DELETE"
            await wire.refuse(send, 405, "Method not allowed", allow=allow)
            return
        session = self._find(session_id, Principal.of(self._grant_of(scope)))
        if scope["method"] == "DELETE":
            await self._sessions.end(session)
            await wire.answer(send, 200)
        elif not wire.accepted(scope).stream:
            await wire.refuse(send, 406, "The answer is a stream: accept text/event-stream")
        else:
            await send(wire.start_of_stream([(_SESSION, session.id.encode())]))
            await until_gone(receive, session.outbox.stream(send))
            session.use()
            await send(wire.part_of_stream(b"", last=True))

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        accept = wire.accepted(scope)
        if not (accept.json or accept.stream):
            await wire.refuse(send, 406, "Accept application/json, text/event-stream or both")
            return
        if (wire.header(scope, b"content-type") or "").partition(";")[0].strip().lower() != "application/json":
            await wire.refuse(send, 415, "The body must be application/json")
            return
        content = await wire.read_body(receive, self._body_bytes)
        body = wire.parse(content)
        if wire.header(scope, _METHOD) == _ENDLESS and not (
            isinstance(body, dict) and body.get("method") == _ENDLESS
        ):
            # By this header a request was given the time of a stream, and a place among streams.
            raise UnfitBodyError(400, HEADER_MISMATCH, f"Mcp-Method is {_ENDLESS}, and the body's method is not")
        post = _Post(Request(scope), receive, send, accept, Principal.of(self._grant_of(scope)), len(content))
        if isinstance(body, list):
            await self._batch(post, body)
            return
        message = checked_message(body)
        if "method" not in message or "id" not in message:
            await self._told(post, message)
        elif message["method"] == "initialize" and not is_modern_handshake(post.request.headers, message):
            await self._initialize(post, message)
        elif (route := modern_route(post.request.headers, message)) is None:
            await self._request(post, message)
        elif isinstance(route, InboundLadderRejection):
            await _reject(post, route, message["id"])
        else:
            await self._modern(post, message, route)

    async def _told(self, post: _Post, message: Json) -> None:
        """A notification or a reply: accepted, and dealt with after that was said."""
        if (refusal := refused_version(post.request.headers)) is not None:
            await _reject(post, refusal, None)
            return
        newer = post.request.headers.get(MCP_PROTOCOL_VERSION_HEADER) in MODERN_PROTOCOL_VERSIONS
        session = self._session(post) if not newer else None
        await wire.answer(post.send, 202)
        await self._hear(post, session, message)

    async def _hear(self, post: _Post, session: Session | None, message: Json) -> None:
        method, params = message.get("method"), message.get("params")
        if session is None:
            if method == "notifications/initialized":
                await self._warm_up()
        elif method is None:
            session.reply(message)
        elif method == "notifications/cancelled":
            if (request_id := as_request_id((params or {}).get("requestId"))) is not None:
                session.cancel(request_id)
        else:
            await session.hear(Exchange(post.request, None, params, OneWay()), method, params)

    async def _initialize(self, post: _Post, message: Json) -> None:
        """Shake hands, in whatever version a header names: there is no handshake but this.

        A session is for clients that can have a stream.
        """
        params = message.get("params")
        exchange = Exchange(post.request, message["id"], params, OneWay())
        of_use = post.accept.stream and post.size <= MOST_INTRODUCTION_BYTES
        session = await self._sessions.open(post.principal) if of_use else None
        answer: Json = {}
        try:
            if session is not None:
                connection = session.connection
                answer = await session.run(exchange, "initialize", params)
            else:
                connection = Connection.from_envelope(LATEST_HANDSHAKE_VERSION, None, None)
                answer = await exchange.run(self._make_runner(connection), "initialize", params)
        finally:
            if session is not None and "result" not in answer:
                await self._sessions.end(session)
                session = None
        if "result" in answer:
            self._negotiated[post.principal] = connection.protocol_version
            self._negotiated.move_to_end(post.principal)
            if len(self._negotiated) > _MOST_REMEMBERED:
                self._negotiated.popitem(last=False)
        await Response(post.send, post.accept, _headers(session)).finish(answer)

    async def _request(self, post: _Post, message: Json) -> None:
        """A request of the older era. It goes on when its client is cut off: what it does may be of use."""
        session = self._session(post)
        response = Response(post.send, post.accept, _headers(session))
        await response.finish(await attended(response, self._answer(post, session, response, message)))

    async def _batch(self, post: _Post, messages: list[Any]) -> None:
        session = self._session(post)
        version = session.connection.protocol_version if session is not None else self._version(post, {})
        if not 0 < len(messages) <= _MOST_IN_BATCH or version not in BATCH_VERSIONS:
            raise UnfitBodyError(400, INVALID_REQUEST, f"No batches of {len(messages)} messages in {version}")
        response = Response(post.send, post.accept, _headers(session))
        told = [checked_message(each) for each in messages]
        requests = [each for each in told if "method" in each and "id" in each]
        if any(each["method"] == "initialize" for each in requests):
            raise UnfitBodyError(400, INVALID_REQUEST, "initialize must not be in a batch")
        answers: list[Json] = [{}] * len(requests)

        async def answer(position: int) -> None:
            answers[position] = await self._answer(post, session, response, requests[position])

        async def answer_all() -> None:
            async with anyio.create_task_group() as tasks:
                for position in range(len(requests)):
                    tasks.start_soon(answer, position)

        if requests:
            await attended(response, answer_all())
            await response.finish(answers)
        else:
            await wire.answer(post.send, 202)
        for each in told:
            if "method" not in each or "id" not in each:
                await self._hear(post, session, each)

    async def _answer(self, post: _Post, session: Session | None, response: Response, message: Json) -> Json:
        method, params, request_id = message["method"], message.get("params"), message["id"]
        async with self._room(method, params):
            if session is not None:
                outlet: Outlet = session.outlet(response) if post.accept.stream else response
                return await session.run(Exchange(post.request, request_id, params, outlet), method, params)
            connection = Connection.from_envelope(self._version(post, message), None, None)
            try:
                exchange = Exchange(post.request, request_id, params, response)
                return await exchange.run(self._make_runner(connection), method, params)
            finally:
                await aclose_shielded(connection)

    async def _modern(self, post: _Post, message: Json, route: InboundModernRoute) -> None:
        """A request of the newer era: its client cancels it by going away."""
        method, params = message["method"], message.get("params")
        endless = method == _ENDLESS
        if (rejection := self._params_refusal(post, message)) is not None:
            await _reject(post, rejection, message["id"])
            return
        if endless and not post.accept.stream:
            await wire.refuse(post.send, 406, "The answer is a stream: accept text/event-stream")
            return
        response = Response(post.send, post.accept)
        exchange = Exchange(post.request, message["id"], params, response)
        connection = Connection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities)
        if endless:
            self._endless.add(exchange)
        try:
            async with self._room(method, params):
                running = exchange.run(self._make_runner(connection), method, params)
                answer = await attended(response, running, receive=post.receive, gone=exchange.cancel)
        finally:
            self._endless.discard(exchange)
            await aclose_shielded(connection)
        if exchange.scope.cancelled_caught:
            await response.cut_off()  # an answer to a cancelled request is forbidden here
            return
        code = answer["error"]["code"] if "error" in answer else 0
        await response.finish(answer, ERROR_CODE_HTTP_STATUS.get(code, 200))

    def _params_refusal(self, post: _Post, message: Json) -> InboundLadderRejection | None:
        """Why the `Mcp-Param-` headers of a call do not fit its arguments, where its tool has such headers."""
        params = message.get("params") or {}
        name, arguments = params.get("name"), params.get("arguments") or {}
        if self._input_schema is None or message["method"] != "tools/call" or not isinstance(name, str):
            return None
        schema = self._input_schema(name) if isinstance(arguments, dict) else None
        return validate_mcp_param_headers(schema, arguments, post.request.headers) if schema is not None else None

    def _room(self, method: str, params: Any) -> AbstractAsyncContextManager[None]:
        """So many requests at once may need a thread, so that one user leaves some to the others. Those that share
        their answer need one together, whose turn takes longer to wait for than the answer."""
        shares = method == "tools/call" and isinstance(params, dict) and params.get("name") in _SHARED
        return self._threads if method in IN_THREADS and not shares else nullcontext()

    def _session(self, post: _Post) -> Session | None:
        """The session that a POST names, None if it names none."""
        session_id = wire.header(post.request.scope, _SESSION)
        return None if session_id is None else self._find(session_id, post.principal)

    def _find(self, session_id: str, principal: Principal) -> Session:
        if (session := self._sessions.find(session_id, principal)) is None:
            raise _NoSuchSessionError
        return session

    def _version(self, post: _Post, message: Json) -> str:
        """The version of a request without a session: as its body says, its header, its client's last handshake."""
        said = (claimed_version(message), post.request.headers.get(MCP_PROTOCOL_VERSION_HEADER))
        for version in said:
            if isinstance(version, str) and version in HANDSHAKE_PROTOCOL_VERSIONS:
                return version
        return self._negotiated.get(post.principal, DEFAULT_NEGOTIATED_VERSION)


def _headers(session: Session | None) -> list[tuple[bytes, bytes]]:
    return [(_SESSION, session.id.encode())] if session is not None else []


async def _reject(post: _Post, rejection: InboundLadderRejection, request_id: int | str | None) -> None:
    message = wire.error(rejection.code, rejection.message, request_id, rejection.data)
    await wire.answer(post.send, ERROR_CODE_HTTP_STATUS.get(rejection.code, 400), wire.dump(message))
