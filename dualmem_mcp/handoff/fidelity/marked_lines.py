"""The lines of a brief, each with the turns that it leads to, read back from the text that its reader has."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# `[1a2b3c4d]`: 4 to 24 characters of a turn's uuid; `!` flags a rule (handoff/brief).
_MARK = re.compile(r"\[([^\[\]\s!]{4,24})!?\]")
_UNPLACED = re.compile(r"- \[(?:queued|mid-turn|taken back)!?\](?: |\Z)")
_FENCE = re.compile(r"`{3,}")
_ITEM = re.compile(r"- |  → |\*\*|#")
_FOOTER = ("## Left out", "Left out, in part:", "More: load_context", "</record-")
_BEFORE_MARK = 48
"""Characters that may stand before the mark of a line, as `- user chose ` or `**Last request** (verbatim) `; with
more, the mark stands behind what it marks."""


@dataclass(frozen=True, slots=True)
class MarkedLine:
    """One line of a digest without its marks, of several lines of text where it quotes some.

    `turns` are the positions of the turns that it leads to, none where it names none; `label` is what stands
    before the mark.
    """

    text: str
    turns: tuple[int, ...] = ()
    label: str = ""


class TurnNames:
    """The turns of a conversation by the beginnings of their uuids."""

    def __init__(self, uuids: Sequence[str]) -> None:
        self._sorted = sorted((uuid, position) for position, uuid in enumerate(uuids) if uuid)

    def positions(self, name: str) -> tuple[int, ...]:
        """The turns whose uuid begins so; of a name that fits several, all."""
        at = bisect_left(self._sorted, (name, -1))
        found = []
        while at < len(self._sorted) and self._sorted[at][0].startswith(name):
            found.append(self._sorted[at][1])
            at += 1
        return tuple(found)


def marked_lines(brief: str, names: TurnNames) -> list[MarkedLine]:
    """The lines of a brief from its last request on.

    What the brief says of itself (title, sizes, what was left out) is no part of the conversation and left out.
    """
    lines: list[MarkedLine] = []
    current: list[MarkedLine] = []
    for line, is_quoted in _body(brief):
        pieces = [] if is_quoted else _pieces(line, names)
        begins = bool(pieces) or (not is_quoted and (not line.strip() or bool(_ITEM.match(line))))
        if begins:
            lines.extend(_joined(current))
            lines.extend(pieces[:-1])
            current = pieces[-1:]
        if not pieces and (is_quoted or not line.startswith("## ")):
            unplaced = None if is_quoted else _UNPLACED.match(line)
            label = unplaced[0].strip() if unplaced else ""
            current.append(MarkedLine(line.removeprefix(unplaced[0]) if unplaced else line, label=label))
    lines.extend(_joined(current))
    return lines


def _joined(parts: Sequence[MarkedLine]) -> list[MarkedLine]:
    """A line and what follows it without a mark, as one; nothing if there is no text."""
    text = "\n".join(part.text for part in parts).strip()
    return [MarkedLine(text, parts[0].turns, parts[0].label)] if text else []


def _body(brief: str) -> Iterator[tuple[str, bool]]:
    """The lines between head and footer, each with whether it stands in a fence; fences themselves are left out."""
    fence, begun = "", False
    for line in brief.split("\n"):
        if fence:
            if line == fence:
                fence = ""
            else:
                yield line, True
            continue
        begun = begun or line.startswith(("## Where it stands", "**Last request**"))
        marks = _FENCE.fullmatch(line)
        if not begun:
            continue
        if line.startswith(_FOOTER):
            return
        if marks:
            fence = line
        else:
            yield line, False


def _pieces(line: str, names: TurnNames) -> list[MarkedLine]:
    """A line cut so that each piece has one mark: before its text, or, in lists of names, behind it."""
    if "[" not in line:
        return []
    marks = [(found, turns) for found in _MARK.finditer(line) if (turns := names.positions(found[1]))]
    if not marks:
        return []
    pieces = []
    if marks[0][0].start() <= _BEFORE_MARK and not (len(marks) > 1 and line.endswith("]")):
        ends = [found.start() for found, _ in marks[1:]] + [len(line)]
        label = line[: marks[0][0].start()].strip()
        for (found, turns), end in zip(marks, ends, strict=True):
            pieces.append(MarkedLine(line[found.end() : end].removeprefix(":").strip(), turns, label))
        return pieces
    start = 0
    for found, turns in marks:
        pieces.append(MarkedLine(line[start : found.start()].strip("; "), turns))
        start = found.end()
    return pieces
