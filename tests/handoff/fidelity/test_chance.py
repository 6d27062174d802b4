"""Lines drawn at random."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.handoff.fidelity.chance import Seen
from tests.handoff.dialogue import Dialogue


def conversation(turns: int = 200) -> Seen:
    dialogue = Dialogue()
    for number in range(turns):
        dialogue.model(f"line {number} one\nline {number} two\n\n")
    return Seen(dialogue.turns)


def test_the_same_seed_draws_the_same_lines_and_another_seed_others() -> None:
    seen = conversation()
    assert seen.draw(900, "a") == seen.draw(900, "a") != seen.draw(900, "b")


@given(st.integers(0, 5_000), st.integers(0, 60))
def test_a_draw_fills_its_room_with_different_lines_of_the_conversation(characters: int, turns: int) -> None:
    seen = conversation(turns)
    lines = seen.draw(characters, "a")
    size = sum(len(line.text) + len("- [1a2b3c4d] \n") for line in lines)
    assert size <= characters
    assert len({line.text for line in lines}) == len(lines)
    assert all(line.text.split()[1] == str(line.turns[0]) for line in lines)
    assert lines == sorted(lines, key=lambda line: line.turns)
    if 100 < characters < seen.characters / 4:
        assert size > characters - 50


def test_a_line_that_is_drawn_again_takes_no_room() -> None:
    seen = conversation()
    size = seen.characters // 2
    assert sum(len(line.text) + len("- [1a2b3c4d] \n") for line in seen.draw(size, "a")) > size - 50


def test_a_digest_as_long_as_the_conversation_has_no_opponent() -> None:
    seen = conversation(5)
    assert seen.draw(seen.characters, "a") == []
    assert Seen([]).draw(100, "a") == []
    assert Seen([]).characters == 0


def test_of_a_long_line_stretches_are_drawn() -> None:
    dialogue = Dialogue()
    dialogue.model("".join(f"{number:06d} " for number in range(20_000)))
    lines = Seen(dialogue.turns).draw(20_000, "a")
    assert len(lines) > 40
    assert max(len(line.text) for line in lines) <= 400
    words = [word for line in lines for word in line.text.split() if len(word) == 6]
    assert len(set(words)) == len(words)


def test_what_the_model_thought_is_not_drawn() -> None:
    from dualmem_mcp.model.conversation import Block

    dialogue = Dialogue()
    dialogue._add("assistant", Block("thinking", "hidden " * 500), Block("text", "shown " * 50))
    assert all("hidden" not in line.text for line in Seen(dialogue.turns).draw(250, "a"))
