"""What search asks: the embedding model, the indexes, and which items were used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from dualmem_mcp.model.search import Collection, Filter, ItemKind, SearchItem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Embedder(Protocol):
    """A model that turns texts into vectors."""

    @property
    def model_id(self) -> str:
        """Names model, weights and whatever changes its vectors: those of different ids cannot be compared."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One vector a text, in order: float32 (n, dimensions), L2-normalised. What is too long is cut."""
        ...


class Stems(Protocol):
    """Stems of words, as indexes have them. For use from any thread; holds no text longer than a call."""

    def stems_of(self, terms: Sequence[str]) -> list[str]:
        """The different stems of words that are looked for."""
        ...

    def frequencies(self, author: str, text: str) -> Mapping[str, int]:
        """How often each stem occurs in what an index has of an item by that author."""
        ...

    def occurrences(self, texts: Sequence[str], stems: Sequence[str]) -> NDArray[np.float32]:
        """How often each of the stems occurs in each text, which is as `model.words.index_text_of` gives it:
        float32 (texts, stems)."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


@dataclass(frozen=True, slots=True)
class Scored:
    """Items of an index with scores, the best first: int64 (n,) and float32 (n,)."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WordStatistics:
    """What a scope knows of words: how many items it has, how many words they have on average (0.0 if there are
    none), and how much each of the stems asked for counts in BM25, the rarer the more, float32 (stems,)."""

    items: int
    mean_words: float
    rarities: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Features:
    """What ranking has to know of items beside their scores, one entry for each id that was asked for and is there.

    `ids` int64, ascending. `terms` counts the words that are no stop words, int32. `timestamps` are seconds since
    1970, float64, nan for none. `conversations` are numbers of the index's own, int64, 0 for none; the turns of a
    conversation have ids that follow each other, so that `id - 1` and `id + 1` of the same conversation are what
    was said before and after. `traits` are the flags of `model.words.Trait`, uint8.
    """

    ids: NDArray[np.int64]
    kinds: tuple[ItemKind, ...]
    authors: tuple[str, ...]
    conversations: NDArray[np.int64]
    timestamps: NDArray[np.float64]
    terms: NDArray[np.int32]
    traits: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Unembedded:
    """An item that has no vectors yet, with the one before it in its conversation, if there is one."""

    id: int
    item: SearchItem
    previous: SearchItem | None


@dataclass(frozen=True, slots=True)
class IndexCounts:
    """Items in an index, how many of them have their vectors, and its size on disk; `shared` of those with vectors
    have those of another."""

    items: int
    embedded: int
    size_bytes: int
    shared: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ItemColumns:
    """All items of an index for a plan, in ascending order of their ids; all (n,).

    `ids` int64, `keys` int64 (`model.search.key_digest`), `kinds` uint8 (places in `model.search.KINDS`),
    `conversations` int64 (`key_digest` of conversation ids, 0 for none), `ordinals` int32 (place among the
    conversation's turns, -1 for what is no turn), `times` int64 (microseconds since 1970, the least int64 for
    none), `words` int32, `passages` int32 (0: no vectors yet), `contents` int64 (digest of the text), `likenesses`
    int64 (digest of what was embedded, as `search.likeness` says; 0 without vectors).
    """

    ids: NDArray[np.int64]
    keys: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    conversations: NDArray[np.int64]
    ordinals: NDArray[np.int32]
    times: NDArray[np.int64]
    words: NDArray[np.int32]
    passages: NDArray[np.int32]
    contents: NDArray[np.int64]
    likenesses: NDArray[np.int64]


