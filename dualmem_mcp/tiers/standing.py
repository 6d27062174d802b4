"""All items of a plan, what they are worth and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.ports import ItemColumns
from dualmem_mcp.ports.placements import NOT_MOVING, PlacementColumns
from dualmem_mcp.tiers.worth import EDGE, Signals

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOWHERE: Final = -1
"""As a row of the placements."""


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """All items, what they are worth and where they lie; all (n,) but the placements.

    `collections` uint8 are places in `model.tier_plan.COLLECTION_CODES`, `rows` int64 are places in the
    placements, or NOWHERE; `tiers` uint8, EDGE where there is none. `repeated`: says the same as an earlier
    item. `free`: is to be placed where it belongs; the others stay as they are, because they are on a move that
    has not ended, or have no vectors now.
    """

    collections: NDArray[np.uint8]
    items: ItemColumns
    signals: Signals
    placements: PlacementColumns
    rows: NDArray[np.int64]
    tiers: NDArray[np.uint8]
    repeated: NDArray[np.bool_]
    free: NDArray[np.bool_]


def standing_of(
    collections: NDArray[np.uint8], items: ItemColumns, signals: Signals, placements: PlacementColumns
) -> Standing:
    """Where these items lie, and which of them say the same."""
    rows = np.full(len(items.keys), NOWHERE, np.int64)
    tiers = np.full(len(items.keys), EDGE, np.uint8)
    free = items.passages > 0
    if len(placements.keys):
        places = np.searchsorted(placements.keys, items.keys)
        places[places == len(placements.keys)] = 0
        there = np.flatnonzero(placements.keys[places] == items.keys)
        rows[there] = places[there]
        tiers[there] = placements.tiers[rows[there]]
        free[there] &= placements.moving_to[rows[there]] == NOT_MOVING
    again = repeated(items)
    return Standing(collections, items, signals, placements, rows, tiers, again, free & ~again)


def repeated(items: ItemColumns) -> NDArray[np.bool_]:
    """Whether an older item of the same kind says the same; of equal age that with the lower digest counts as
    older."""
    found = np.zeros(len(items.keys), np.bool_)
    order = np.argsort(items.likenesses, kind="stable")
    ordered = items.likenesses[order]
    same = (ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)
    if not same.any():
        return found
    some = order[np.append(same, False) | np.append(False, same)]
    some = some[np.lexsort((items.keys[some], items.times[some], items.kinds[some], items.likenesses[some]))]
    later, earlier = some[1:], some[:-1]
    again = (items.likenesses[later] == items.likenesses[earlier]) & (items.kinds[later] == items.kinds[earlier])
    found[later[again]] = True
    return found
