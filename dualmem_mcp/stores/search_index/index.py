"""A SearchIndex in one encrypted SQLite file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from dualmem_mcp.model.search import Collection, SearchItem
from dualmem_mcp.ports import IndexCounts, ItemColumns, SearchReader, Unembedded
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.search_index import bm25, writing
from dualmem_mcp.stores.search_index.columns import read_columns
from dualmem_mcp.stores.search_index.index_file import IndexFile
from dualmem_mcp.stores.search_index.layout import FIRST_ASIDE, ORDINAL_BITS
from dualmem_mcp.stores.search_index.reader import IndexReader, item_of
from dualmem_mcp.stores.search_index.selection import Scopes
from dualmem_mcp.stores.search_index.snapshot import Snapshot, model, refreshed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_REMEMBERED_REVISIONS: Final = 10_000
_NO_LIKENESSES: Final[Mapping[int, int]] = MappingProxyType({})

_BEFORE: Final = "SELECT * FROM whole_items WHERE id = (SELECT max(id) FROM items WHERE id >= ? AND id < ?)"
_WAITING: Final = """
    SELECT * FROM whole_items
    WHERE id IN (SELECT id FROM items WHERE passages IS NULL ORDER BY time DESC, id DESC LIMIT ?)
    ORDER BY time DESC, id DESC"""
_COUNTS: Final = """
    SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM items WHERE passages IS NULL),
           ifnull((SELECT value FROM state WHERE name = 'shared'), 0)"""

T = TypeVar("T")


class SqliteSearchIndex(IndexReader):
    """A SearchIndex in `index.db` of a collection's folder.

    The first search reads what filters and the coarse search need into memory, 110 bytes an item; `release` lets go
    of it. Errors of the disk come as StoreUnreachableError and DiskFullError; damage is mended without one.
    """

    def __init__(self, folder: Path, key: bytes, collection: Collection) -> None:
        super().__init__(collection, bm25.Tokenizer(), Scopes(), self._with_snapshot)
        self._file = IndexFile(folder, key)
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
        self._scopes.forget()
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

    def share_vectors(self, model_id: str, likenesses: Mapping[int, int]) -> set[int]:
        """As SearchIndex says. Items whose text has changed since `unembedded` gave it get none."""
        if not self._file.read(lambda connection: _any_of(connection, likenesses.values())):
            return set()  # most often, and then nobody need wait for the write lock
        return self._file.write(
            lambda connection: writing.share_vectors(connection, model_id, likenesses, self._revisions)
        )

    def put_vectors(
        self,
        model_id: str,
        vectors: Sequence[tuple[int, NDArray[np.float32]]],
        likenesses: Mapping[int, int] = _NO_LIKENESSES,
    ) -> None:
        """As SearchIndex says. Vectors for a text that has changed since `unembedded` gave it are dropped, too.

        Raises ValueError if they are not of the model's length.
        """
        if vectors:
            self._file.write(
                lambda connection: writing.put_vectors(connection, model_id, vectors, likenesses, self._revisions)
            )

    @contextmanager
    def reading(self) -> Iterator[SearchReader]:
        """As SearchIndex says."""
        with self._file.reading(self._refreshed) as reading:
            yield IndexReader(self.collection, self._tokenizer, self._scopes, reading.read)

    def counts(self) -> IndexCounts:
        """As SearchIndex says; the size includes the write-ahead log."""
        items, waiting, shared = self._file.read(lambda connection: connection.execute(_COUNTS).fetchone())
        return IndexCounts(items, items - waiting, self._file.size_bytes(), shared)

    def columns(self) -> ItemColumns:
        """As SearchIndex says; of a million items in 2 s."""
        return self._file.read(read_columns)

    def _with_snapshot(self, work: Callable[[Connection, Snapshot], T]) -> T:
        return self._file.read(lambda connection: work(connection, self._refreshed(connection)))

    def _refreshed(self, connection: Connection) -> Snapshot:
        # The transaction begins to see with its first statement, in here: no snapshot is ahead of it.
        with self._refreshing:
            snapshot = self._snapshot = refreshed(connection, self._snapshot)
        return snapshot

    def _unembedded(self, connection: Connection, limit: int) -> list[Unembedded]:
        rows = connection.execute(_WAITING, (limit,)).fetchall()
        found = []
        for row in rows:
            self._revisions[row[0]] = row[9]
            found.append(Unembedded(row[0], item_of(row), _previous(connection, row[0])))
        while len(self._revisions) > _REMEMBERED_REVISIONS:
            del self._revisions[next(iter(self._revisions))]
        return found


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


def _any_of(connection: Connection, likenesses: Iterable[int]) -> bool:
    """Whether the vectors of one of these are there."""
    query = "SELECT 1 FROM items WHERE likeness IN (SELECT value FROM json_each(?)) LIMIT 1"
    return connection.execute(query, (json.dumps(list(likenesses)),)).fetchone() is not None


def _previous(connection: Connection, item_id: int) -> SearchItem | None:
    """The turn before a turn."""
    first = item_id >> ORDINAL_BITS << ORDINAL_BITS
    if item_id - first >= FIRST_ASIDE:
        return None
    row = connection.execute(_BEFORE, (first, item_id)).fetchone()
    return None if row is None else item_of(row)
