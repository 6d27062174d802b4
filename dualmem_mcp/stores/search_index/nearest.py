"""The passages nearest to a vector: by their bits, then exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.search_index.selection import best, distinct
from dualmem_mcp.stores.search_index.snapshot import Snapshot
from dualmem_mcp.stores.search_index.vectors import EXACT, bits_of, cosines, decoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCORED_EXACTLY: Final = 200
"""How many passages the coarse search hands on."""

LOOKED_AT: Final = 4
"""For each of these it looks closer at so many."""

WHOLE_SCOPE: Final = 1_000
"""A scope with no more passages is scored exactly as a whole: that takes 1 ms more, and misses nothing."""


def nearest_items(
    connection: Connection,
    snapshot: Snapshot,
    query: NDArray[np.float32],
    passing: NDArray[np.bool_] | None,
    limit: int,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Positions and cosines of the items with the nearest passages, nearest first."""
    everything = np.arange(len(snapshot.owners))
    inside = everything if passing is None else everything[passing[snapshot.owners]]
    if len(inside) > WHOLE_SCOPE:
        inside = _nearest_by_bits(snapshot, query, inside if passing is not None else None, limit)
    found = _cosines(connection, snapshot, snapshot.passages_of(inside), query)
    owners, scores = _best_passages(snapshot.owners[inside], found)
    chosen = best(scores, limit)
    return owners[chosen], scores[chosen]


def item_cosines(
    connection: Connection, snapshot: Snapshot, query: NDArray[np.float32], ids: NDArray[np.int64]
) -> NDArray[np.float32]:
    """For each id the cosine of its nearest passage, nan where there is none."""
    result = np.full(len(ids), np.nan, np.float32)
    positions, there = snapshot.positions(ids)
    wanted = distinct(positions[there])
    counts = snapshot.passage_counts[wanted]
    # The passages of an item follow each other.
    numbers = np.repeat(snapshot.first_passages[wanted] - np.cumsum(counts) + counts, counts) + np.arange(
        counts.sum()
    )
    passages = np.searchsorted(snapshot.passages, numbers)
    owners, scores = _best_passages(np.repeat(wanted, counts), _cosines(connection, snapshot, passages, query))
    if len(owners):
        places = np.minimum(np.searchsorted(owners, positions), len(owners) - 1)
        there &= owners[places] == positions
        result[there] = scores[places[there]]
    return result


def item_vectors(
    connection: Connection, snapshot: Snapshot, ids: NDArray[np.int64]
) -> dict[int, NDArray[np.float32]]:
    """For each of the items that have some their vectors, float32 (k, d), in the order of their passages."""
    positions, there = snapshot.positions(ids)
    found: dict[int, NDArray[np.float32]] = {}
    for position in np.unique(positions[there]).tolist():
        first, count = int(snapshot.first_passages[position]), int(snapshot.passage_counts[position])
        rows = connection.execute(
            "SELECT vector FROM vectors WHERE passage >= ? AND passage < ? ORDER BY passage", (first, first + count)
        ).fetchall()
        if rows:
            matrix = decoded([row[0] for row in rows], snapshot.dimensions)
            found[int(snapshot.ids[position])] = matrix.astype(np.float32)
    return found


def _cosines(
    connection: Connection, snapshot: Snapshot, passages: NDArray[np.intp], query: NDArray[np.float32]
) -> NDArray[np.float32]:
    if snapshot.vectors is None:
        return cosines(connection, snapshot.passages[passages], query)
    scores: NDArray[np.float32] = snapshot.vectors[passages] @ query
    return scores


def _best_passages(
    owners: NDArray[np.intp], scores: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Each owner once, ascending, with the highest of its scores; those that are nan do not count."""
    known = ~np.isnan(scores)
    if not known.all():
        owners, scores = owners[known], scores[known]
    if len(owners) < 2:
        return owners, scores
    if (owners[1:] < owners[:-1]).any():
        order = np.argsort(owners, kind="stable")
        owners, scores = owners[order], scores[order]
    first = np.ones(len(owners), bool)
    np.not_equal(owners[1:], owners[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    return owners[starts], np.maximum.reduceat(scores, starts)


def _nearest_by_bits(
    snapshot: Snapshot, query: NDArray[np.float32], inside: NDArray[np.intp] | None, limit: int
) -> NDArray[np.intp]:
    """The uses of the passages that are nearest as far as their bits tell, ascending, enough for so many items.

    Those with the fewest bits that differ from the query's are put in order by how long the query is along their
    signs, which finds all of the ten nearest of 50,000 where the number of bits alone misses some
    (benchmarks/index.py). Source: A. Gordo et al., "Asymmetric distances for binary embeddings", IEEE TPAMI 2014.
    """
    distances = _hamming(snapshot, bits_of(query.astype(EXACT)[None])[0], inside)
    count = max(SCORED_EXACTLY, limit)
    while True:
        chosen = _smallest(distances, LOOKED_AT * count)
        uses = chosen if inside is None else inside[chosen]
        if len(uses) > count:
            uses = np.sort(uses[best(_along_signs(snapshot, query, snapshot.passages_of(uses)), count)])
        # Those of one item follow each other.
        items = np.count_nonzero(np.diff(snapshot.owners[uses])) + 1
        if count >= len(distances) or items >= limit:
            return uses
        count *= 2


def _along_signs(snapshot: Snapshot, query: NDArray[np.float32], passages: NDArray[np.intp]) -> NDArray[np.float32]:
    """The dot product of the query with the signs of passages, but for a constant: float32 (n,)."""
    bits = np.ascontiguousarray(snapshot.bits[:, passages].T).view(np.uint8)
    signs = np.unpackbits(bits, axis=1, count=len(query), bitorder="little")
    return signs.astype(np.float32) @ query


def _smallest(distances: NDArray[np.uint16], count: int) -> NDArray[np.intp]:
    """Positions of the smallest distances, ascending."""
    if count >= len(distances):
        return np.arange(len(distances))
    # Distances are few and small: counting them takes a third of the time of a partition.
    below = np.cumsum(np.bincount(distances))
    threshold = int(np.searchsorted(below, count))
    nearer = np.flatnonzero(distances <= threshold)
    surplus = len(nearer) - count
    if surplus:
        level = np.flatnonzero(distances[nearer] == threshold)
        nearer = np.delete(nearer, level[len(level) - surplus :])
    return nearer


def _hamming(snapshot: Snapshot, query: NDArray[np.uint64], inside: NDArray[np.intp] | None) -> NDArray[np.uint16]:
    """In how many bits the query differs from each of the uses, or of all: uint16 (n,)."""
    passages = None if inside is None else snapshot.passages_of(inside)
    distances = np.zeros(snapshot.bits.shape[1] if passages is None else len(passages), np.uint16)
    for word, wanted in zip(snapshot.bits, query, strict=True):
        distances += np.bitwise_count((word if passages is None else word[passages]) ^ wanted)
    return distances if inside is not None or snapshot.used is None else distances[snapshot.used]
