"""The server of the endpoint: its sockets, TLS, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import FrameType
from typing import Final

import uvicorn

from dualmem_mcp.errors import DualmemError, StoreUnreachableError, UsageError
from dualmem_mcp.remote.connections import bounded_protocol
from dualmem_mcp.remote.endpoint import Endpoint
from dualmem_mcp.remote.hosts import is_loopback
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.remote.tls import Certificate

_log = logging.getLogger(__name__)

OpenEndpoint = Callable[[], AbstractAsyncContextManager[Endpoint]]

_STOPPING_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
_BACKLOG: Final = 2_048

# Every write to a socket lets go of the interpreter's lock, and gets it back from a busy thread after this time.
_SWITCH_SECONDS: Final = 0.0005
# After the answers: the last push to the bucket and the closing of what is open.
_CLOSING_SECONDS: Final = 4.0

# Requests leave garbage in cycles; with the default of 700 objects, a tenth of the time goes into looking for it.
_GARBAGE_THRESHOLDS: Final = (50_000, 20, 50)


def run(options: RemoteOptions, open_endpoint: OpenEndpoint, listening: Callable[[int], object]) -> signal.Signals:
    """Serve until a signal comes, and return it; what was answered is stored by then.

    `listening` is called with the port once requests are taken. Raises UsageError for an address or certificate
    that cannot be used, StoreUnreachableError for a port that is taken.
    """
    check(options)
    # Both before anything is opened that would have to be closed again.
    certificate = Certificate.of(options)
    sockets = _listening_sockets(options.host, options.port)
    raise_file_limit()
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    stopped_by: list[signal.Signals] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        async with open_endpoint() as endpoint, _served(options, endpoint, certificate, sockets) as server:

            def stop(number: int, _frame: FrameType | None) -> None:
                stopped_by.append(signal.Signals(number))
                for each in _STOPPING_SIGNALS:
                    signal.signal(each, signal.SIG_DFL)  # a second one ends the process at once
                _end_in_time(number, options.limits.stop_seconds + _CLOSING_SECONDS)
                loop.call_soon_threadsafe(server.stopping.set)

            for number in _STOPPING_SIGNALS:
                signal.signal(number, stop)
            gc.freeze()  # what is here now stays, and is no longer looked through
            listening(server.port)
            await server.stopping.wait()

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve())
    except BaseExceptionGroup as group:
        raise _cause(group) from None
    finally:
        for each in sockets:
            each.close()
    return stopped_by[0]


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What can be told to the user, out of what failed while tasks were running; the group if it is a fault."""
    known: BaseException | None = group.subgroup(DualmemError)
    while isinstance(known, BaseExceptionGroup):
        known = known.exceptions[0]
    return known or group


def check(options: RemoteOptions) -> None:
    """Raises UsageError for addresses that would carry passphrases and tokens in the clear."""
    if (options.certificate is None) != (options.key is None):
        raise UsageError(
            "a certificate and its key belong together",
            operation="serve",
            hint="Give both --certificate and --key, or neither behind a proxy.",
        )
    if options.certificate is None and not is_loopback(options.host):
        raise UsageError(
            f"without a certificate {options.host} would be served over plain HTTP",
            operation="serve",
            subject=options.host,
            hint="Give --certificate and --key, or leave out --host and have a proxy on this machine bring TLS.",
        )
    if options.certificate is not None and not options.secure:
        raise UsageError(
            f"with a certificate {options.public_url} is not what clients call",
            operation="serve",
            subject=options.public_url,
            hint="Give --public-url as https://….",
        )


