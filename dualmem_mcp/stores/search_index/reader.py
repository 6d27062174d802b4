"""What a search asks of an index, from whatever state of it and in whatever transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import numpy as np

from dualmem_mcp.model.search import KINDS, Collection, Filter, SearchItem
from dualmem_mcp.ports import Features, Scored, WordStatistics
from dualmem_mcp.stores.columns import from_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.search_index import bm25, writing
from dualmem_mcp.stores.search_index.layout import ORDINAL_BITS
from dualmem_mcp.stores.search_index.nearest import item_cosines, item_vectors, nearest_items
from dualmem_mcp.stores.search_index.selection import Scopes, best, distinct
from dualmem_mcp.stores.search_index.snapshot import NO_TIME, Snapshot
from dualmem_mcp.stores.search_index.vectors import direction

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_AUTHORS: Final = 200

_OF_IDS: Final = "SELECT * FROM whole_items WHERE id IN (SELECT value FROM json_each(?))"

T = TypeVar("T")


class Read(Protocol):
    """Makes something of one state of an index: a transaction that sees it, and its snapshot."""

    def __call__(self, work: Callable[[Connection, Snapshot], T], /) -> T: ...


class IndexReader:
    """A SearchReader over the states that `read` gives."""

    def __init__(self, collection: Collection, tokenizer: bm25.Tokenizer, scopes: Scopes, read: Read) -> None:
        self.collection = collection
        self._tokenizer = tokenizer
        self._scopes = scopes
        self._read = read

    def lexical(self, terms: Sequence[str], where: Filter, limit: int) -> Scored:
        """As SearchReader says; of more than 64 different words the 64 rarest count."""
        if self.collection not in where.collections:
            return _NOTHING
        stems = self._tokenizer.stems(writing.searchable(" ".join(terms)))

        def search(connection: Connection, snapshot: Snapshot) -> Scored:
            rare = bm25.rarest(connection, stems)
            scores = bm25.scores(connection, snapshot, rare, self._scopes.of(connection, snapshot, where))
            holding = np.flatnonzero(scores)
            chosen = holding[best(scores[holding], limit)]
            return Scored(snapshot.ids[chosen], scores[chosen])

        return self._read(search)

    def statistics(self, stems: Sequence[str], where: Filter) -> WordStatistics:
        """As SearchReader says."""

        def look(connection: Connection, snapshot: Snapshot) -> WordStatistics:
            scope = self._scopes.of(connection, snapshot, where)
            rarities = bm25.rarities(connection, snapshot, stems, scope)
            return WordStatistics(scope.items, scope.words, rarities)

        if self.collection not in where.collections:
            return WordStatistics(0, 0.0, np.zeros(len(stems), np.float32))
        return self._read(look)

    def nearest(self, vector: NDArray[np.float32], where: Filter, limit: int) -> Scored:
        """As SearchReader says; nothing for a vector that points nowhere, or is not of the model's length."""
        query = direction(vector)
        if query is None or self.collection not in where.collections:
            return _NOTHING

        def search(connection: Connection, snapshot: Snapshot) -> Scored:
            if len(query) != snapshot.dimensions:
                return _NOTHING
            mask = self._scopes.of(connection, snapshot, where).mask
            chosen, scores = nearest_items(connection, snapshot, query, mask, limit)
            return Scored(snapshot.ids[chosen], scores)

        return self._read(search)

    def cosines(self, vector: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """As SearchReader says."""
        query = direction(vector)

        def score(connection: Connection, snapshot: Snapshot) -> NDArray[np.float32]:
            if query is None or len(query) != snapshot.dimensions:
                return np.full(len(ids), np.nan, np.float32)
            return item_cosines(connection, snapshot, query, ids)

        return self._read(score)

    def vectors(self, ids: Sequence[int]) -> Mapping[int, NDArray[np.float32]]:
        """As SearchReader says, from the float16 that is stored."""
        wanted = np.array(ids, np.int64)
        return self._read(lambda connection, snapshot: item_vectors(connection, snapshot, wanted))

    def features(self, ids: NDArray[np.int64], where: Filter) -> Features:
        """As SearchReader says."""

        def look(connection: Connection, snapshot: Snapshot) -> Features:
            positions, there = snapshot.positions(distinct(ids))
            positions = positions[there]
            if self.collection not in where.collections:
                positions = positions[:0]
            elif (mask := self._scopes.of(connection, snapshot, where).mask) is not None:
                positions = positions[mask[positions]]
            found = snapshot.ids[positions]
            times = snapshot.times[positions]
            return Features(
                ids=found,
                kinds=tuple(map(KINDS.__getitem__, snapshot.kinds[positions].tolist())),
                authors=tuple(map(snapshot.names.__getitem__, snapshot.authors[positions].tolist())),
                conversations=found >> ORDINAL_BITS,
                timestamps=np.where(times == NO_TIME, np.nan, times / 1e6),
                terms=snapshot.terms[positions],
                traits=snapshot.traits[positions],
            )

        return self._read(look)

    def items(self, ids: Sequence[int]) -> Sequence[SearchItem]:
        """As SearchReader says."""
        wanted = [int(item_id) for item_id in ids]

        def look(connection: Connection, _: Snapshot) -> list[SearchItem]:
            found = {row[0]: item_of(row) for row in connection.execute(_OF_IDS, (json.dumps(wanted),))}
            return [found[item_id] for item_id in wanted if item_id in found]

        return self._read(look)

    def ids(self, keys: Sequence[str]) -> Mapping[str, int]:
        """As SearchReader says."""

        def look(connection: Connection, _: Snapshot) -> dict[str, int]:
            found = {key: writing.find(connection, key) for key in keys}
            return {key: known[0] for key, known in found.items() if known is not None}

        return self._read(look)

    def authors(self, where: Filter) -> Sequence[str]:
        """As SearchReader says, those of most items first."""
        if self.collection not in where.collections:
            return []
        return self._read(
            lambda connection, snapshot: self._scopes.of(connection, snapshot, where).authors[:_MOST_AUTHORS]
        )


_NOTHING: Final = Scored(np.empty(0, np.int64), np.empty(0, np.float32))


def item_of(row: Sequence[Any]) -> SearchItem:
    """The item in a row of `whole_items`."""
    _, key, kind, conversation, turn, author, time, device, text, *_ = row
    conversation_id, turn_id = from_column(conversation), from_column(turn)
    return SearchItem(
        key=writing.stored_key(key, KINDS[kind], conversation_id, turn_id),
        kind=KINDS[kind],
        text=from_column(text),
        conversation_id=conversation_id,
        turn_id=turn_id,
        author=from_column(author),
        timestamp=None if time is None else writing.instant(time),
        device=from_column(device),
    )
