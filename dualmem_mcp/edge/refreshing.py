"""The working set of a small device brought to what is worth most, as vectors are moved between tiers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from dualmem_mcp.model.search import Collection, key_digest
from dualmem_mcp.model.tier_plan import COLLECTION_CODES
from dualmem_mcp.ports import AccessColumns, ItemColumns, SearchIndex
from dualmem_mcp.search.preloading import with_vectors
from dualmem_mcp.search.working_set import WorkingSet
from dualmem_mcp.tiers.worth import joined, signals_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


def refresh_working_set(
    cache: WorkingSet, indexes: Mapping[Collection, SearchIndex], accesses: AccessColumns, now: datetime
) -> int:
    """Let those entries go that are indexed and not among the items worth most, as many as the set has room for,
    and take in those of these that are not there; how many came in.

    What is not indexed here stays: it came with a package, or its index is gone. Entries without a vector get the
    one that the index has meanwhile. Raises StoreUnreachableError.
    """
    codes, items = joined({name: index.columns() for name, index in indexes.items()})
    signals = signals_of(items, accesses, now)
    best = _best(signals.worth, items, cache.capacity)
    wanted = set(items.keys[best].tolist())
    kept = {key_digest(key): key for key in cache.keys()}  # noqa: SIM118
    indexed = set(np.intersect1d(items.keys, np.array([*kept], np.int64)).tolist())
    cache.forget([key for digest, key in kept.items() if digest in indexed - wanted])
    room = cache.capacity - len(cache)
    coming = [place for place in best.tolist() if int(items.keys[place]) not in kept][:room]
    lacking = {key_digest(key) for key in cache.without_vectors()}
    lacking_places = np.flatnonzero(np.isin(items.keys, [*lacking]) & (items.passages > 0)) if lacking else ()
    for place in lacking_places:
        for item, vector in with_vectors(indexes[COLLECTION_CODES[codes[place]]], [int(items.ids[place])]):
            cache.supply(item.key, vector)
    came = 0
    # The best come last, and by that stay longest.
    for place in reversed(coming):
        for item, vector in with_vectors(indexes[COLLECTION_CODES[codes[place]]], [int(items.ids[place])]):
            cache.use(item, vector, float(signals.relevance[place]))
            came += 1
    return came


def _best(worth: NDArray[np.float32], items: ItemColumns, count: int) -> NDArray[np.intp]:
    """Places of the items that are worth most, the best first; only of those that have vectors, and of those that
    say the same one."""
    embedded = np.flatnonzero(items.passages > 0)
    ordered = embedded[np.argsort(-worth[embedded], kind="stable")]
    said = np.where(items.likenesses != 0, items.likenesses, items.contents)[ordered]
    _, first = np.unique(said, return_index=True)
    return ordered[np.sort(first)[:count]]
