"""What is found by words and by vectors, put in one order: the views are scaled, weighted and added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.model.search import Collection, Filter
from dualmem_mcp.model.words import Trait
from dualmem_mcp.ports import Features, SearchIndex
from dualmem_mcp.search.query import Query
from dualmem_mcp.search.weights import WEIGHTS, Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEXICAL_LIMIT: Final = 400
"""Items taken of those that hold the query's words."""

NEAREST_LIMIT: Final = 200
"""Items taken of those with near vectors; as many as the coarse search finds without loss."""

NEIGHBOUR_LIMIT: Final = 100
"""For so many of the best by words, what was said before and after is looked at too."""

EPISODE_SECONDS: Final = 3_600.0
"""A longer pause than this divides what was said before it from what was said after."""

FULL_LENGTH: Final = 30
"""Words (no stop words) from which on a text counts as long."""

RECENCY_DAYS: Final = 90.0
"""Age at which the recency prior is down to a third (1/e)."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """One collection's candidates: arrays of the same length, in ascending order of ids.

    `lexical`, `before` and `after` are BM25 scores of the item and of its neighbours, 0 where there is none;
    `cosines` are nan where there are no vectors. float32.
    """

    collection: Collection
    features: Features
    lexical: NDArray[np.float32]
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    cosines: NDArray[np.float32]


Pool = tuple[Candidates, ...]
"""The candidates of all collections asked."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """An item of a collection's index with its score, from 0 to 1."""

    collection: Collection
    id: int
    score: float


def collect(
    indexes: Sequence[SearchIndex], query: Query, vector: NDArray[np.float32] | None, where: Filter
) -> Pool:
    """The candidates that the indexes offer; by words alone where there is no vector (no model yet)."""
    return tuple(_candidates(index, query, vector, where) for index in indexes)


def _candidates(index: SearchIndex, query: Query, vector: NDArray[np.float32] | None, where: Filter) -> Candidates:
    found = index.lexical(query.terms, where, LEXICAL_LIMIT)
    best = found.ids[:NEIGHBOUR_LIMIT]
    groups = [found.ids, best - 1, best + 1]
    if vector is not None:
        groups.append(index.nearest(vector, where, NEAREST_LIMIT).ids)
    features = index.features(np.unique(np.concatenate(groups)), where)
    ids = features.ids
    lexical = np.zeros(len(ids), np.float32)
    places, there = _places(ids, found.ids)
    lexical[places[there]] = found.scores[there]
    cosines = np.full(len(ids), np.nan, np.float32) if vector is None else index.cosines(vector, ids)
    before, after = _neighbours(features, lexical)
    return Candidates(index.collection, features, lexical, before, after, cosines)


def _places(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where in the ascending ids the wanted ones are, and which of them are there."""
    places = np.searchsorted(ids, wanted)
    there = places < len(ids)
    there[there] = ids[places[there]] == wanted[there]
    return places, there


def _neighbours(features: Features, scores: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For each item the score of what was said before it and after it, in the same sitting."""
    before, after = np.zeros_like(scores), np.zeros_like(scores)
    if len(scores) > 1:
        adjacent = (np.diff(features.ids) == 1) & (np.diff(features.conversations) == 0)
        # An unknown time divides nothing: comparisons with nan are false.
        adjacent &= (features.conversations[1:] != 0) & ~(np.abs(np.diff(features.timestamps)) > EPISODE_SECONDS)
        before[1:] = np.where(adjacent, scores[:-1], 0)
        after[:-1] = np.where(adjacent, scores[1:], 0)
    return before, after


def rank(query: Query, pool: Pool, *, weights: Weights = WEIGHTS) -> list[Ranked]:
    """All candidates with their scores, best first; equal ones in the order of the collections and of their ids."""
    pool = tuple(candidates for candidates in pool if len(candidates.features.ids))
    if not pool:
        return []
    scores = _score(query, pool, weights)
    collections = np.repeat(np.arange(len(pool)), [len(candidates.features.ids) for candidates in pool])
    ids = np.concatenate([candidates.features.ids for candidates in pool])
    order = np.argsort(-scores, kind="stable")
    return [
        Ranked(pool[collection].collection, identity, score)
        for collection, identity, score in zip(
            collections[order].tolist(), ids[order].tolist(), scores[order].tolist(), strict=True
        )
    ]


def _score(query: Query, pool: Pool, weights: Weights) -> NDArray[np.float64]:
    lexical = np.concatenate([candidates.lexical for candidates in pool]).astype(np.float64)
    beside = np.concatenate([candidates.before + candidates.after for candidates in pool]) / 2
    cosines = np.concatenate([candidates.cosines for candidates in pool]).astype(np.float64)
    terms = np.concatenate([candidates.features.terms for candidates in pool])
    traits = np.concatenate([candidates.features.traits for candidates in pool])
    times = np.concatenate([candidates.features.timestamps for candidates in pool])
    unit = lexical.max() or 1.0
    total = weights.lexical * lexical / unit + weights.neighbours * beside / unit
    possible = weights.lexical + weights.neighbours + weights.length + weights.recency
    if not np.isnan(cosines).all():
        nearness = np.clip(np.nan_to_num(cosines), 0, None)
        total += weights.vector * nearness / (nearness.max() or 1.0)
        possible += weights.vector
    total += weights.length * np.minimum(np.log1p(terms) / np.log1p(FULL_LENGTH), 1)
    total -= weights.question * (traits & Trait.QUESTION > 0)
    age_days = np.maximum(query.asked_at.timestamp() - times, 0) / 86_400
    total += weights.recency * np.nan_to_num(np.exp(-age_days / RECENCY_DAYS))
    return np.clip(total / possible, 0, 1)
