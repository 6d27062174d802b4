"""Named points at which a test can end the process, or have a fault, to see that nothing is lost.

Each stands where something durable was just done, or is about to be: a write, an fsync, a rename, an upload, a
commit. Nothing happens at one unless a test asked for it in this very process.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

_reached: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Say that the point of that name is reached."""
    if _reached is not None:
        _reached(name)


@contextlib.contextmanager
def watched(reached: Callable[[str], None]) -> Iterator[None]:
    """Tell `reached` the name of each point reached meanwhile, by whatever thread; what it raises goes on there."""
    global _reached  # noqa: PLW0603  (a switch for the whole process, as a crash is)
    before, _reached = _reached, reached
    try:
        yield
    finally:
        _reached = before


def crash_at(number: int) -> None:
    """End this process at that point, counted from 1, without a word and without cleaning up, as kill -9 does."""
    global _reached  # noqa: PLW0603
    count = 0

    def reached(name: str) -> None:  # noqa: ARG001
        nonlocal count
        count += 1
        if count == number:
            # Windows has no SIGKILL; there os.kill ends a process as hard with any signal.
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    _reached = reached
