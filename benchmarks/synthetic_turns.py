"""Any number of turns that look like talk, for measuring time and size; the same for every run.

Words follow each other as they do in the labelled dialogues (a chain of order two), and one in eight of the longer
ones gives way to one of 60,000 made-up words, the rare ones rarer (Zipf), because a vocabulary grows with the
amount of text: half a million turns made of a few thousand words would make every word look common.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from retrieval_data import Conversation, Dataset, Question, Turn

TURNS_A_CONVERSATION = 400
NAMES = (
    "Ada",
    "Bela",
    "Cato",
    "Dora",
    "Emil",
    "Fina",
    "Gero",
    "Hana",
    "Ivo",
    "Jana",
    "Kai",
    "Lene",
    "Milo",
    "Nora",
)

_RARE_WORDS = 60_000
_RARE_SHARE = 1 / 8
_FIRST_RANK = 50
_START = ("", "")


@dataclass(frozen=True)
class Chain:
    """Which words follow which two, and how long texts are."""

    followers: dict[tuple[str, str], list[str]]
    lengths: list[int]


def learn_chain(dataset: Dataset) -> Chain:
    """The chain of the dataset's turns."""
    followers: dict[tuple[str, str], list[str]] = {}
    lengths = []
    for conversation in dataset.conversations:
        for turn in conversation.turns:
            words = turn.text.split()
            lengths.append(len(words))
            state = _START
            for word in words:
                followers.setdefault(state, []).append(word)
                state = (state[1], word)
    return Chain(followers, lengths)


def synthetic_dataset(source: Dataset, turns: int) -> Dataset:
    """That many turns in conversations of 400, with the source's questions, asked of all of them."""
    chance = random.Random(11)
    chain = learn_chain(source)
    rare = _RareWords(chance)
    conversations = []
    for number in range(0, turns, TURNS_A_CONVERSATION):
        speakers = chance.sample(NAMES, 2)
        began = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=number // TURNS_A_CONVERSATION)
        said = itertools.islice(_talk(chain, rare, chance), min(TURNS_A_CONVERSATION, turns - number))
        conversations.append(
            Conversation(
                f"talk-{number // TURNS_A_CONVERSATION:05}",
                tuple(
                    Turn(
                        id=f"t{place}",
                        role="assistant" if place % 2 else "user",
                        author=speakers[place % 2],
                        text=text,
                        timestamp=began + timedelta(minutes=place),
                    )
                    for place, text in enumerate(said)
                ),
            )
        )
    questions = tuple(Question(question.text, "", "", frozenset()) for question in source.questions)
    return Dataset(f"{turns:,} turns", tuple(conversations), questions)


def _talk(chain: Chain, rare: _RareWords, chance: random.Random) -> Iterator[str]:
    while True:
        words: list[str] = []
        state = _START
        for _ in range(chance.choice(chain.lengths)):
            if state not in chain.followers:
                state = _START  # the end of a text: another one begins, as a new sentence does
            word = chance.choice(chain.followers[state])
            state = (state[1], word)
            words.append(rare.draw() if len(word) > 4 and chance.random() < _RARE_SHARE else word)
        yield " ".join(words)


class _RareWords:
    """Made-up words, drawn with the probabilities of the ranks after the commonest words of a language."""

    _SYLLABLES = tuple(
        consonant + vowel + end
        for consonant in (*"bdfgklmnprstv", "br", "gr", "kl", "tr", "st")
        for vowel in "aeiou"
        for end in ("", "n", "r", "l")
    )

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._words = [
            "".join(chance.choices(self._SYLLABLES, k=chance.choice((2, 3)))) for _ in range(_RARE_WORDS)
        ]
        self._weights = list(itertools.accumulate(1 / (_FIRST_RANK + rank) for rank in range(_RARE_WORDS)))

    def draw(self) -> str:
        """One word."""
        return self._chance.choices(self._words, cum_weights=self._weights)[0]