class SearchReader(Protocol):
    """What a search asks of one collection's index. Ids are the index's own and hold until it is rebuilt."""

    collection: Collection

    def lexical(self, terms: Sequence[str], where: Filter, limit: int) -> Scored:
        """The items that hold at least one of the words (or a word of the same stem), by BM25 over what the filter
        lets pass; higher is better. Words are plain text: nothing in them is an operator."""
        ...

    def statistics(self, stems: Sequence[str], where: Filter) -> WordStatistics:
        """What is known of these different stems among the items that the filter lets pass."""
        ...

    def nearest(self, vector: NDArray[np.float32], where: Filter, limit: int) -> Scored:
        """The items with a passage nearest to the vector, by cosine; found by their bits, scored exactly."""
        ...

    def cosines(self, vector: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """For each id the cosine of its nearest passage, nan where there are no vectors: float32 (n,)."""
        ...

    def vectors(self, ids: Sequence[int]) -> Mapping[int, NDArray[np.float32]]:
        """The vectors (k, dimensions) of those of the items that have some."""
        ...

    def features(self, ids: NDArray[np.int64], where: Filter) -> Features:
        """Features of those of the items that the filter lets pass."""
        ...

    def items(self, ids: Sequence[int]) -> Sequence[SearchItem]:
        """The items themselves, in the order of the ids; those that have gone are left out."""
        ...

    def ids(self, keys: Sequence[str]) -> Mapping[str, int]:
        """The ids of those of the items with these keys that are there."""
        ...

    def authors(self, where: Filter) -> Sequence[str]:
        """The different authors of what the filter lets pass, at most 200."""
        ...


class SearchIndex(SearchReader, Protocol):
    """One collection's index: words and vectors. It holds nothing that cannot be made again.

    `generation` changes when it is rebuilt. Safe from several threads and beside other processes. An index that is
    damaged, of another key or deleted while in use is made anew, empty, and the call answered from that; its owner
    fills it again.
    """

    @property
    def generation(self) -> str:
        """Random, a new one for each index that is begun empty: whoever fills it starts over when it changes."""
        ...

    def put(self, items: Sequence[SearchItem]) -> int:
        """Add items in their order, in one small transaction; returns how many were new or changed.

        An item that is there with the same text stays as it is; one whose text changed loses its vectors.
        """
        ...

    def remove(self, keys: Sequence[str]) -> int:
        """Forget items; returns how many were there."""
        ...

    def use_model(self, model_id: str, dimensions: int) -> None:
        """Say whose vectors are wanted; those of another model are dropped."""
        ...

    def unembedded(self, limit: int) -> Sequence[Unembedded]:
        """Items without vectors, the newest first."""
        ...

    def share_vectors(self, model_id: str, likenesses: Mapping[int, int]) -> set[int]:
        """Give those of the items that have no vectors, and whose likeness is that of an item that has some, the
        same vectors, which are not stored again; returns their ids. Nothing if the index uses another model now."""
        ...

    def put_vectors(
        self,
        model_id: str,
        vectors: Sequence[tuple[int, NDArray[np.float32]]],
        likenesses: Mapping[int, int] = ...,
    ) -> None:
        """Store the vectors (k, dimensions) of each item, one for each of its passages; those of an item that has
        gone, or of another model than the index uses now, are dropped. `likenesses` are those of some of the items:
        others may share their vectors, and they share those that are there."""
        ...

    def reading(self) -> AbstractContextManager[SearchReader]:
        """Several questions to one state of the index, which takes less time than one by one; from one thread at a
        time. If the index has to be made anew meanwhile, what follows is answered from that."""
        ...

    def counts(self) -> IndexCounts:
        """How much there is."""
        ...

    def columns(self) -> ItemColumns:
        """All items in columns; 70 bytes each in memory."""
        ...


@dataclass(frozen=True, slots=True)
class Access:
    """How often an item was given as an answer, and when last.

    `weight` is the number of times with the half-life `model.use.HALF_LIFE_DAYS`, as of `last_at`; `relevance` the
    scores (0 to 1) that it was given with, meaned by the same weights.
    """

    count: int
    last_at: datetime
    weight: float
    relevance: float


@dataclass(frozen=True, slots=True, eq=False)
class AccessColumns:
    """All accesses in ascending order of `keys` (`model.search.key_digest`), int64; `weights` and `relevances`
    float32, `last_at` int64 in microseconds since 1970; all (n,)."""

    keys: NDArray[np.int64]
    weights: NDArray[np.float32]
    relevances: NDArray[np.float32]
    last_at: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CachedItem:
    """An item of the working set: with one vector, float32 (dimensions,), and the priority that it stays by."""

    item: SearchItem
    vector: NDArray[np.float32] | None
    priority: float


class AccessLog(Protocol):
    """Which items were used, and the working set; both outlive the indexes."""

    def add(self, uses: Sequence[tuple[str, float]], at: datetime) -> None:
        """Count one more access, at that time, for each of the items: its key, and the score that it was given
        with."""
        ...

    def columns(self) -> AccessColumns:
        """All of them, for a plan."""
        ...

    def accesses(self, keys: Sequence[str]) -> Mapping[str, Access]:
        """Those of the items that were ever used."""
        ...

    def working_set(self, model_id: str) -> Sequence[CachedItem]:
        """The working set last saved with vectors of that model; of another model's, the items without vectors."""
        ...

    def save_working_set(self, model_id: str, entries: Sequence[CachedItem]) -> None:
        """Keep these entries in place of the earlier ones."""
        ...
