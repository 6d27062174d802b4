"""Vectors in a search service as an application has them kept up: when they move by themselves, and what is known
without asking.

Nothing here imports what a server at rest can do without: the work is done where the edge runs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from dualmem_mcp.edge.interface import EdgeInterface
from dualmem_mcp.errors import DualmemError
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports import BlobCache, Clock
from dualmem_mcp.ports.placements import Placements
from dualmem_mcp.tiers.state import TierState

_log = logging.getLogger(__name__)

EVERY: Final = timedelta(minutes=10)
"""Vectors move at most so often by themselves: nothing that a plan looks at changes much within that."""

MOST_SECONDS: Final = 20.0
"""So long vectors move at most before a sync by hand ends; a later one goes on."""

BACKGROUND_SECONDS: Final = 120.0
"""So long they move at most in the background at a time."""

_CLOSING_SECONDS: Final = 2.5

_MOVED_AT: Final = "local/tiers/moved_at"


class VectorMoves:
    """The tiers of one data home, moved in good time. For use from any thread.

    `edge` gives what does the work; `url` says where the search service is, None for none.
    """

    def __init__(
        self,
        *,
        url: str | None,
        blobs: BlobCache,
        placements: Placements,
        clock: Clock,
        edge: Callable[[], EdgeInterface],
    ) -> None:
        self._url = url
        self._blobs = blobs
        self._state = TierState(blobs)
        self._placements = placements
        self._clock = clock
        self._edge = edge
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._told = ""

    @property
    def is_on(self) -> bool:
        """Whether this device uses a search service."""
        return self._state.switches(self._url).enabled

    def points(self) -> dict[TierName, int]:
        """Points by tier, as far as this device knows; none where nothing was ever placed."""
        return dict(self._placements.counts())

    def status(self) -> dict[str, Any] | None:
        """enabled, points and problem (None for none); None where there is neither a service nor a point."""
        points = sum(self.points().values())
        if self._url is None and not points:
            return None
        return {"enabled": self.is_on, "points": points, "problem": self._state.seen().problem or None}

    def move(self, *, max_seconds: float = MOST_SECONDS) -> dict[str, Any] | None:
        """Move what should move, for so long; the fields of `dualmem tiers apply --json`, None where nothing is
        switched on. What goes wrong is in them, never raised."""
        if not self.is_on:
            return None
        # Noted before: one that dies over it is not begun again at every sync.
        self._blobs.put(_MOVED_AT, self._clock.now().isoformat().encode("ascii"))
        moved = self._edge().move_vectors(max_seconds=max_seconds)
        if moved["left"] and not moved["problem"] and moved["duration_ms"] >= max_seconds * 1000:
            self._blobs.put(_MOVED_AT, b"")  # its time was over; the next sync goes on
        return moved

    def move_if_due(self, *, max_seconds: float = MOST_SECONDS) -> dict[str, Any] | None:
        """The same, unless some process of this device did so within the last ten minutes."""
        return self.move(max_seconds=max_seconds) if self.is_on and self._is_due() else None

    def move_in_background(self) -> None:
        """Begin the same in a thread of its own, unless one is at it; returns at once."""
        if not self.is_on or not self._is_due():
            return
        with self._lock:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            # A daemon: a move is safe to be ended at any moment, and must not keep the process.
            self._thread = threading.Thread(target=self._run, name="vectors", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Begin no move any more, and wait a little for one that is under way."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            thread.join(_CLOSING_SECONDS)

    def _run(self) -> None:
        try:
            moved = self.move_if_due(max_seconds=BACKGROUND_SECONDS)
        except Exception as error:  # noqa: BLE001 - the application may be closed meanwhile; the next move is another
            self._tell(error.message if isinstance(error, DualmemError) else f"a fault ({type(error).__name__})")
            return
        if moved is not None:
            self._tell("; ".join(filter(None, (moved["problem"], *moved["warnings"]))))

    def _tell(self, problem: str) -> None:
        if problem and problem != self._told and not self._closed:  # once, and not again at every move
            _log.warning("vectors: %s", problem)
        self._told = problem

    def _is_due(self) -> bool:
        kept = self._blobs.get(_MOVED_AT)
        if not kept:
            return True
        age = self._clock.now() - datetime.fromisoformat(kept.decode("ascii"))
        # A time that is still to come is a clock that was set back.
        return age >= EVERY or age < timedelta(0)
