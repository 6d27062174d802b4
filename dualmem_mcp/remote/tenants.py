"""The applications of this host's users: of its one user, or of each user of a folder while they are at it."""

from __future__ import annotations

import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import anyio
from anyio import to_thread

from dualmem_mcp.errors import DualmemError, LockedError, OverBudgetError, StoreUnreachableError
from dualmem_mcp.handoff.remembered import forget_texts
from dualmem_mcp.model.grant import OWNER, UserId
from dualmem_mcp.remote.core_files import forbid_core_files
from dualmem_mcp.remote.interfaces import Caller, Tenant
from dualmem_mcp.server.faults import log_fault
from dualmem_mcp.stores.keystore import handed_in
from dualmem_mcp.stores.user_folder import UserFolder

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import TaskGroup

    from dualmem_mcp.app import App

IDLE_SECONDS: Final = 900.0
"""A user's application is closed when nobody has asked it for so long: from then on nothing here opens it but a
token or the passphrase."""

MOST_OPEN: Final = 64
"""Applications open at once; each has a few MB, and 150 MB more for minutes after its user has searched."""

_JUST_ASKED_SECONDS: Final = 10.0
"""One that was asked so recently does not make room for another: its request may be about to begin."""

_AT_REST_SECONDS: Final = 300.0
"""No request takes longer, so from then on there is but a session or a stream, whose client begins anew."""

_LONGEST_PAUSE_SECONDS: Final = 15.0


class RunningTenant(Tenant, Protocol):
    """A tenant as those know it who open and close it."""

    @property
    def busy(self) -> bool:
        """Whether requests or streams are under way, or a session is kept."""
        ...

    @property
    def last_used(self) -> float:
        """When a request last came or ended, in seconds of `time.monotonic`."""
        ...

    def running(self) -> AbstractAsyncContextManager[object]:
        """While this is entered requests are served; at its end what waits is pushed and the application closed."""
        ...


MakeTenant = Callable[[UserId, Callable[[], "App"]], RunningTenant]
"""A user's tenant, on the application that the function opens."""


class OwnTenant:
    """The one user of a host that keeps the key itself: open as long as the host serves."""

    def __init__(self, tenant: RunningTenant) -> None:
        self._tenant = tenant

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While this is entered the user is served. Raises the DualmemError that opening the data home raised."""
        failure: DualmemError | None = None
        async with self._tenant.running():
            try:
                await self._tenant.app.get()
            except DualmemError as error:
                failure = error  # from here it would come out inside an exception group
            else:
                yield
        if failure is not None:
            raise failure

    async def tenant(self, caller: Caller) -> Tenant:
        """As the interface says."""
        if caller.grant.user != OWNER:
            raise _refused(caller.grant.user)
        return self._tenant


@dataclass(eq=False, slots=True)
class _Entry:
    """A user's application from the request that opens it until it is closed."""

    user: UserId
    secret: bytes = field(repr=False)
    tenant: RunningTenant | None = None
    asked_at: float = 0.0
    failure: DualmemError | None = None
    opened: anyio.Event = field(default_factory=anyio.Event)
    closing: anyio.Event = field(default_factory=anyio.Event)
    closed: anyio.Event = field(default_factory=anyio.Event)


