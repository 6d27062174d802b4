"""What a device knows of where its items' vectors lie: one row an item, and the same in columns for a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from dualmem_mcp.model.tiers import TierName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_MOVING: Final = 255
"""In `PlacementColumns.moving_to`: the item is on its way nowhere."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an item's points lie in the service: tier (never edge), key epoch, how many passages.

    `content` is the digest of the text that was placed (`ItemColumns.contents`), `words` whether with its words.
    `moving_to` is set before the first step of a move and cleared after its last: a row that has it stands for
    points in either tier or both.
    """

    key: str = field(repr=False)
    tier: TierName
    epoch: int
    passages: int
    content: int
    words: bool = False
    moving_to: TierName | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PlacementColumns:
    """All placements, in ascending order of `keys`, the digests of their items' keys (`model.search.key_digest`).

    `keys` int64, `tiers` and `moving_to` uint8 (places in `model.tiers.TIER_NAMES`, or NOT_MOVING), `epochs` int64,
    `passages` int32, `contents` int64, `words` bool; all (n,).
    """

    keys: NDArray[np.int64]
    tiers: NDArray[np.uint8]
    moving_to: NDArray[np.uint8]
    epochs: NDArray[np.int64]
    passages: NDArray[np.int32]
    contents: NDArray[np.int64]
    words: NDArray[np.bool_]


class Placements(Protocol):
    """Placements in the encrypted database: a copy of what the service is known to hold, which `check` corrects."""

    def put(self, placements: Sequence[Placement]) -> None:
        """Write the rows over those of the same keys, all or none."""
        ...

    def get(self, keys: Sequence[str]) -> Mapping[str, Placement]:
        """Those of the items that are placed."""
        ...

    def of_digests(self, digests: Sequence[int]) -> Sequence[Placement]:
        """The rows whose keys have one of these digests, in any order."""
        ...

    def remove(self, keys: Sequence[str]) -> None:
        """Forget rows; those that are not there are no error."""
        ...

    def columns(self) -> PlacementColumns:
        """All of them; 40 bytes each in memory."""
        ...

    def moving(self) -> Sequence[Placement]:
        """The rows of moves that were begun and not ended."""
        ...

    def counts(self) -> Mapping[TierName, int]:
        """Points (passages) by tier, where there are any."""
        ...

    def epochs(self) -> Mapping[int, int]:
        """Points by key epoch, where there are any."""
        ...
