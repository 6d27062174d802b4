"""BM25 over a few hundred lines, in memory."""

from __future__ import annotations

import heapq
import math
import re
from collections import defaultdict
from collections.abc import Sequence

from dualmem_mcp.model.words import UNSPACED

# Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), usual values.
_K1 = 1.2
_B = 0.75

_RAREST_TERMS = 8

# Scripts written without spaces are compared by pairs of characters.
_ASCII_FOLDED = "".join(sign.lower() if re.match(r"\w", sign) else " " for sign in map(chr, range(128)))
_SPACED_TERM = re.compile(r"\w\w+")
_TERM = re.compile(rf"[{UNSPACED}]+|[^\W{UNSPACED}]{{2,}}")
_IS_UNSPACED = re.compile(f"[{UNSPACED}]")


def terms(text: str) -> list[str]:
    """The words of a text for comparing, in order: case folded, single characters left out, and pairs of characters
    where words are not set apart."""
    if text.isascii():
        return [word for word in text.translate(_ASCII_FOLDED).split() if len(word) > 1]
    text = text.casefold()
    if not _IS_UNSPACED.search(text):
        return _SPACED_TERM.findall(text)
    found: list[str] = []
    for word in _TERM.findall(text):
        if _IS_UNSPACED.match(word):
            found.extend(word[at : at + 2] for at in range(max(1, len(word) - 1)))
        else:
            found.append(word)
    return found


class Bm25:
    """An index over lines of terms; finds those that a question's terms fit best.

    Only terms of the `vocabulary` are kept: those of all questions to come.
    """

    def __init__(self, lines: Sequence[Sequence[str]], vocabulary: frozenset[str]) -> None:
        self._lines = lines
        self._mean = sum(map(len, lines)) / len(lines) if lines else 0.0
        self._places: dict[str, list[int]] = defaultdict(list)
        for number, line in enumerate(lines):
            for term in vocabulary.intersection(line):
                self._places[term].append(number)
        self._weighed: dict[str, list[tuple[int, float]]] = {}

    def best(self, question: Sequence[str], limit: int) -> list[int]:
        """The numbers of the lines that hold terms of the question, the best first, at most `limit`.

        Only the question's rarest terms are looked up: the others change little and take most of the time.
        """
        places = self._places
        found = sorted((term for term in question if term in places), key=lambda term: len(places[term]))
        scores: dict[int, float] = {}
        for term in found[:_RAREST_TERMS]:
            for number, weight in self._weights(term):
                scores[number] = scores.get(number, 0.0) + weight
        # Of equal scores the line that comes first, whatever the order of the terms.
        return heapq.nlargest(limit, sorted(scores), key=scores.__getitem__)

    def _weights(self, term: str) -> list[tuple[int, float]]:
        """The lines that hold a term, each with what the term is worth there; most are never asked for."""
        known = self._weighed.get(term)
        if known is None:
            places = self._places[term]
            rarity = math.log(1 + (len(self._lines) - len(places) + 0.5) / (len(places) + 0.5))
            known = self._weighed[term] = [(number, rarity * self._weight(term, number)) for number in places]
        return known

    def _weight(self, term: str, number: int) -> float:
        line = self._lines[number]
        count = line.count(term)
        return count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * len(line) / self._mean))
