"""One sync: what the bucket has comes in, what this device changed goes out. Source: docs/sync.md, "A sync"."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.durable_files import file_lock_if_free
from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.ports import Clock, ObjectStore, OpLog, Outbox
from dualmem_mcp.sync.identity import Identity
from dualmem_mcp.sync.listing import list_logs
from dualmem_mcp.sync.own_log import OwnLog
from dualmem_mcp.sync.pull import CatchUp, Pulled, pull
from dualmem_mcp.sync.push import Pushed, push
from dualmem_mcp.sync.requests import CountingObjectStore, Requests

_LARGE = ("packages/", "manifests/")
"""What waits for a connection that is not metered; a manifest with the package that it names."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a sync works on: the vault and its bucket, and this device's log and queue.

    `lock_file` is held while one runs. `mend` makes an object of the queue whole that was damaged there, or takes
    it out and says so in the list. `catch_up` takes in a snapshot where segments have gone, `reach` tells how
    far the newest goes in a device's log, by segment, 0 for none. `count_conflicts` tells how many conflicts wait
    for a decision.
    """

    vault: Vault
    objects: ObjectStore
    outbox: Outbox
    log: OpLog
    clock: Clock
    lock_file: Path
    identity: Identity
    mend: Callable[[str, list[str]], object]
    catch_up: CatchUp
    reach: Callable[[DeviceId], int]
    count_conflicts: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Moved:
    """What went one way: segments, ops, and bytes as they lie in the bucket."""

    segments: int = 0
    ops: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did. `queued` counts the objects and changes that wait still; `busy` says that another process
    was at it; `away` that the bucket could not be reached to the end.

    `subjects` and `conversations` are what looks different on this device now.
    """

    pushed: Moved
    pulled: Moved
    conflicts: int
    queued: int
    duration_ms: float
    cost_usd: float
    requests: Requests
    warnings: list[str]
    busy: bool = False
    away: bool = False
    subjects: frozenset[bytes] = frozenset()
    conversations: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """The contract's *sync* fields, and whether another process was at it or the bucket away."""
        return {
            "pushed": asdict(self.pushed),
            "pulled": asdict(self.pulled),
            "conflicts": self.conflicts,
            "queued": self.queued,
            "duration_ms": self.duration_ms,
            "cost_usd": self.cost_usd,
            "requests": asdict(self.requests),
            "warnings": self.warnings,
            "busy": self.busy,
            "away": self.away,
        }


def sync(exchange: Exchange, *, probe: bool = False, large_objects: bool = True) -> SyncReport:
    """Bring this device and the bucket together, as far as the bucket can be reached now.

    With `probe` nothing is listed: cheaper, for one that follows soon on another. Without `large_objects` packages
    wait. A bucket that is away is no error: everything waits here. One run at a time in a data home: the second
    returns at once and says so. Raises TamperedError or NotFoundError if the bucket is not the vault's as it was,
    LockedError, and what the database raises; nothing that was merged or queued until then is lost.
    """
    started = time.perf_counter()
    run = _Run(exchange, probe=probe, large_objects=large_objects)
    with file_lock_if_free(exchange.lock_file) as free:
        if free:
            run.all_of_it()
    busy = [] if free else ["another process of this device is syncing; this one left it to that"]
    return SyncReport(
        pushed=Moved(run.pushed.segments, run.pushed.ops, run.pushed.size_bytes),
        pulled=Moved(run.pulled.segments, run.pulled.ops, run.pulled.size_bytes),
        conflicts=exchange.count_conflicts(),
        queued=exchange.log.waiting() + len(exchange.outbox.pending()),
        duration_ms=round((time.perf_counter() - started) * 1000, 3),
        cost_usd=round(run.objects.requests.cost_usd(exchange.objects.location), 9),
        requests=run.objects.requests,
        warnings=[*busy, *run.warnings],
        busy=not free,
        away=run.away,
        subjects=frozenset(run.pulled.subjects),
        conversations=frozenset(run.pulled.conversations),
    )


@dataclass(slots=True)
class _Run:
    exchange: Exchange
    probe: bool
    large_objects: bool
    objects: CountingObjectStore = field(init=False)
    pulled: Pulled = field(default_factory=Pulled)
    pushed: Pushed = field(default_factory=Pushed)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    away: bool = False

    def __post_init__(self) -> None:
        self.objects = CountingObjectStore(self.exchange.objects)

    def all_of_it(self) -> None:
        exchange = self.exchange
        own = OwnLog(exchange.vault, self.objects, exchange.outbox, exchange.log, exchange.identity)
        own.finish_fork()
        try:
            self._refresh(own)
            self._note_clock()
            self._pull(own)
            self._push(own)
            if own.forks:
                self._pull(own)  # the other machine's part of what was this device's log
        except StoreUnreachableError as error:
            self.away = True
            self.warnings.append(f"{error.message}; everything waits on this device. {error.hint}".strip())
        self.pulled.add(exchange.log.release())
        self.warnings += [*own.notes, *self.problems, *self.pulled.problems, *self.pushed.warnings]
        if self.pushed.reason:
            self.away = True
            self.warnings.append(f"not uploaded yet: {self.pushed.reason}")
        if held := sum(exchange.log.held().values()):
            changes = "1 change of other devices is" if held == 1 else f"{held} changes of other devices are"
            self.warnings.append(
                f"{changes} more than a day ahead of the clock and without effect until then: check the clocks of "
                "the devices"
            )

    def _refresh(self, own: OwnLog) -> None:
        if self.probe:
            own.vault.look(self.objects)
        else:
            own.vault.refresh(self.objects)

    def _note_clock(self) -> None:
        stated = self.objects.server_time()
        if stated is not None:
            ahead = self.exchange.clock.now() - stated
            self.exchange.log.set_ahead(round(ahead.total_seconds() * 1000))

    def _pull(self, own: OwnLog) -> None:
        exchange = self.exchange
        listed = None
        if not self.probe:
            known = {device_id: head.segment for device_id, head in exchange.log.heads().items()}
            known[own.vault.device_id] = own.uploaded()
            listed = list_logs(self.objects, {entry.device_id for entry in own.vault.devices()}, known)
            own.check(listed.log(own.vault.device_id), exchange.reach)
        pull(own.vault, self.objects, exchange.log, listed=listed, catch_up=exchange.catch_up, into=self.pulled)
        self.problems = [] if listed is None else listed.problems()

    def _push(self, own: OwnLog) -> None:
        self.pushed = push(
            own,
            mend=lambda key: self.exchange.mend(key, self.warnings),
            leave=lambda key: not self.large_objects and key.startswith(_LARGE),
        )
