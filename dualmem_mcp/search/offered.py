"""What tiers outside the device offer, as items: each made one of all its passages that were found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from dualmem_mcp.crypto.vectors import word_values
from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.model.words import index_text_of, term_count, traits
from dualmem_mcp.ports.tier_search import TierAnswer

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE_TEXT: Final = 15_000
"""Longer texts are cut in a payload (at 16,000 characters): how often words occur in them is not known here."""


class Stems(Protocol):
    """Stems of words, as indexes have them."""

    def stems_of(self, terms: Sequence[str]) -> list[str]:
        """The different stems of words that are looked for."""
        ...

    def occurrences(self, texts: Sequence[str], stems: Sequence[str]) -> NDArray[np.float32]:
        """How often each of the stems occurs in each text, which is as `index_text_of` gives it: float32 (texts,
        stems)."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What an index would have of an item: its words, how many they are, how many of them are no stop words, and
    the traits of its text."""

    searched: str
    words: int
    terms: int
    traits: int


def facts_of(author: str, text: str) -> Facts:
    """Of a text by that author. The last short ones are remembered: what was a candidate once is one soon again."""
    return _remembered(author, text) if len(text) <= _SHORT else _facts_of(author, text)


def _facts_of(author: str, text: str) -> Facts:
    searched = index_text_of(author, text)
    return Facts(searched, searched.count(" ") + 1 if searched else 0, term_count(text), int(traits(text)))


_SHORT: Final = 2_000
_remembered = lru_cache(maxsize=1_024)(_facts_of)
"""Holds 5 MB at most."""


@dataclass(slots=True, eq=False)
class Offered:
    """An item that is not in the indexes of this device, or has no vectors there.

    `source` names who offered it first; `previous` is the key of what was said before it; `vectors` are those of
    its passages that were found, L2-normalised, `word_scores` the sources' scores by words.
    """

    item: SearchItem
    passage: int
    previous: str
    source: str
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    word_scores: dict[str, float] = field(default_factory=dict)
    _facts: Facts | None = None

    @property
    def facts(self) -> Facts:
        """What an index would have of it. Asked for when its text is settled."""
        if self._facts is None:
            self._facts = facts_of(self.item.author, self.item.text)
        return self._facts

    def cosine(self, vector: NDArray[np.float32] | None) -> float:
        """That of the passage nearest to the vector; nan if there is none of either."""
        if vector is None or not self.vectors:
            return float("nan")
        return max(float(own @ vector) for own in self.vectors)


def gathered(answers: Iterable[TierAnswer]) -> dict[str, Offered]:
    """The items by their keys. What stands in several tiers, as it does while it moves, is one item; the text is
    that of its first passage if it was found, which holds all of it, and of several the newest."""
    found: dict[str, Offered] = {}
    for answer in answers:
        for candidate in answer.candidates:
            item = candidate.item
            offered = found.get(item.key)
            if offered is None:
                offered = found[item.key] = Offered(item, candidate.passage, candidate.previous, answer.tier)
            elif _stands_for(candidate.passage, item, offered):
                offered.item, offered.passage = item, candidate.passage
            offered.previous = offered.previous or candidate.previous
            offered.vectors.append(candidate.vector)
            if candidate.word_score is not None:
                offered.word_scores[answer.tier] = candidate.word_score
    return found


def _stands_for(passage: int, item: SearchItem, known: Offered) -> bool:
    """Whether this text is to be the item's rather than the one known so far."""
    if (passage == 0) != (known.passage == 0):
        return passage == 0
    if item.timestamp is None or known.item.timestamp is None:
        return False
    return item.timestamp > known.item.timestamp


def rarities_told(offered: Sequence[Offered], occurrences: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """How much each stem counts among the tiers' points, as their scores by words tell: float32 (stems,), nan for
    stems that no item holds; None without such scores.

    A score is the sum over the stems of rarity times `word_values` of the frequency, which is known from the text:
    so many equations that the rarities follow from them. Of several tiers, which each count for themselves, the
    shares of points that hold the stem are meaned. Source of both: docs/format.md, "Words".
    """
    shares, weights = [], []
    for source in {source for one in offered for source in one.word_scores}:
        rows = [
            row
            for row, one in enumerate(offered)
            if source in one.word_scores and one.passage == 0 and len(one.item.text) < WHOLE_TEXT
        ]
        if not rows:
            continue
        values = word_values(occurrences[rows]).astype(np.float64)
        scores = np.array([offered[row].word_scores[source] for row in rows])
        held = values.any(axis=0)
        rarities = np.full(values.shape[1], np.nan)
        rarities[held] = np.linalg.lstsq(values[:, held], scores, rcond=None)[0]
        # Whoever runs the service may have answered any scores.
        shares.append(np.exp(-np.clip(rarities, 0.0, MOST_RARITY)))
        weights.append(np.where(held, float(len(rows)), 0.0))
    if not shares:
        return None
    total = np.sum(weights, axis=0)
    mean = np.nansum(np.multiply(shares, weights), axis=0) / np.where(total, total, np.nan)
    told: NDArray[np.float32] = (-np.log(mean)).astype(np.float32)
    return told


MOST_RARITY: Final = 14.0
"""Of a word that one of a million points holds."""
