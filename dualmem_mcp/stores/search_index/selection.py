"""Which items of a snapshot a filter lets pass, and the best of those that have scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dualmem_mcp.model.search import Filter
from dualmem_mcp.stores.columns import to_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.search_index.layout import KINDS, ORDINAL_BITS
from dualmem_mcp.stores.search_index.snapshot import NO_TIME, Snapshot
from dualmem_mcp.stores.search_index.writing import microseconds

if TYPE_CHECKING:
    from numpy.typing import NDArray


def passing(connection: Connection, snapshot: Snapshot, where: Filter) -> NDArray[np.bool_] | None:
    """One bool for each item, or None if all pass. The collection is the caller's to compare."""
    conditions: list[NDArray[np.bool_]] = []
    if where.conversation_id is not None:
        conditions.append(_of_conversation(connection, snapshot, where.conversation_id))
    if where.kinds:
        conditions.append(np.isin(snapshot.kinds, [KINDS.index(kind) for kind in where.kinds]))
    if where.author:
        author = where.author.casefold()
        numbers = [number for number, name in snapshot.names.items() if name.casefold() == author]
        conditions.append(np.isin(snapshot.authors, numbers))
    if where.since is not None:
        conditions.append(snapshot.times >= max(microseconds(where.since), NO_TIME + 1))
    if where.until is not None:
        conditions.append((snapshot.times < microseconds(where.until)) & (snapshot.times != NO_TIME))
    if not conditions:
        return None
    passes: NDArray[np.bool_] = np.logical_and.reduce(conditions)
    return passes


def _of_conversation(connection: Connection, snapshot: Snapshot, conversation_id: str) -> NDArray[np.bool_]:
    mask = np.zeros(len(snapshot.ids), bool)
    row = connection.execute(
        "SELECT number FROM conversations WHERE conversation_id = ?", (to_column(conversation_id),)
    ).fetchone()
    if row is not None:
        first, last = np.searchsorted(snapshot.ids, [row[0] << ORDINAL_BITS, (row[0] + 1) << ORDINAL_BITS])
        mask[first:last] = True
    return mask


def best(scores: NDArray[np.float32], limit: int) -> NDArray[np.intp]:
    """Positions of the highest scores, highest first; of equal ones those that stand first."""
    if limit <= 0:
        return np.empty(0, np.intp)
    if limit < len(scores):
        threshold = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        above = np.flatnonzero(scores > threshold)
        level = np.flatnonzero(scores == threshold)[: limit - len(above)]
        chosen = np.union1d(above, level)
    else:
        chosen = np.arange(len(scores))
    return chosen[np.argsort(-scores[chosen], kind="stable")]
