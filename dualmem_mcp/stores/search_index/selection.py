"""Which items of a snapshot a filter lets pass, and the best of those that have scores."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dualmem_mcp.model.search import KINDS, Filter
from dualmem_mcp.stores.columns import to_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.search_index.layout import ORDINAL_BITS
from dualmem_mcp.stores.search_index.snapshot import NO_TIME, Snapshot
from dualmem_mcp.stores.search_index.writing import microseconds

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Scope:
    """What a filter lets pass of a snapshot, and what can be told of it. The collection is the caller's to compare.

    `mask` is one bool for each item, or None if all pass.
    """

    def __init__(self, connection: Connection, snapshot: Snapshot, where: Filter) -> None:
        self.mask = passing(connection, snapshot, where)
        self._lengths = snapshot.lengths
        self._authors = snapshot.authors
        self._names = snapshot.names

    @cached_property
    def items(self) -> int:
        """How many pass."""
        return len(self._lengths) if self.mask is None else int(np.count_nonzero(self.mask))

    @cached_property
    def words(self) -> float:
        """How many words they have on average; 0 if there are none."""
        lengths = self._lengths if self.mask is None else self._lengths[self.mask]
        return float(lengths.mean()) if len(lengths) else 0.0

    @cached_property
    def authors(self) -> list[str]:
        """Their different authors, those of most items first."""
        counts = np.bincount(self._authors if self.mask is None else self._authors[self.mask])
        numbers = np.flatnonzero(counts)
        names = [self._names[number] for number in numbers[np.argsort(-counts[numbers], kind="stable")].tolist()]
        return [name for name in names if name]


class Scopes:
    """The scope that was last looked at is at hand, as one search asks for it again and again."""

    def __init__(self) -> None:
        self._last: tuple[Snapshot, Filter, Scope] | None = None

    def of(self, connection: Connection, snapshot: Snapshot, where: Filter) -> Scope:
        """The filter's scope in the snapshot, which is of the transaction."""
        last = self._last
        if last is not None and last[0] is snapshot and last[1] == where:
            return last[2]
        scope = Scope(connection, snapshot, where)
        self._last = (snapshot, where, scope)
        return scope

    def forget(self) -> None:
        """Let go of it, and of the snapshot."""
        self._last = None


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


def distinct(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The different ids, ascending. For the some hundred of a search in a third of the time that numpy's takes."""
    ascending = np.sort(ids)
    first = np.ones(len(ids), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    return ascending[first]


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
