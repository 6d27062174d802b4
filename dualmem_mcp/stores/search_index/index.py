"""A SearchIndex in one encrypted SQLite file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from dualmem_mcp.model.search import Collection, Filter, SearchItem
from dualmem_mcp.ports import Features, IndexCounts, Scored, Unembedded
from dualmem_mcp.stores.columns import from_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.search_index import bm25, writing
from dualmem_mcp.stores.search_index.index_file import IndexFile
from dualmem_mcp.stores.search_index.layout import FIRST_ASIDE, KINDS, ORDINAL_BITS
from dualmem_mcp.stores.search_index.nearest import item_cosines, item_vectors, nearest_items
from dualmem_mcp.stores.search_index.selection import best, passing
from dualmem_mcp.stores.search_index.snapshot import NO_TIME, Snapshot, model, refreshed
from dualmem_mcp.stores.search_index.vectors import direction

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_AUTHORS: Final = 200
_REMEMBERED_REVISIONS: Final = 10_000
_READ_AT_ONCE: Final = 500

_OF_IDS: Final = "SELECT * FROM whole_items WHERE id IN ({})"
_BEFORE: Final = "SELECT * FROM whole_items WHERE id = (SELECT max(id) FROM items WHERE id >= ? AND id < ?)"
_WAITING: Final = """
    SELECT * FROM whole_items
    WHERE id IN (SELECT id FROM items WHERE passages IS NULL ORDER BY time DESC, id DESC LIMIT ?)
    ORDER BY time DESC, id DESC"""

T = TypeVar("T")


class SqliteSearchIndex:
    """A SearchIndex in `index.db` of a collection's folder.

    The first search reads what filters and the coarse search need into memory, 110 bytes an item; `release` lets go
    of it. Errors of the disk come as StoreUnreachableError and DiskFullError; damage is mended without one.
    """

    def __init__(self, folder: Path, key: bytes, collection: Collection) -> None:
        self.collection = collection
        self._file = IndexFile(folder, key)
        self._tokenizer = bm25.Tokenizer()
        self._refreshing = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._revisions: dict[int, int] = {}

    def close(self) -> None:
        """Close the file; the index can be used again afterwards only by opening it anew."""
        self.release()
        self._tokenizer.close()

    def release(self) -> None:
        """Let go of all memory and files; the next use takes them again."""
        with self._refreshing:
            self._snapshot = None
        self._file.release()

    @property
    def generation(self) -> str:
        """Random, a new one for each index that is begun empty."""
        return self._file.read(_generation)

    def put(self, items: Sequence[SearchItem]) -> int:
        """As SearchIndex says. A batch of 100 short turns takes some 10 ms."""
        new = self._file.read(lambda connection: _to_put(connection, items))
        if not new:
            return 0
        prepared = [writing.prepared(item) for item in new]
        return self._file.write(lambda connection: writing.put(connection, prepared))

    def remove(self, keys: Sequence[str]) -> int:
        """As SearchIndex says."""
        return self._file.write(lambda connection: writing.remove(connection, keys)) if keys else 0

    def use_model(self, model_id: str, dimensions: int) -> None:
        """As SearchIndex says."""
        if self._file.read(model) != (model_id, dimensions):
            self._file.write(lambda connection: writing.use_model(connection, model_id, dimensions))

    def unembedded(self, limit: int) -> Sequence[Unembedded]:
        """As SearchIndex says; only turns have one before them."""
        return self._file.read(lambda connection: self._unembedded(connection, limit))

    def put_vectors(self, model_id: str, vectors: Sequence[tuple[int, NDArray[np.float32]]]) -> None:
        """As SearchIndex says. Vectors for a text that has changed since `unembedded` gave it are dropped, too.

        Raises ValueError if they are not of the model's length.
        """
        if vectors:
            self._file.write(lambda connection: writing.put_vectors(connection, model_id, vectors, self._revisions))

    def lexical(self, terms: Sequence[str], where: Filter, limit: int) -> Scored:
        """As SearchIndex says; of more than 64 different words the 64 rarest count."""
        stems = self._tokenizer.stems(writing.searchable(" ".join(terms)))

        def search(connection: Connection, snapshot: Snapshot) -> Scored:
            rare = bm25.rarest(connection, stems)
            scores = bm25.scores(connection, snapshot, rare, passing(connection, snapshot, where))
            holding = np.flatnonzero(scores)
            chosen = holding[best(scores[holding], limit)]
            return Scored(snapshot.ids[chosen], scores[chosen])

        return self._search(where, search) or _NOTHING

    def nearest(self, vector: NDArray[np.float32], where: Filter, limit: int) -> Scored:
        """As SearchIndex says; nothing for a vector that points nowhere, or is not of the model's length."""
        query = direction(vector)

        def search(connection: Connection, snapshot: Snapshot) -> Scored:
            if query is None or len(query) != snapshot.dimensions:
                return _NOTHING
            mask = passing(connection, snapshot, where)
            chosen, scores = nearest_items(connection, snapshot, query, mask, limit)
            return Scored(snapshot.ids[chosen], scores)

        return self._search(where, search) or _NOTHING

    def cosines(self, vector: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """As SearchIndex says."""
        query = direction(vector)

        def score(connection: Connection, snapshot: Snapshot) -> NDArray[np.float32]:
            if query is None or len(query) != snapshot.dimensions:
                return np.full(len(ids), np.nan, np.float32)
            return item_cosines(connection, snapshot, query, ids)

        return self._with_snapshot(score)

    def vectors(self, ids: Sequence[int]) -> Mapping[int, NDArray[np.float32]]:
        """As SearchIndex says, from the float16 that is stored."""
        wanted = np.array(ids, np.int64)

        def look(connection: Connection, snapshot: Snapshot) -> dict[int, NDArray[np.float32]]:
            return item_vectors(connection, snapshot, wanted)

        return self._with_snapshot(look)

    def features(self, ids: NDArray[np.int64], where: Filter) -> Features:
        """As SearchIndex says."""

        def look(connection: Connection, snapshot: Snapshot) -> Features:
            positions, there = snapshot.positions(np.unique(ids))
            positions = positions[there]
            mask = passing(connection, snapshot, where)
            if self.collection not in where.collections:
                positions = positions[:0]
            elif mask is not None:
                positions = positions[mask[positions]]
            times = snapshot.times[positions]
            return Features(
                ids=snapshot.ids[positions],
                kinds=tuple(KINDS[kind] for kind in snapshot.kinds[positions].tolist()),
                authors=tuple(snapshot.names[author] for author in snapshot.authors[positions].tolist()),
                conversations=snapshot.ids[positions] >> ORDINAL_BITS,
                timestamps=np.where(times == NO_TIME, np.nan, times / 1e6),
                terms=snapshot.terms[positions],
                traits=snapshot.traits[positions],
            )

        return self._with_snapshot(look)

    def items(self, ids: Sequence[int]) -> Sequence[SearchItem]:
        """As SearchIndex says."""
        wanted = [int(item_id) for item_id in ids]

        def look(connection: Connection) -> list[SearchItem]:
            found: dict[int, SearchItem] = {}
            for start in range(0, len(wanted), _READ_AT_ONCE):
                listed = ",".join(map(str, wanted[start : start + _READ_AT_ONCE]))
                for row in connection.execute(_OF_IDS.format(listed)):
                    found[row[0]] = _item(row)
            return [found[item_id] for item_id in wanted if item_id in found]

        return self._file.read(look)

    def authors(self, where: Filter) -> Sequence[str]:
        """As SearchIndex says, those of most items first."""

        def look(connection: Connection, snapshot: Snapshot) -> list[str]:
            mask = passing(connection, snapshot, where)
            numbers, counts = np.unique(
                snapshot.authors if mask is None else snapshot.authors[mask], return_counts=True
            )
            names = [snapshot.names[number] for number in numbers[np.argsort(-counts, kind="stable")].tolist()]
            return [name for name in names if name][:_MOST_AUTHORS]

        return self._search(where, look) or []

    def counts(self) -> IndexCounts:
        """As SearchIndex says; the size includes the write-ahead log."""
        items, waiting = self._file.read(
            lambda connection: connection.execute(
                "SELECT (SELECT count(*) FROM texts), (SELECT count(*) FROM items WHERE passages IS NULL)"
            ).fetchone()
        )
        return IndexCounts(items, items - waiting, self._file.size_bytes())

    def _search(self, where: Filter, work: Callable[[Connection, Snapshot], T]) -> T | None:
        return self._with_snapshot(work) if self.collection in where.collections else None

    def _with_snapshot(self, work: Callable[[Connection, Snapshot], T]) -> T:
        def inside(connection: Connection) -> T:
            # The transaction begins to see with its first statement, in here: no snapshot is ahead of it.
            with self._refreshing:
                snapshot = self._snapshot = refreshed(connection, self._snapshot)
            return work(connection, snapshot)

        return self._file.read(inside)

    def _unembedded(self, connection: Connection, limit: int) -> list[Unembedded]:
        rows = connection.execute(_WAITING, (limit,)).fetchall()
        found = []
        for row in rows:
            self._revisions[row[0]] = row[9]
            found.append(Unembedded(row[0], _item(row), _previous(connection, row[0])))
        while len(self._revisions) > _REMEMBERED_REVISIONS:
            del self._revisions[next(iter(self._revisions))]
        return found


_NOTHING: Final = Scored(np.empty(0, np.int64), np.empty(0, np.float32))


def open_search_index(folder: Path, key: bytes, collection: Collection) -> SqliteSearchIndex:
    """The index of a collection in its folder (`vector_cache/<collection>`), made if there is none.

    `key` has 32 bytes. Raises StoreUnreachableError or DiskFullError if it cannot be read and written.
    """
    index = SqliteSearchIndex(folder, key, collection)
    try:
        _ = index.generation
    except BaseException:
        index.close()
        raise
    return index


def _generation(connection: Connection) -> str:
    generation: str = connection.execute("SELECT value FROM state WHERE name = 'generation'").fetchone()[0]
    return generation


def _to_put(connection: Connection, items: Sequence[SearchItem]) -> list[SearchItem]:
    """The items that would change something, in their order."""
    chosen: list[SearchItem] = []
    keys: set[str] = set()
    for item in items:
        # What has the text that is stored now may come after another text of its own in the same batch.
        if item.key in keys or _differs(connection, item):
            chosen.append(item)
            keys.add(item.key)
    return chosen


def _differs(connection: Connection, item: SearchItem) -> bool:
    known = writing.find(connection, item.key)
    return known is None or known[1] != item.text


def _item(row: Sequence[Any]) -> SearchItem:
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


def _previous(connection: Connection, item_id: int) -> SearchItem | None:
    """The turn before a turn."""
    first = item_id >> ORDINAL_BITS << ORDINAL_BITS
    if item_id - first >= FIRST_ASIDE:
        return None
    row = connection.execute(_BEFORE, (first, item_id)).fetchone()
    return None if row is None else _item(row)
