"""What searching needs of a whole index in memory: a row of columns for each item, and each passage's bits.

110 bytes an item with one passage, or 5 MB for 50,000. With it every filter is exact and free, the coarse search
takes a tenth of the time that sqlite-vec's own takes for 200 neighbours, and BM25 knows the statistics of any
scope. It is read once; after that the table `changes` tells what to read again, whichever process wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dualmem_mcp.errors import TamperedError
from dualmem_mcp.stores.columns import from_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.search_index.layout import ALL_CHANGED, bit_words
from dualmem_mcp.stores.search_index.vectors import bits_of, decoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_TIME: Final = np.iinfo(np.int64).min

_COLUMNS: Final = (
    "id, kind, author, ifnull(time, -9223372036854775808), terms, words, traits, "
    "ifnull(first_passage, 0), ifnull(passages, 0)"
)
# The same columns, by the names of the snapshot's fields.
_TYPES: Final = np.dtype(
    [
        ("ids", "i8"),
        ("kinds", "i1"),
        ("authors", "i4"),
        ("times", "i8"),
        ("terms", "i4"),
        ("lengths", "i4"),
        ("traits", "u1"),
        ("first_passages", "i8"),
        ("passage_counts", "i4"),
    ]
)
_FIELDS: Final[tuple[str, ...]] = _TYPES.names or ()
_ROWS_AT_ONCE: Final = 5_000
_PATCHED_AT_MOST: Final = 2_000
_HELD_PASSAGES: Final = 10_000
"""Of an index with no more passages the vectors are held, too: 15 MB, for a cosine in a third of the time."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of an index: items in ascending order of their ids, passages of their numbers.

    `bits` is uint64 (words, passages), so that each word is one run in memory; `vectors` (passages, d) is None for
    a large index. A *use* is an item with one of its passages. Uses are in the order of the item's first passage,
    then of the items, then of the passages: `owners` gives each one's position among the items, and `used` its
    position among the passages, or is None where no two items share passages, and each use stands where its passage
    does.
    """

    generation: str
    change: int
    model_id: str
    dimensions: int
    names: dict[int, str]
    ids: NDArray[np.int64]
    kinds: NDArray[np.int8]
    authors: NDArray[np.int32]
    times: NDArray[np.int64]
    terms: NDArray[np.int32]
    lengths: NDArray[np.int32]
    traits: NDArray[np.uint8]
    first_passages: NDArray[np.int64]
    passage_counts: NDArray[np.int32]
    passages: NDArray[np.int64]
    owners: NDArray[np.intp]
    used: NDArray[np.intp] | None
    bits: NDArray[np.uint64]
    vectors: NDArray[np.float32] | None

    def positions(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Where the items are, and which of them are there."""
        return _positions(self.ids, ids)

    def passages_of(self, uses: NDArray[np.intp]) -> NDArray[np.intp]:
        """Positions of the passages of some uses."""
        return uses if self.used is None else self.used[uses]


def refreshed(connection: Connection, known: Snapshot | None) -> Snapshot:
    """The snapshot of what the transaction sees."""
    generation, first, last = connection.execute(
        # min and max apart: together they would look at every row.
        "SELECT (SELECT value FROM state WHERE name = 'generation'), "
        "ifnull((SELECT min(number) FROM changes), 0), ifnull((SELECT max(number) FROM changes), 0)"
    ).fetchone()
    if known is None or known.generation != generation or known.change + 1 < first or known.change > last:
        return _whole(connection, generation, last)
    if known.change == last:
        return known
    changed = [
        row[0]
        for row in connection.execute(
            "SELECT DISTINCT id FROM changes WHERE number > ? ORDER BY id", (known.change,)
        )
    ]
    if changed[0] == ALL_CHANGED or len(changed) > _PATCHED_AT_MOST:
        return _whole(connection, generation, last)
    return _patched(connection, known, last, np.array(changed, np.int64))


def _whole(connection: Connection, generation: str, change: int) -> Snapshot:
    cursor: Any = connection.execute(f"SELECT {_COLUMNS} FROM items ORDER BY id")  # noqa: S608
    blocks = [np.empty(0, _TYPES)]
    # Block by block: a row of Python's numbers takes ten times the memory.
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        blocks.append(np.array(rows, _TYPES))
    items = np.concatenate(blocks)
    model_id, dimensions = model(connection)
    passages, bits = _all_bits(connection, bit_words(dimensions))
    order = np.argsort(passages, kind="stable")
    owners, numbers = _uses_of(items["first_passages"], items["passage_counts"])
    passages = passages[order]
    shared = len(passages) < len(numbers)
    used = _places_of(passages, numbers) if shared else None
    if not np.array_equal(passages, np.unique(numbers) if shared else numbers):
        raise TamperedError("the index contradicts itself", operation="read index")
    return Snapshot(
        generation=generation,
        change=change,
        model_id=model_id,
        dimensions=dimensions,
        names=_names(connection),
        passages=passages,
        owners=owners,
        used=used,
        bits=np.ascontiguousarray(bits[order].T),
        vectors=(
            _vectors(connection, passages, dimensions).astype(np.float32)
            if len(passages) <= _HELD_PASSAGES
            else None
        ),
        **{field: items[field].copy() for field in _FIELDS},
    )


