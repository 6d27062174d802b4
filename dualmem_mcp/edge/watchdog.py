"""A limit on the time that each of many short waits may take, without a thread for each of them."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchdog:
    """Calls `bark`, once, when something that it watches takes too long; safe for use from several threads.

    Its thread sleeps until what began first would take too long, and not only until that has ended: so a search, of
    which there are many in that time, does not wake it. A `threading.Timer` for each costs 0.3 ms.
    """

    def __init__(self, bark: Callable[[], object]) -> None:
        self._bark = bark
        self._numbers = itertools.count()
        self._ends: dict[int, float] = {}
        self._looks_at = math.inf
        self._called = threading.Event()
        self._stopped = False
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self, seconds: float) -> Iterator[None]:
        """The block may take so long."""
        number, end = next(self._numbers), time.monotonic() + seconds
        self._ends[number] = end
        # Looked at after the end is there: a thread that did not see that is seen here to sleep too long.
        if end < self._looks_at:
            self._called.set()
        try:
            yield
        finally:
            del self._ends[number]

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped = True
        self._called.set()

    def _run(self) -> None:
        while not self._stopped:
            self._called.clear()
            self._looks_at = math.inf
            first = min(list(self._ends.values()), default=math.inf)
            self._looks_at = first
            left = first - time.monotonic()
            if left <= 0:
                self._bark()
                return
            if not self._stopped:
                self._called.wait(None if left == math.inf else left)
