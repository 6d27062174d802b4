"""The tiers that vectors live in: what each holds, how much of it, how fast it answers and what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from dualmem_mcp.errors import UsageError

TierName = Literal["critical", "context", "historical", "edge"]

TIER_NAMES: Final[tuple[TierName, ...]] = get_args(TierName)

# Source of all rules and numbers here: the product's requirements for its tiers, section "Tiers".
ACTIVE_TURNS: Final = 10
"""An item is in use that was touched fewer turns of its conversation ago than that."""
ACTIVE_SCORE: Final = 0.9
"""An item is in use whose interaction score is above that."""
RECENT_DAYS: Final = 7.0
"""An item is recent that is younger than so many days, and old that is older."""
RELEVANT: Final = 0.7
"""A recent item is worth a place in `context` if its relevance is above that."""
RARE_A_DAY: Final = 0.1
"""An old item is history that is asked for less often a day than that."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier: what it holds, most vectors, the latency that it aims at in ms, and the default price in US dollars
    for 1,000 vectors and a month. `most_vectors` is None where the device's profile says how many."""

    name: TierName
    holds: str
    most_vectors: int | None
    target_latency_ms: int
    usd_per_1k_vectors_month: float


TIERS: Final[dict[TierName, Tier]] = {
    tier.name: tier
    for tier in (
        Tier("critical", "conversations in use: recent decisions, present context", 1_000, 50, 0.75),
        Tier("context", "the last week's: project context, agent memory, code relations", 5_000, 150, 0.35),
        Tier("historical", "what is old and seldom asked for: history, patterns", 20_000, 300, 0.12),
        Tier("edge", "the device's own: all on a desktop, the most relevant on small ones", None, 10, 0.0),
    )
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """How a cluster of servers spreads a tier; 1 and 1 on a single server."""

    shards: int = 1
    replicas: int = 1


def tier_for(
    age_days: float,
    accesses_a_day: float,
    relevance: float,
    turns_ago: int | None,
    interaction_score: float,
) -> TierName:
    """The one tier that an item belongs to, by its worth alone; whether there is room is not asked.

    In use (< 10 turns ago, None for never, or interaction score > 0.9): critical. Younger than 7 days and relevance
    > 0.7: context. Older than 7 days and asked for < 0.1 times a day: historical. What is none of these: an old
    item that is asked for more often is hot and goes to context, whence it came; a recent one of little relevance,
    and one of exactly 7 days, stays at the edge until it is one of them. Raises UsageError for what is no number,
    or below 0.
    """
    measures = (age_days, accesses_a_day, relevance, interaction_score, turns_ago or 0)
    if not all(math.isfinite(value) and value >= 0 for value in measures):
        raise UsageError(
            "an item's age, accesses, relevance, turns and score are numbers from 0 on",
            operation="choose tier",
            subject=repr(measures),
            hint="Check the clock of this device; an item from the future has the age 0.",
        )
    if (turns_ago is not None and turns_ago < ACTIVE_TURNS) or interaction_score > ACTIVE_SCORE:
        return "critical"
    if age_days > RECENT_DAYS:
        return "historical" if accesses_a_day < RARE_A_DAY else "context"
    if age_days < RECENT_DAYS and relevance > RELEVANT:
        return "context"
    return "edge"
