"""Figures of a ranked list against what should be in it, and their averages."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """Averages over `questions`: recall and hit within the list's length, hit at rank 1, mean reciprocal rank."""

    questions: int
    recall: float
    hit: float
    hit_at_1: float
    mrr: float


def recall(ranked: Sequence[str], wanted: Collection[str]) -> float:
    """The share of what is wanted that is in the list."""
    return len(set(ranked).intersection(wanted)) / len(wanted)


def reciprocal_rank(ranked: Sequence[str], wanted: Collection[str]) -> float:
    """One divided by the rank of the first that is wanted, counted from 1; 0 if none is in the list."""
    return next((1 / rank for rank, found in enumerate(ranked, start=1) if found in wanted), 0.0)


def distinct(ranked: Iterable[str]) -> list[str]:
    """Each once, in the order of its first place: the conversations that a list of turns leads to."""
    return list(dict.fromkeys(ranked))


def average(answers: Iterable[tuple[Sequence[str], Collection[str]]], length: int) -> Figures:
    """Averages of (ranked, wanted) over the first `length` of each list; all 0 if there are no answers."""
    scored = [
        (recall(ranked[:length], wanted), reciprocal_rank(ranked[:length], wanted)) for ranked, wanted in answers
    ]
    if not scored:
        return Figures(0, 0.0, 0.0, 0.0, 0.0)
    recalls, ranks = zip(*scored, strict=True)
    return Figures(
        questions=len(scored),
        recall=statistics.fmean(recalls),
        hit=statistics.fmean(rank > 0 for rank in ranks),
        hit_at_1=statistics.fmean(rank == 1 for rank in ranks),
        mrr=statistics.fmean(ranks),
    )


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of the values does not pass (nearest rank); nan for none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
