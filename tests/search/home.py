"""A memory with its indexes, and an embedder that needs no model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dualmem_mcp.durable_files import file_lock_if_free
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.index_scope import IndexScope
from dualmem_mcp.model.search import Collection, Filter, SearchItem
from dualmem_mcp.search.indexing import Indexer
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.search_feed import SearchFeed
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index
from dualmem_mcp.stores.source_progress import SourceProgress
from dualmem_mcp.transcripts.local_sessions import LocalSessions
from tests.conftest import SteppingClock


@dataclass
class WordEmbedder:
    """Texts as sums of a fixed vector for each word: texts that share words are near to each other."""

    model_id: str = "words-1"
    dimensions: int = 32
    embedded: list[str] = field(default_factory=list)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded += texts
        found = np.zeros((len(texts), self.dimensions), np.float32)
        for number, text in enumerate(texts):
            words = text.lower().split() or [""]
            digests = [hashlib.blake2b(word.encode(), digest_size=self.dimensions).digest() for word in words]
            total = sum(np.frombuffer(digest, np.uint8).astype(np.float32) - 127.5 for digest in digests)
            found[number] = total / np.linalg.norm(total)
        return found


class Memory:
    """One data home as far as indexing goes: the truth, its indexes, the sessions of a Claude Code folder."""

    def __init__(self, root: Path, clock: SteppingClock) -> None:
        self.root = root
        self.claude = root / "claude"
        self.database = Database.open(root / "memory.db", bytes(32))
        self.graph = GraphStore(self.database, clock, DeviceId("ab" * 16))
        self.log = SourceProgress(self.database, clock, "desk")
        self.truth = SearchFeed(self.database)
        self.indexes: dict[Collection, SqliteSearchIndex] = {
            collection: open_search_index(root / collection.value, bytes(32), collection)
            for collection in Collection
        }
        self.indexer = Indexer(
            log=self.log,
            truth=self.truth,
            indexes=self.indexes,
            lock=partial(file_lock_if_free, root / ".indexing.lock"),
        )

    @property
    def files(self) -> LocalSessions:
        return LocalSessions(self.claude, IndexScope("all"), "")

    def found(self, *words: str, collection: Collection = Collection.CONVERSATIONS) -> list[SearchItem]:
        """The items that hold one of the words, by their keys."""
        index = self.indexes[collection]
        items = index.items(index.lexical(words, Filter(), 1000).ids.tolist())
        return sorted(items, key=lambda item: item.key)

    def texts(self, *words: str, collection: Collection = Collection.CONVERSATIONS) -> list[str]:
        return [item.text for item in self.found(*words, collection=collection)]

    def counts(self, collection: Collection = Collection.CONVERSATIONS) -> tuple[int, int]:
        counts = self.indexes[collection].counts()
        return counts.items, counts.embedded

    def close(self) -> None:
        for index in self.indexes.values():
            index.close()
        self.database.close()
