"""Pointer recall: whether a question's words, looked for in a digest, lead to where in the conversation they come
from."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dualmem_mcp.handoff.fidelity.bm25 import Bm25, terms
from dualmem_mcp.handoff.fidelity.facts import Facts
from dualmem_mcp.handoff.fidelity.marked_lines import MarkedLine
from dualmem_mcp.handoff.fidelity.said import Passage, Said

BEST_LINES = 5
NEAR_TURNS = 2
MOST_QUESTIONS = 20
"""Questions from the user's requests, and as many from the model's sentences; of more, these are drawn."""

_FEWEST_TERMS = 4
_MOST_TERMS = 40
"""Different words of a question: a sentence with fewer asks for nothing, of a longer request the first count."""


@dataclass(frozen=True, slots=True)
class Question:
    """The words of something that was said, the positions of the turns that said it and of those near them, and
    the exchanges that they belong to."""

    terms: tuple[str, ...]
    near: frozenset[int]
    exchanges: frozenset[int]


@dataclass(frozen=True, slots=True)
class Recall:
    """Shares of the questions that lead to the right part of the conversation (`part`: a near turn or one of the
    same exchange), and to a near turn (`near`)."""

    part: float
    near: float


def questions(said: Said, passages: Sequence[Passage], facts: Facts, seed: str) -> list[Question]:
    """Up to 20 questions from the user's requests and up to 20 from sentences of the model's that hold a fact.

    What was said in the same words more than once is one question with several right answers. The same questions
    for the same seed.
    """
    requests = _gathered((one.text, one.position) for one in said.requests)
    sentences = _gathered(
        (one.text, one.position)
        for one, count in zip(passages, facts.in_passage, strict=True)
        if one.speaker == "model" and count
    )
    chance = random.Random(seed)  # noqa: S311 - a sample, not a key
    found = []
    for group in (requests, sentences):
        chosen = group if len(group) <= MOST_QUESTIONS else chance.sample(group, MOST_QUESTIONS)
        for words, positions in chosen:
            near = {turn + away for turn in positions for away in range(-NEAR_TURNS, NEAR_TURNS + 1)}
            found.append(Question(words, frozenset(near), frozenset(map(said.exchange_at, positions))))
    return found


def _gathered(said: Iterable[tuple[str, int]]) -> list[tuple[tuple[str, ...], list[int]]]:
    """The different words of each text, and where it was said."""
    positions: dict[str, list[int]] = {}
    for text, position in said:
        positions.setdefault(text, []).append(position)
    found = []
    for text, where in positions.items():
        words = tuple(dict.fromkeys(terms(text)))[:_MOST_TERMS]
        if len(words) >= _FEWEST_TERMS:
            found.append((words, where))
    return found


def recall(
    asked: Sequence[Question],
    lines: Sequence[MarkedLine],
    said: Said,
    *,
    words: Sequence[Sequence[str]] | None = None,
) -> Recall | None:
    """How many of the questions are led right by the five best lines; None without questions.

    A line that names no turn leads nowhere, and is not looked at. `words` are the terms of each line, if they were
    read before.
    """
    if not asked:
        return None
    if words is None:
        words = [terms(line.text) for line in lines]
    leading = [line for line in lines if line.turns]
    vocabulary = frozenset(term for question in asked for term in question.terms)
    index = Bm25([of_line for line, of_line in zip(lines, words, strict=True) if line.turns], vocabulary)
    part = near = 0
    for question in asked:
        reached = {turn for number in index.best(question.terms, BEST_LINES) for turn in leading[number].turns}
        is_near = not reached.isdisjoint(question.near)
        near += is_near
        part += is_near or not question.exchanges.isdisjoint(map(said.exchange_at, reached))
    return Recall(part / len(asked), near / len(asked))
