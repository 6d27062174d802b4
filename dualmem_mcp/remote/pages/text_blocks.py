"""Text of briefs and sections as blocks: what is quoted in it never becomes markup, a link or a script.

Only what a brief or section itself writes at the beginning of a line counts: headings, lists, fences, labels, heads
of turns. What was said stands behind a prefix, or in a fence that nothing in it can close (`handoff/quoting.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from dualmem_mcp.handoff.brief import SECTIONS
from dualmem_mcp.remote.pages.wording import instant

_HEADING: Final = re.compile(r"(#{1,6}) +(.*)")
_FENCE: Final = re.compile(r"(`{3,})[^`]*")
_ITEM: Final = re.compile(r"- +(.*)")
_LABEL: Final = re.compile(r"\*\*([A-Za-z ]{1,40})\*\*(.*)")

_MARK: Final = re.compile(r"\[([0-9a-f]{4,8})(?:(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})?(!?)\] ")

# The element around a brief's record, and what it tells a model about it.
_FRAME: Final = re.compile(r"</?record-[0-9a-f]{6}>|Record of an earlier (Claude Code )?session[,:].*")
_TURN: Final = re.compile(
    r"\[([^\[\]\s]{1,128})\] (user|assistant|system|compaction summary)(?: (\d{4}-\d\d-\d\dT[0-9:+.]{5,30}))?"
)

_ANSWERS: Final = ("result:", "failed:")
SPEAKERS: Final = {"user": "You", "assistant": "Claude"}

BlockKind = Literal["heading", "list", "text", "quote", "turn", "said"]


@dataclass(slots=True)
class Block:
    """A heading of a `level` (2 or more); a list of `items`; `lines` of text, each with its label; lines quoted as
    they stand; the head of a turn with its `time`; or what was said in it."""

    kind: BlockKind
    text: str = ""
    level: int = 2
    items: list[str] = field(default_factory=list)
    time: datetime | None = None

    @property
    def lines(self) -> list[tuple[str, str]]:
        """The text's lines, each as the label that it begins with, if any, and the rest."""
        matches = [(_LABEL.fullmatch(line), line) for line in self.text.splitlines()]
        return [(match[1], match[2]) if match else ("", line) for match, line in matches]


def marked(item: str) -> tuple[str, str]:
    """The turn that an item of a list comes from, in short, and the rest of the item; empty where none is named."""
    match = _MARK.match(item)
    return (match[1] + match[2], item[match.end() :]) if match else ("", item)


def brief_blocks(markdown: str) -> Sequence[Block]:
    """The blocks of a brief, without its title and without what it tells the model of itself."""
    lines = markdown.splitlines()
    if lines and _HEADING.fullmatch(lines[0]):
        del lines[0]
    return list(_blocks(iter(lines), frame=True))


def section_blocks(name: str, cursor: str, text: str) -> Sequence[Block]:
    """The blocks of one page of a section; of one that is not written as a brief is, or whose page begins within
    an entry, all of it as it stands."""
    if name == "thread":
        return _turns(text)
    whole_entries = not cursor or cursor == "0" or cursor.endswith(":0")
    if name in SECTIONS and whole_entries:
        return list(_blocks(iter(text.splitlines())))
    return [Block("quote", text)] if text.strip() else []


def _blocks(lines: Iterator[str], *, frame: bool = False) -> Iterator[Block]:
    block: Block | None = None
    for line in lines:
        opening = _FENCE.fullmatch(line)
        heading = _HEADING.fullmatch(line)
        if opening or heading or not line.strip():
            if block is not None:
                yield block
            block = None
            if opening:
                yield Block("quote", _fenced(lines, opening[1]))
            elif heading:
                # A page has one heading of level 1.
                yield Block("heading", heading[2].strip(), level=min(6, max(2, len(heading[1]))))
            continue
        if frame and _FRAME.fullmatch(line):
            continue
        kind: BlockKind = "list" if _ITEM.match(line) or (block and block.kind == "list") else "text"
        if block is not None and block.kind != kind:
            yield block
            block = None
        block = block or Block(kind)
        _add(block, line)
    if block is not None:
        yield block


def _add(block: Block, line: str) -> None:
    if block.kind == "text":
        block.text += f"\n{line}" if block.text else line
    elif item := _ITEM.match(line):
        block.items.append(item[1])
    else:
        block.items[-1] += f"\n{line.strip()}"


def _turns(text: str) -> Sequence[Block]:
    """The turns of a thread, each a head and then what was said, called and answered."""
    lines = iter(text.splitlines())
    blocks: list[Block] = []
    for line in lines:
        at_head = bool(blocks) and blocks[-1].kind == "turn"
        if turn := _TURN.fullmatch(line):
            speaker = SPEAKERS.get(turn[2], turn[2].capitalize())
            blocks.append(Block("turn", speaker, time=instant(turn[3])))
        elif opening := _FENCE.fullmatch(line):
            blocks.append(Block("said" if at_head else "quote", _fenced(lines, opening[1])))
        elif line.strip():
            if at_head and line.startswith(_ANSWERS):
                blocks[-1].text = "Tool"  # which Claude's transcripts keep as said by the user
            blocks.append(Block("said" if line.startswith(" ") else "text", line))
    return blocks


def _fenced(lines: Iterator[str], opening: str) -> str:
    quoted = []
    for line in lines:
        if line.startswith(opening) and not line.strip("`"):
            break
        quoted.append(line)
    return "\n".join(quoted)
