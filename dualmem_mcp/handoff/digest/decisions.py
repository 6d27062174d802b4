"""Findings and decisions quoted from what the model said: candidates, chosen for facts and for diversity."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from dualmem_mcp.handoff.digest.cues import fact_count, finding_weight, is_challenge, is_process, sentences
from dualmem_mcp.handoff.digest.requests import said_by_user
from dualmem_mcp.handoff.quoting import clean, cut, one_line
from dualmem_mcp.model.conversation import Turn
from dualmem_mcp.model.digest import Decision

_SHORTEST, _LONGEST = 30, 420
_SHOWN = 320
_KEPT = 60
_POOL = 240

_DIVERSITY = 0.65
"""Share of relevance against novelty in maximal marginal relevance. Source: Carbonell and Goldstein, SIGIR 1998."""

_TERM = re.compile(r"[\w./-]{2,}")
# A sentence that begins so needs the one before it to be understood.
_DEPENDENT = re.compile(
    r"(?:this|that|it|its|they|these|those|but|and|or|so|also|then|both|which|he|she|same)\b", re.IGNORECASE
)
# A choice put before the user: what was chosen shows in the answer.
_OPTION = re.compile(r"(?:option\s+[A-H\d]\b|[A-H][.):]\s)", re.IGNORECASE)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True, slots=True)
class _Candidate:
    text: str
    uuid: str
    timestamp: datetime | None
    order: int
    score: float
    terms: frozenset[str]


def terms_of(text: str) -> frozenset[str]:
    """The words of a text, and pairs of characters for scripts that do not part words."""
    words = {word.casefold().strip("./-") for word in _TERM.findall(text)}
    if _CJK.search(text):
        letters = _CJK.findall(text)
        words.update(a + b for a, b in pairwise(letters))
    return frozenset(word for word in words if len(word) > 1)


def extract_findings(turns: Sequence[Turn]) -> tuple[Decision, ...]:
    """Up to 60 sentences of the model, the most telling first; verbatim but for white space, emphasis and links.

    A sentence scores by its cues and its facts; more where it ends an exchange or comes late, less where
    the user's next words doubt it. Each next one is the best that repeats the chosen least.
    """
    pool = sorted(_candidates(turns), key=lambda one: -one.score)[:_POOL]
    return tuple(
        Decision(
            text=one.text, uuid=one.uuid, timestamp=one.timestamp, origin="extracted", score=round(one.score, 2)
        )
        for one in _diverse(pool, _KEPT)
    )


def _candidates(turns: Sequence[Turn]) -> list[_Candidate]:
    found: list[_Candidate] = []
    closing, challenged = _exchange_ends(turns)
    seen: set[str] = set()
    for position, turn in enumerate(turns):
        if turn.role != "assistant" or turn.is_api_error or not turn.text:
            continue
        weight = 0.5 + 0.5 * (position + 1) / len(turns)
        weight *= 1.25 if position in closing else 1.0
        weight *= 0.5 if position in challenged else 1.0
        for sentence in sentences(clean(turn.text)):
            line = one_line(sentence)
            if not _SHORTEST <= len(line) <= _LONGEST or _leads_on(line):
                continue
            if line in seen or is_process(line) or _OPTION.match(line):
                continue
            seen.add(line)
            cues, facts = finding_weight(line), fact_count(line)
            if not (cues >= 3 or (cues and facts) or facts >= 3):
                continue
            density = min(facts, 6) / (1 + len(line) / 160)
            if _DEPENDENT.match(line):
                density *= 0.6
            found.append(
                _Candidate(
                    cut(line, _SHOWN),
                    turn.uuid,
                    turn.timestamp,
                    position,
                    weight * (cues + density),
                    terms_of(line),
                )
            )
    return found


def _leads_on(line: str) -> bool:
    """Whether a sentence asks, or announces what stands after it."""
    return line.rstrip("*_)\"' ").endswith(("?", "？", "؟", ":", "："))


def _exchange_ends(turns: Sequence[Turn]) -> tuple[frozenset[int], frozenset[int]]:
    """Positions of the replies that end an exchange, and of those that the user's next words doubt."""
    closing: set[int] = set()
    challenged: set[int] = set()
    last = -1
    for position, turn in enumerate(turns):
        if turn.role == "assistant":
            last = position if turn.text else last
            continue
        words = said_by_user(turn)
        if words and last >= 0:
            closing.add(last)
            if is_challenge(words):
                challenged.add(last)
    if last >= 0:
        closing.add(last)
    return frozenset(closing), frozenset(challenged)


def _diverse(pool: Sequence[_Candidate], count: int) -> list[_Candidate]:
    """Maximal marginal relevance with the overlap of words as likeness."""
    if not pool:
        return []
    best = pool[0].score
    left = list(pool)
    nearest = [0.0] * len(left)
    chosen: list[_Candidate] = []
    while left and len(chosen) < count:
        index = max(
            range(len(left)), key=lambda at: _DIVERSITY * left[at].score / best - (1 - _DIVERSITY) * nearest[at]
        )
        one = left.pop(index)
        nearest.pop(index)
        chosen.append(one)
        for at, other in enumerate(left):
            shared = len(one.terms & other.terms)
            if shared:
                nearest[at] = max(nearest[at], shared / min(len(one.terms), len(other.terms)))
    return chosen


def lead_of(text: str) -> str:
    """The sentence of a reply that says most of what came of it: the weightiest, its first ones preferred."""
    best, best_score = "", 0.0
    for index, sentence in enumerate(sentences(clean(text))[:400]):
        line = cut(one_line(sentence), _LONGEST * 2)
        if len(line) < 8 or is_process(line) or _OPTION.match(line) or _leads_on(line):
            continue
        place = 2.0 if index == 0 else 1.0 if index < 3 else 0.0
        score = min(1.0, len(line) / 50) * (1.0 + finding_weight(line) + min(fact_count(line), 4) / 2 + place)
        if score > best_score:
            best, best_score = line, score
    return best
