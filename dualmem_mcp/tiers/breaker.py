"""A circuit breaker: a tier that keeps failing is left alone for a while, then tried once.

Source: M. Nygard, *Release It!*, 2nd edition, "Circuit Breaker".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

FAILURES: Final = 3
"""So many failures in a row open it."""

FIRST_PAUSE_SECONDS: Final = 30.0
LONGEST_PAUSE_SECONDS: Final = 300.0
"""The pause doubles with each trial that fails, up to this."""


class Breaker:
    """Closed while all is well, open after three failures in a row, half-open when the pause is over: then one
    trial is let through, whose outcome closes or opens it. Safe from several threads."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._failures = 0
        self._pause = FIRST_PAUSE_SECONDS
        self._closed_again_at: float | None = None
        self._trying = False

    def lets_through(self) -> bool:
        """Whether to ask now. Whoever was told so reports `succeeded` or `failed`."""
        with self._lock:
            if self._closed_again_at is None:
                return True
            if self._trying or self._now() < self._closed_again_at:
                return False
            self._trying = True
            return True

    def succeeded(self) -> None:
        """An answer came in time."""
        with self._lock:
            self._failures = 0
            self._pause = FIRST_PAUSE_SECONDS
            self._closed_again_at = None
            self._trying = False

    def failed(self) -> None:
        """An answer was an error, or late."""
        with self._lock:
            self._failures += 1
            if self._trying:
                self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
            elif self._failures < FAILURES or self._closed_again_at is not None:
                return
            self._trying = False
            self._closed_again_at = self._now() + self._pause
