"""One request's way through the MCP server, and the one HTTP response that everything it says goes to.

Written instead of using the SDK's session transports, which
- look replies up by their JSON-RPC id in a table of the session, where a second request with the same id takes
  the first one's place (here a request holds its own response, so there is nothing to look up);
- hold four tasks for each session at rest and three more for each open stream, where this holds none and one;
- answer a request without a session, or with header and body of different protocol versions, with 400.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio
from mcp.server.runner import ServerRunner
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.jsonrpc_dispatcher import handler_exception_to_error_data, progress_token_from_params
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import INTERNAL_ERROR, RequestId

from dualmem_mcp.remote import wire
from dualmem_mcp.remote.wire import Accept, Json
from dualmem_mcp.server.faults import log_fault

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Send

_log = logging.getLogger(__name__)

IN_THREADS: Final = frozenset({"tools/call", "resources/list", "resources/read"})
"""Methods whose work is done in a thread."""

PING_SECONDS: Final = 15.0
"""Proxies end what is silent for a minute or two; a response that takes longer than this becomes a stream."""

_ATTENDED_SECONDS: Final = 1.0
_OFFER_SECONDS: Final = 5.0

# Source: what the SDK answers to a cancelled request of these protocol versions (mcp 2.3), after LSP.
REQUEST_CANCELLED: Final = -32800


class Outlet(Protocol):
    """Where an exchange says something before its answer."""

    @property
    def two_way(self) -> bool:
        """Whether it takes requests to the client too, and replies to them arrive."""
        ...

    async def emit(self, message: Json) -> None:
        """Send a message to the client, or drop it if that cannot be."""
        ...

    async def offer(self, message: Json) -> None:
        """As `emit`, for what may be lost: a client that does not read holds nobody up for long."""
        ...

    async def ask(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None, /) -> Json:
        """Send a request to the client: its result. Raises MCPError."""
        ...


class OneWay:
    """An outlet whose client cannot reply; what is said is lost, unless a subclass has somewhere to put it."""

    two_way = False

    async def emit(self, message: Json) -> None:
        """Drop it."""

    async def offer(self, message: Json) -> None:
        """As `emit`."""
        await self.emit(message)

    async def ask(self, method: str, _params: Mapping[str, Any] | None, _opts: CallOptions | None) -> Json:
        """Raises NoBackChannelError."""
        raise NoBackChannelError(method)


class Exchange:
    """One message of a client being dealt with: the SDK's `DispatchContext` for it."""

    def __init__(
        self, request: Request, request_id: RequestId | None, params: Mapping[str, Any] | None, outlet: Outlet
    ) -> None:
        self.request_id = request_id
        self.message_metadata = ServerMessageMetadata(request_context=request, can_send_request=outlet.two_way)
        self.transport = TransportContext(
            kind="streamable-http", can_send_request=outlet.two_way, headers=request.headers
        )
        self.cancel_requested = anyio.Event()
        self.scope = anyio.CancelScope()
        self._progress_token = progress_token_from_params(params)
        self._outlet = outlet

    @property
    def can_send_request(self) -> bool:
        return self._outlet.two_way

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> Json:
        if not self._outlet.two_way:
            raise NoBackChannelError(method)
        return await self._outlet.ask(method, params, opts)

    async def notify(self, method: str, params: Mapping[str, Any] | None, _opts: CallOptions | None = None) -> None:
        message: Json = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = dict(params)
        await self._outlet.emit(message)

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        if self._progress_token is None:
            return
        params: Json = {"progressToken": self._progress_token, "progress": progress}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = message
        # A call that changes something keeps others waiting: no client that does not read may hold it up.
        await self._outlet.offer({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    async def run(self, runner: ServerRunner[Any], method: str, params: Mapping[str, Any] | None) -> Json:
        """The answer as a message: a result or an error, never an exception."""
        with self.scope:
            try:
                result = await runner.on_request(self, method, params)
            except Exception as raised:  # noqa: BLE001 - one failing request must not end the connection
                told = handler_exception_to_error_data(raised)
                if told is None:
                    log_fault(method, raised)
                    return wire.error(INTERNAL_ERROR, "Internal server error", self.request_id)
                return wire.error(told.code, told.message, self.request_id, told.data)
            return {"jsonrpc": "2.0", "id": self.request_id, "result": result}
        return wire.error(REQUEST_CANCELLED, "Request cancelled", self.request_id)

    def cancel(self) -> None:
        """The client no longer wants the answer."""
        self.cancel_requested.set()
        self.scope.cancel()


class Response(OneWay):
    """The response to one POST: JSON, unless something has to be said before the end, or that takes long."""

    def __init__(self, send: Send, accept: Accept, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._send = send
        self._accept = accept
        self._headers = list(headers)
        self._streaming = False
        self._ended = False
        self._sending = anyio.Lock()
        self._offered: asyncio.Task[None] | None = None

    async def emit(self, message: Json) -> None:
        """Say something ahead of the answer; dropped where the client takes no stream."""
        await self.write(wire.event(wire.dump(message)))

    async def offer(self, message: Json) -> None:
        """Say something that may be lost: dropped where what was said before is still on its way."""
        if self._sending.locked():
            return
        # In a task of its own, as a write that is given up leaves a compressed stream unreadable.
        self._offered = asyncio.get_running_loop().create_task(self.emit(message))
        with anyio.move_on_after(_OFFER_SECONDS):
            await asyncio.shield(self._offered)

    async def write(self, frame: bytes) -> None:
        """Write a frame to the stream, which begins with the first; dropped where the client takes none."""
        if not self._accept.stream:
            return
        async with self._sending:
            if self._ended:
                return
            if not self._streaming:
                await self._send(wire.start_of_stream(self._headers))
                self._streaming = True
            await self._send(wire.part_of_stream(frame))

    async def finish(self, message: Any, status: int = 200) -> None:
        """Send the answer, or several as a list; the status counts where nothing was said before."""
        async with self._sending:
            self._ended = True
            if not self._streaming and self._accept.json:
                await wire.answer(self._send, status, wire.dump(message), self._headers)
                return
            if not self._streaming:
                await self._send(wire.start_of_stream(self._headers))
            messages = message if isinstance(message, list) else [message]
            frames = b"".join(wire.event(wire.dump(each)) for each in messages)
            await self._send(wire.part_of_stream(frames, last=True))

    async def cut_off(self) -> None:
        """End a stream without an answer."""
        async with self._sending:
            self._ended = True
            if self._streaming:
                await self._send(wire.part_of_stream(b"", last=True))


async def attended(
    response: Response,
    work: Awaitable[Any],
    *,
    receive: Receive | None = None,
    gone: Callable[[], None] | None = None,
) -> Any:
    """The work's result; if it takes long, the response is kept alive meanwhile.

    With `receive`, `gone` is called once the client has closed the connection. Quick work costs a timer alone.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    def begin() -> None:
        tasks.append(loop.create_task(_ping(response, done)))
        if receive is not None and gone is not None:
            tasks.append(loop.create_task(_watch(receive, gone)))

    timer = loop.call_later(_ATTENDED_SECONDS, begin)
    try:
        return await work
    finally:
        timer.cancel()
        done.set()
        for task in tasks[1:]:
            task.cancel()


async def until_gone(receive: Receive, work: Awaitable[None]) -> None:
    """Do the work until it is done or the client has closed the connection."""
    with anyio.CancelScope() as scope:
        watching = asyncio.get_running_loop().create_task(_watch(receive, scope.cancel))
        try:
            await work
        finally:
            watching.cancel()


async def _ping(response: Response, done: asyncio.Event) -> None:
    """Keep the response alive until that is done; never given up within a write."""
    while True:
        with anyio.move_on_after(PING_SECONDS):
            await done.wait()
            return
        await response.write(wire.PING)


async def _watch(receive: Receive, gone: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone()
