"""What every run needs: the time, and somebody to tell how far it has come."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The time, injected so that tests never depend on the wall clock."""

    def now(self) -> datetime:
        """The time now, with time zone UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class Progress(Protocol):
    """Called by long work: steps done, steps in all, what is being done (never with content)."""

    def __call__(self, done: int, total: int, message: str) -> None: ...


def no_progress(done: int, total: int, message: str) -> None:
    """A Progress for callers that do not show any."""
