"""One search that may go beyond this device: the indexes' answer, and if that is not enough, the tiers' with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.search import COLLECTION_OF, Collection, Filter
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.model.words import ROLES
from dualmem_mcp.ports import CachedItem, SearchReader
from dualmem_mcp.ports.tier_search import TierAnswer
from dualmem_mcp.search.beyond import WEAK, Beyond, Question, strength
from dualmem_mcp.search.hits import NOTHING_OFFERED, Asked, Hit, best_hits, passes
from dualmem_mcp.search.merging import MergedCollection, Place, Scales, merge_collection
from dualmem_mcp.search.offered import Offered, gathered
from dualmem_mcp.search.query import Query
from dualmem_mcp.search.ranking import Candidates, Pool, candidates

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_HAND: Final = "edge_cache"
"""The source of what the working set offers."""

Reread = Callable[[Sequence[str]], Query]
"""Reads the query again, with more authors known."""


class Looking:
    """The answer to one query. `query` and `vector` are then those that it was ranked by, `answers` those of the
    tiers that were waited for."""

    def __init__(
        self,
        asked: Asked,
        query: Query,
        vector: NDArray[np.float32] | None,
        beyond: Beyond,
        *,
        where: Filter,
        limit: int,
    ) -> None:
        self.query = query
        self.vector = vector
        self._asked = asked
        self._where = where
        self._limit = limit
        self._beyond = beyond
        self._own: dict[Collection, Candidates] = {}
        self._question = Question(beyond, query, vector)

    @property
    def answers(self) -> Mapping[TierName, TierAnswer]:
        """Of the tiers that were waited for."""
        return self._question.answers

    def best(
        self, at_hand: Sequence[CachedItem], reread: Reread, embed: Callable[[str], NDArray[np.float32] | None]
    ) -> list[Hit]:
        """The best items. `at_hand` are those that the working set found."""
        try:
            offered = self._asked.each(lambda index: candidates(index, self.query, self.vector, self._where))
            self._own = {collection: found for collection, found in offered if found is not None}
            if not self._question.is_put:
                hits = self._hits(tuple(self._own.values()))
                if self._strength_here(hits) >= WEAK:
                    return hits
                self._question.put()
            self._question.wait_near()
            hits, weak = self._merged(at_hand, reread, embed)
            if (weak or len(hits) < self._limit) and self._question.wait_far():
                hits, _ = self._merged(at_hand, reread, embed)
            return hits
        finally:
            self._question.drop()

    def _hits(self, pool: Pool, offered: Mapping[Place, Offered] = NOTHING_OFFERED) -> list[Hit]:
        return best_hits(self.query, pool, self._asked, where=self._where, limit=self._limit, offered=offered)

    def _strength_here(self, hits: Sequence[Hit]) -> float:
        """That of the indexes' answer, words weighed as the largest of them does."""
        stems = self._question.stems
        known = self._asked.each(lambda index: index.statistics(stems, self._where))
        if not known:
            return 0.0
        rarities = max((statistics for _, statistics in known), key=lambda one: one.items).rarities
        return self._strength(tuple(self._own.values()), hits, rarities)

    def _strength(self, pool: Sequence[Candidates], hits: Sequence[Hit], rarities: NDArray[np.float32]) -> float:
        return strength(pool, [hit.item for hit in hits], self._question.stems, rarities, self._beyond.stemmer)

    def _merged(
        self,
        at_hand: Sequence[CachedItem],
        reread: Reread,
        embed: Callable[[str], NDArray[np.float32] | None],
    ) -> tuple[list[Hit], bool]:
        """The best of indexes and tiers together, and whether that is weak."""
        offered = self._offered(at_hand)
        self._learn_authors(offered, reread, embed)
        scales = Scales.of(offered, self._question.stems, self._beyond.stemmer)
        pool: list[Candidates] = []
        places: dict[Place, Offered] = {}
        chosen: MergedCollection | None = None
        for collection in self._where.collections:
            rows = [row for row, one in enumerate(offered) if COLLECTION_OF[one.item.kind] is collection]
            merged = self._merge(collection, rows, scales)
            if merged.candidates is not None:
                pool.append(merged.candidates)
            places |= {(collection, number): one for number, one in merged.offered.items()}
            if chosen is None or merged.items > chosen.items:
                chosen = merged
        hits = self._hits(tuple(pool), places)
        rarities = chosen.rarities if chosen is not None else np.zeros(len(self._question.stems), np.float32)
        return hits, self._strength(pool, hits, rarities) < WEAK

    def _merge(self, collection: Collection, rows: Sequence[int], scales: Scales) -> MergedCollection:
        reader = next((index for index in self._asked.indexes if index.collection is collection), None)
        there = self._own.get(collection)
        if reader is not None:
            try:
                return merge_collection(there, rows, scales, reader=reader, vector=self.vector, where=self._where)
            except StoreUnreachableError as error:
                self._asked.fails(reader, error)
                self._own.pop(collection, None)
        return merge_collection(None, rows, scales, reader=None, vector=self.vector, where=self._where)

    def _offered(self, at_hand: Sequence[CachedItem]) -> list[Offered]:
        """What tiers and working set offer and the filter lets pass, without what is known to be gone."""
        found = gathered(self.answers.values())
        for entry in at_hand:
            vectors = [] if entry.vector is None else [entry.vector]
            found.setdefault(entry.item.key, Offered(entry.item, 0, "", AT_HAND, vectors))
        passing = [one for one in found.values() if passes(one.item, self._where)]
        if not passing:
            return []
        try:
            gone = self._beyond.is_gone([one.item for one in passing])
        except StoreUnreachableError as error:
            # What was deleted must not come back for that nobody can tell.
            self._asked.fails(None, error)
            return []
        return [one for one in passing if one.item.key not in gone]

    def _learn_authors(
        self, offered: Sequence[Offered], reread: Reread, embed: Callable[[str], NDArray[np.float32] | None]
    ) -> None:
        """Read the query again if it names somebody whom only the tiers know of: the exact vectors are then
        compared with that of the better reading."""
        authors = {one.item.author: None for one in offered if one.item.kind == "turn"}
        authors = {author: None for author in authors if author not in ROLES}
        if not authors:
            return
        query = reread(list(authors))
        if query.embedded != self.query.embedded and self.vector is not None:
            vector = embed(query.embedded)
            if vector is None:
                return
            self.vector = vector
            for collection, there in self._own.items():
                self._own[collection] = self._compared(collection, there, vector)
        self.query = query

    def _compared(self, collection: Collection, there: Candidates, vector: NDArray[np.float32]) -> Candidates:
        """The index's candidates with the cosines of another vector."""
        reader: SearchReader | None
        reader = next((index for index in self._asked.indexes if index.collection is collection), None)
        if reader is None:
            return there
        known = ~np.isnan(there.cosines)
        cosines = there.cosines.copy()
        try:
            cosines[known] = reader.cosines(vector, there.features.ids[known])
        except StoreUnreachableError as error:
            self._asked.fails(reader, error)
        return replace(there, cosines=cosines)
