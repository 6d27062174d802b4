"""When to sync: often while in use, seldom when idle, soon after writes, ever more patiently without the bucket."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal

from dualmem_mcp.model.sync_timing import SyncTiming

IN_USE_SECONDS: Final = 300.0
"""After a call a device counts as in use for so long."""

FULL_SECONDS: Final = 900.0
"""A sync that lists the bucket, and so finds gaps and logs that were set back, at least so often while in use."""

IDLE_FULL_SECONDS: Final = 6 * 3600.0
"""And so often while idle: a listing costs twelve times what a look at one object does."""

START_SECONDS: Final = 1.0
"""The first sync waits so long: whoever started this has a call to make."""

FRESH_SECONDS: Final = 1.0
"""Whoever calls wants to see what others wrote: a call has the bucket asked, if it was last asked so long ago."""

BUSY_SECONDS: Final = 1.0
"""When another process was syncing, what waits is looked at again after so long."""

FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 300.0

Step = Literal["full", "probe", "look"]
"""A sync that lists, one that looks at the next objects only, and a look at this device alone."""


class Rhythm:
    """Which step is due when. Times are seconds of a clock that never goes back; `chance` gives 0 ≤ x < 1.

    Whoever follows it asks `due`, does that step, and tells what came of it; `next_at` says when to ask again.
    """

    def __init__(self, timing: SyncTiming, *, now: float, chance: Callable[[], float]) -> None:
        self._timing = timing
        self._chance = chance
        self._interval = self._enough = timing.poll_seconds
        self._used_at = now
        self._polled_at = -math.inf
        self._listed_at = -math.inf
        self._poll_at = now + START_SECONDS
        self._look_at = now + timing.background_seconds
        self._send_at = math.inf
        self._changes = 0
        self._failures = 0

    def used(self, now: float) -> None:
        """Somebody uses the device."""
        self._used_at = now
        self._interval = self._timing.poll_seconds
        if not self._failures:  # a bucket that is away is not asked more often because somebody is here
            soon = max(now, self._polled_at + FRESH_SECONDS)
            if soon < self._poll_at:
                self._poll_at, self._enough = soon, FRESH_SECONDS

    def changed(self, now: float, *, urgent: bool = False) -> None:
        """A change was made on purpose, and waits to be sent; an urgent one does not wait for more."""
        self._changes += 1
        enough = urgent or self._changes >= self._timing.batch_changes
        self._send_at = now if enough else now + self._timing.batch_ms / 1000

    def found_waiting(self, now: float) -> None:
        """A look showed that changes wait which nobody told of."""
        self._send_at = min(self._send_at, now)

    def next_at(self) -> float:
        """When the next step is due; in the past if one is."""
        return min(self._poll_at, self._send_at, math.inf if self._failures else self._look_at)

    def due(self, now: float) -> Step | None:
        """The step to do now, if one is due."""
        if now >= self._poll_at:
            return "full" if self.wants_listing(now) else "probe"
        if now >= self._send_at:
            return "probe"
        return "look" if now >= self._look_at and not self._failures else None

    def is_sending_only(self, now: float) -> bool:
        """Whether the step due now is there for changes alone: without any, nobody misses it."""
        return now < self._poll_at

    def begin(self, step: Step, now: float) -> None:
        """A step begins: what is changed after the beginning of a sync wants one more."""
        self._look_at = now + self._timing.background_seconds
        if step != "look":
            self._send_at = math.inf
            self._changes = 0

    def synced(self, at: float, *, listed_at: float | None = None) -> None:
        """A sync ended well at that time, at whoever's wish; so did one that listed, if `listed_at` is given."""
        self._failures = 0
        self._polled_at = at
        if listed_at is not None:
            self._listed_at = max(self._listed_at, listed_at)
        idle = at - self._used_at > IN_USE_SECONDS
        self._interval = min(self._interval * 2, self._timing.idle_seconds) if idle else self._timing.poll_seconds
        self._poll_at, self._enough = at + self._interval, self._interval

    def was_busy(self, now: float) -> None:
        """Another process was at it: what it found waits no longer, what was changed since may."""
        self.synced(now)
        self._send_at = now + BUSY_SECONDS

    def failed(self, now: float) -> None:
        """A sync has failed: the next is tried after 1 to 2 seconds, then twice that, up to 5 minutes.

        Somewhere in the upper half of that span, so that devices do not all come back at once.
        """
        self._failures += 1
        longest = min(FIRST_RETRY_SECONDS * 2.0 ** min(self._failures, 30), LAST_RETRY_SECONDS)
        self._poll_at = now + longest * (1 + self._chance()) / 2

    @property
    def enough_seconds(self) -> float:
        """A look by another process that is younger makes the next one superfluous."""
        return self._enough

    @property
    def is_failing(self) -> bool:
        """Whether the last sync failed."""
        return self._failures > 0

    def wants_listing(self, now: float, *, listed_at: float = -math.inf) -> bool:
        """Whether the last listing was long ago, taking one into account that was made elsewhere."""
        idle = now - self._used_at > IN_USE_SECONDS
        return now - max(self._listed_at, listed_at) >= (IDLE_FULL_SECONDS if idle else FULL_SECONDS)
