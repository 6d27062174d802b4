"""Which texts are embedded of an item: each gives one vector, and the nearest to a query counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.model.words import ROLES

PASSAGE_WORDS: Final = 160
"""Words of a passage at most: about 200 tokens, of which the model reads 256."""

PASSAGE_CHARACTERS: Final = 1_200
"""Characters of a passage at most, for scripts and texts without spaces."""

MAX_PASSAGES: Final = 16
"""Passages of an item at most; what is beyond is found by its words."""

PREVIOUS_CHARACTERS: Final = 300
"""How much of the end of the turn before is embedded with a turn."""

_PIECE: Final = re.compile(r"\S+\s*")


def passages(item: SearchItem, previous: SearchItem | None) -> tuple[str, ...]:
    """The texts to embed, 1 to 16 of them; `previous` is what was said before in the same conversation.

    A turn's first passage begins with the end of what was said before, so that "Yes, in May" is near to a query
    for what was asked, and with its author and day.
    """
    texts = list(_cut(item.text))
    if item.kind == "turn":
        texts[0] = _before(previous) + _heading(item) + texts[0]
    return tuple(texts[:MAX_PASSAGES])


def _heading(item: SearchItem) -> str:
    day = f"({item.timestamp.day} {item.timestamp:%B %Y}) " if item.timestamp else ""
    return day + _named(item)


def _named(item: SearchItem) -> str:
    return "" if item.author in ROLES else f"{item.author}: "


def _before(previous: SearchItem | None) -> str:
    if previous is None or previous.kind != "turn" or not previous.text.strip():
        return ""
    end = " ".join(previous.text[-PREVIOUS_CHARACTERS:].split())
    return f"{_named(previous)}{end} "


def _cut(text: str) -> Iterator[str]:
    """The text in stretches that the model can read, broken between words where there are any."""
    stretch: list[str] = []
    length = 0
    for piece in _PIECE.findall(text) or [""]:
        for start in range(0, len(piece) or 1, PASSAGE_CHARACTERS):
            part = piece[start : start + PASSAGE_CHARACTERS]
            if stretch and (len(stretch) >= PASSAGE_WORDS or length + len(part) > PASSAGE_CHARACTERS):
                yield "".join(stretch).strip()
                stretch, length = [], 0
            stretch.append(part)
            length += len(part)
    yield "".join(stretch).strip()
