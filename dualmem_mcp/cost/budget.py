"""The user's budget for a month: what counts towards it, when to warn, when to refuse."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from dualmem_mcp.cost.meter import BYTES_OUT, READS, WRITES, Meter
from dualmem_mcp.cost.prices import GB, RegionPrices
from dualmem_mcp.errors import BudgetSpentError
from dualmem_mcp.model.budget import Budget
from dualmem_mcp.ports import Clock, CostCounts

_REREAD_SECONDS: Final = 60.0
"""After which use that other processes of this device wrote down is read again."""


def use_usd(counts: Mapping[str, int], prices: RegionPrices) -> float:
    """The list price of counted use in US dollars: requests, and bytes sent out of the bucket."""
    return (
        counts.get(READS, 0) / 1000 * prices.read_usd_1k
        + counts.get(WRITES, 0) / 1000 * prices.write_usd_1k
        + counts.get(BYTES_OUT, 0) / GB * prices.transfer_out_usd_gb
    )


@dataclass(frozen=True, slots=True)
class Spent:
    """This calendar month in US dollars: use of this device so far, and a month of what stands (storage, vectors,
    endpoint)."""

    use_usd: float
    standing_usd: float

    @property
    def usd(self) -> float:
        """Both together."""
        return self.use_usd + self.standing_usd


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read of the database at a moment: a request that is only checked reads nothing."""

    flushes: int
    at: float
    prices: RegionPrices
    spent: Spent


class BudgetGate:
    """A budget over the use of one data home. Safe to use from any thread.

    `standing_usd` gives what a month of everything that stands costs; it and `prices` do no requests.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        counts: CostCounts,
        meter: Meter,
        clock: Clock,
        prices: Callable[[], RegionPrices],
        standing_usd: Callable[[], float],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self._counts = counts
        self._meter = meter
        self._clock = clock
        self._prices = prices
        self._standing_usd = standing_usd
        self._steady = steady
        self._lock = threading.Lock()
        self._known: _Known | None = None

    def spent(self) -> Spent:
        """What this month costs so far."""
        with self._lock:
            flushes, now = self._meter.flushes, self._steady()
            known = self._known
            if known is None or known.flushes != flushes or now - known.at >= _REREAD_SECONDS:
                prices = self._prices()
                spent = Spent(self._written_usd(prices), self._standing_usd())
                self._known = known = _Known(flushes, now, prices, spent)
        pending = use_usd(self._meter.pending(), known.prices)
        return Spent(known.spent.use_usd + pending, known.spent.standing_usd)

    def _written_usd(self, prices: RegionPrices) -> float:
        today = self._clock.now().date()
        days = self._counts.use(date(today.year, today.month, 1))
        return sum(use_usd(counts, prices) for day, counts in days.items() if day <= today)

    def look_again(self) -> None:
        """Have the next question read what stands afresh: something was added to it."""
        with self._lock:
            self._known = None

    def check(self) -> None:
        """Raises BudgetSpentError if the hard budget is spent; nothing is asked where there is none."""
        hard = self.budget.hard_usd
        if hard is None:
            return
        spent = self.spent()
        if spent.usd >= hard:
            raise BudgetSpentError(
                f"this month's costs (${spent.usd:.4f}) have reached the hard budget (${hard:.2f})",
                operation="use bucket",
                subject="budget.hard_usd",
                hint="Nothing is lost: what waits is sent when the budget is raised or the next month begins. "
                "`dualmem cost` shows what it is spent on.",
            )

    def warnings(self) -> list[str]:
        """A sentence if a budget is passed; none where none is set."""
        soft, hard = self.budget.soft_usd, self.budget.hard_usd
        if soft is None and hard is None:
            return []
        usd = self.spent().usd
        if hard is not None and usd >= hard:
            return [
                (
                    f"this month's costs (${usd:.4f}) have reached the hard budget (${hard:.2f}): "
                    "the bucket is left alone, and nothing is placed in a search service"
                )
            ]
        if soft is not None and usd > soft:
            return [
                f"this month's costs (${usd:.4f}) are above the soft budget (${soft:.2f}); `dualmem cost` has more"
            ]
        return []
