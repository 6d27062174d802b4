"""One run that brings all vectors where they belong: what was erased goes, what was interrupted is ended, and then
the plan is carried out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from dualmem_mcp.errors import (
    BudgetSpentError,
    ConflictError,
    DualmemError,
    NotFoundError,
    StoreRefusedError,
    StoreUnreachableError,
)
from dualmem_mcp.model.tier_plan import Plan
from dualmem_mcp.ports import AccessLog, Progress
from dualmem_mcp.tiers.bench import Bench, device_name
from dualmem_mcp.tiers.check import Checking
from dualmem_mcp.tiers.forgetting import Forgetting
from dualmem_mcp.tiers.gone import Gone
from dualmem_mcp.tiers.interrupted import Interrupted
from dualmem_mcp.tiers.mover import Mover
from dualmem_mcp.tiers.moving import OF_THE_MOVER, Moving

FINISHED: Final = "finished"
"""Counted among what was done: items on whose way an earlier run had ended."""

ADOPTED: Final = "adopted"
"""Likewise: items that another device has placed, of which this one knows now."""

BUSY: Final = "vectors are being written on this device already; what is left is for the next time"


@dataclass(slots=True)
class Outcome:
    """How a run ended. `mover` names the other device that moves; `fault` is what ended the run early."""

    done: dict[str, int] = field(default_factory=dict)
    stale: int = 0
    left: int = 0
    mover: str | None = None
    fault: DualmemError | None = None
    problem: str = ""
    warnings: list[str] = field(default_factory=list)

    def note(self, fault: DualmemError) -> None:
        """Keep what ended the run."""
        self.fault = fault
        self.problem = fault_text(fault)

    @property
    def refused(self) -> bool:
        """Whether trying again will not help."""
        return isinstance(self.fault, StoreRefusedError)

    @property
    def over_budget(self) -> bool:
        """Whether the budget is spent."""
        return isinstance(self.fault, BudgetSpentError)

    @property
    def away(self) -> bool:
        """Whether the service or the bucket could not be reached."""
        return isinstance(self.fault, StoreUnreachableError) and not self.refused and not self.over_budget

    def fields(self, bench: Bench | None, started: float) -> dict[str, Any]:
        """The fields of `dualmem tiers apply --json`; `started` is a reading of time.perf_counter."""
        written = bench.transfer.written if bench is not None and bench.is_open else None
        return {
            "done": self.done,
            "points_written": written.points if written else 0,
            "points_removed": written.removed if written else 0,
            "bytes": written.bytes if written else 0,
            "duration_ms": round((time.perf_counter() - started) * 1000, 1),
            "stale": self.stale,
            "left": self.left,
            "mover": self.mover,
            "away": self.away,
            "refused": self.refused,
            "over_budget": self.over_budget,
            "problem": self.problem,
            "warnings": self.warnings,
        }


@dataclass(frozen=True, slots=True)
class Applying:
    """`make_plan` makes a plan of how things lie when it is called."""

    bench: Bench
    make_plan: Callable[[Bench], Plan]
    accesses: AccessLog
    gone: Gone
    forgetting: Forgetting
    ends_at: float | None
    progress: Progress

    def run(self, outcome: Outcome, *, take_over: bool) -> None:
        """Do what can be done now. What goes wrong on the way is in the outcome; raised is only what the database
        or a damaged vault raises."""
        moving: Moving | None = None
        try:
            self.forgetting.carry_out(self.bench)
            plan = self.make_plan(self.bench)
            interrupted = self.bench.placements.moving()
            moves = any(move.action in OF_THE_MOVER for move in plan.moves)
            mover = None
            if take_over or moves or any(row.moving_to != row.tier for row in interrupted):
                mover = self._mover(outcome, take_over=take_over)
            moving = Moving(
                bench=self.bench,
                accesses=self.accesses,
                gone=self.gone,
                confirm=None if mover is None else mover.confirm,
                ends_at=self.ends_at,
                progress=self.progress,
            )
            if interrupted:
                finishing = Interrupted(self.bench, self.gone)
                outcome.done[FINISHED] = finishing.finish(
                    may_move=mover is not None, allow_removal=moving.allow_removal
                )
            if mover is not None and mover.is_new:
                # What the mover before this one has moved lies elsewhere than the rows here say.
                found = Checking(self.bench, self.gone, repair=True, contents=False).run()
                mover.has_looked()
                outcome.warnings += found.warnings
                plan = self.make_plan(self.bench)
            elif interrupted:
                plan = self.make_plan(self.bench)
            moving.run(plan)
        except (StoreUnreachableError, ConflictError) as fault:
            outcome.note(fault)
        if moving is not None:
            if moving.moved.adopted:
                outcome.done[ADOPTED] = moving.moved.adopted
            outcome.done |= {str(action): count for action, count in moving.moved.done.items() if count}
            outcome.stale, outcome.left = moving.moved.stale, moving.moved.left

    def _mover(self, outcome: Outcome, *, take_over: bool) -> Mover | None:
        """This device as the mover, or None if another one is, or the bucket that says so is away."""
        mover = Mover(self.bench.channel)
        try:
            other = mover.acquire(take_over=take_over)
        except (StoreUnreachableError, ConflictError, NotFoundError) as error:
            outcome.warnings.append(f"vectors are only placed, not moved: {fault_text(error)}")
            return None
        if other is None:
            return mover
        outcome.mover = device_name(self.bench.channel, other.device_id)
        return None


def fault_text(error: DualmemError) -> str:
    """What went wrong, and what to do about it."""
    return f"{error.message}. {error.hint}".strip()
