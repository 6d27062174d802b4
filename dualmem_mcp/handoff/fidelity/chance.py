"""Chance as the digest's opponent: lines drawn at random from the conversation until they are as long as it."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from dualmem_mcp.handoff.fidelity.marked_lines import MarkedLine
from dualmem_mcp.model.conversation import Turn

_LINE_OVERHEAD = len("- [1a2b3c4d] \n")
"""Characters that a line of a brief takes beyond its text; a line drawn at random is charged them, too."""
_LONGEST_LINE = 400
"""Characters of a line that is drawn: a longer one is taken apart into stretches."""
_MISSES = 200
"""Draws in a row that may fall on what is drawn already before the draw ends: there is not much left."""


class Seen:
    """All that the model saw of a conversation: texts, tool calls and results, each with its turn's position."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        blocks = [
            (block.text, position)
            for position, turn in enumerate(turns)
            for block in turn.blocks
            if block.text and block.kind != "thinking"
        ]
        self._texts = [text for text, _ in blocks]
        self._positions = [position for _, position in blocks]
        self._ends = list(accumulate(map(len, self._texts)))

    @property
    def characters(self) -> int:
        """How much that is."""
        return self._ends[-1] if self._ends else 0

    def draw(self, characters: int, seed: str) -> list[MarkedLine]:
        """Lines drawn so that every character of the conversation is as likely as any other, in `characters`.

        The same ones for the same seed; none if `characters` is room for the whole conversation.
        """
        chance = random.Random(seed)  # noqa: S311 - an opponent, not a key
        if characters >= self.characters:
            return []
        drawn: dict[tuple[int, int], str] = {}
        room, misses = characters, 0
        while misses < _MISSES:
            offset = int(chance.random() * self._ends[-1])
            number = bisect_right(self._ends, offset)
            text = self._texts[number]
            start, line = _line_at(text, offset - self._ends[number] + len(text))
            size = len(line) + _LINE_OVERHEAD
            if (number, start) in drawn or size > room or not line:
                misses += 1
                continue
            drawn[number, start] = line
            room, misses = room - size, 0
        return [MarkedLine(drawn[place], (self._positions[place[0]],)) for place in sorted(drawn)]


def _line_at(text: str, offset: int) -> tuple[int, str]:
    """The line that a place of a text stands in, by its start; of a long line the stretch that the place is in."""
    start = text.rfind("\n", max(0, offset - _LONGEST_LINE), offset) + 1
    if not start and offset >= _LONGEST_LINE:
        start = offset // _LONGEST_LINE * _LONGEST_LINE
    end = text.find("\n", offset, start + _LONGEST_LINE)
    return start, text[start : end if end >= 0 else start + _LONGEST_LINE].strip()
