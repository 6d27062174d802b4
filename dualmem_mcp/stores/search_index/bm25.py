"""BM25 over a scope: how rare a word is, and how long a text, are taken from what is searched alone.

Within one conversation its speakers' names are in every other turn and must weigh little, however rare they are
elsewhere. FTS5's own `bm25()` knows only the whole table; so its index is asked for the places of each word, and
the scores are added up here, which takes no longer.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from sqlcipher3 import dbapi2

from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.search_index.layout import TOKENIZER
from dualmem_mcp.stores.search_index.selection import Scope
from dualmem_mcp.stores.search_index.snapshot import Snapshot

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Source: SQLite's FTS5 and Lucene; S. Robertson and H. Zaragoza, "The Probabilistic Relevance Framework", 2009.
K1: Final = 1.2
B: Final = 0.75

MOST_STEMS: Final = 64
"""Of a longer query only its rarest words count."""

_COUNTS: Final = (
    "SELECT count.doc, stem.value FROM json_each(?) stem CROSS JOIN word_counts count ON count.term = stem.value "
    "ORDER BY count.doc, stem.value LIMIT ?"
)
# Their documents as one text: a row of the driver's for each place takes five times as long. They come in order.
_PLACES: Final = (
    "SELECT (SELECT group_concat(place.doc) FROM word_places place WHERE place.term = stem.value) "
    "FROM json_each(?) stem"
)


class Tokenizer:
    """FTS5's own tokenizer over a query's words, so that they become what the index holds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # In memory, and without a word of the user's data beyond one query's.
        self._connection: Any = dbapi2.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.execute(f"CREATE VIRTUAL TABLE query USING fts5(text, content='', tokenize='{TOKENIZER}')")
        self._connection.execute("CREATE VIRTUAL TABLE stems USING fts5vocab(query, row)")

    def stems(self, text: str) -> list[str]:
        """The different stems of the text's words."""
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                self._connection.execute("INSERT INTO query (rowid, text) VALUES (1, ?)", (text,))
                return [row[0] for row in self._connection.execute("SELECT term FROM stems")]
            finally:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._connection.close()


def rarest(connection: Connection, stems: Sequence[str]) -> Iterable[str]:
    """The stems to search: all of a query of reasonable length, else the rarest that the index holds."""
    if len(stems) <= MOST_STEMS:
        return stems
    rows = connection.execute(_COUNTS, (json.dumps(list(stems)), MOST_STEMS))
    return [stem for _, stem in rows]


def scores(connection: Connection, snapshot: Snapshot, stems: Iterable[str], scope: Scope) -> NDArray[np.float32]:
    """The score of each item of the snapshot, 0 for those that hold none of the words or are not in the scope."""
    total = np.zeros(len(snapshot.ids), np.float32)
    found = _occurrences(connection, snapshot, stems, scope)
    if found is None:
        return total
    holding = np.bincount(found.stem, minlength=len(found.listed))
    idf = _rarity(scope.items, holding)
    frequency, positions = found.frequency, found.positions
    norm = K1 * (1 - B + B * snapshot.lengths[positions] / max(scope.words, 1.0))
    np.add.at(total, positions, (idf[found.stem] * frequency * (K1 + 1) / (frequency + norm)).astype(np.float32))
    return total


def rarities(connection: Connection, snapshot: Snapshot, stems: Sequence[str], scope: Scope) -> NDArray[np.float32]:
    """How much each of the different stems counts in the scope: float32 (stems,)."""
    holding = np.zeros(len(stems), np.int64)
    found = _occurrences(connection, snapshot, stems, scope)
    if found is not None:
        holding[found.listed] = np.bincount(found.stem, minlength=len(found.listed))
    return _rarity(scope.items, holding).astype(np.float32)


class _Found(NamedTuple):
    """Which of the stems the index holds, as places among those asked for; and for each item of the scope that
    holds one, the stem, as a place among these, the item's position, and how often."""

    listed: NDArray[np.intp]
    stem: NDArray[np.intp]
    positions: NDArray[np.intp]
    frequency: NDArray[np.int64]


def _rarity(items: int, holding: NDArray[np.int64]) -> NDArray[np.float64]:
    # Always positive: a word that nearly all hold still counts for a little. Source: Lucene's BM25Similarity.
    rarity: NDArray[np.float64] = np.log1p((items - holding + 0.5) / (holding + 0.5))
    return rarity


def _occurrences(connection: Connection, snapshot: Snapshot, stems: Iterable[str], scope: Scope) -> _Found | None:
    """Where the stems occur in the scope; None if nowhere, or if the scope is empty."""
    # One statement for all: each one on this table costs 0.1 ms before its first row.
    rows = connection.execute(_PLACES, (json.dumps(list(stems)),)).fetchall()
    listed = [row[0] for row in rows if row[0] is not None]
    if not listed or not scope.items:
        return None
    places = np.fromstring(",".join(listed), np.int64, sep=",")
    stem = np.repeat(np.arange(len(listed)), [one.count(",") + 1 for one in listed])
    # Those of one stem in one item follow each other: how many is the frequency.
    first = np.ones(len(places), bool)
    first[1:] = (places[1:] != places[:-1]) | (stem[1:] != stem[:-1])
    starts = np.flatnonzero(first)
    frequency = np.empty(len(starts), np.int64)
    np.subtract(starts[1:], starts[:-1], out=frequency[:-1])
    frequency[-1] = len(places) - starts[-1]
    stem = stem[starts]
    positions, there = snapshot.positions(places[starts])
    if scope.mask is not None:
        there &= scope.mask[positions]
    if not there.all():
        stem, positions, frequency = stem[there], positions[there], frequency[there]
    held = np.flatnonzero([row[0] is not None for row in rows])
    return _Found(held, stem, positions, frequency)