class Serving:
    """A server that takes requests: at which port, and the event that ends it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.stopping = asyncio.Event()


@asynccontextmanager
async def served(options: RemoteOptions, endpoint: Endpoint) -> AsyncIterator[Serving]:
    """The endpoint taking requests; at the end streams are ended, and requests under way answered."""
    certificate = Certificate.of(options)
    sockets = _listening_sockets(options.host, options.port)
    async with _served(options, endpoint, certificate, sockets) as serving:
        yield serving


@asynccontextmanager
async def _served(
    options: RemoteOptions, endpoint: Endpoint, certificate: Certificate | None, sockets: list[socket.socket]
) -> AsyncIterator[Serving]:
    config = uvicorn.Config(
        endpoint,
        http=bounded_protocol(options.limits),  # type: ignore[arg-type]  # anything that makes a protocol will do
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # a log of who asked what is nobody's wish here
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(options.limits.idle_seconds),
        timeout_graceful_shutdown=max(1, int(options.limits.stop_seconds)),
        backlog=_BACKLOG,
        ssl_context_factory=None if certificate is None else lambda *_: certificate.context,
    )
    # Strangers send what is no HTTP all day: that is no news.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = _Server(config, options.limits.header_seconds)
    serving = asyncio.create_task(server.serve(sockets))
    background = [asyncio.create_task(endpoint.streams.watch())]
    if certificate is not None:
        background.append(asyncio.create_task(certificate.keep_renewed()))
    try:
        await server.begun(serving)
        yield Serving(sockets[0].getsockname()[1])
    finally:
        endpoint.stop()
        server.end()
        for task in background:
            task.cancel()
        await serving


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, handshake_seconds: float) -> None:
        super().__init__(config)
        self.is_listening = asyncio.Event()
        self._ending = asyncio.Event()
        self._handshake_seconds = handshake_seconds if config.is_ssl else None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections from these sockets; as uvicorn does, but that a handshake has a time."""
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                self._connection,
                sock=each,
                ssl=self.config.ssl,
                backlog=_BACKLOG,
                ssl_handshake_timeout=self._handshake_seconds,
                ssl_shutdown_timeout=self._handshake_seconds,
            )
            for each in sockets or ()
        ]
        self.started = True
        self.is_listening.set()

    async def main_loop(self) -> None:
        """Keep the date that answers carry current; a look a second instead of ten."""
        while not self._ending.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._ending.wait()

    def end(self) -> None:
        """Let `serve` come to its end."""
        self.should_exit = True
        self._ending.set()

    async def begun(self, serving: asyncio.Task[None]) -> None:
        """Wait until connections are taken. Raises what kept the server from it."""
        listening = asyncio.create_task(self.is_listening.wait())
        await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if serving.done():
            await serving

    def _connection(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state={})

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the caller's


def _listening_sockets(host: str, port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            if port == 0 and sockets:
                break  # another family would get another port
            sockets.append(socket.create_server(address, family=family, backlog=_BACKLOG))
            sockets[-1].setblocking(False)
    except OSError as error:
        for each in sockets:
            each.close()
        raise StoreUnreachableError(
            f"{host} port {port} cannot be listened on: {error.strerror or error}",
            operation="serve",
            subject=f"{host}:{port}",
            hint="Give another --port, or end the program that has this one.",
        ) from None
    return sockets


def raise_file_limit() -> None:
    """Let the process hold as many connections as the system allows it."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  (not on Windows)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        with contextlib.suppress(ValueError, OSError):  # macOS refuses more than it has
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 16) if hard > 0 else 1 << 16, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's where there is one (not on Windows): a request takes a third less of the processor."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _end_in_time(number: int, seconds: float) -> None:
    """End the process by the signal after a while, whatever still runs then.

    A thread that waits for the bucket cannot be interrupted; what it would have sent is queued.
    """
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


def addresses(options: RemoteOptions, port: int) -> Sequence[str]:
    """What to tell who started the server, in lines."""
    at = f"[{options.host}]" if ":" in options.host else options.host
    scheme = "https" if options.certificate is not None else "http"
    lines = [f"listening on {scheme}://{at}:{port}"]
    if options.secure:
        lines += [
            f"in Claude: Settings > Connectors > Add custom connector, URL {options.resource}",
            f"in Claude Code: claude mcp add --transport http dualmem {options.resource}",
            f"your pages: {options.public_url}/",
        ]
    else:
        lines += [
            f"in Claude Code: claude mcp add --transport http dualmem {options.resource}",
            f"your pages: {options.public_url}/",
            "Claude on the web and on the phone need --public-url https://… (docs/remote.md)",
        ]
    return lines
