"""What the user says of costs: a budget for a month, and prices of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from dualmem_mcp.model.tiers import TierName

_CLOSED: Final = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Budget:
    """US dollars for a calendar month (UTC), None for no limit: above `soft_usd` the user is warned, from
    `hard_usd` on nothing is done that costs. Raises ValueError for limits that are no such thing."""

    __pydantic_config__: ClassVar[dict[str, str]] = _CLOSED

    soft_usd: float | None = None
    hard_usd: float | None = None

    def __post_init__(self) -> None:
        _check({"soft_usd": self.soft_usd, "hard_usd": self.hard_usd})
        if self.soft_usd is not None and self.hard_usd is not None and self.soft_usd > self.hard_usd:
            raise ValueError("soft_usd is above hard_usd")


@dataclass(frozen=True, slots=True)
class CostSettings:
    """Where prices are other than the list says: the region of the bucket (empty: as known), US dollars a month for
    the endpoint's machine and how many users share it, and for 1,000 vectors and a month by tier."""

    __pydantic_config__: ClassVar[dict[str, str]] = _CLOSED

    region: str = ""
    endpoint_usd_month: float | None = None
    endpoint_users: int = 1
    vectors_usd_1k_month: Mapping[TierName, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check({"endpoint_usd_month": self.endpoint_usd_month})
        _check({f"vectors_usd_1k_month.{name}": usd for name, usd in self.vectors_usd_1k_month.items()})
        if self.endpoint_users < 1:
            raise ValueError("endpoint_users is less than 1")


def _check(amounts: Mapping[str, float | None]) -> None:
    for name, amount in amounts.items():
        if amount is not None and not 0 <= amount < math.inf:
            raise ValueError(f"{name} is not an amount from 0 on")
