"""Looking beyond this device: when a search asks the tiers, and how long it waits for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.model.words import index_text_of
from dualmem_mcp.ports import Stems
from dualmem_mcp.ports.tier_search import PATIENCE_SECONDS, TierAnswer, TierAsking, TierSearch
from dualmem_mcp.search.query import Query
from dualmem_mcp.search.ranking import Candidates

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR: Final[tuple[TierName, ...]] = ("critical", "context")
FAR: Final[TierName] = "historical"

WEAK: Final = 0.525
"""Of the greatest cosine, and a quarter of the share of the query's words that one of the three best holds: an
answer with less is probably none. Of the labelled questions 18 in 100 are below, of the same questions asked where
the answer is not, 89, of some about something else all. The score that is shown tells less, for it compares
candidates with each other: the area under the curve is .75, and of this .93. Source: benchmarks/tier_search.py."""

_WORDS_SHARE: Final = 0.25
_LOOKED_AT: Final = 3
_READ: Final = 8_000
"""Characters of each; to read the longest whole would take as long as the search."""


@dataclass(frozen=True, slots=True)
class Beyond:
    """What a search needs to go beyond this device.

    `is_gone` gives the keys of those of the items that are known to be deleted or erased; it may raise
    StoreUnreachableError, and nothing that the tiers offer is then believed. `eager`: what is here is
    known not to be all, so the tiers are asked in any case. `patience`: so many seconds a tier is waited for.
    """

    tiers: TierSearch
    stemmer: Stems
    is_gone: Callable[[Sequence[SearchItem]], AbstractSet[str]]
    eager: bool = False
    patience: Mapping[TierName, float] = field(default_factory=lambda: PATIENCE_SECONDS)


class Question:
    """One search's question to the tiers; put at most once, and not waited for longer than it is worth."""

    def __init__(self, beyond: Beyond, query: Query, vector: NDArray[np.float32] | None) -> None:
        self.stems: Sequence[str] = beyond.stemmer.stems_of(query.terms)
        self._tiers = beyond.tiers
        self._patience = beyond.patience
        self._vector = vector
        self._asking: TierAsking | None = None
        self.answers: dict[TierName, TierAnswer] = {}
        """Of the tiers that were waited for."""
        if beyond.eager or vector is None or beyond.tiers.holds_more():
            self.put()

    @property
    def is_put(self) -> bool:
        """Whether it was put."""
        return self._asking is not None

    def put(self) -> None:
        """Put it, if there is anything to ask."""
        if self._asking is None and (self._vector is not None or self.stems):
            self._asking = self._tiers.ask(self._vector, self.stems)

    def wait_near(self) -> None:
        """Wait for the tiers that are quick. Meanwhile the other may answer, too: most of a memory is there, and
        it costs nothing to look."""
        if self._asking is None:
            return
        answers = self._asking.wait((*NEAR, FAR), max(self._patience[name] for name in NEAR))
        self.answers |= {name: one for name, one in answers.items() if name != FAR or not one.problem}

    def wait_far(self) -> bool:
        """Wait for the other, if it has not answered yet, and for those that were late; whether that gave more."""
        if self._asking is None or FAR in self.answers:
            return False
        before = sum(len(answer.candidates) for answer in self.answers.values())
        self.answers |= self._asking.wait((*NEAR, FAR), self._patience[FAR])
        return sum(len(answer.candidates) for answer in self.answers.values()) > before

    def drop(self) -> None:
        """No more is wanted."""
        if self._asking is not None:
            self._asking.drop()


def strength(
    pool: Sequence[Candidates],
    best: Sequence[SearchItem],
    stems: Sequence[str],
    rarities: NDArray[np.float32],
    stemmer: Stems,
) -> float:
    """How well the query is met, from 0 to 1.25: what `WEAK` is compared with."""
    known = [float(np.nanmax(one.cosines)) for one in pool if not np.isnan(one.cosines).all()]
    held, weights = 0.0, np.maximum(rarities, 0.0)
    if best and float(weights.sum()):
        texts = [index_text_of(item.author, item.text[:_READ]) for item in best[:_LOOKED_AT]]
        holding = stemmer.occurrences(texts, stems) > 0
        held = float((holding @ weights).max() / weights.sum())
    return max(0.0, *known, 0.0) + _WORDS_SHARE * held
