"""What the next month costs, from recorded use; and what it comes to with many users."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from dualmem_mcp.cost.budget import use_usd
from dualmem_mcp.cost.estimate import Component, MonthlyUse, Rates, total_usd
from dualmem_mcp.cost.meter import BYTES_IN, BYTES_OUT, READS, WRITES
from dualmem_mcp.cost.prices import DAYS_A_MONTH, GB, RegionPrices

MOST_DAYS: Final = 28
"""Whole weeks, so that each day of the week counts as often as the others."""
LEAST_DAYS: Final = 7
"""Below that it is not known what a week looks like."""
USERS_A_MACHINE: Final = 100
"""Assumed of an endpoint in projections; benchmarks/load.py has one serve 1,000 clients at once."""
SCALES: Final = (1_000, 10_000, 100_000)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Whole days with their counts, the oldest first, at most four weeks; days on which nothing was counted are
    empty. `partial` says that there is only today, which is not over."""

    days: Sequence[Mapping[str, int]]
    first_day: date | None
    partial: bool = False

    @property
    def is_early(self) -> bool:
        """Whether it is too early for a forecast."""
        return self.partial or len(self.days) < LEAST_DAYS

    @property
    def a_month(self) -> MonthlyUse:
        """The mean day, a month long."""
        if not self.days:
            return MonthlyUse()

        def mean(component: str) -> float:
            return sum(day.get(component, 0) for day in self.days) / len(self.days) * DAYS_A_MONTH

        return MonthlyUse(mean(READS), mean(WRITES), mean(BYTES_OUT), mean(BYTES_IN))


def recorded(use: Mapping[date, Mapping[str, int]], today: date) -> Recorded:
    """The days that count, of use by day: the first to yesterday. What a clock put into the future is left out."""
    past = sorted(day for day in use if day < today)
    if not past:
        return Recorded([use[today]], today, partial=True) if today in use else Recorded([], None)
    first = max(past[0], today - timedelta(days=MOST_DAYS))
    span = [first + timedelta(days=number) for number in range((today - first).days)]
    return Recorded([use.get(day, {}) for day in span], first)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The next month in US dollars, how it was reckoned, from how many days; `is_early` says that there are too
    few, and that only the range means anything."""

    usd_month: float
    low_usd: float
    high_usd: float
    days: int
    is_early: bool
    method: str


def forecast(record: Recorded, standing_usd: float, region: RegionPrices, devices: int = 1) -> Forecast:
    """What the next month costs: what stands, the mean day's use, and storage for what is written.

    Low and high are the quietest and the busiest week of the record, a month long each; of fewer than 7 days the
    quietest and the busiest day. Written bytes count as if nothing were ever removed: half of a month's on average.
    The use of the vault's other `devices` is taken to be like this one's.
    """
    daily = [_day_usd(day, region) for day in record.days]
    if record.is_early:
        spans = [usd * DAYS_A_MONTH for usd in daily] or [0.0]
        method = (
            f"too early: {len(daily)} of {LEAST_DAYS} days recorded; the range is the quietest and the busiest "
            "day, a month long"
        )
    else:
        weeks = range(len(daily) - LEAST_DAYS + 1)
        spans = [sum(daily[start : start + LEAST_DAYS]) / LEAST_DAYS * DAYS_A_MONTH for start in weeks]
        method = (
            f"the mean of {len(daily)} days, a month long, with storage growing by what they wrote; "
            "the range is the quietest and the busiest week"
        )
    mean = sum(daily) / len(daily) * DAYS_A_MONTH if daily else 0.0
    return Forecast(
        usd_month=standing_usd + mean * devices,
        low_usd=standing_usd + min(spans) * devices,
        high_usd=standing_usd + max(spans) * devices,
        days=len(daily),
        is_early=record.is_early,
        method=method,
    )


def _day_usd(day: Mapping[str, int], region: RegionPrices) -> float:
    # Written on any day of a month, a byte is stored for half of it on average.
    return use_usd(day, region) + day.get(BYTES_IN, 0) / 2 / GB * region.standard.usd_gb_month


@dataclass(frozen=True, slots=True)
class Scale:
    """So many users like this one: machines, US dollars a month in all and for each."""

    users: int
    machines: int
    usd_month: float
    usd_user: float


def projection(parts: Sequence[Component], rates: Rates, scales: Sequence[int] = SCALES) -> Sequence[Scale]:
    """What the components come to at each number of users, whose endpoints share machines.

    List prices of the first volume, so that large numbers come out rather too dear.
    """
    own = total_usd([part for part in parts if part.name != "endpoint"])
    found = []
    for users in scales:
        machines = math.ceil(users / USERS_A_MACHINE)
        usd = users * own + machines * rates.endpoint_usd_month
        found.append(Scale(users, machines, usd, usd / users))
    return found


def assumptions(rates: Rates, devices: int) -> list[str]:
    """What projections take for granted, each of which could be otherwise."""
    return [
        "every user's vault is as this one: as large, as much used, in buckets of the same region",
        f"{USERS_A_MACHINE} users share a machine of ${rates.endpoint_usd_month:.2f} a month",
        f"the vault's {devices} devices use the bucket as much as this one"
        if devices > 1
        else "the vault has this one device",
        "prices are those of the first volume, without free allowances, discounts and taxes",
    ]
