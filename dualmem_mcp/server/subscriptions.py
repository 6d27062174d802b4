"""Who wants to hear of changed resources, and the telling: what tools changed here, and what came from elsewhere.

From elsewhere are changes that a sync of this process brought, and those of other processes on the same data home,
whatever made them. Both show in the database, so both are found by looking there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
import mcp_types as types
from anyio import to_thread
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from dualmem_mcp.errors import DualmemError
from dualmem_mcp.server import resources
from dualmem_mcp.server.faults import log_fault
from dualmem_mcp.server.lazy_app import LazyApp
from dualmem_mcp.server.tool import Answer

if TYPE_CHECKING:
    from dualmem_mcp.app import App

_log = logging.getLogger(__name__)

Context = ServerRequestContext[Any, Any]

LOOK_SECONDS: Final = 2.0
"""Between two looks for what other processes changed, while somebody has subscribed."""

LIST_LOOK_SECONDS: Final = 30.0
"""And while nobody has: then only the list of resources may have grown."""

MOST_URIS: Final = 1_000
"""What one connection or stream can subscribe to."""

MOST_URI_CHARACTERS: Final = 2_000

_LIST: Final = ""
"""Stands among the URIs for the list of resources."""


class Subscriptions:
    """The subscribers of one server, in either protocol era. All but `look_soon` is for its event loop alone."""

    def __init__(self, app: LazyApp) -> None:
        self._app = app
        self._loop = asyncio.get_running_loop()
        self._bus = InMemorySubscriptionBus()
        self._listen = ListenHandler(self._bus)
        # The open connections of the older era, each with the URIs that its client has subscribed to.
        self._connections: dict[Connection, set[str]] = {}
        self._listened: Counter[str] = Counter()
        # For each URI what `resources.mark` gave when somebody was last told of it, or subscribed.
        self._marks: dict[str, Hashable] = {}
        self._news = anyio.Event()
        # Calls that may change something: begun so far, running now; and whether a look was given up over one.
        self._begun = 0
        self._changing = 0
        self._missed = False

    def introduce(self, context: Context) -> None:
        """A client of the older era is there, and hears when the list of resources changes."""
        self._uris_of(context)

    def _uris_of(self, context: Context) -> set[str]:
        """What the connection's client has subscribed to; the connection is dropped when it ends."""
        # The SDK names the connection's exit stack as the place for that, and gives handlers no other way to it.
        connection: Connection = context.session._connection
        if connection not in self._connections:
            self._connections[connection] = set()
            connection.exit_stack.callback(self._drop, connection)
        return self._connections[connection]

    def _drop(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._forget_unwanted()

    def _forget_unwanted(self) -> None:
        wanted = {_LIST, *self._wanted()}
        self._marks = {uri: mark for uri, mark in self._marks.items() if uri in wanted}

    async def subscribe(self, context: Context, params: types.SubscribeRequestParams) -> dict[str, Any]:
        uris = self._uris_of(context)
        _check([*uris, str(params.uri)])
        await self._mark_first(str(params.uri))
        uris.add(str(params.uri))
        self._news.set()
        return {}

    async def unsubscribe(self, context: Context, params: types.UnsubscribeRequestParams) -> dict[str, Any]:
        self._uris_of(context).discard(str(params.uri))
        self._forget_unwanted()
        return {}

    async def listen(
        self, context: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Serve one stream of the newer era, to its end."""
        uris = [str(uri) for uri in params.notifications.resource_subscriptions or ()]
        _check(uris)
        for uri in uris:
            await self._mark_first(uri)
        self._listened.update(uris)
        self._news.set()
        try:
            return await self._listen(context, params)
        finally:
            self._listened.subtract(uris)
            self._listened = +self._listened
            self._forget_unwanted()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While a tool may change something: what it changed is told with its answer, and not as from elsewhere."""
        self._begun += 1
        self._changing += 1
        try:
            yield
        finally:
            self._changing -= 1
            if self._missed and not self._changing:
                self._missed = False
                self._news.set()

    async def tell(self, context: Context, answer: Answer) -> None:
        """Send the notifications that a tool's answer gives rise to, ahead of the answer itself."""
        for uri in answer.updated:
            if uri in self._wanted():
                await self._mark(uri)
            await self._tell_updated(uri)
        if answer.lists_changed:
            await self._mark(_LIST)
            await self._bus.publish(ResourcesListChanged())
            if context.protocol_version in HANDSHAKE_PROTOCOL_VERSIONS:
                await context.session.send_resource_list_changed()

    def look_soon(self, *_: object) -> None:
        """Have a look for changes from elsewhere; from any thread, also when the loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._news.set()

    async def watch(self) -> None:
        """Tell of changes from elsewhere, until cancelled."""
        while True:
            with anyio.move_on_after(LOOK_SECONDS if self._wanted() else LIST_LOOK_SECONDS):
                await self._news.wait()
            self._news = anyio.Event()
            if (app := self._app.opened) is not None:
                await self._look(app)

    async def _look(self, app: App) -> None:
        begun = self._begun
        if self._changing:
            self._missed = True
            return
        uris = [_LIST, *self._wanted()]
        marks = await to_thread.run_sync(_marks, app, uris)
        if self._begun != begun:  # what is new may be the work of a call that tells of it
            self._missed = True
            return
        for uri, mark in zip(uris, marks, strict=True):
            if mark is None or self._marks.setdefault(uri, mark) == mark:
                continue
            self._marks[uri] = mark
            await (self._tell_updated(uri) if uri else self._tell_list_changed())

    def _wanted(self) -> list[str]:
        return sorted(set(self._listened).union(*self._connections.values()))

    async def _mark_first(self, uri: str) -> None:
        if uri not in self._wanted():  # else a change that others wait for would be passed over
            await self._mark(uri)

    async def _mark(self, uri: str) -> None:
        """Note how things stand now, so that only later changes are told."""
        with suppress(DualmemError):  # else the next call says so, and the first look that can be taken marks
            (mark,) = await to_thread.run_sync(_marks, await self._app.get(), [uri])
            if mark is not None:
                self._marks[uri] = mark

    async def _tell_updated(self, uri: str) -> None:
        await self._bus.publish(ResourceUpdated(uri))
        for connection, uris in list(self._connections.items()):
            if uri in uris:
                await connection.send_resource_updated(uri)

    async def _tell_list_changed(self) -> None:
        await self._bus.publish(ResourcesListChanged())
        for connection in list(self._connections):
            await connection.send_resource_list_changed()


def _check(uris: list[str]) -> None:
    """Raises MCPError for more than one client may have looked after."""
    if len(uris) > MOST_URIS or any(len(uri) > MOST_URI_CHARACTERS for uri in uris):
        text = f"at most {MOST_URIS} resources can be subscribed to, with URIs of {MOST_URI_CHARACTERS} characters"
        raise MCPError(types.INVALID_PARAMS, text)


def _marks(app: App, uris: list[str]) -> list[Hashable]:
    """A mark for each URI, None where there is no telling now."""
    marks: list[Hashable] = []
    for uri in uris:
        try:
            marks.append(resources.list_mark(app) if uri == _LIST else resources.mark(app, uri))
        except DualmemError as error:
            _log.info("cannot tell whether %s changed: %s", uri or "the list", error)
            marks.append(None)
        except Exception as error:  # noqa: BLE001 - the next look may be better off
            log_fault("look for changes", error)
            marks.append(None)
    return marks
