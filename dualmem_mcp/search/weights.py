"""What counts how much in ranking, in one place; `docs/ranking.md` has the measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Weights:
    """Factors of the views that are added up. Each view is scaled to 0..1 over the candidates before."""

    lexical: float = 1.0
    """BM25 of the item's words. The unit that the others are told in."""

    vector: float = 1.0
    """Cosine of the query and the item's nearest passage."""

    neighbours: float = 0.5
    """BM25 of what was said just before and after: a short answer has its question's words beside it."""

    length: float = 0.5
    """Long turns tell more than short ones, which often only react."""

    question: float = 0.3
    """Taken off from an item that is itself a question: it asks what the searcher asks, and does not answer."""

    recency: float = 0.05
    """Of equally good matches the newer one first; never more than this."""


WEIGHTS: Final = Weights()
