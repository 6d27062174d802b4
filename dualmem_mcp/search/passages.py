"""Which texts are embedded of an item: each gives one vector, and the nearest to a query counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.model.words import ROLES

PASSAGE_WORDS: Final = 120
"""Words of a passage at most: with what stands before it fewer than the 256 tokens that the model reads."""

PASSAGE_CHARACTERS: Final = 900
"""Characters of a passage at most, for texts without spaces and for code."""

OWN_WORDS: Final = 12
"""A turn with more words is embedded by itself, too: it says enough to be found without what came before. Shorter
ones mostly react; among friends they are a quarter of all."""

MAX_PASSAGES: Final = 16
"""Passages of an item at most; what is beyond is found by its words."""

PREVIOUS_CHARACTERS: Final = 300
"""How much of the end of the turn before is embedded with a turn."""

_WORD: Final = re.compile(r"\S+\s*")


def passages(item: SearchItem, previous: SearchItem | None) -> tuple[str, ...]:
    """The texts to embed, 1 to 16 of them; `previous` is what was said before in the same conversation.

    A turn's first passage begins with the end of what was said before, so that "Yes, in May" is near to a query
    for what was asked, and with its day and author. Further ones are stretches of a long text.
    """
    stretches = list(_cut(item.text))
    name = _name(item)
    own = [name + stretch for stretch in stretches]
    if item.kind != "turn":
        return (stretches[0], *own[1:MAX_PASSAGES])
    day = f"({item.timestamp.day} {item.timestamp:%B %Y}) " if item.timestamp else ""
    in_context = _before(previous) + day + own[0]
    if len(own) == 1 and len(item.text.split()) <= OWN_WORDS:
        return (in_context,)
    return (in_context, *own[: MAX_PASSAGES - 1])


def stretches(item: SearchItem) -> tuple[str, ...]:
    """For each passage of the item the stretch of its own text that it has, without what stands before it there."""
    own = tuple(_cut(item.text))
    if item.kind != "turn":
        return own[:MAX_PASSAGES]
    if len(own) == 1 and len(item.text.split()) <= OWN_WORDS:
        return own
    return (own[0], *own[: MAX_PASSAGES - 1])


def _name(item: SearchItem) -> str:
    """Who says it, or what it is of, before the text."""
    name = item.key.removeprefix("entity/") if item.kind == "entity" else item.author
    return "" if name in ROLES else f"{name}: "


def _before(previous: SearchItem | None) -> str:
    if previous is None or previous.kind != "turn" or not previous.text.strip():
        return ""
    return f"{_name(previous)}{' '.join(previous.text[-PREVIOUS_CHARACTERS:].split())} "


def _cut(text: str) -> Iterator[str]:
    """The text in stretches that the model can read, broken between words where there are any; one at least."""
    stretch: list[str] = []
    length = 0
    for word in _WORD.findall(text):
        for start in range(0, len(word), PASSAGE_CHARACTERS):
            part = word[start : start + PASSAGE_CHARACTERS]
            if stretch and (len(stretch) == PASSAGE_WORDS or length + len(part) > PASSAGE_CHARACTERS):
                yield "".join(stretch).strip()
                stretch, length = [], 0
            stretch.append(part)
            length += len(part)
    yield "".join(stretch).strip()
