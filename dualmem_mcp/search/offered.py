"""What tiers outside the device offer, as items: each made one of all its passages that were found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.model.words import index_text_of, term_count, traits
from dualmem_mcp.ports.tier_search import TierAnswer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Facts:
    """What an index would have of an item: `searched`, its words, and how many they are, `words`."""

    def __init__(self, author: str, text: str) -> None:
        self.searched = index_text_of(author, text)
        self.words = self.searched.count(" ") + 1 if self.searched else 0
        self._text = text

    @cached_property
    def terms(self) -> int:
        """How many words of the text are no stop words."""
        return term_count(self._text)

    @cached_property
    def traits(self) -> int:
        """The flags of `model.words.Trait` that the text has."""
        return int(traits(self._text))


_SHORT: Final = 2_000
_remembered = lru_cache(maxsize=4_096)(Facts)
"""Holds 4 MB of usual turns, 20 MB at most."""


def facts_of(author: str, text: str) -> Facts:
    """Of a text by that author. The last short ones are remembered: what was a candidate once is one soon again."""
    return _remembered(author, text) if len(text) <= _SHORT else Facts(author, text)


@dataclass(slots=True, eq=False)
class Offered:
    """An item that is not in the indexes of this device, or has no vectors there.

    `source` names who offered it first; `previous` is the key of what was said before it; `vectors` are those of
    its passages that were found, L2-normalised.
    """

    item: SearchItem
    passage: int
    previous: str
    source: str
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
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
    return found


def _stands_for(passage: int, item: SearchItem, known: Offered) -> bool:
    """Whether this text is to be the item's rather than the one known so far."""
    if (passage == 0) != (known.passage == 0):
        return passage == 0
    if item.timestamp is None or known.item.timestamp is None:
        return False
    return item.timestamp > known.item.timestamp
