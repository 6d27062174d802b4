"""Stems of words, as an index has them: FTS5's own tokenizer, over texts that no file holds."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlcipher3 import dbapi2

from dualmem_mcp.model.words import index_text_of
from dualmem_mcp.stores.search_index.layout import TOKENIZER
from dualmem_mcp.stores.search_index.writing import searchable

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COUNTED: Final = "SELECT doc, count(*) FROM places WHERE term = ? GROUP BY doc"


class Stemmer:
    """Counts stems in texts. Safe for use from several threads; holds no text longer than a call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # In memory: nothing of the user's data reaches a disk.
        self._connection: Any = dbapi2.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.execute(f"CREATE VIRTUAL TABLE texts USING fts5(text, content='', tokenize='{TOKENIZER}')")
        self._connection.execute("CREATE VIRTUAL TABLE counts USING fts5vocab(texts, row)")
        self._connection.execute("CREATE VIRTUAL TABLE places USING fts5vocab(texts, instance)")

    def stems_of(self, terms: Sequence[str]) -> list[str]:
        """The different stems of words that are looked for, in ascending order."""
        return list(self._frequencies(" ".join(terms)))

    def frequencies(self, author: str, text: str) -> Mapping[str, int]:
        """How often each stem occurs in what an index has of an item by that author."""
        return self._frequencies(index_text_of(author, text))

    def occurrences(self, texts: Sequence[str], stems: Sequence[str]) -> NDArray[np.float32]:
        """How often each of the stems occurs in each text, which is as `index_text_of` gives it: float32 (texts,
        stems)."""
        found = np.zeros((len(texts), len(stems)), np.float32)
        rows = [(number, searchable(text)) for number, text in enumerate(texts)]
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                self._connection.executemany("INSERT INTO texts (rowid, text) VALUES (?, ?)", rows)
                for column, stem in enumerate(stems):
                    for number, count in self._connection.execute(_COUNTED, (stem,)):
                        found[number, column] = count
            finally:
                self._connection.execute("ROLLBACK")
        return found

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._connection.close()

    def _frequencies(self, text: str) -> dict[str, int]:
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                self._connection.execute("INSERT INTO texts (rowid, text) VALUES (1, ?)", (searchable(text),))
                return dict(self._connection.execute("SELECT term, cnt FROM counts").fetchall())
            finally:
                self._connection.execute("ROLLBACK")
