"""The cloud tiers of one device as the rest of the product uses them: switching, placing, moving, mending, erasing.

Everything here runs where the search indexes are: in the edge's process, or in a command.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.durable_files import file_lock, file_lock_if_free
from dualmem_mcp.errors import ConflictError, NotFoundError, StoreUnreachableError, UsageError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.model.search import Collection
from dualmem_mcp.model.service_location import shown_location
from dualmem_mcp.model.tier_plan import Plan
from dualmem_mcp.model.tiers import TIERS, Cluster, TierName
from dualmem_mcp.ports import AccessLog, BlobCache, Clock, Progress, SearchIndex, Stems, no_progress
from dualmem_mcp.ports.placements import Placements
from dualmem_mcp.ports.tier_search import TierSearch
from dualmem_mcp.tiers.applying import BUSY, Applying, Outcome, fault_text
from dualmem_mcp.tiers.attempts import Attempts
from dualmem_mcp.tiers.bench import NEWEST_EPOCHS, Bench, device_name
from dualmem_mcp.tiers.check import Checking
from dualmem_mcp.tiers.forgetting import Forgetting, passages_of_conversation
from dualmem_mcp.tiers.gone import Gone
from dualmem_mcp.tiers.interrupted import Interrupted
from dualmem_mcp.tiers.mover import last_mover
from dualmem_mcp.tiers.moving import Moving
from dualmem_mcp.tiers.placing import of_conversation
from dualmem_mcp.tiers.planning import Planner
from dualmem_mcp.tiers.removing import remove_all
from dualmem_mcp.tiers.service import SERVICE_TIERS, Connect, Model, ServiceSettings, TierService
from dualmem_mcp.tiers.state import TierState
from dualmem_mcp.tiers.transfer import Written

if TYPE_CHECKING:
    from dualmem_mcp.crypto.vectors import VectorKeys
    from dualmem_mcp.tiers.asking import TierAsker

_PATIENCE_SECONDS: Final = 30.0
"""So long another process of this device is waited for."""

_LOOK_SECONDS: Final = 0.02
"""So often it is looked whether it is done."""


class Tiers:
    """Off until a place is set and `enable` was called on this device. For use from any thread; `close` it.

    What can be put off is never an error: a service that is away leaves its work to a later run. Raised are only
    UsageError for a wrong use, StoreRefusedError for a service that cannot be used as it is set up, NotFoundError
    without a vault or a model, and what the database raises.
    """

    def __init__(
        self,
        *,
        service: ServiceSettings,
        placements: Placements,
        accesses: AccessLog,
        indexes: Callable[[], Mapping[Collection, SearchIndex]],
        is_behind: Callable[[], bool],
        channel: Callable[[], Channel | None],
        blobs: BlobCache,
        model: Model,
        clock: Clock,
        lock_file: Path,
        check_budget: Callable[[], object],
        prices: Callable[[], Mapping[TierName, float]],
        is_erased: Callable[[str], bool],
        connect: Connect,
        stems: Callable[[], Stems],
    ) -> None:
        """`is_behind` tells whether the indexes lack something that the memory has: then nothing counts as deleted.
        `channel` gives the open vault, None without one; `model` the id of the indexes' model and the length of its
        vectors; `prices` US dollars for 1,000 vectors and a month; `lock_file` is held while vectors are written.
        """
        self._service = TierService(service, model=model, channel=channel, connect=connect)
        self._stems = stems
        self._state = TierState(blobs)
        self._forgetting = Forgetting(blobs)
        self._blobs = blobs
        self._placements = placements
        self._accesses = accesses
        self._indexes = indexes
        self._is_behind = is_behind
        self._clock = clock
        self._planner = Planner(accesses, clock, prices, is_behind)
        self._lock_file = lock_file
        self._check_budget = check_budget
        self._prices = prices
        self._is_erased = is_erased
        self._lock = threading.Lock()
        self._asker: TierAsker | None = None

    @property
    def configured(self) -> bool:
        """Whether a service is set."""
        return self._service.configured

    @property
    def enabled(self) -> bool:
        """Whether vectors go to the service, and searches ask it."""
        return self._state.switches(self._service.settings.url).enabled

    @property
    def words(self) -> bool:
        """Whether words go there, too."""
        return self._state.switches(self._service.settings.url).words

    def close(self) -> None:
        """Let go of the connections."""
        with self._lock:
            if self._asker is not None:
                self._asker.close()
                self._asker = None
        self._service.close()

    def status(self) -> dict[str, Any]:
        """configured, url, enabled, words, tiers, epochs, moving, mover, checked_at and problem, as this device
        knows them: nothing is asked of the service."""
        seen = self._state.seen()
        counts, prices = self._placements.counts(), self._prices()
        return {
            "configured": self.configured,
            "url": shown_location(self._service.settings.url or ""),
            "enabled": self.enabled,
            "words": self.words,
            "tiers": [
                {
                    "name": name,
                    "points": counts.get(name, 0),
                    "most": TIERS[name].most_vectors,
                    "target_latency_ms": TIERS[name].target_latency_ms,
                    "usd_per_1k_vectors_month": prices[name],
                }
                for name in SERVICE_TIERS
            ],
            "epochs": len({*seen.epochs, *self._placements.epochs()}),
            "moving": len(self._placements.moving()),
            "mover": self._mover(),
            "checked_at": seen.checked_at,
            "problem": seen.problem,
        }

    def reach(self) -> None:
        """Ask the service for its collections. Raises what `enable` raises if they cannot be used."""
        self._service.channel().vault.check_member()
        self._service.tiers()

    def init(self, cluster: Cluster) -> dict[str, Any]:
        """Make the collections that are not there: collections (tier, name, made), model, dimensions.

        Raises UsageError if no service is set, NotFoundError without a model, StoreRefusedError if a collection
        is for other vectors, StoreUnreachableError.
        """
        made = self._service.create(cluster)
        model_id, dimensions = self._service.model()
        return {"collections": made, "model": model_id, "dimensions": dimensions}

    def enable(self, *, words: bool) -> dict[str, Any]:
        """Have vectors go to the service from now on, and with `words` the texts' words: enabled, words.

        Raises UsageError if no service is set, NotFoundError without a vault or a model, LockedError if this device
        was revoked, StoreRefusedError if the collections are not there or for other vectors, StoreUnreachableError.
        """
        self._service.check_configured("enable tiers")
        self.reach()
        self._state.switch(self._service.settings.url, enabled=True, words=words, now=self._clock.now())
        return {"enabled": True, "words": words}

    def disable(self, *, remove: bool) -> dict[str, Any]:
        """Have nothing go to the service any more, and no search ask it: enabled, removed (points).

        With `remove` all points of the vault are removed, those that other devices placed among them. Raises then
        what `enable` raises; it is switched off all the same, and calling it again goes on.
        """
        self._state.switch(self._service.settings.url, enabled=False, words=False, now=self._clock.now())
        removed = 0
        if remove:
            with file_lock(self._lock_file, timeout_seconds=_PATIENCE_SECONDS), self._bench() as bench:
                removed = remove_all(bench)
        return {"enabled": False, "removed": removed}

    # Where vectors lie

    def plan(self) -> Plan:
        """What should move, as of now; nothing is asked of the service.

        Raises UsageError if no service is set, NotFoundError without a vault.
        """
        self._service.check_configured("plan moves")
        with self._bench() as bench:
            return self._planner(bench)

    def apply(
        self, *, max_seconds: float | None, take_over: bool = False, progress: Progress = no_progress
    ) -> dict[str, Any]:
        """Bring all vectors where they belong, as far as time allows: done (items by action), points_written,
        points_removed, bytes, duration_ms, stale, left, mover (the name of another device that moves), away,
        refused, over_budget, problem, warnings.

        Another device is the mover until its lease ends, or with `take_over` no longer: this one then only places
        and removes. Raises UsageError if the tiers are off, NotFoundError without a vault or a model, LockedError
        if this device was revoked.
        """
        self._check_enabled("move vectors")
        started = time.perf_counter()
        outcome = Outcome()
        with file_lock_if_free(self._lock_file) as free, self._bench(max_seconds) as bench:
            if not free:
                outcome.warnings.append(BUSY)
                return outcome.fields(None, started)
            Applying(
                bench=bench,
                make_plan=self._planner,
                accesses=self._accesses,
                gone=self._gone(bench),
                forgetting=self._forgetting,
                ends_at=bench.attempts.ends_at,
                progress=progress,
            ).run(outcome, take_over=take_over)
            self._state.note_problem(outcome.problem)
            return outcome.fields(bench, started)

    def place(self, conversation_id: str, *, max_seconds: float) -> dict[str, Any]:
        """Place what of a conversation is worth a place in the service: points, bytes, duration_ms, ok, usd_month
        (of these points), waiting (items without vectors, or for whom there was no time), warnings.

        Raises UsageError if the tiers are off, NotFoundError without a vault or a model, LockedError if this device
        was revoked.
        """
        self._check_enabled("place vectors")
        started = time.perf_counter()
        outcome = Outcome()
        with self._turn(max_seconds / 2) as is_free, self._bench(max_seconds) as bench:
            try:
                if is_free:
                    self._place(bench, conversation_id, outcome)
            except (StoreUnreachableError, ConflictError) as error:
                outcome.note(error)
            if is_free:
                self._state.note_problem(outcome.problem)
            else:
                outcome.problem = BUSY
            written = bench.transfer.written if bench.is_open else Written()
        prices = self._prices()
        return {
            "points": written.points,
            "bytes": written.bytes,
            "duration_ms": round((time.perf_counter() - started) * 1000, 1),
            "ok": not outcome.problem and not outcome.left,
            "usd_month": sum(count / 1000 * prices[name] for name, count in written.by_tier.items()),
            "waiting": outcome.left,
            "warnings": [f"not all is placed in the search service: {outcome.problem}"] if outcome.problem else [],
        }

    def check(self, *, repair: bool, progress: Progress = no_progress) -> dict[str, Any]:
        """Compare what the service holds with what it should hold, and with `repair` mend it: points, missing,
        changed, doubled, unwanted, foreign, mended, duration_ms, warnings.

        Raises UsageError if the tiers are off, NotFoundError without a vault or a model, LockedError if this device
        was revoked, StoreRefusedError, StoreUnreachableError, and with `repair` BudgetSpentError; called again it
        goes on.
        """
        self._check_enabled("check tiers")
        started = time.perf_counter()
        with file_lock(self._lock_file, timeout_seconds=_PATIENCE_SECONDS), self._bench() as bench:
            if repair:
                self._forgetting.carry_out(bench)
            checking = Checking(bench, self._gone(bench), repair=repair, progress=progress)
            found = checking.run()
            self._state.note_checked({epoch for _, epoch in checking.populated}, self._clock.now())
        return {**found.fields(), "duration_ms": round((time.perf_counter() - started) * 1000, 1)}

    def forget(self, conversation_id: str) -> dict[str, Any]:
        """Remove all points of an erased conversation: removed (those that this device knew of), warnings.

        What cannot be removed now is removed by a later run; a device that never used the service asks it nothing.
        """
        if not self.configured or not (self.enabled or self._placements.counts()):
            return {"removed": 0, "warnings": []}
        known = passages_of_conversation(self._indexes().values(), self._placements, conversation_id)
        self._forgetting.order(conversation_id, known)
        try:
            with file_lock(self._lock_file, timeout_seconds=_PATIENCE_SECONDS), self._bench() as bench:
                return {"removed": self._forgetting.carry_out(bench), "warnings": []}
        except (StoreUnreachableError, NotFoundError) as error:
            why = f"points of it stay in the search service until the next run: {fault_text(error)}"
            return {"removed": 0, "warnings": [why]}

    def searcher(self) -> TierSearch | None:
        """What a search asks; None where the tiers are off."""
        if not self.enabled:
            return None
        with self._lock:
            if self._asker is None:
                from dualmem_mcp.tiers.asking import TierAsker  # noqa: PLC0415  (numpy)

                self._asker = TierAsker(
                    tier=self._service.tier,
                    keys=self._keys_to_ask,
                    words=lambda: self.words,
                    passages_here=lambda: sum(
                        int(one.columns().passages.sum()) for one in self._indexes().values()
                    ),
                )
            return self._asker

    def _place(self, bench: Bench, conversation_id: str, outcome: Outcome) -> None:
        if self._is_erased(conversation_id):
            return
        gone = self._gone(bench)
        plan = of_conversation(self._planner(bench), bench.columns, conversation_id)
        outcome.left = plan.waiting + sum(map(len, plan.moves))
        Interrupted(bench, gone).finish_writing()
        moving = Moving(
            bench=bench, accesses=self._accesses, gone=gone, confirm=None, ends_at=bench.attempts.ends_at
        )
        try:
            moving.run(plan)
        finally:
            outcome.left = plan.waiting + moving.moved.left + moving.moved.stale

    @contextmanager
    def _turn(self, max_seconds: float) -> Iterator[bool]:
        """Hold the lock, waited for so long; gives whether it is held."""
        ends_at = time.monotonic() + max_seconds
        while True:
            with file_lock_if_free(self._lock_file) as is_free:
                if is_free or time.monotonic() >= ends_at:
                    yield is_free
                    return
            time.sleep(_LOOK_SECONDS)

    @contextmanager
    def _bench(self, max_seconds: float | None = None) -> Iterator[Bench]:
        bench = Bench(
            service=self._service,
            placements=self._placements,
            indexes=self._indexes(),
            channel=self._service.channel(),
            words=self.words,
            stems=self._stems,
            check_budget=self._check_budget,
            attempts=Attempts(None if max_seconds is None else time.monotonic() + max_seconds),
        )
        try:
            yield bench
        finally:
            bench.close()

    def _gone(self, bench: Bench) -> Gone:
        return Gone(lambda: bench.item_places, self._is_erased, is_behind=self._is_behind())

    def _keys_to_ask(self) -> list[VectorKeys]:
        """Those of the epochs that are known to have points, and of the newest, which other devices may use
        already; the newest first."""
        vault = self._service.channel().vault
        vault.check_member()
        newest = vault.epochs()[-NEWEST_EPOCHS:]
        epochs = {*newest, *self._placements.epochs(), *self._state.seen().epochs}
        return [self._service.keys(epoch) for epoch in sorted(epochs, reverse=True)]

    def _mover(self) -> dict[str, str] | None:
        holder = last_mover(self._blobs)
        if holder is None:
            return None
        channel = self._service.joined()
        name = holder.device_id if channel is None else device_name(channel, holder.device_id)
        return {"device": name, "until": holder.until.isoformat(timespec="seconds")}

    def _check_enabled(self, operation: str) -> None:
        self._service.check_configured(operation)
        if not self.enabled:
            raise UsageError(
                "the search service is not used on this device",
                operation=operation,
                hint="Run `dualmem tiers enable`, which tells first what the service can learn.",
            )
        self._service.channel().vault.check_member()
        self._service.model()
