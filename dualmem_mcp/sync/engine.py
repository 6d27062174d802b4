"""One sync: what the bucket has comes in, what this device changed goes out. Source: docs/sync.md, "A sync"."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.durable_files import file_lock_if_free
from dualmem_mcp.errors import BudgetSpentError, StoreRefusedError, StoreUnreachableError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.ports import Clock, ObjectStore, OpLog, Outbox
from dualmem_mcp.sync.identity import Identity
from dualmem_mcp.sync.listing import list_logs
from dualmem_mcp.sync.own_log import OwnLog
from dualmem_mcp.sync.pull import CatchUp, Pulled, pull
from dualmem_mcp.sync.push import Pushed, push
from dualmem_mcp.sync.requests import CountingObjectStore, Requests
from dualmem_mcp.sync.revoked_log import adopt_late

_LARGE = ("packages/", "manifests/")
"""What waits for a connection that is not metered; a manifest with the package that it names."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What looks different on this device after a sync: subjects' digests, and ids of conversations."""

    subjects: frozenset[bytes]
    conversations: frozenset[str]


NOTHING: Final = Merged(frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a sync works on: the vault and its bucket, and this device's log and queue.

    `objects` may count already what it is asked, as others ask it too; else it is counted here.
    `lock_file` is held while one runs. `mend` makes an object of the queue whole that was damaged there, or takes
    it out and says so in the list. `catch_up` takes in a snapshot where segments have gone, `reach` tells how
    far the newest goes in a device's log, by segment, 0 for none. `count_conflicts` tells how many conflicts wait
    for a decision. `on_merged` is told what looks different here as soon as the run is over, be it that it raises.
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
    on_merged: Callable[[Merged], object] = lambda _: None


@dataclass(frozen=True, slots=True)
class Moved:
    """What went one way: segments, ops, and bytes as they lie in the bucket."""

    segments: int = 0
    ops: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did. `queued` counts the objects and changes that wait still; `busy` says that another process
    was at it; `away` that the bucket could not be reached to the end; `refused` that it answers, and does not let
    this device do what has to be done: trying again will not help; `over_budget` that it was not asked, since the
    budget is spent, which counts as away.
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
    refused: bool = False
    over_budget: bool = False
    merged: Merged = NOTHING

    @property
    def went_through(self) -> bool:
        """Whether this device and the bucket were brought together to the end."""
        return not (self.busy or self.away or self.refused)

    def to_json(self) -> dict[str, Any]:
        """The contract's *sync* fields, and whether another process was at it, the bucket away, or refused it."""
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
            "refused": self.refused,
            "over_budget": self.over_budget,
        }


def sync(exchange: Exchange, *, probe: bool = False, large_objects: bool = True) -> SyncReport:
    """Bring this device and the bucket together, as far as the bucket can be reached now.

    With `probe` nothing is listed: cheaper, for one that follows soon on another. Without `large_objects` packages
    wait. A bucket that is away or refuses is no error: everything waits here. One run at a time in a data home: the
    second returns at once and says so. Raises TamperedError or NotFoundError if the bucket is not the vault's as it
    was, LockedError, and what the database raises; nothing that was merged or queued until then is lost.
    """
    started = time.perf_counter()
    run = _Run(exchange, probe=probe, large_objects=large_objects)
    try:
        with file_lock_if_free(exchange.lock_file) as free:
            if free:
                run.all_of_it()
    finally:
        merged = Merged(frozenset(run.pulled.subjects), frozenset(run.pulled.conversations))
        if merged != NOTHING:
            exchange.on_merged(merged)
    busy = [] if free else ["another process of this device is syncing; this one left it to that"]
    return SyncReport(
        pushed=Moved(run.pushed.segments, run.pushed.ops, run.pushed.size_bytes),
        pulled=Moved(run.pulled.segments, run.pulled.ops, run.pulled.size_bytes),
        conflicts=exchange.count_conflicts(),
        queued=exchange.log.waiting() + len(exchange.outbox.pending()),
        duration_ms=round((time.perf_counter() - started) * 1000, 3),
        cost_usd=run.objects.cost_usd,
        requests=run.objects.requests,
        warnings=[*busy, *run.warnings],
        busy=not free,
        away=run.fault is not None and not run.is_refused,
        refused=run.is_refused,
        over_budget=isinstance(run.fault, BudgetSpentError),
        merged=merged,
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
    fault: StoreUnreachableError | None = None

    def __post_init__(self) -> None:
        objects = self.exchange.objects
        self.objects = objects if isinstance(objects, CountingObjectStore) else CountingObjectStore(objects)

    @property
    def is_refused(self) -> bool:
        return isinstance(self.fault, StoreRefusedError)

    def _stopped_by(self, fault: StoreUnreachableError) -> None:
        self.fault = fault
        refused = "the bucket refuses this device: " if self.is_refused else ""
        self.warnings.append(f"{refused}{fault.message}; everything waits on this device. {fault.hint}".strip())

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
            self._stopped_by(error)
        self.pulled.add(exchange.log.release())
        self.warnings += [*own.notes, *self.problems, *self.pulled.problems, *self.pushed.warnings]
        if self.pushed.fault:
            self._stopped_by(self.pushed.fault)
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
            entries = own.vault.devices()
            revoked = {entry.device_id for entry in entries if entry.revoked_after is not None}
            devices = {entry.device_id for entry in entries} - revoked
            listed = list_logs(self.objects, devices, known, passed_over=revoked)
            own.check(listed.log(own.vault.device_id), exchange.reach)
        pull(own.vault, self.objects, exchange.log, listed=listed, catch_up=exchange.catch_up, into=self.pulled)
        self.problems = [] if listed is None else listed.problems()
        self.warnings += adopt_late(own.vault, exchange.log)

    def _push(self, own: OwnLog) -> None:
        self.pushed = push(
            own,
            mend=lambda key: self.exchange.mend(key, self.warnings),
            leave=lambda key: not self.large_objects and key.startswith(_LARGE),
        )
