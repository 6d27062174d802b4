"""What is found by words and by vectors, put in one order: the views are scaled, weighted and added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from dualmem_mcp.model.search import Collection, Filter
from dualmem_mcp.model.words import Trait
from dualmem_mcp.ports import Features, Scored, SearchReader
from dualmem_mcp.search.query import Query
from dualmem_mcp.search.weights import WEIGHTS, Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEXICAL_LIMIT: Final = 300
"""Items taken of those that hold the query's words; they lend their scores to what stands beside them."""

NEAREST_LIMIT: Final = 100
"""Items taken of those with near vectors."""

SCORED_LIMIT: Final = 60
"""For so many of the best by words the cosine is looked up; the others are seldom near, else they were found."""

CONTEXT_LIMIT: Final = 20
"""For so many of the best by words, and of the nearest, what was said before and after is a candidate too. With
twice as much of all four, recall@10 stays within .005, and collecting takes twice as long."""

SITTING_SECONDS: Final = 4 * 3_600.0
"""What was said further apart than this is no context of each other."""

FULL_LENGTH: Final = 30
"""Words (no stop words) from which on a text counts as long."""

RECENCY_DAYS: Final = 90.0
"""Age at which the recency prior is down to a third (1/e)."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """One collection's candidates: arrays of the same length, in ascending order of ids.

    `lexical` is the BM25 score, 0 for what holds no word of the query; `cosines` are nan where there are no
    vectors or they were not looked at. Both float32 (n,).
    """

    collection: Collection
    features: Features
    lexical: NDArray[np.float32]
    cosines: NDArray[np.float32]


Pool = tuple[Candidates, ...]
"""The candidates of all collections asked."""


class Ranked(NamedTuple):
    """An item of a collection's index with its score, from 0 to 1."""

    collection: Collection
    id: int
    score: float


def collect(
    indexes: Sequence[SearchReader], query: Query, vector: NDArray[np.float32] | None, where: Filter
) -> Pool:
    """The candidates that the indexes offer; by words alone where there is no vector (no model yet). An index that
    offers none has no part in it."""
    offered = (candidates(index, query, vector, where) for index in indexes)
    return tuple(one for one in offered if one is not None)


def candidates(
    index: SearchReader, query: Query, vector: NDArray[np.float32] | None, where: Filter
) -> Candidates | None:
    """The index's candidates: what was found by words, what is near the vector, and what stands beside the best of
    both; None if there are none."""
    found = index.lexical(query.terms, where, LEXICAL_LIMIT)
    near = _NOTHING if vector is None else index.nearest(vector, where, NEAREST_LIMIT)
    if not len(found.ids) and not len(near.ids):
        return None
    beside = np.concatenate([_around(found.ids), _around(near.ids)])
    features = index.features(np.concatenate([found.ids, near.ids, beside]), where)
    ids = features.ids
    cosines = np.full(len(ids), np.nan, np.float32)
    if vector is not None:
        wanted = np.zeros(len(ids), bool)
        places, there = _places(ids, np.concatenate([found.ids[:SCORED_LIMIT], beside]))
        wanted[places[there]] = True
        places, there = _places(ids, near.ids)
        cosines[places[there]] = near.scores[there]
        wanted[places[there]] = False
        if wanted.any():
            cosines[wanted] = index.cosines(vector, ids[wanted])
    lexical = np.zeros(len(ids), np.float32)
    places, there = _places(ids, found.ids)
    lexical[places[there]] = found.scores[there]
    return Candidates(index.collection, features, lexical, cosines)


_NOTHING: Final = Scored(np.empty(0, np.int64), np.empty(0, np.float32))


