"""One user's application and MCP server, and the transports that reach it. No two tenants share an object."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio import to_thread
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.server.models import InitializationOptions
from mcp.server.runner import ServerRunner

from dualmem_mcp.model.device import is_claude_code
from dualmem_mcp.model.grant import Grant, UserId
from dualmem_mcp.model.grant import Scope as Permission
from dualmem_mcp.remote import wire
from dualmem_mcp.remote.event_stream import EventStreams
from dualmem_mcp.remote.interfaces import CALLER_KEY
from dualmem_mcp.remote.options import Limits, RemoteOptions
from dualmem_mcp.remote.sessions import Sessions
from dualmem_mcp.remote.streamable_http import StreamableHttp
from dualmem_mcp.server.lazy_app import LazyApp
from dualmem_mcp.server.protocol import build_server
from dualmem_mcp.server.subscriptions import Context
from dualmem_mcp.server.sync_worker import SyncWorker
from dualmem_mcp.server.tool import Caller

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from dualmem_mcp.app import App

THREADS: Final = 16
"""Calls of one user that run at once, each in a thread; further ones wait in order of arrival."""

_ENDING_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Transports:
    """The ways to one MCP server over HTTP, and what there is to end."""

    streamable_http: StreamableHttp
    event_streams: EventStreams
    sessions: Sessions
    event_sessions: Sessions

    def end_streams(self) -> None:
        """End all streams; sessions stay, so that their clients can go on."""
        self.streamable_http.end_streams()
        self.sessions.end_streams()
        self.event_sessions.end_streams()


@asynccontextmanager
async def transports(
    server: Server[Any],
    options: InitializationOptions,
    *,
    limits: Limits,
    grant_of: Callable[[Scope], Grant],
    warm_up: Callable[[], Awaitable[None]],
) -> AsyncIterator[Transports]:
    """Transports to that server, until the context ends. Requests must not come any more by then."""
    threads = anyio.CapacityLimiter(THREADS)
    async with server.lifespan(server) as state, anyio.create_task_group() as tasks:

        def make_runner(connection: Connection) -> ServerRunner[Any]:
            return ServerRunner(server, connection, state, init_options=options)

        def sessions() -> Sessions:
            made = Sessions(make_runner, most=limits.sessions_per_user, idle_seconds=limits.session_idle_seconds)
            tasks.start_soon(made.reap)
            return made

        streamable, event = sessions(), sessions()
        common: dict[str, Any] = {"grant_of": grant_of, "threads": threads, "body_bytes": limits.body_bytes}
        yield Transports(
            StreamableHttp(
                make_runner, streamable, warm_up=warm_up, input_schema=server.get_tool_input_schema, **common
            ),
            EventStreams(event, tasks, **common),
            streamable,
            event,
        )
        for each in (streamable, event):
            await each.end_those(lambda _: True)
        tasks.cancel_scope.cancel()


class McpTenant:
    """One user's application, syncing, MCP server and transports: a `Tenant` while `running` is entered."""

    def __init__(self, user: UserId, opener: Callable[[], App], options: RemoteOptions) -> None:
        self._user = user
        self._app = LazyApp(opener)
        self._options = options
        self._worker = SyncWorker()
        self._transports: Transports | None = None
        self._requests: set[anyio.CancelScope] = set()
        self._none_left: anyio.Event | None = None
        self._last_used = time.monotonic()

    @property
    def user(self) -> UserId:
        return self._user

    @property
    def app(self) -> LazyApp:
        return self._app

    @property
    def busy(self) -> bool:
        """Whether requests or streams are under way. Sessions at rest are none: their clients begin new ones."""
        return bool(self._requests)

    @property
    def last_used(self) -> float:
        """When a request last came or ended, as `time.monotonic` has it."""
        return self._last_used

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve. At the end what runs is answered, if it takes no longer than seconds; then all is closed.

        The application is closed whatever happens; what it has not uploaded stays queued.
        """
        limiter = to_thread.current_default_thread_limiter()
        limiter.total_tokens += THREADS  # each tenant brings its own: one user's calls leave the others theirs
        try:
            built = build_server(self._app, self._worker, _permissions, self._caller)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(built.subscriptions.watch)
                async with transports(
                    built.server,
                    built.options,
                    limits=self._options.limits,
                    grant_of=self._grant,
                    warm_up=self._app.warm_up,
                ) as ways:
                    self._transports = ways
                    try:
                        yield
                    finally:
                        self._transports = None
                        with anyio.CancelScope(shield=True):
                            await self._wind_up(ways)
                tasks.cancel_scope.cancel()
        finally:
            limiter.total_tokens -= THREADS
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self._close)

    async def streamable_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streamable HTTP, all methods of one path. The scope holds the request's `Caller`."""
        await self._serve(lambda ways: ways.streamable_http, scope, receive, send)

    async def sse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The stream of HTTP+SSE."""
        await self._serve(lambda ways: ways.event_streams.stream, scope, receive, send)

    async def messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What clients of HTTP+SSE post."""
        await self._serve(lambda ways: ways.event_streams.messages, scope, receive, send)

    async def _serve(
        self, way: Callable[[Transports], ASGIApp], scope: Scope, receive: Receive, send: Send
    ) -> None:
        if self._transports is None:
            await wire.refuse(send, 503, "This server is stopping", retry_seconds=5)
            return
        with self.under_way():
            await way(self._transports)(scope, receive, send)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """As the interface says; at the end of the tenant what takes too long is cancelled."""
        self._last_used = time.monotonic()
        with anyio.CancelScope() as scope:
            self._requests.add(scope)
            try:
                yield
            finally:
                self._requests.discard(scope)
                if not self._requests and self._none_left is not None:
                    self._none_left.set()
                self._last_used = time.monotonic()

    def _grant(self, scope: Scope) -> Grant:
        """The grant of a request, which must be one of this user."""
        grant: Grant = scope[CALLER_KEY].grant
        if grant.user != self._user:
            raise PermissionError("a request of another user")  # a fault of the caller: answered with 500
        return grant

    def _caller(self, context: Context) -> Caller:
        """Who made a request, and which profile suits the device that its answer is read on."""
        request = context.request
        grant: Grant = request.scope[CALLER_KEY].grant  # type: ignore[union-attr]  # as in _permissions
        said = context.session.client_params
        names = (grant.client_name, said.client_info.name if said is not None else "")
        profile = "desktop" if any(map(is_claude_code, names)) else self._options.profile
        return Caller(grant.grant_id, profile)

    async def _wind_up(self, ways: Transports) -> None:
        """Let what runs come to its end, then cut it off."""
        ways.end_streams()
        if self._requests:
            self._none_left = anyio.Event()
            with anyio.move_on_after(_ENDING_SECONDS):
                await self._none_left.wait()
            for request in self._requests:
                request.cancel()
            if self._requests:
                await self._none_left.wait()

    def _close(self) -> None:
        self._worker.stop()
        self._app.close()


def _permissions(context: Context) -> frozenset[Permission]:
    """What the grant of a request allows."""
    request = context.request
    grant: Grant = request.scope[CALLER_KEY].grant  # type: ignore[union-attr]  # every transport here gives one
    return grant.scopes
