"""Results fitted to a budget of tokens: each long text as the part of it that answers, the short ones whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from dualmem_mcp.handoff.quoting import cut

FRAME_TOKENS: Final = 30
"""What a result takes beside its text: ids, author, time, score."""

MAX_EXCERPT: Final = 1_600
"""Characters of one result at most: more of a turn is seldom wanted, and the ids lead to the whole."""

MIN_EXCERPT: Final = 120
"""Characters below which an excerpt says nothing: rather fewer results than shorter ones."""

_WORD: Final = re.compile(r"\w+")
_STEM: Final = 5
"""Letters by which words are taken for forms of one: enough to find where a text speaks of a query's words."""


def fit(texts: Sequence[str], words: Sequence[str], token_budget: int) -> list[str]:
    """The texts in order, cut to excerpts around the words where they are long, so that all fit the budget.

    Where the budget has no room for an excerpt of each, the last ones are left out; the first one never is.
    """
    room = token_budget * 4
    kept = list(texts)
    while len(kept) > 1 and len(kept) * (MIN_EXCERPT + FRAME_TOKENS * 4 + 3) > room:
        kept.pop()
    # A text takes up to three characters less than its tokens stand for.
    limit = _common_limit([len(text) for text in kept], room - len(kept) * (FRAME_TOKENS * 4 + 3))
    return [excerpt(text, words, max(limit, MIN_EXCERPT)) for text in kept]


def excerpt(text: str, words: Sequence[str], limit: int) -> str:
    """The text if it has at most `limit` characters, else the stretch of it that holds most of the words."""
    if len(text) <= limit:
        return text
    start = _best_start(text, words, limit)
    if start == 0:
        return cut(text, limit)
    # To the beginning of a word, so that the first one shown is whole.
    space = text.find(" ", start, start + 40)
    start = space + 1 if space >= 0 else start
    return "…" + cut(text[start:], limit - 1)


def _best_start(text: str, words: Sequence[str], limit: int) -> int:
    stems = {word.casefold()[:_STEM] for word in words}
    hits = [
        (found.start(), stem)
        for found in _WORD.finditer(text)
        if (stem := found.group().casefold()[:_STEM]) in stems
    ]
    best, start = 0, 0
    left = 0
    inside: dict[str, int] = {}
    for at, stem in hits:
        inside[stem] = inside.get(stem, 0) + 1
        while at - hits[left][0] > limit * 3 // 4:
            gone = hits[left][1]
            inside[gone] -= 1
            if not inside[gone]:
                del inside[gone]
            left += 1
        if len(inside) > best:
            best, start = len(inside), hits[left][0]
    # A little of what comes before the first word, but the beginning itself if that is near.
    start -= limit // 8
    return 0 if start < limit // 4 else start


def _common_limit(lengths: Sequence[int], room: int) -> int:
    """The length to which the longer ones have to be cut for the sum to fit the room."""
    limit = 0
    left = max(room, 0)
    ordered = sorted(min(length, MAX_EXCERPT) for length in lengths)
    for position, length in enumerate(ordered):
        share = left // (len(ordered) - position)
        if length > share:
            return share
        left -= length
        limit = length
    return max(limit, MAX_EXCERPT)
