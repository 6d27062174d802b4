"""What counts how much in ranking, in one place; `docs/ranking.md` has the measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Weights:
    """Factors of the views that are added up; each view is scaled to 0..1 over the candidates before.

    Source: `benchmarks/ablation.py` on the dialogues in `benchmarks/data/dialogues`, each weight with the others as
    they stand. All are round numbers on a broad flat top: half or twice of one costs .03 of recall@10 or less.
    """

    lexical: float = 1.0
    """BM25 of the item's words. The unit that the others are told in."""

    vector: float = 1.25
    """Cosine of the query and the item's nearest passage."""

    context: tuple[float, ...] = (0.5, 0.25)
    """Share of an item's lexical and vector views that the items one and two turns away get, on both sides:
    an answer has its question's words beside it, and a talk stays on its subject for some turns."""

    length: float = 1.25
    """Long turns tell more than short ones, which often only react."""

    question: float = 0.3
    """Taken off from an item that is itself a question: it asks what the searcher asks, and does not answer."""

    author: float = 0.3
    """Added for what the person said whom the query names. More of it finds more of what is asked rightly, but
    hides what is asked of the wrong person: with 1.0 recall of the adversarial questions falls by .05."""

    answer: float = 0.2
    """Added for an item that says when if the query asks when, that holds a number if it asks how many."""

    span: float = 0.3
    """Added for an item of the time that the query means ("in May 2023", "last week")."""

    recency: float = 0.05
    """Of equally good matches the newer one first. A match that is better by more than this stays before."""


WEIGHTS: Final = Weights()
