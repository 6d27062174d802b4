"""Whether the process is up, and whether it can serve, for whoever watches over it."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

if TYPE_CHECKING:
    from starlette.types import Send

_log = logging.getLogger(__name__)

HEALTH_PATH: Final = "/healthz"
READY_PATH: Final = "/readyz"
PATHS: Final = frozenset({HEALTH_PATH, READY_PATH})

_KEPT_SECONDS: Final = 5.0


class Readiness:
    """Whether a folder can be written, asked of the disk at most every five seconds, whoever asks how often."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._asking = anyio.Lock()
        self._asked_at: float | None = None
        self._is_ready = False
        self.stopping = False

    async def is_ready(self) -> bool:
        """Whether requests can be served now; no longer once the server is stopping."""
        if self.stopping:
            return False
        async with self._asking:
            if self._asked_at is None or self._clock() - self._asked_at >= _KEPT_SECONDS:
                self._is_ready = await to_thread.run_sync(_can_be_written, self._folder)
                self._asked_at = self._clock()
        return self._is_ready


def _can_be_written(folder: Path) -> bool:
    # A byte in truth: a full disk and one mounted read-only both let a folder look writable.
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".ready-") as file:
            file.write(b"0")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        _log.warning("not ready: the data folder cannot be written: %s", os.strerror(error.errno or 0))
        return False
    return True


async def answer(path: str, method: str, readiness: Readiness, send: Send) -> None:
    """Answer a request for one of the two paths; it says no more than yes or no."""
    good = path == HEALTH_PATH or await readiness.is_ready()
    body = b'{"status":"ok"}' if good else b'{"status":"unavailable"}'
    status = 200 if good else 503
    if method not in ("GET", "HEAD"):
        status, body = 405, b""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
