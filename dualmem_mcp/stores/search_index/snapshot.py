"""What searching needs of a whole index in memory: a row of columns for each item, and each passage's bits.

80 bytes an item, or 4 MB for 50,000. With it every filter is exact and free, the coarse search takes a twentieth
of the time that sqlite-vec's own takes for 200 neighbours, and BM25 knows the statistics of any scope. It is read
once; after that the table `changes` tells which items to read again, whichever process wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

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
_TYPES: Final = np.dtype(
    [
        ("id", "i8"),
        ("kind", "i1"),
        ("author", "i4"),
        ("time", "i8"),
        ("terms", "i4"),
        ("words", "i4"),
        ("traits", "u1"),
        ("first_passage", "i8"),
        ("passages", "i4"),
    ]
)
_ROWS_AT_ONCE: Final = 5_000
_PATCHED_AT_MOST: Final = 2_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of an index: items in ascending order of their ids, passages of their numbers.

    `bits` is uint64 (words, passages), so that each word is one run in memory; `owners` gives each passage's
    position among the items.
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
    bits: NDArray[np.uint64]

    def positions(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Where the items are, and which of them are there."""
        return _positions(self.ids, ids)


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
    return _snapshot(
        generation=generation,
        change=change,
        model_id=model_id,
        dimensions=dimensions,
        names=_names(connection),
        items=items,
        passages=passages[order],
        bits=np.ascontiguousarray(bits[order].T),
    )


def _patched(connection: Connection, known: Snapshot, change: int, changed: NDArray[np.int64]) -> Snapshot:
    listed = ",".join(map(str, changed.tolist()))
    rows = connection.execute(f"SELECT {_COLUMNS} FROM items WHERE id IN ({listed})").fetchall()  # noqa: S608
    stay = ~_positions(changed, known.ids)[1]
    items = np.empty(int(stay.sum()), _TYPES)
    for name, column in zip(_TYPES.names or (), _columns(known), strict=True):
        items[name] = column[stay]
    items = np.concatenate([items, np.array(rows, _TYPES)])
    items = items[np.argsort(items["id"], kind="stable")]
    gone = np.isin(known.owners, np.flatnonzero(~stay))
    read: list[tuple[int, bytes]] = []
    for row in rows:
        read += connection.execute(
            "SELECT passage, vector FROM vectors WHERE passage >= ? AND passage < ?", (row[-2], row[-2] + row[-1])
        ).fetchall()
    new_bits = bits_of(decoded([row[1] for row in read], known.dimensions))
    passages = np.concatenate([known.passages[~gone], np.array([row[0] for row in read], np.int64)])
    order = np.argsort(passages, kind="stable")
    return _snapshot(
        generation=known.generation,
        change=change,
        model_id=known.model_id,
        dimensions=known.dimensions,
        names=_names(connection),
        items=items,
        passages=passages[order],
        bits=np.concatenate([known.bits[:, ~gone], new_bits.T], axis=1)[:, order],
    )


def _snapshot(
    *,
    generation: str,
    change: int,
    model_id: str,
    dimensions: int,
    names: dict[int, str],
    items: NDArray[np.void],
    passages: NDArray[np.int64],
    bits: NDArray[np.uint64],
) -> Snapshot:
    firsts, counts = items["first_passage"].copy(), items["passages"].copy()
    by_passage = np.flatnonzero(counts)
    by_passage = by_passage[np.argsort(firsts[by_passage], kind="stable")]
    return Snapshot(
        generation=generation,
        change=change,
        model_id=model_id,
        dimensions=dimensions,
        names=names,
        ids=items["id"].copy(),
        kinds=items["kind"].copy(),
        authors=items["author"].copy(),
        times=items["time"].copy(),
        terms=items["terms"].copy(),
        lengths=items["words"].copy(),
        traits=items["traits"].copy(),
        first_passages=firsts,
        passage_counts=counts,
        passages=passages,
        owners=np.repeat(by_passage, counts[by_passage]),
        bits=bits,
    )


def _columns(snapshot: Snapshot) -> Sequence[NDArray[Any]]:
    return (
        snapshot.ids,
        snapshot.kinds,
        snapshot.authors,
        snapshot.times,
        snapshot.terms,
        snapshot.lengths,
        snapshot.traits,
        snapshot.first_passages,
        snapshot.passage_counts,
    )


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
