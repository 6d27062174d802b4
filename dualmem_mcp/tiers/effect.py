"""What a plan changes: points by tier, US dollars a month, and the latency that accesses meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dualmem_mcp.model.tiers import TIER_NAMES, TIERS, TierName

if TYPE_CHECKING:
    from numpy.typing import NDArray


def points_by_tier(tiers: NDArray[np.uint8], passages: NDArray[np.int32]) -> NDArray[np.int64]:
    """Points in each tier, in the order of TIER_NAMES: int64 (4,)."""
    points = np.bincount(tiers, weights=passages, minlength=len(TIER_NAMES))
    return np.rint(points).astype(np.int64)


def named(points: NDArray[np.int64]) -> Mapping[TierName, int]:
    """The same by the tiers' names."""
    return dict(zip(TIER_NAMES, points.tolist(), strict=True))


def usd_month(points: Mapping[TierName, int], prices: Mapping[TierName, float]) -> float:
    """US dollars a month for so many points, at prices for 1,000 vectors and a month."""
    return sum(number / 1000 * prices[tier] for tier, number in points.items())


def mean_latency_ms(tiers: NDArray[np.uint8], accesses_a_day: NDArray[np.float64]) -> float | None:
    """The mean of the latencies that tiers of the service aim at, over the accesses a day of what lies in them;
    None if nothing that lies there is asked for."""
    latencies = np.array([TIERS[name].target_latency_ms for name in TIER_NAMES], np.float64)
    there = tiers != TIER_NAMES.index("edge")
    total = float(accesses_a_day[there].sum())
    return float(latencies[tiers[there]] @ accesses_a_day[there]) / total if total > 0 else None
