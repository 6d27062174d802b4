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
        counts: dict[str, list[tuple[int, float]]] = defaultdict(list)
        mean = sum(map(len, lines)) / len(lines) if lines else 0.0
        for number, line in enumerate(lines):
            known = vocabulary.intersection(line)
            if not known:
                continue
            length = _K1 * (1 - _B + _B * len(line) / mean)
            for term in known:
                count = line.count(term)
                counts[term].append((number, count * (_K1 + 1) / (count + length)))
        self._postings: dict[str, list[tuple[int, float]]] = {}
        for term, found in counts.items():
            rarity = math.log(1 + (len(lines) - len(found) + 0.5) / (len(found) + 0.5))
            self._postings[term] = [(number, rarity * weight) for number, weight in found]

    def best(self, question: Sequence[str], limit: int) -> list[int]:
        """The numbers of the lines that hold terms of the question, the best first, at most `limit`.

        Only the question's rarest terms are looked up: the others change little and take most of the time.
        """
        found = sorted((self._postings[term] for term in question if term in self._postings), key=len)
        scores: dict[int, float] = {}
        for postings in found[:_RAREST_TERMS]:
            for number, weight in postings:
                scores[number] = scores.get(number, 0.0) + weight
        # Of equal scores the line that comes first, whatever the order of the terms.
        return heapq.nlargest(limit, sorted(scores), key=scores.__getitem__)
