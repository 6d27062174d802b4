"""The few items that a device with a small cache keeps at hand, so that it can answer before, or without, an index.

Which ones stay is decided as GreedyDual does: every use lifts an item to the level of the last one that had to go,
plus what it is worth; the lowest goes. With equal worth that is least recently used; a relevant item outlasts
so many newer, less relevant ones as its worth says. Source: N. Young, "On-line caching as cache size varies",
SODA 1991; Cao and Irani, "Cost-aware WWW proxy caching algorithms", USENIX 1997.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.ports import CachedItem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RELEVANCE_BOOST: Final = 4.0
"""What an item of the highest relevance is worth beside one of the lowest, whose worth is 1."""

_WORDS_SHARE: Final = 0.5
"""Of the score without an index: how many of the query's words an item holds; the rest is the vectors' cosine."""

_NEAR: Final = 0.3
"""Cosine below which an item without a word of the query is no answer: unrelated texts reach .2 with MiniLM."""


class WorkingSet:
    """At most `capacity` items with one vector each; safe for use from several threads."""

    def __init__(self, capacity: int, entries: Sequence[CachedItem] = ()) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        kept = sorted(entries, key=lambda entry: -entry.priority)[:capacity]
        self._entries = {entry.item.key: entry for entry in kept}
        self._level = min((entry.priority for entry in kept), default=0.0) if len(kept) == capacity else 0.0
        self._changed = False

    def __len__(self) -> int:
        return len(self._entries)

    def use(self, item: SearchItem, vector: NDArray[np.float32] | None, relevance: float) -> None:
        """Note that the item was an answer, of this relevance (0 to 1); it may push another one out."""
        if self.capacity < 1:
            return
        worth = 1.0 + RELEVANCE_BOOST * min(max(relevance, 0.0), 1.0)
        with self._lock:
            known = self._entries.get(item.key)
            priority = self._level + worth
            if known is not None:
                priority = max(priority, known.priority)
                vector = known.vector if vector is None else vector
            # Put in anew, so that of equal priorities the one used last stays.
            self._entries.pop(item.key, None)
            self._entries[item.key] = CachedItem(item, vector, priority)
            while len(self._entries) > self.capacity:
                lowest = min(self._entries.values(), key=lambda entry: entry.priority)
                self._level = lowest.priority
                del self._entries[lowest.item.key]
            self._changed = True

    def find(
        self,
        words: Sequence[str],
        vector: NDArray[np.float32] | None,
        limit: int,
        accept: Callable[[SearchItem], bool] = lambda _: True,
    ) -> list[tuple[SearchItem, float]]:
        """The accepted items that hold a word or are near the vector, with scores from 0 to 1, best first."""
        with self._lock:
            entries = [entry for entry in self._entries.values() if accept(entry.item)]
        wanted = {word.casefold() for word in words if word}
        scored = [(entry.item, _score(entry, wanted, vector)) for entry in entries]
        scored = [(item, score) for item, score in scored if score > 0]
        return sorted(scored, key=lambda pair: -pair[1])[:limit]

    def entries(self, keys: Sequence[str]) -> list[CachedItem]:
        """Those of the items that are kept, in the order of the keys."""
        with self._lock:
            return [self._entries[key] for key in keys if key in self._entries]

    def forget(self, keys: Sequence[str]) -> None:
        """Drop items, as when they were deleted from the memory."""
        with self._lock:
            for key in keys:
                if self._entries.pop(key, None) is not None:
                    self._changed = True

    def refresh(self, current: Mapping[str, SearchItem]) -> None:
        """Put items whose text has changed in the place of what is kept of them, without their old vectors."""
        with self._lock:
            for key, item in current.items():
                entry = self._entries.get(key)
                if entry is not None and entry.item.text != item.text:
                    self._entries[key] = CachedItem(item, None, entry.priority)
                    self._changed = True

    def supply(self, key: str, vector: NDArray[np.float32]) -> None:
        """Give an entry without a vector that one."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.vector is None:
                self._entries[key] = CachedItem(entry.item, vector, entry.priority)
                self._changed = True

    def without_vectors(self) -> Sequence[str]:
        """Keys of what is kept without a vector."""
        with self._lock:
            return [key for key, entry in self._entries.items() if entry.vector is None]

    def take_changed(self) -> Sequence[CachedItem] | None:
        """The entries if they changed since the last call, for saving; else None."""
        with self._lock:
            if not self._changed:
                return None
            self._changed = False
            return tuple(self._entries.values())

    def note_unsaved(self) -> None:
        """The entries last taken could not be saved: they are to be taken again."""
        with self._lock:
            self._changed = True

    def keys(self) -> Sequence[str]:
        """Of what is kept."""
        with self._lock:
            return tuple(self._entries)


def _score(entry: CachedItem, wanted: set[str], vector: NDArray[np.float32] | None) -> float:
    text = entry.item.text.casefold()
    held = sum(word in text for word in wanted) / len(wanted) if wanted else 0.0
    if vector is None or entry.vector is None:
        return held
    cosine = max(float(vector @ entry.vector), 0.0)
    if not held and cosine < _NEAR:
        return 0.0
    return _WORDS_SHARE * held + (1 - _WORDS_SHARE) * cosine
