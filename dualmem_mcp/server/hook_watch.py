"""The running server as hooks see it: a lock says whose sessions it looks after, and a touch wakes it.

So a hook need not start a process of its own to have a session indexed that this server's edge can index.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dualmem_mcp.durable_files import file_lock_if_free
from dualmem_mcp.errors import DualmemError
from dualmem_mcp.hook import SERVED_FOLDER

if TYPE_CHECKING:
    from dualmem_mcp.app import App

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0


class HookWatch:
    """A thread that begins with the application. Of several servers of a project one holds the lock, and all are
    woken; when that one ends, another takes the lock."""

    def __init__(self, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._look_seconds = look_seconds
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, app: App) -> None:
        """Begin; returns at once. An application without projects of its own is left alone."""
        if app.news is not None:
            self._thread = threading.Thread(target=self._run, args=(app,), name="hooks", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End: hooks see that nobody looks after the project here."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(self._look_seconds)

    def _run(self, app: App) -> None:
        folder = app.settings.claude_project_dir or str(Path.cwd())
        key = app.news.key_of(folder) if app.news is not None else ""
        if not key:
            return
        file = app.settings.home / SERVED_FOLDER / key
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            file.parent.mkdir(mode=0o700, exist_ok=True)
            holds = False
            seen = 0
            while True:
                holds = holds or self._take(file, held)
                touched = _touched(file)
                if holds and not touched:  # a hook took the file for one of a server that has ended
                    held.close()
                    holds = False
                if seen and touched > seen:
                    app.wake_edge()
                seen = max(seen, touched)
                if self._stopping.wait(self._look_seconds):
                    break
            if holds:
                file.unlink(missing_ok=True)

    def _take(self, file: Path, held: contextlib.ExitStack) -> bool:
        """Whether the lock is held from now on, until the stack is closed."""
        attempt = contextlib.ExitStack()
        try:
            free = attempt.enter_context(file_lock_if_free(file))
        except DualmemError as error:
            _log.info("hooks: %s", error)
            return False
        if free:
            held.push(attempt)
        else:
            attempt.close()
        return free


def _touched(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
