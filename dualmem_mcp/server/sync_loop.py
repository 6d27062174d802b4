"""What a server, or a watching command, syncs by itself: steps when `sync.rhythm` says, each told of."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.crypto.vault_file import VAULT_KEY
from dualmem_mcp.errors import DualmemError
from dualmem_mcp.model.sync_timing import SyncTiming
from dualmem_mcp.server.faults import log_fault
from dualmem_mcp.sync.last_sync import LastSync
from dualmem_mcp.sync.rhythm import Rhythm, Step

if TYPE_CHECKING:
    from dualmem_mcp.app import App

_log = logging.getLogger(__name__)

LAST_PUSH_SECONDS: Final = 2.0
"""What waits at the end is pushed for so long; the rest is sent by the next process that syncs.
Source: clients of the MCP SDK kill a server two seconds after they closed its input."""

TURN_SECONDS: Final = 10.0
"""A sync by hand waits so long for one that another process, or this one, has begun."""

_CHECKPOINT_LOOK_SECONDS: Final = 30.0
"""Between two looks whether a checkpoint is due: one of the session file's age, and of what was kept last."""

SyncReport = Callable[[Mapping[str, Any]], object]


def sync_by_hand(app: App, *, large_objects: bool, max_seconds: float | None = None) -> dict[str, Any]:
    """The result of a full sync that somebody waits for: while another is at it, which may have begun before the
    last change, this one waits a little for its turn."""
    began = time.monotonic()
    while (result := app.sync(large_objects=large_objects, max_seconds=max_seconds))["busy"]:
        if time.monotonic() - began > (TURN_SECONDS if max_seconds is None else min(max_seconds, TURN_SECONDS)):
            break
        time.sleep(0.1)
    return result


class SyncLoop:
    """What to sync when, for one open application. Safe to tell of calls and changes from any thread.

    `report` gets the result of every sync; `problem` what went wrong, once and not again at every try. `timing` and
    `large_objects` are those of the settings unless given; `clock` counts seconds and never goes back; `chance`
    gives 0 ≤ x < 1. A device without a vault is left alone until it has one.
    """

    def __init__(
        self,
        app: App,
        *,
        report: SyncReport = lambda _: None,
        problem: Callable[[str], object] = lambda text: _log.warning("sync: %s", text),
        timing: SyncTiming | None = None,
        large_objects: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._app = app
        self._report = report
        self._problem = problem
        self._clock = clock
        self._rhythm = Rhythm(timing or app.settings.sync, now=clock(), chance=chance)
        self._large_objects = not app.settings.sync.wifi_only if large_objects is None else large_objects
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._last = LastSync(app.home.root, app.clock)
        self._told = ""
        self._checkpoint_at = clock()

    def used(self) -> None:
        """Somebody called a tool: the device is in use."""
        with self._lock:
            self._rhythm.used(self._clock())
        self._news.set()

    def changed(self, *, urgent: bool = False) -> None:
        """Something was changed here on purpose, and is to be sent soon, or at once."""
        with self._lock:
            self._rhythm.changed(self._clock(), urgent=urgent)
        self._news.set()

    def synced(self) -> None:
        """Somebody synced by hand: that counts as a look, and forgets what failed before."""
        self._end(listed=True)
        self._news.set()

    def run(self, stopping: threading.Event) -> None:
        """Sync whenever it is due, until the event is set; call `wake` after setting it."""
        while not stopping.is_set():
            seconds = self.turn()
            self._news.wait(seconds)
            self._news.clear()

    def wake(self) -> None:
        """End the present wait."""
        self._news.set()

    def turn(self) -> float:
        """Do the step that is due, if one is; seconds until the next."""
        with self._lock:
            now = self._clock()
            step = self._rhythm.due(now)
            for_changes = self._rhythm.is_sending_only(now)
            if step is not None:
                self._rhythm.begin(step, now)
        if step is not None:
            self._do(step, for_changes=for_changes)
        self._checkpoint()
        with self._lock:
            return max(0.0, self._rhythm.next_at() - self._clock())

    def _checkpoint(self) -> None:
        """Keep what the agents of the running session are at, where it is time to: with the bucket or without."""
        now = self._clock()
        if now < self._checkpoint_at:
            return
        self._checkpoint_at = now + _CHECKPOINT_LOOK_SECONDS
        try:
            self._app.save_checkpoint()
        except DualmemError as error:
            _log.info("no checkpoint: %s", error)
        except Exception as error:  # noqa: BLE001 - syncing goes on; the next one may be better off
            log_fault("checkpoint", error)

    def push_last(self) -> None:
        """Send what waits, unless the bucket is known to be away."""
        if self._rhythm.is_failing:
            return
        try:
            if self._has_vault() and self._app.sync_waiting():
                self._app.sync(probe=True, max_seconds=LAST_PUSH_SECONDS, large_objects=False)
        except DualmemError as error:
            self._tell(f"{error.message}. {error.hint}".strip())

    def _do(self, step: Step, *, for_changes: bool) -> None:
        try:
            if step == "look":
                if self._has_vault() and self._app.sync_waiting():
                    with self._lock:
                        self._rhythm.found_waiting(self._clock())
            elif not self._has_vault():
                with self._lock:
                    self._rhythm.synced(self._clock())
            elif for_changes:
                if self._app.sync_waiting():
                    self._sync(probe=True)
            elif not self._left_to_others(step):
                self._sync(probe=step == "probe")
        except DualmemError as error:
            self._fail()
            self._tell(f"{error.message}. {error.hint}".strip())
        except Exception as error:  # noqa: BLE001 - the server goes on; the next sync may be better off
            self._fail()
            if (fault := type(error).__name__) != self._told:
                log_fault("sync", error)
            self._told = fault

    def _sync(self, *, probe: bool) -> None:
        result = self._app.sync(probe=probe, large_objects=self._large_objects)
        if result["away"] or result["refused"]:
            self._fail()
            self._tell("; ".join(result["warnings"]))
        elif result["busy"]:
            with self._lock:
                self._rhythm.was_busy(self._clock())
        else:
            self._end(listed=not probe)
            if not probe:
                self._app.vectors.move_in_background()
        self._report(result)

    def _has_vault(self) -> bool:
        return self._app.blobs.get(VAULT_KEY) is not None

    def _end(self, *, listed: bool) -> None:
        self._told = ""
        with self._lock:
            now = self._clock()
            self._rhythm.synced(now, listed_at=now if listed else None)

    def _fail(self) -> None:
        with self._lock:
            self._rhythm.failed(self._clock())

    def _left_to_others(self, step: Step) -> bool:
        """Whether another process of this device looked so lately that nothing is missed, and nothing waits."""
        ages = self._last.ages()
        with self._lock:
            now = self._clock()
            if ages.synced is None or ages.synced >= self._rhythm.enough_seconds:
                return False
            if step == "full" and (
                ages.listed is None or self._rhythm.wants_listing(now, listed_at=now - ages.listed)
            ):
                return False
            self._rhythm.synced(now - ages.synced, listed_at=None if ages.listed is None else now - ages.listed)
        return not self._app.sync_waiting()

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            self._problem(problem)
        self._told = problem
