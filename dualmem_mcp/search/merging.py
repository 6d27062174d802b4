"""What tiers offer, made candidates among those of this device's indexes: scored exactly, on the same scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.model.search import COLLECTION_OF, Collection, Filter
from dualmem_mcp.ports import Features, SearchReader, Stems, WordStatistics
from dualmem_mcp.search.offered import Offered, facts_of
from dualmem_mcp.search.places import numbered
from dualmem_mcp.search.ranking import LEXICAL_LIMIT, NEAREST_LIMIT, Candidates

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENOUGH_ITEMS: Final = 200
"""From so many items on, an index of this device knows by itself how rare words are."""

# Source: docs/ranking.md, as in the index.
_K1: Final = 1.2
_B: Final = 0.75

Place = tuple[Collection, int]
"""Where a candidate is: its collection, and its number there."""


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """What tiers offered, with how often the query's stems occur in each item, float32 (items, stems)."""

    offered: Sequence[Offered]
    stems: Sequence[str]
    stemmer: Stems
    occurrences: NDArray[np.float32]

    @classmethod
    def of(cls, offered: Sequence[Offered], stems: Sequence[str], stemmer: Stems) -> Scales:
        """Of these."""
        occurrences = stemmer.occurrences([one.facts.searched for one in offered], stems)
        return cls(offered, stems, stemmer, occurrences)


@dataclass(frozen=True, slots=True, eq=False)
class MergedCollection:
    """One collection's candidates, of index and tiers; by their numbers those that tiers offered. `items` are in
    the index's scope, and `rarities` how much each stem counts here, float32 (stems,)."""

    candidates: Candidates | None
    offered: Mapping[int, Offered]
    items: int
    rarities: NDArray[np.float32]


def merge_collection(
    there: Candidates | None,
    rows: Sequence[int],
    scales: Scales,
    *,
    reader: SearchReader | None,
    vector: NDArray[np.float32] | None,
    where: Filter,
) -> MergedCollection:
    """The index's candidates (`there`) with those rows of what tiers offered that are of its collection.

    An item that is in the index is the index's, whose text is the newer one; a vector that it lacks there is the
    tiers'. Raises StoreUnreachableError if the index fails.
    """
    known: Mapping[str, int] = {}
    statistics = WordStatistics(0, 0.0, np.zeros(len(scales.stems), np.float32))
    if reader is not None:
        statistics = reader.statistics(scales.stems, where)
        keys = [scales.offered[row].item.key for row in rows]
        known = reader.ids(keys) if keys else {}
        held = {known[key]: scales.offered[row] for key, row in zip(keys, rows, strict=True) if key in known}
        there = _with_vectors(there, reader, held, vector, where)
    fresh = [row for row in rows if scales.offered[row].item.key not in known]
    occurrences = scales.occurrences[fresh]
    scale = _Scale.of(statistics, occurrences)
    if reader is not None and there is not None and scale.foreign and fresh:
        there = _rescored(there, reader, scales, scale)
    offered = [scales.offered[row] for row in fresh]
    lexical = scale.scores(occurrences, [one.facts.words for one in offered])
    made = _candidates(offered, lexical, reader=reader, vector=vector)
    if made is None:
        return MergedCollection(there, {}, statistics.items, scale.rarities)
    candidates, items = made
    both = candidates if there is None else _joined(there, candidates)
    return MergedCollection(both, items, statistics.items, scale.rarities)


@dataclass(frozen=True, slots=True)
class _Scale:
    """What BM25 needs: how much each stem counts, and the length of a usual text. `foreign` if not the index's."""

    rarities: NDArray[np.float32]
    mean_words: float
    foreign: bool

    @classmethod
    def of(cls, own: WordStatistics, occurrences: NDArray[np.float32]) -> _Scale:
        """The index's own where it holds enough; else a word is as rare as among what the tiers offered."""
        if own.items >= ENOUGH_ITEMS:
            return cls(own.rarities, own.mean_words, foreign=False)
        among, holding = len(occurrences), np.count_nonzero(occurrences, axis=0)
        rarities = np.log1p((among - holding + 0.5) / (holding + 0.5)).astype(np.float32)
        return cls(rarities, own.mean_words, foreign=True)

    def scores(self, occurrences: NDArray[np.float32], words: Sequence[int]) -> NDArray[np.float32]:
        """BM25 of texts of so many words: float32 (n,)."""
        if not len(occurrences):
            return np.zeros(0, np.float32)
        lengths = np.array(words, np.float32)
        mean = self.mean_words or float(lengths.mean()) or 1.0
        norm = _K1 * (1 - _B + _B * lengths / mean)
        scores: NDArray[np.float32] = (self.rarities * occurrences * (_K1 + 1) / (occurrences + norm[:, None])).sum(
            1
        )
        return scores.astype(np.float32)


