"""Removing all that a vault has in the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports.placements import Placements
from dualmem_mcp.ports.tiers import VectorTier

_ROWS_AT_ONCE: Final = 5_000
_MOST_ROUNDS: Final = 1_000_000
"""Of pages of 1,000 points: a service that says of all that they are removed, and shows them again, does not keep
us for ever."""


def remove_tenant(tiers: Mapping[TierName, VectorTier], tenant: str) -> int:
    """Remove all points of a tenant; how many there were. Raises what VectorTier raises."""
    return sum(_emptied(tier, tenant) for tier in tiers.values())


def forget_rows(placements: Placements) -> None:
    """Remove all rows of what lies where."""
    digests = placements.columns().keys
    for start in range(0, len(digests), _ROWS_AT_ONCE):
        rows = placements.of_digests(digests[start : start + _ROWS_AT_ONCE].tolist())
        placements.remove([row.key for row in rows])


def _emptied(tier: VectorTier, tenant: str) -> int:
    removed = 0
    start: str | None = None
    for _ in range(_MOST_ROUNDS):
        page = tier.ids(tenant, start=start)
        tier.remove(tenant, page.ids)
        removed += len(page.ids)
        start = page.next
        if start is None:
            break
    return removed
