"""Pointer recall."""

from __future__ import annotations

from dualmem_mcp.handoff.fidelity.facts import FactReader
from dualmem_mcp.handoff.fidelity.marked_lines import MarkedLine
from dualmem_mcp.handoff.fidelity.pointers import MOST_QUESTIONS, Question, Recall, questions, recall
from dualmem_mcp.handoff.fidelity.said import Said
from tests.handoff.dialogue import Dialogue

WORDS = ("amber", "basalt", "cobalt", "dolomite", "emerald", "feldspar", "garnet", "indigo", "jasper", "kyanite")


def conversation(exchanges: int = 10, steps: int = 6) -> Said:
    """Exchanges of a request, some calls, and an answer; each with words of its own."""
    dialogue = Dialogue()
    for number in range(exchanges):
        word = WORDS[number % 10] + str(number)
        dialogue.user(f"please look into the {word} problem of section {word}")
        for step in range(steps):
            dialogue.bash(f"grep {word}", f"found {step}")
        dialogue.model(f"The {word} problem comes from module_{word}, line {100 + number}.")
    return Said(dialogue.session())


def asked_of(said: Said, seed: str = "a") -> list[Question]:
    passages = said.passages()
    return questions(said, passages, FactReader().weigh(passages), seed)


def test_questions_come_from_requests_and_from_sentences_with_facts() -> None:
    said = conversation(2)
    assert [(min(one.near) + 2, *one.exchanges) for one in asked_of(said)] == [(0, 1), (14, 2), (13, 1), (27, 2)]
    assert asked_of(said)[0].terms == ("please", "look", "into", "the", "amber0", "problem", "of", "section")
    assert asked_of(said)[2].terms == ("the", "amber0", "problem", "comes", "from", "module_amber0", "line", "100")


def test_of_many_questions_some_are_drawn_the_same_for_the_same_seed() -> None:
    said = conversation(60)
    assert len(asked_of(said)) == 2 * MOST_QUESTIONS
    assert asked_of(said) == asked_of(said) != asked_of(said, "b")


def test_what_was_said_twice_is_one_question_with_two_right_answers() -> None:
    dialogue = Dialogue()
    for _ in range(2):
        dialogue.user("please run all of the tests again")
        dialogue.model("ok")
    dialogue.user("no")
    assert [(one.near, one.exchanges) for one in asked_of(Said(dialogue.session()))] == [({*range(-2, 5)}, {1, 2})]


def test_the_whole_conversation_leads_every_question_right_and_nothing_leads_any() -> None:
    said = conversation()
    asked = asked_of(said)
    whole = [MarkedLine(one.text, (one.position,)) for one in said.passages()]
    assert recall(asked, whole, said) == Recall(1.0, 1.0)
    assert recall(asked, [], said) == Recall(0.0, 0.0)
    assert recall([], whole, said) is None


def test_a_line_that_names_no_turn_leads_nowhere() -> None:
    said = conversation()
    lines = [MarkedLine(one.text) for one in said.passages()]
    assert recall(asked_of(said), lines, said) == Recall(0.0, 0.0)


def test_near_is_two_turns_and_the_part_is_the_whole_exchange() -> None:
    said = conversation(3, steps=6)  # exchanges of 14 turns
    question = asked_of(said)[0]

    def led(turn: int) -> Recall | None:
        return recall([question], [MarkedLine("the amber0 problem", (turn,))], said)

    assert led(2) == Recall(1.0, 1.0)
    assert led(3) == led(13) == Recall(1.0, 0.0)
    assert led(14) == Recall(0.0, 0.0)


def test_only_the_five_best_lines_lead() -> None:
    said = conversation(10)
    lines = [MarkedLine("amber0 problem", (turn,)) for turn in range(20, 25)]
    question = asked_of(said)[0]
    assert question.exchanges == {1}
    worse = MarkedLine("amber0 problem and very much else that nobody asked for", (0,))
    assert recall([question], [*lines, worse], said) == Recall(0.0, 0.0)
    assert recall([question], [*lines[1:], worse], said) == Recall(1.0, 1.0)