def _with_vectors(
    there: Candidates | None,
    reader: SearchReader,
    held: Mapping[int, Offered],
    vector: NDArray[np.float32] | None,
    where: Filter,
) -> Candidates | None:
    """The index's candidates, those without a vector with the tiers' cosine, and those that the tiers found near
    and the index could not for lack of vectors."""
    if vector is None or not held:
        return there
    present: set[int] = set()
    if there is not None:
        cosines = there.cosines.copy()
        for place, number in enumerate(there.features.ids.tolist()):
            if number in held:
                present.add(number)
                if np.isnan(cosines[place]):
                    cosines[place] = held[number].cosine(vector)
        there = replace(there, cosines=cosines)
    missing = np.array(sorted(held.keys() - present), np.int64)
    if not len(missing):
        return there
    missing = missing[np.isnan(reader.cosines(vector, missing))]
    features = reader.features(missing, where)
    if not len(features.ids):
        return there
    found = np.array([held[number].cosine(vector) for number in features.ids.tolist()], np.float32)
    added = Candidates(reader.collection, features, np.zeros(len(found), np.float32), found)
    return added if there is None else _joined(there, added)


def _rescored(there: Candidates, reader: SearchReader, scales: Scales, scale: _Scale) -> Candidates:
    """The candidates of a small index, whose words are weighed as those of the tiers are."""
    places = np.flatnonzero(there.lexical)
    ids = there.features.ids[places].tolist()
    items = reader.items(ids)
    if len(items) != len(ids):
        return there  # some have gone a moment ago
    lexical = there.lexical.copy()
    facts = [facts_of(item.author, item.text) for item in items]
    occurrences = scales.stemmer.occurrences([one.searched for one in facts], scales.stems)
    lexical[places] = scale.scores(occurrences, [one.words for one in facts])
    return replace(there, lexical=lexical)


def _candidates(
    offered: Sequence[Offered],
    lexical: NDArray[np.float32],
    *,
    reader: SearchReader | None,
    vector: NDArray[np.float32] | None,
) -> tuple[Candidates, dict[int, Offered]] | None:
    """Candidates of what only tiers have, the best by words and the nearest of them; None if there are none."""
    if not offered:
        return None
    cosines = np.array([one.cosine(vector) for one in offered], np.float32)
    kept = _best(offered, lexical, cosines)
    numbers, conversations = numbered([offered[row] for row in kept], reader)
    order = np.argsort(numbers)
    kept = [kept[place] for place in order]
    items = [offered[row].item for row in kept]
    features = Features(
        ids=numbers[order],
        kinds=tuple(item.kind for item in items),
        authors=tuple(item.author for item in items),
        conversations=conversations[order],
        timestamps=np.array([item.timestamp.timestamp() if item.timestamp else np.nan for item in items]),
        terms=np.array([offered[row].facts.terms for row in kept], np.int32),
        traits=np.array([offered[row].facts.traits for row in kept], np.uint8),
    )
    found = Candidates(COLLECTION_OF[items[0].kind], features, lexical[kept], cosines[kept])
    return found, {int(number): offered[row] for number, row in zip(features.ids, kept, strict=True)}


def _best(offered: Sequence[Offered], lexical: NDArray[np.float32], cosines: NDArray[np.float32]) -> list[int]:
    """As many as an index offers, and what was said just before and after them."""
    if len(offered) <= NEAREST_LIMIT:
        return list(range(len(offered)))
    by_words = np.argsort(-lexical, kind="stable")[:LEXICAL_LIMIT]
    nearest = np.argsort(-np.nan_to_num(cosines, nan=-1.0), kind="stable")[:NEAREST_LIMIT]
    kept = {*by_words[lexical[by_words] > 0].tolist(), *nearest.tolist()}
    keys = {offered[row].item.key for row in kept}
    before = {offered[row].previous for row in kept}
    beside = (row for row, one in enumerate(offered) if one.previous in keys or one.item.key in before)
    return sorted(kept.union(beside))


def _joined(some: Candidates, others: Candidates) -> Candidates:
    """Both, in ascending order of their ids."""
    order = np.argsort(np.concatenate([some.features.ids, others.features.ids]), kind="stable")
    mine, theirs = some.features, others.features
    kinds, authors = (*mine.kinds, *theirs.kinds), (*mine.authors, *theirs.authors)
    return Candidates(
        some.collection,
        Features(
            ids=np.concatenate([mine.ids, theirs.ids])[order],
            kinds=tuple(kinds[place] for place in order),
            authors=tuple(authors[place] for place in order),
            conversations=np.concatenate([mine.conversations, theirs.conversations])[order],
            timestamps=np.concatenate([mine.timestamps, theirs.timestamps])[order],
            terms=np.concatenate([mine.terms, theirs.terms])[order],
            traits=np.concatenate([mine.traits, theirs.traits])[order],
        ),
        np.concatenate([some.lexical, others.lexical])[order],
        np.concatenate([some.cosines, others.cosines])[order],
    )
