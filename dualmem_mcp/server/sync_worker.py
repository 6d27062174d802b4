"""Syncing in the background of a server: a thread that begins with the application and ends with a last push."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dualmem_mcp.app import App
    from dualmem_mcp.server.sync_loop import SyncLoop

_log = logging.getLogger(__name__)

_ENDING_SECONDS: Final = 2.5


class SyncWorker:
    """The thread that syncs, once there is an application; until then nothing happens."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._listeners: list[Callable[[], object]] = []
        self._loop: SyncLoop | None = None
        self._thread: threading.Thread | None = None

    def on_sync(self, listener: Callable[[], object]) -> None:
        """Call the listener after every sync, and after one that ended with an error when it had brought something
        in; in the thread that syncs."""
        self._listeners.append(listener)

    def start(self, app: App) -> None:
        """Begin, unless the settings leave syncing to the user; returns at once."""
        app.sharing.on_synced(self._told)
        if app.settings.profile.sync.automatic:
            # A daemon: a request to a bucket that does not answer must not keep the process.
            self._thread = threading.Thread(target=self._run, args=(app,), name="sync", daemon=True)
            self._thread.start()

    def used(self) -> None:
        """A tool was called."""
        if self._loop is not None:
            self._loop.used()

    def changed(self, *, urgent: bool = False) -> None:
        """A tool changed something, which is to be sent soon, or at once."""
        if self._loop is not None:
            self._loop.changed(urgent=urgent)

    def synced(self) -> None:
        """A tool has synced."""
        if self._loop is not None:
            self._loop.synced()
        for listener in self._listeners:
            listener()

    def stop(self) -> None:
        """Push what waits, and end; gives up when that takes too long, as nothing of it can be lost."""
        self._stopping.set()
        if self._thread is not None:
            if self._loop is not None:
                self._loop.wake()
            self._thread.join(_ENDING_SECONDS)

    def _run(self, app: App) -> None:
        from dualmem_mcp.server.sync_loop import SyncLoop  # noqa: PLC0415  (brings what only an open app has)

        self._loop = SyncLoop(app, report=self._told)
        self._loop.run(self._stopping)
        try:
            self._loop.push_last()
        except Exception as error:  # noqa: BLE001 - the application may have been closed meanwhile
            _log.info("the last push: %s", type(error).__name__)

    def _told(self, _what: object) -> None:
        for listener in self._listeners:
            listener()
