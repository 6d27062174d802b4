"""The application, opened when it is first needed and not before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from dualmem_mcp.errors import DualmemError

if TYPE_CHECKING:
    from dualmem_mcp.app import App

_log = logging.getLogger(__name__)


class LazyApp:
    """Opens the application once, in a worker thread, for whoever asks first.

    Opening takes a few hundred milliseconds, most of them imports, and may ask the keyring: `initialize`
    must not wait for that. An attempt that failed is made again at the next call, as its cause (a locked
    keyring, a full disk) may be gone by then.
    """

    def __init__(self, opener: Callable[[], App]) -> None:
        self._opener = opener
        self._app: App | None = None
        self._listeners: list[Callable[[App], object]] = []
        self._opening = anyio.Lock()

    @property
    def opened(self) -> App | None:
        """The application, if it is open."""
        return self._app

    def on_open(self, listener: Callable[[App], object]) -> None:
        """Call the listener with the application once it is open, in the thread that opened it."""
        self._listeners.append(listener)

    async def get(self) -> App:
        """The application. Raises the DualmemError that opening it raised."""
        async with self._opening:
            if self._app is None:
                return await anyio.to_thread.run_sync(self._open)
            return self._app

    def _open(self) -> App:
        # Kept here, in the thread: the request that opening was begun for may be cancelled meanwhile.
        self._app = self._opener()
        for notice in self._app.notices:
            _log.warning("%s", notice)
        for listener in self._listeners:
            listener(self._app)
        return self._app

    async def warm_up(self) -> None:
        """Open it now, so that the first call need not wait; a failure is left for that call to report."""
        try:
            app = await self.get()
            await anyio.to_thread.run_sync(app.warm_up)
        except DualmemError as error:
            _log.warning("not opened yet: %s", error)

    def close(self) -> None:
        """Write what is not written yet; nothing must be running on the application any more."""
        if self._app is not None:
            self._app.close()
            self._app = None