def _around(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ids of what may stand just before and after the best of these."""
    reach = len(WEIGHTS.context)
    distances = np.array([distance for distance in range(-reach, reach + 1) if distance], np.int64)
    return (ids[:CONTEXT_LIMIT, None] + distances).ravel()


def _places(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where in the ascending ids the wanted ones are, and which of them are there."""
    places = np.searchsorted(ids, wanted)
    there = places < len(ids)
    there[there] = ids[places[there]] == wanted[there]
    return places, there


def rank(query: Query, pool: Pool, *, weights: Weights = WEIGHTS) -> list[Ranked]:
    """All candidates with their scores, best first; equal ones in the order of the collections and of their ids."""
    pool = tuple(candidates for candidates in pool if len(candidates.features.ids))
    if not pool:
        return []
    scores = _score(query, pool, weights)
    collections = np.repeat(np.arange(len(pool)), [len(candidates.features.ids) for candidates in pool])
    ids = np.concatenate([candidates.features.ids for candidates in pool])
    order = np.argsort(-scores, kind="stable")
    names = [candidates.collection for candidates in pool]
    return list(
        map(
            Ranked,
            map(names.__getitem__, collections[order].tolist()),
            ids[order].tolist(),
            scores[order].tolist(),
        )
    )


def _score(query: Query, pool: Pool, weights: Weights) -> NDArray[np.float64]:
    match = _match(pool, weights)
    score = np.concatenate([_with_context(candidates.features, own, weights) for candidates, own in match])
    terms = np.concatenate([candidates.features.terms for candidates in pool])
    traits = np.concatenate([candidates.features.traits for candidates in pool])
    times = np.concatenate([candidates.features.timestamps for candidates in pool])
    score += weights.length * np.minimum(np.log1p(terms) / np.log1p(FULL_LENGTH), 1)
    score -= weights.question * (traits & int(Trait.QUESTION) > 0)
    if query.spans:
        inside = [(times >= since.timestamp()) & (times < until.timestamp()) for since, until in query.spans]
        score += weights.span * np.any(inside, axis=0)
    if query.wanted:
        score += weights.answer * (traits & int(query.wanted) > 0)
    if len(query.authors) == 1:
        authors = [author == query.authors[0] for candidates in pool for author in candidates.features.authors]
        score += weights.author * np.array(authors)
    age_days = np.maximum(query.asked_at.timestamp() - times, 0) / 86_400
    score += weights.recency * np.nan_to_num(np.exp(-age_days / RECENCY_DAYS))
    return np.clip(score / _highest(query, weights), 0, 1)


def _match(pool: Pool, weights: Weights) -> list[tuple[Candidates, NDArray[np.float64]]]:
    """Each collection's candidates with what their own words and vectors say, scaled over all collections."""
    most = max(float(candidates.lexical.max()) for candidates in pool) or 1.0
    known = np.concatenate([candidates.cosines for candidates in pool])
    known = np.clip(known[~np.isnan(known)], 0, None)
    nearest = float(known.max(initial=0.0)) or 1.0
    # What has no vector yet, or whose was not looked at, counts as the others do in the middle.
    usual = float(np.median(known)) / nearest if len(known) else 0.0
    return [
        (
            candidates,
            weights.lexical * candidates.lexical.astype(np.float64) / most
            + weights.vector * np.nan_to_num(np.clip(candidates.cosines, 0, None) / nearest, nan=usual),
        )
        for candidates in pool
    ]


def _with_context(features: Features, own: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """Each item's match with shares of those of what was said just before and after it in its conversation."""
    total = own.copy()
    for distance, share in enumerate(weights.context, start=1):
        places, there = _places(features.ids, features.ids + distance)
        earlier = np.flatnonzero(there)
        later = places[earlier]
        near = (features.conversations[earlier] == features.conversations[later]) & (
            features.conversations[earlier] != 0
        )
        # An unknown time divides nothing: comparisons with nan are false.
        near &= ~(np.abs(features.timestamps[later] - features.timestamps[earlier]) > SITTING_SECONDS)
        earlier, later = earlier[near], later[near]
        # No index is there twice in either, so that nothing is lost.
        total[earlier] += share * own[later]
        total[later] += share * own[earlier]
    return total


def _highest(query: Query, weights: Weights) -> float:
    """The score of an item that is the best in every view, and so are those around it."""
    bonus = weights.length + weights.recency + (weights.answer if query.wanted else 0)
    bonus += (weights.author if len(query.authors) == 1 else 0) + (weights.span if query.spans else 0)
    return (weights.lexical + weights.vector) * (1 + 2 * sum(weights.context)) + bonus
