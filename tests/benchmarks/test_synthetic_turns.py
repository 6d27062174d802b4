"""Made-up turns: as many as wanted, the same for every run, of a vocabulary that grows."""

from __future__ import annotations

import pytest
from retrieval_data import Conversation, Dataset, Question, Turn
from synthetic_turns import TURNS_A_CONVERSATION, synthetic_dataset

TEXTS = (
    "We planted tomatoes behind the garage yesterday.",
    "Behind the garage? That corner never gets any sunlight.",
    "It does since the neighbours removed their enormous chestnut.",
)


@pytest.fixture
def source() -> Dataset:
    turns = tuple(Turn(f"D1:{number}", "user", "Ann", text, None) for number, text in enumerate(TEXTS, start=1))
    asked = Question("Where are the tomatoes?", "4", "talk", frozenset({"D1:1"}))
    return Dataset("source", (Conversation("talk", turns),), (asked,))


def test_there_are_as_many_turns_as_asked_for_in_conversations_of_one_size(source: Dataset) -> None:
    made = synthetic_dataset(source, 2 * TURNS_A_CONVERSATION + 5)
    assert [len(conversation.turns) for conversation in made.conversations] == [400, 400, 5]
    assert all(turn.text for conversation in made.conversations for turn in conversation.turns)
    assert len({conversation.id for conversation in made.conversations}) == 3
    assert [question.text for question in made.questions] == ["Where are the tomatoes?"]


def test_every_run_makes_the_same(source: Dataset) -> None:
    assert synthetic_dataset(source, 500) == synthetic_dataset(source, 500)


def test_the_vocabulary_grows_with_the_text(source: Dataset) -> None:
    def different_words(turns: int) -> int:
        made = synthetic_dataset(source, turns)
        return len({word for one in made.conversations for turn in one.turns for word in turn.text.split()})

    assert different_words(4_000) > 2 * different_words(400) > 100
