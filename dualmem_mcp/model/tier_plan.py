"""Which vectors should move between tiers, as columns: a plan is for up to millions of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from dualmem_mcp.model.search import Collection
from dualmem_mcp.model.tiers import TierName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Action = Literal["remove", "evict", "demote", "promote", "place", "renew"]
"""remove: it is no more, or a duplicate. evict: its tier is full. demote and promote: it is worth less or more.
place: it is in no tier of the service. renew: its text, its words or its key epoch are not the present ones."""

COLLECTION_CODES: Final = tuple(Collection)
"""`Move.collections` are places in this."""

NO_COLLECTION: Final = 255
"""There of items that are in no index here."""


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """Items that go the same way for the same reason. `edge` as source or target: not in the service.

    `collections` uint8 and `ids` int64 say where the items are in the indexes (`ids` are 0 for NO_COLLECTION),
    `keys` int64 are the digests of their keys, best first; all (n,). `points` counts their passages.
    """

    action: Action
    source: TierName
    target: TierName
    reason: str
    collections: NDArray[np.uint8] = field(repr=False)
    ids: NDArray[np.int64] = field(repr=False)
    keys: NDArray[np.int64] = field(repr=False)
    points: int

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Moves in the order in which they can be made without a tier being over its maximum in between, and what they
    change: points by tier, US dollars a month, and the mean latency in ms that accesses meet in the service.

    `items` were looked at; `waiting` have no vectors yet; `duplicates` say the same as another one.
    """

    made_at: datetime
    moves: Sequence[Move]
    items: int
    waiting: int
    duplicates: int
    points_before: Mapping[TierName, int]
    points_after: Mapping[TierName, int]
    usd_month_before: float
    usd_month_after: float
    latency_ms_before: float | None
    latency_ms_after: float | None
