"""The threads in which one tier is asked: few, kept, and never more, however long the service hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

MOST_AT_ONCE: Final = 2
"""Questions to one tier that are under way at once. With one that hangs there is room for another; what hangs
longer ends by the client's own time-outs."""

Work = Callable[[], None]


class Lane:
    """Runs work in at most two threads, which are no hindrance to the end of the process. Safe from several
    threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._under_way = 0
        self._threads = 0
        self._started: list[threading.Thread] = []

    def run(self, work: Work) -> bool:
        """Begin the work; False, and nothing is begun, if as much as may be is under way."""
        with self._lock:
            if self._under_way == MOST_AT_ONCE:
                return False
            self._under_way += 1
            if self._threads < self._under_way:
                self._threads += 1
                self._started = [thread for thread in self._started if thread.is_alive()]
                self._started.append(threading.Thread(target=self._work_on, name=f"tier {self._name}", daemon=True))
                self._started[-1].start()
        self._queue.put(work)
        return True

    def close(self) -> None:
        """Let the threads end when they have done what they are at."""
        with self._lock:
            for _ in range(self._threads):
                self._queue.put(None)
            self._threads = 0

    def join(self, seconds: float) -> None:
        """Wait so long for threads that were told to end: what they use is closed next."""
        until = time.monotonic() + seconds
        with self._lock:
            started = [*self._started]
        for thread in started:
            thread.join(max(0.0, until - time.monotonic()))

    def _work_on(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except BaseException:
                with self._lock:
                    self._threads = max(0, self._threads - 1)
                raise
            finally:
                with self._lock:
                    self._under_way -= 1
                del work  # with the question that it is of