def _patched(connection: Connection, known: Snapshot, change: int, changed: NDArray[np.int64]) -> Snapshot:
    """The known snapshot with some items read again: 2 ms for one of 50,000."""
    listed = ",".join(map(str, changed.tolist()))
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM items WHERE id IN ({listed}) ORDER BY id"  # noqa: S608 - numbers
    ).fetchall()
    new = np.array(rows, _TYPES)
    positions, there = known.positions(changed)
    gone = positions[there]
    columns = {field: np.delete(getattr(known, field), gone) for field in _FIELDS}
    before = np.searchsorted(columns["ids"], new["ids"])
    columns = {field: np.insert(column, before, new[field]) for field, column in columns.items()}

    changed_items = np.zeros(len(known.ids), bool)
    changed_items[gone] = True
    stays = ~changed_items[known.owners]
    owners = np.searchsorted(columns["ids"], known.ids)[known.owners[stays]]
    places = known.passages_of(np.flatnonzero(stays))
    new_owners, numbers = _uses_of(new["first_passages"], new["passage_counts"])
    new_owners = np.searchsorted(columns["ids"], new["ids"])[new_owners]

    # New passages have higher numbers than all before them; any other is one that an item had already.
    older = numbers <= (known.passages[-1] if len(known.passages) else -1)
    kept = np.zeros(len(known.passages), bool)
    kept[places] = True
    kept[_places_of(known.passages, numbers[older])] = True
    new_passages = np.unique(numbers[~older])
    new_vectors = _vectors(connection, new_passages, known.dimensions)
    passages = np.concatenate([known.passages[kept], new_passages])
    vectors = None
    if known.vectors is not None and len(passages) <= _HELD_PASSAGES:
        vectors = np.concatenate([known.vectors[kept], new_vectors.astype(np.float32)])

    before = np.full(len(new_owners), len(owners))
    if older.any():
        before = np.searchsorted(_order(columns, owners), _order(columns, new_owners))
    used = None
    if len(passages) < len(owners) + len(new_owners):
        used = np.insert((np.cumsum(kept) - 1)[places], before, _places_of(passages, numbers))
    return Snapshot(
        generation=known.generation,
        change=change,
        model_id=known.model_id,
        dimensions=known.dimensions,
        names=_names(connection),
        passages=passages,
        owners=np.insert(owners, before, new_owners),
        used=used,
        bits=np.concatenate([known.bits if kept.all() else known.bits[:, kept], bits_of(new_vectors).T], axis=1),
        vectors=vectors,
        **columns,
    )


def _uses_of(firsts: NDArray[np.int64], counts: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """For each use of a passage by some items the position of the item among them, and the passage's number."""
    items = np.argsort(firsts, kind="stable")
    counts = counts[items]
    owners = np.repeat(np.arange(len(counts)), counts)
    return items[owners], np.arange(len(owners)) + (firsts[items] - (np.cumsum(counts) - counts))[owners]


def _order(columns: dict[str, NDArray[Any]], owners: NDArray[np.intp]) -> NDArray[np.int64]:
    """A number for each of some uses that puts them in their order, but for those of one item."""
    order: NDArray[np.int64] = columns["first_passages"][owners] * len(columns["ids"]) + owners
    return order


def _places_of(passages: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where passages of these numbers are among all, which ascend."""
    places, there = _positions(passages, numbers)
    if not there.all():
        raise TamperedError("the index contradicts itself", operation="read index")
    return places


def _vectors(connection: Connection, passages: NDArray[np.int64], dimensions: int) -> NDArray[np.float16]:
    """The stored vectors of some passages, which ascend: float16 (n, dimensions)."""
    blobs: list[bytes] = []
    for start in range(0, len(passages), _ROWS_AT_ONCE):
        listed = ",".join(map(str, passages[start : start + _ROWS_AT_ONCE].tolist()))
        rows = connection.execute(
            f"SELECT vector FROM vectors WHERE passage IN ({listed}) ORDER BY passage"  # noqa: S608 - numbers
        )
        blobs += [row[0] for row in rows]
    if len(blobs) != len(passages):
        raise TamperedError("the index contradicts itself", operation="read index")
    return decoded(blobs, dimensions)


def _all_bits(connection: Connection, words: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Ids and bits of all passages, as sqlite-vec keeps them: by chunks, with a bit for each place that is taken.

    Through the virtual table it takes 40 times as long. Source: ARCHITECTURE.md of sqlite-vec 0.1.9, "vec0".
    """
    ids, bits = [np.empty(0, np.int64)], [np.empty((0, words), np.uint64)]
    if words:
        for validity, rowids, vectors in connection.execute(
            "SELECT validity, rowids, vectors FROM bits_chunks JOIN bits_vector_chunks00 v ON v.rowid = chunk_id"
        ):
            taken = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little").astype(bool)
            ids.append(np.frombuffer(rowids, "<i8")[taken])
            bits.append(np.frombuffer(vectors, "<u8").reshape(-1, words)[taken])
    return np.concatenate(ids), np.concatenate(bits)


def model(connection: Connection) -> tuple[str, int]:
    """The model whose vectors the index holds, and their length; ("", 0) before the first."""
    state = dict(connection.execute("SELECT name, value FROM state").fetchall())
    return from_column(state.get("model_id", "")), state.get("dimensions", 0)


def _names(connection: Connection) -> dict[int, str]:
    return {row[0]: from_column(row[1]) for row in connection.execute("SELECT id, name FROM names")}


def _positions(ascending: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    positions = np.searchsorted(ascending, ids)
    if not len(ascending):
        return positions, np.zeros(len(ids), bool)
    positions = np.minimum(positions, len(ascending) - 1)
    return positions, ascending[positions] == ids
