"""BM25 over a few hundred lines, in memory."""

from __future__ import annotations

import heapq
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

# Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), usual values.
_K1 = 1.2
_B = 0.75

_RAREST_TERMS = 10

# Scripts written without spaces (kana, Han, Thai, Lao, Khmer, Myanmar) are compared by pairs of characters.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TERM = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]{{2,}}")
_ASCII_TERM = re.compile(r"\w\w+", re.ASCII)
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_FIRST_UNSPACED = "\u0e00"


def terms(text: str) -> list[str]:
    """The words of a text for comparing, in order: case folded, single characters left out, and pairs of characters
    where words are not set apart."""
    text = text.casefold()
    if text.isascii():
        return _ASCII_TERM.findall(text)
    found: list[str] = []
    for word in _TERM.findall(text):
        if word[0] >= _FIRST_UNSPACED and _IS_UNSPACED.match(word):
            found.extend(word[at : at + 2] for at in range(max(1, len(word) - 1)))
        else:
            found.append(word)
    return found


class Bm25:
    """An index over lines of terms; finds those that a question's terms fit best.

    Only terms of the `vocabulary` are kept: those of all questions to come.
    """

    def __init__(self, lines: Sequence[Sequence[str]], vocabulary: frozenset[str]) -> None:
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        mean = sum(map(len, lines)) / len(lines) if lines else 0.0
        for number, line in enumerate(lines):
            length = _K1 * (1 - _B + _B * len(line) / mean) if mean else _K1
            for term in vocabulary.intersection(line):
                count = line.count(term)
                self._postings[term].append((number, count * (_K1 + 1) / (count + length)))
        self._rarity = {
            term: math.log(1 + (len(lines) - len(found) + 0.5) / (len(found) + 0.5))
            for term, found in self._postings.items()
        }

    def best(self, question: Iterable[str], limit: int) -> list[int]:
        """The numbers of the lines that hold terms of the question, the best first, at most `limit`.

        Only the question's rarest terms are looked up: the others change little and take most of the time.
        """
        scores: dict[int, float] = defaultdict(float)
        known = [term for term in dict.fromkeys(question) if term in self._postings]
        known.sort(key=lambda term: len(self._postings[term]))
        for term in known[:_RAREST_TERMS]:
            rarity = self._rarity[term]
            for number, weight in self._postings[term]:
                scores[number] += rarity * weight
        return [
            -number for _, number in heapq.nlargest(limit, ((score, -number) for number, score in scores.items()))
        ]
