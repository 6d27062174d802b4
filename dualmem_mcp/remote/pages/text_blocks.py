"""Markdown of ours as blocks of plain text: what is quoted in it never becomes markup, a link or a script."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

_HEADING: Final = re.compile(r"(#{1,6}) +(.*)")
_FENCE: Final = re.compile(r"(`{3,})[^`]*")
_ITEM: Final = re.compile(r"- +(.*)")

BlockKind = Literal["heading", "list", "text", "quote"]


@dataclass(slots=True)
class Block:
    """A heading of a `level` (2 or more), a list of `items`, lines of text, or lines quoted as they stand."""

    kind: BlockKind
    text: str = ""
    level: int = 2
    items: list[str] = field(default_factory=list)


def text_blocks(markdown: str) -> Sequence[Block]:
    """The blocks of a brief or section: headings, lists and code fences at the beginning of a line, as the brief
    writes them, and nothing within a line. A page has one heading of level 1, so these begin at 2."""
    return list(_blocks(iter(markdown.splitlines())))


def _blocks(lines: Iterator[str]) -> Iterator[Block]:
    block: Block | None = None
    for line in lines:
        opening = _FENCE.fullmatch(line)
        heading = _HEADING.fullmatch(line)
        item = _ITEM.match(line)
        if opening or heading or not line.strip():
            if block is not None:
                yield block
            block = None
            if opening:
                yield Block("quote", "\n".join(_fenced(lines, opening[1])))
            elif heading:
                yield Block("heading", heading[2].strip(), level=min(6, max(2, len(heading[1]))))
        elif item:
            if block is not None and block.kind != "list":
                yield block
                block = None
            block = block or Block("list")
            block.items.append(item[1])
        elif block is None:
            block = Block("text", line)
        elif block.kind == "list":
            block.items[-1] += f"\n{line.strip()}"
        else:
            block.text += f"\n{line}"
    if block is not None:
        yield block


def _fenced(lines: Iterator[str], opening: str) -> Iterator[str]:
    for line in lines:
        if line.startswith(opening) and not line.strip("`"):
            return
        yield line
