"""Sessions of clients of the older protocol versions: whose each is, what it is told between its requests, its end.

A session at rest is a few objects and no task.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio
from mcp.server.connection import Connection
from mcp.server.runner import ServerRunner, aclose_shielded
from mcp.shared.dispatcher import CallOptions, as_request_id, coerce_request_id
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp_types import INTERNAL_ERROR, RequestId

from dualmem_mcp.model.grant import Grant, UserId
from dualmem_mcp.remote import wire
from dualmem_mcp.remote.exchange import PING_SECONDS, Exchange, Outlet
from dualmem_mcp.remote.wire import Json

if TYPE_CHECKING:
    from starlette.types import Send

MOST_STREAMS: Final = 4
"""A session's streams at once. More than one is there while a client connects again and its old connection is not
known to be dead; what is to be told goes to the newest."""

MOST_INTRODUCTION_BYTES: Final = 1 << 16
"""What a client says of itself is kept as long as its session; who says more than this gets none."""

MOST_UNREAD_BYTES: Final = 16 << 20
"""Answers that wait on a stream whose client does not read; a single one may be longer."""

_MOST_UNTOLD: Final = 256
_REAP_SECONDS: Final = 30.0
_ASK_SECONDS: Final = 120.0


MakeRunner = Callable[[Connection], ServerRunner[Any]]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a session belongs to: a user's grant to one client, whichever of its tokens a request shows."""

    user: UserId
    grant_id: str

    @classmethod
    def of(cls, grant: Grant) -> Principal:
        """Whoever a request with that grant is from."""
        return cls(grant.user, grant.grant_id)


class Outbox:
    """What a client is to be told on its streams: the SDK's `Outbound` of a connection.

    Notifications are kept until a stream takes them, each once: they say that something has changed, and twice says
    no more. A client that lost its stream hears them with the next.
    """

    def __init__(self) -> None:
        # Frames in the order of telling, notifications under themselves, all else under a number.
        self._untold: dict[bytes | int, bytes] = {}
        self._said = 0
        self._unread = 0
        self._streams: list[_Stream] = []
        self._ended = False

    async def send_raw_request(
        self, method: str, _params: Mapping[str, Any] | None, _opts: CallOptions | None = None
    ) -> Json:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, _opts: CallOptions | None = None) -> None:
        message: Json = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = dict(params)
        frame = wire.event(wire.dump(message))
        self._untold.pop(frame, None)
        self._untold[frame] = frame
        if len(self._untold) > _MOST_UNTOLD:
            del self._untold[next(key for key in self._untold if isinstance(key, bytes))]
        self._wake()

    def say(self, message: Json) -> None:
        """Tell that to the stream that is open now; closes it if its client does not read."""
        frame = wire.event(wire.dump(message))
        self._said += 1
        self._unread += len(frame)
        self._untold[self._said] = frame
        if self._unread > MOST_UNREAD_BYTES and len(self._untold) > 1:
            self.close()
        self._wake()

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def end(self) -> None:
        """End all streams, and those that are about to begin."""
        self._ended = True
        self.close()

    def close(self) -> None:
        """End all streams; what was said to them alone is lost."""
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.wake()
        self._untold = {key: frame for key, frame in self._untold.items() if isinstance(key, bytes)}
        self._unread = 0

    async def stream(self, send: Send) -> None:
        """Write what there is to tell to that response, until it is ended or cancelled."""
        if self._ended:
            return
        stream = _Stream()
        self._streams.append(stream)
        if len(self._streams) > MOST_STREAMS:
            self._streams.pop(0).wake()
        try:
            await send(wire.part_of_stream(wire.PING))
            while stream in self._streams:
                if self._untold and self._streams[-1] is stream:
                    frames, self._untold = b"".join(self._untold.values()), {}
                    await send(wire.part_of_stream(frames))
                    self._unread = max(0, self._unread - len(frames))
                elif not await stream.woken(PING_SECONDS):
                    await send(wire.part_of_stream(wire.PING))
        finally:
            if stream in self._streams:
                self._streams.remove(stream)
            self._wake()  # what comes now is for the next newest

    def _wake(self) -> None:
        if self._streams:
            self._streams[-1].wake()


class _Stream:
    """An open stream, asleep until there is something to tell."""

    def __init__(self) -> None:
        self._news = anyio.Event()

    def wake(self) -> None:
        self._news.set()

    async def woken(self, seconds: float) -> bool:
        """Sleep until woken, or for so long: whether it was woken."""
        with anyio.move_on_after(seconds):
            await self._news.wait()
            self._news = anyio.Event()
            return True
        return False


