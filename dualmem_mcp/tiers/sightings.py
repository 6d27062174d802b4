"""Which of the points that should be there were seen where: 13 bytes a point, so that a million fit in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.model.search import key_digest
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports.placements import PlacementColumns, Placements
from dualmem_mcp.tiers.service import SERVICE_TIERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS_AT_ONCE: Final = 5_000
_BIT: Final = {name: np.uint8(1 << place) for place, name in enumerate(SERVICE_TIERS)}


class Sightings:
    """The points that rows of placements stand for, under their own epochs, and in which tiers each was seen.

    Points are told apart by the first 8 bytes of their ids: of a million random ones two share them with a chance
    of one in 37 million.
    """

    def __init__(
        self, placements: Placements, columns: PlacementColumns, keys: Callable[[int], VectorKeys]
    ) -> None:
        """`columns` are those of the placements; rows that came since are not among them."""
        self.columns = columns
        beginnings: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
        owners: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        for start in range(0, len(columns.keys), _ROWS_AT_ONCE):
            digests = columns.keys[start : start + _ROWS_AT_ONCE]
            rows = placements.of_digests(digests.tolist())
            places = start + np.searchsorted(digests, [key_digest(row.key) for row in rows])
            beginnings.append(
                id_beginnings(
                    keys(row.epoch).point_id(row.key, number) for row in rows for number in range(row.passages)
                )
            )
            owners.append(np.repeat(places, [row.passages for row in rows]))
        ids, rows_of = np.concatenate(beginnings), np.concatenate(owners)
        order = np.argsort(ids, kind="stable")
        self._ids = ids[order]
        self._rows = rows_of[order]
        self._seen = np.zeros(len(ids), np.uint8)

    def see(self, tier: TierName, ids: Sequence[str]) -> list[str]:
        """Note that these points are in the tier; gives those that no row stands for."""
        wanted = id_beginnings(ids)
        places = np.searchsorted(self._ids, wanted)
        places[places == len(self._ids)] = 0
        known = self._ids[places] == wanted if len(self._ids) else np.zeros(len(wanted), np.bool_)
        self._seen[places[known]] |= _BIT[tier]
        return [ids[place] for place in np.flatnonzero(~known).tolist()]

    def counts(self) -> dict[TierName, NDArray[np.int64]]:
        """How many of each row's points were seen in each tier, by places in the columns."""
        size = len(self.columns.keys)
        return {
            name: np.bincount(self._rows[self._seen & bit > 0], minlength=size).astype(np.int64)
            for name, bit in _BIT.items()
        }


def id_beginnings(ids: Iterable[str]) -> NDArray[np.uint64]:
    """The first 8 bytes of each id, uint64 (n,)."""
    return np.fromiter((uuid.UUID(one).int >> 64 for one in ids), np.uint64)
