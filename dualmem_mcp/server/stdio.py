"""MCP over the process's standard input and output.

Written instead of using the SDK's `stdio_server`, which speaks the same protocol but
- reads in a thread that cannot be given up, so that a server told to stop by a signal hangs until its
  client writes another line;
- gives up the calls in progress when the input ends, so that `printf … | server` gets no answers;
- leaves a request that holds half a surrogate pair unanswered, and cannot write one; JavaScript clients
  make them when they cut an emoji in two.

The streams are claimed before anything else is imported: from then on file descriptor 1 is stderr, and
what a library or a child process prints can never get between two messages.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.shared.message import SessionMessage
    from mcp_types import JSONRPCMessage

_log = logging.getLogger(__name__)

_READ_BYTES = 1 << 16
_READ_AHEAD = 4  # messages
_LAST_WRITE_SECONDS = 5.0

# The answer to these requests is a stream that lasts as long as the connection: nobody waits for its end.
_ENDLESS_METHODS = frozenset({"subscriptions/listen"})


@dataclass(frozen=True, slots=True)
class Wire:
    """File descriptors of the client's two pipes, known to nobody else."""

    incoming: int
    outgoing: int


def claim_standard_streams() -> Wire:
    """Take the client's pipes; afterwards descriptor 0 reads as empty and descriptor 1 is stderr.

    A process started without one of the three descriptors gets the null device in its place.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    wire = Wire(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return wire


@asynccontextmanager
async def wire_streams(
    wire: Wire,
) -> AsyncIterator[
    tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]
]:
    """The two message streams that `Server.run` wants, over the pipes.

    The read stream ends once the input has ended and every request received has been answered. When the
    client stops reading, both end at once.
    """
    import anyio  # noqa: PLC0415
    from mcp.shared.message import SessionMessage  # noqa: PLC0415

    incoming_send, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, outgoing_receive = anyio.create_memory_object_stream[SessionMessage](0)
    unanswered = _Unanswered()
    written = anyio.Event()

    async def read() -> None:
        async with incoming_send, aclosing(_read_in_thread(wire.incoming)) as messages:
            async for message in messages:
                unanswered.received(message)
                await incoming_send.send(SessionMessage(message))
            await unanswered.none_left()

    async def write() -> None:
        writer = _WriterThread(wire.outgoing)
        async for item in outgoing_receive:
            if not await writer.write(item.message):
                tasks.cancel_scope.cancel()  # nobody reads any more
                return
            unanswered.sent(item.message)
        written.set()

    with incoming_send, incoming, outgoing, outgoing_receive:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(write)
            yield incoming, outgoing
            outgoing.close()
            with anyio.move_on_after(_LAST_WRITE_SECONDS):
                await written.wait()
            tasks.cancel_scope.cancel()


class _Unanswered:
    """The requests that wait for an answer, so that the end of the input does not cut them off."""

    def __init__(self) -> None:
        self._ids: set[str] = set()  # as text: to the SDK "7" cancels 7
        self._emptied = asyncio.Event()

    def received(self, message: JSONRPCMessage) -> None:
        method = getattr(message, "method", None)
        request_id = getattr(message, "id", None)
        if method == "notifications/cancelled":
            params = getattr(message, "params", None) or {}
            self._settle(params.get("requestId"))  # a cancelled request is never answered
        elif method is not None and request_id is not None and method not in _ENDLESS_METHODS:
            self._ids.add(str(request_id))

    def sent(self, message: JSONRPCMessage) -> None:
        if not hasattr(message, "method"):
            self._settle(message.id)

    def _settle(self, request_id: Any) -> None:
        self._ids.discard(str(request_id))
        if not self._ids:
            self._emptied.set()

    async def none_left(self) -> None:
        while self._ids:
            self._emptied.clear()
            await self._emptied.wait()


async def _read_in_thread(descriptor: int) -> AsyncGenerator[JSONRPCMessage]:
    """Messages as they arrive, read and parsed in a daemon thread that a stopping process leaves behind."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[JSONRPCMessage | None] = asyncio.Queue()
    room = threading.Semaphore(_READ_AHEAD)

    def run() -> None:
        with suppress(RuntimeError):  # the loop has stopped meanwhile
            try:
                for line in _lines(descriptor):
                    if (message := parse(line)) is not None:
                        room.acquire()
                        loop.call_soon_threadsafe(arrived.put_nowait, message)
            finally:
                loop.call_soon_threadsafe(arrived.put_nowait, None)

    threading.Thread(target=run, name="mcp-input", daemon=True).start()
    while (message := await arrived.get()) is not None:
        room.release()
        yield message


def _lines(descriptor: int) -> Iterator[bytes]:
    """Lines without their end; what stands after the last line end is given too."""
    # os.read and not a file object: a thread left behind inside a buffered reader aborts the interpreter.
    parts: list[bytes] = []
    while True:
        try:
            chunk = os.read(descriptor, _READ_BYTES)
        except OSError:  # the terminal or the pipe is gone
            chunk = b""
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            yield b"".join((*parts, part))
            parts.clear()
        parts.append(rest)
        if not chunk:
            yield b"".join(parts)
            return


class _WriterThread:
    """Writes messages to a descriptor in a daemon thread: a client that does not read blocks nobody else."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[tuple[JSONRPCMessage, asyncio.Future[bool]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="mcp-output", daemon=True).start()

    async def write(self, message: JSONRPCMessage) -> bool:
        """True when the message is written, False if nobody reads the descriptor any more."""
        done: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.put((message, done))
        return await done

    def _run(self) -> None:
        while True:
            message, done = self._waiting.get()
            outcome = self._write(message)
            with suppress(RuntimeError):  # the loop has stopped meanwhile
                self._loop.call_soon_threadsafe(_settle, done, outcome)

    def _write(self, message: JSONRPCMessage) -> bool | Exception:
        try:
            left = memoryview(serialize(message))
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            return False
        except Exception as error:  # noqa: BLE001 - raised again where the message came from
            return error
        return True


def _settle(future: asyncio.Future[bool], outcome: bool | Exception) -> None:
    if future.done():  # cancelled: nobody waits for the outcome
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def parse(line: bytes) -> JSONRPCMessage | None:
    """The message of a line, or None, with a word in the log, if it holds none (an empty line: without a word)."""
    from mcp_types import jsonrpc_message_adapter  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    if not line.strip():
        return None
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError:
        pass
    # The fast parser refuses half surrogate pairs, bytes that are not UTF-8, and deep nesting.
    try:
        value = json.loads(line.decode(errors="replace"), parse_constant=_refuse_constant)
        return jsonrpc_message_adapter.validate_python(value, by_name=False)
    except (ValueError, RecursionError):
        # Not answered: without a readable id there is no telling which request it was.
        _log.warning("skipped %d bytes of input that are not a JSON-RPC message", len(line))
        return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def serialize(message: JSONRPCMessage) -> bytes:
    """The line of a message, with its end."""
    from pydantic_core import PydanticSerializationError  # noqa: PLC0415

    try:
        text = message.model_dump_json(by_alias=True, exclude_unset=True)
    except PydanticSerializationError:  # half a surrogate pair has no UTF-8, but JSON has an escape for it
        text = json.dumps(message.model_dump(by_alias=True, exclude_unset=True), separators=(",", ":"))
    return text.encode() + b"\n"