class Session:
    """One session: the SDK's connection and runner for it, its requests under way, its streams."""

    def __init__(self, session_id: str, owner: Principal, make_runner: MakeRunner) -> None:
        self.id = session_id
        self.owner = owner
        self.outbox = Outbox()
        self.connection = Connection.for_loop(self.outbox, session_id=session_id)
        self.runner = make_runner(self.connection)
        self.last_used = time.monotonic()
        self.claimed = False
        self._ended = False
        self._under_way: dict[RequestId, list[Exchange]] = {}
        self._asked: dict[RequestId, Callable[[Json], None]] = {}

    @property
    def busy(self) -> bool:
        """Whether a request is under way or a stream open."""
        return bool(self._under_way or self.outbox.streams)

    @property
    def under_way(self) -> int:
        """How many requests are."""
        return sum(map(len, self._under_way.values()))

    def use(self) -> None:
        """The client has come back with the session's id."""
        self.claimed = True
        self.last_used = time.monotonic()

    async def run(self, exchange: Exchange, method: str, params: Mapping[str, Any] | None) -> Json:
        """The answer to a request of this session."""
        key = coerce_request_id(exchange.request_id) if exchange.request_id is not None else ""
        self._under_way.setdefault(key, []).append(exchange)
        try:
            return await exchange.run(self.runner, method, params)
        finally:
            remaining = self._under_way[key]
            remaining.remove(exchange)
            if not remaining:
                del self._under_way[key]
            self.last_used = time.monotonic()
            await self._let_go()

    async def hear(self, exchange: Exchange, method: str, params: Mapping[str, Any] | None) -> None:
        """Deal with a notification."""
        await self.runner.on_notify(exchange, method, params)
        await self._let_go()

    def cancel(self, request_id: RequestId) -> None:
        """The client no longer wants the answer to that request."""
        for exchange in self._under_way.get(coerce_request_id(request_id), ()):
            exchange.cancel()

    async def ask(self, outlet: Outlet, method: str, params: Mapping[str, Any] | None, seconds: float) -> Json:
        """The client's result of a request that goes out there. Raises MCPError."""
        request_id = f"s{secrets.token_hex(8)}"
        replied, reply = anyio.Event(), {}

        def take(message: Json) -> None:
            reply.update(message)
            replied.set()

        self._asked[request_id] = take
        try:
            message: Json = {"jsonrpc": "2.0", "id": request_id, "method": method}
            await outlet.emit(message if params is None else {**message, "params": dict(params)})
            with anyio.move_on_after(seconds):
                await replied.wait()
        finally:
            del self._asked[request_id]
        if not isinstance(reply.get("result"), dict):
            told = reply.get("error")
            text = str(told.get("message")) if isinstance(told, dict) else "the client has not replied"
            raise MCPError(INTERNAL_ERROR, text)
        return dict(reply["result"])

    def reply(self, message: Json) -> None:
        """What the client replied to a request of ours; one that nobody waits for is dropped."""
        request_id = as_request_id(message.get("id"))
        if request_id is not None and (take := self._asked.get(request_id)) is not None:
            take(message)

    def outlet(self, way: Outlet) -> Outlet:
        """That way to the client, with replies to what is asked on it."""
        return _TwoWay(self, way)

    async def end(self) -> None:
        """End its streams, and let go of what was kept for it. Requests under way are still answered."""
        self._ended = True
        self.outbox.end()
        await aclose_shielded(self.connection)

    async def _let_go(self) -> None:
        """Let go of what a request has left behind that went on after the end."""
        if self._ended:
            await aclose_shielded(self.connection)


class _TwoWay:
    """A way to a session's client; replies to what is asked on it come back through the session."""

    two_way = True

    def __init__(self, session: Session, way: Outlet) -> None:
        self._session = session
        self._way = way

    async def emit(self, message: Json) -> None:
        await self._way.emit(message)

    async def offer(self, message: Json) -> None:
        await self._way.offer(message)

    async def ask(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None) -> Json:
        seconds = (opts or {}).get("timeout", _ASK_SECONDS)
        return await self._session.ask(self._way, method, params, seconds)


class Sessions:
    """The sessions of one user. Bounded: a further one ends that which was idle the longest."""

    def __init__(self, make_runner: MakeRunner, *, most: int, idle_seconds: float) -> None:
        self._make_runner = make_runner
        self._most = most
        self._idle_seconds = idle_seconds
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, owner: Principal, *, make_room: bool = True) -> Session | None:
        """A new session, which only that principal can use; None if there are too many, and all in use."""
        given_up = []
        while make_room and len(self._sessions) >= self._most:
            # First of all those of clients that never came back with the id: Claude's connectors.
            idle = [session for session in self._sessions.values() if not session.busy]
            if not idle:
                break
            longest = min(idle, key=lambda session: (session.claimed, session.last_used))
            given_up.append(self._sessions.pop(longest.id))
        session = None
        if len(self._sessions) < self._most:
            session = Session(secrets.token_hex(16), owner, self._make_runner)
            self._sessions[session.id] = session
        for each in given_up:
            await each.end()
        return session

    def find(self, session_id: str, principal: Principal) -> Session | None:
        """The principal's session of that id; None if there is none, or it is somebody else's."""
        session = self._sessions.get(session_id)
        if session is None or session.owner != principal:
            return None
        session.use()
        return session

    async def end(self, session: Session) -> None:
        """End it: its id is unknown from now on."""
        self._sessions.pop(session.id, None)
        await session.end()

    def end_streams(self) -> None:
        """End all streams; the sessions stay."""
        for session in self._sessions.values():
            session.outbox.close()

    async def end_those(self, fitting: Callable[[Session], bool]) -> None:
        """End all sessions of which that is true."""
        for session in [each for each in self._sessions.values() if fitting(each)]:
            await self.end(session)

    async def reap(self) -> None:
        """End sessions that were idle for too long, until cancelled."""
        while True:
            await anyio.sleep(min(_REAP_SECONDS, self._idle_seconds / 2))
            await self.end_those(self._idle_too_long)

    def _idle_too_long(self, session: Session) -> bool:
        return not session.busy and session.last_used < time.monotonic() - self._idle_seconds
