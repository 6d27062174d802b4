"""What a vault costs a month, by component, from its own counts. Source: docs/cost.md, "What is counted"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dualmem_mcp.cost.objects import BucketContents
from dualmem_mcp.cost.prices import GB, RegionPrices
from dualmem_mcp.model.tiers import TIER_NAMES, TierName


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices as they are for this vault, in US dollars: object storage in its region, 1,000 vectors and a month by
    tier, and the endpoint's machine for a month with how many users share it."""

    region: RegionPrices
    vectors_usd_1k_month: Mapping[TierName, float]
    endpoint_usd_month: float
    endpoint_users: int = 1


@dataclass(frozen=True, slots=True)
class Holdings:
    """What stands in a vault: vectors by tier, objects in the bucket, conversations (all, and those worked on in
    the last month), live devices, and whether an endpoint serves it."""

    vectors: Mapping[TierName, int]
    contents: BucketContents
    conversations: int
    conversations_month: int
    devices: int
    served: bool


@dataclass(frozen=True, slots=True)
class MonthlyUse:
    """Requests and bytes of a month: reads (GET, HEAD), writes (PUT, LIST), bytes out of and into the bucket."""

    reads: float = 0.0
    writes: float = 0.0
    bytes_out: float = 0.0
    bytes_in: float = 0.0

    def times(self, factor: float) -> MonthlyUse:
        """So many times as much."""
        return MonthlyUse(
            self.reads * factor, self.writes * factor, self.bytes_out * factor, self.bytes_in * factor
        )


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the costs: how much of what, and US dollars a month."""

    name: str
    quantity: float
    unit: str
    usd_month: float


def components(holdings: Holdings, use: MonthlyUse, rates: Rates) -> Sequence[Component]:
    """All parts that this vault's costs have, those that cost nothing too."""
    return (*standing(holdings, rates), *_in_use(use, rates.region))


def standing(holdings: Holdings, rates: Rates) -> Sequence[Component]:
    """The parts that cost whether the vault is used or not: vectors, storage, the endpoint's machine."""
    parts = []
    for tier in TIER_NAMES:
        if tier in holdings.vectors:
            number = holdings.vectors[tier]
            usd = number / 1000 * rates.vectors_usd_1k_month[tier]
            # What is here is counted by items, as in `dualmem status`; it costs nothing.
            unit = "items" if tier == "edge" else "vectors"
            parts.append(Component(f"vectors: {tier}", number, unit, usd))
    price = rates.region.standard.usd_gb_month
    for kind, stored in holdings.contents.kinds.items():
        parts.append(Component(f"storage: {kind}", stored.size_bytes, "bytes", stored.size_bytes / GB * price))
    if holdings.served:
        share = 1 / rates.endpoint_users
        parts.append(Component("endpoint", share, "machines", rates.endpoint_usd_month * share))
    return parts


def _in_use(use: MonthlyUse, region: RegionPrices) -> Sequence[Component]:
    return (
        Component("requests: reads", use.reads, "requests", use.reads / 1000 * region.read_usd_1k),
        Component("requests: writes", use.writes, "requests", use.writes / 1000 * region.write_usd_1k),
        Component("transfer out", use.bytes_out, "bytes", use.bytes_out / GB * region.transfer_out_usd_gb),
    )


def total_usd(parts: Sequence[Component]) -> float:
    """Their sum in US dollars a month."""
    return sum(part.usd_month for part in parts)


def per_conversation_usd(parts: Sequence[Component], holdings: Holdings) -> float | None:
    """A month's costs by conversation worked on in it; by conversation at all if none was, None for none."""
    conversations = holdings.conversations_month or holdings.conversations
    return total_usd(parts) / conversations if conversations else None