class UserTenants:
    """The users of a folder, each with an application that is opened by the first request whose secret opens it and
    closed when it was idle; the secret is forgotten with it. Objects of one user are never another's.

    `clock` counts seconds and never goes back. For one event loop.
    """

    def __init__(
        self,
        folder: UserFolder,
        make: MakeTenant,
        *,
        most_open: int = MOST_OPEN,
        idle_seconds: float = IDLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._make = make
        self._most_open = most_open
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._entries: dict[UserId, _Entry] = {}
        self._listeners: list[Callable[[UserId], object]] = []
        self._tasks: TaskGroup | None = None

    def on_close(self, listener: Callable[[UserId], object]) -> None:
        """Call the listener, in the event loop, with whom an application was closed of."""
        self._listeners.append(listener)

    @property
    def open_users(self) -> list[UserId]:
        """Whose applications are open, being opened or being closed now."""
        return sorted(self._entries)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While this is entered users are served; at its end all applications are closed.

        Raises StoreUnreachableError if the folder cannot be read.
        """
        forbid_core_files()
        await to_thread.run_sync(self._folder.remove_leftovers)
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._close_idle_ones)
            try:
                yield
            finally:
                self._tasks = None
                with anyio.CancelScope(shield=True):
                    for entry in list(self._entries.values()):
                        entry.closing.set()
                    for entry in list(self._entries.values()):
                        await entry.closed.wait()
                tasks.cancel_scope.cancel()

    async def tenant(self, caller: Caller) -> Tenant:
        """As the interface says. A request that comes while another one opens the application waits for that."""
        user = caller.grant.user
        checked = False
        while True:
            if not self._folder.has(user):  # was removed, and its logins with it
                raise _refused(user)
            entry = self._entries.get(user)
            if entry is None:
                if not checked:
                    # Before any room is made for it: a secret that opens nothing changes nothing for others.
                    await to_thread.run_sync(handed_in, self._folder.home(user), caller.secret)
                    checked = True
                    continue
                if (leaving := self._making_room()) is not None:
                    await leaving.closed.wait()
                    continue
                entry = self._begin(user, caller.secret)
            await entry.opened.wait()
            same = hmac.compare_digest(entry.secret, caller.secret)
            if entry.failure is not None:
                await entry.closed.wait()
                if same:
                    raise entry.failure.with_traceback(None)
            elif entry.closing.is_set():
                await entry.closed.wait()
            elif not same:
                raise _refused(user)
            elif entry.tenant is not None:
                entry.asked_at = self._clock()
                return entry.tenant

    async def close(self, user: UserId) -> None:
        """Close a user's application if it is open; returns when it is closed."""
        if (entry := self._entries.get(user)) is not None:
            entry.closing.set()
            await entry.closed.wait()

    def _begin(self, user: UserId, secret: bytes) -> _Entry:
        if self._tasks is None:
            raise _busy("this host is stopping")
        entry = self._entries[user] = _Entry(user, secret, asked_at=self._clock())
        # In a task of its own: the request that opens it may be cancelled, and others wait for it.
        self._tasks.start_soon(self._host, entry)
        return entry

    def _making_room(self) -> _Entry | None:
        """The application that closes to make room for another, if as many are open as may be: one that closes
        already, or the one that was asked longest ago.

        Raises OverBudgetError if all are being asked.
        """
        if len(self._entries) < self._most_open:
            return None
        entries = list(self._entries.values())
        leaving = [entry for entry in entries if entry.closing.is_set()]
        at_rest = [entry for entry in entries if self._rested(entry) > _JUST_ASKED_SECONDS and not _is_busy(entry)]
        at_rest = at_rest or [entry for entry in entries if self._rested(entry) > _AT_REST_SECONDS]
        if not leaving and not at_rest:
            raise _busy("as many users as this host has room for are at it")
        entry = leaving[0] if leaving else max(at_rest, key=self._rested)
        entry.closing.set()
        return entry

    async def _host(self, entry: _Entry) -> None:
        """Open the application, keep it while it is used, and close it."""
        try:
            entry.tenant = self._make(entry.user, partial(_open, self._folder.home(entry.user), entry))
            async with entry.tenant.running():
                try:
                    await entry.tenant.app.get()
                except DualmemError as error:
                    entry.failure = error
                else:
                    entry.opened.set()
                    await entry.closing.wait()
        except Exception as error:  # noqa: BLE001 - what ends one user's application must not end the others'
            log_fault(f"application of {entry.user}", error)
            entry.failure = entry.failure or DualmemError(
                "your memory could not be opened, by a fault of this program", operation="open data home"
            )
        finally:
            entry.closing.set()
            del self._entries[entry.user]
            entry.tenant = None
            entry.opened.set()
            entry.closed.set()
            if entry.failure is None:
                entry.secret = b""  # those that wait for its closing compare nothing any more
            forget_texts()
            for listener in self._listeners:
                listener(entry.user)

    def _rested(self, entry: _Entry) -> float:
        """Seconds since somebody asked it; none while it is opened."""
        if entry.tenant is None or not entry.opened.is_set():
            return 0.0
        return self._clock() - max(entry.asked_at, entry.tenant.last_used)

    async def _close_idle_ones(self) -> None:
        while True:
            await anyio.sleep(min(_LONGEST_PAUSE_SECONDS, self._idle_seconds / 4))
            self.close_idle()

    def close_idle(self) -> None:
        """Have those closed that were idle long enough, and those whose users were removed."""
        for entry in list(self._entries.values()):
            idle = not _is_busy(entry) and self._rested(entry) >= self._idle_seconds
            if idle or self._is_removed(entry.user):
                entry.closing.set()

    def _is_removed(self, user: UserId) -> bool:
        try:
            return not self._folder.has(user)
        except StoreUnreachableError:  # a disk that is away for a moment has removed nobody
            return False


def _is_busy(entry: _Entry) -> bool:
    return entry.tenant is None or entry.tenant.busy


def _open(home: Path, entry: _Entry) -> App:
    from dualmem_mcp.app import open_app  # noqa: PLC0415  (with all that belongs to it 0.3 s to import)
    from dualmem_mcp.settings import load_hosted_settings  # noqa: PLC0415

    return open_app(load_hosted_settings(home), edge_process=True, secret=entry.secret)


def _refused(user: UserId) -> LockedError:
    return LockedError(
        "this login does not open the data home", operation="open data home", subject=user, hint="Log in again."
    )


def _busy(what: str) -> OverBudgetError:
    return OverBudgetError(what, operation="open data home", hint="Try again in a minute.")
