"""What `load_context` reads from a package: the digest's sections, and beside them the whole thread, the
carried files, the opaque state and what a device without a network needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.handoff import offline
from dualmem_mcp.handoff.brief.sections import PAGE_CHARACTERS, SECTIONS, section_text
from dualmem_mcp.handoff.quoting import clean, fence, one_line, quoted
from dualmem_mcp.handoff.reconstruct import OpenedPackage
from dualmem_mcp.handoff.redact import redact
from dualmem_mcp.handoff.redact_session import redact_turn
from dualmem_mcp.model.conversation import Block, Session, Turn

SessionParser = Callable[[Mapping[str, bytes]], Session]
"""Reads a session from the bytes of its files."""

MAX_RESULT_CHARACTERS = 2_000
"""Longer tool inputs and results are cut in the thread: they make up nine tenths of a session, and the
restored session has them whole."""

_PREFIX: Final = 12
"""Characters of a uuid by which turns are told apart."""

_FILE_PREFIX = "carried_files/"
OTHER_SECTIONS = ("thread", "agent_definitions", "carried_files", "state", offline.SECTION)


def load_section(package: OpenedPackage, name: str, cursor: str, *, parse: SessionParser) -> tuple[str, str]:
    """One page of a section and the cursor of the next page, empty at the end.

    `thread` takes the uuid of a turn (or its first characters) as cursor, too. Raises NotFoundError for a
    section that there is not, UsageError for a cursor that does not fit, TamperedError.
    """
    if name == "thread":
        return thread_page(parse(package.thread_files()), cursor)
    if name == offline.SECTION:
        return _cut(offline.offline_pack(package, parse(package.thread_files())).text(), cursor)
    if name in _TEXTS:
        return _cut(_TEXTS[name](package), cursor)
    if name.startswith(_FILE_PREFIX):
        return _cut(_file_text(package, name.removeprefix(_FILE_PREFIX)), cursor)
    if name in SECTIONS:
        return section_text(package.digest, name, cursor)
    raise NotFoundError(
        f"there is no section {json.dumps(name[:60])}",
        operation="load context",
        subject=name[:60],
        hint=f"Use one of: {', '.join((*SECTIONS, 'since', *OTHER_SECTIONS))}.",
    )


def thread_page(session: Session, cursor: str) -> tuple[str, str]:
    """One page of a session's turns, redacted, and the cursor of the next. Raises UsageError for another cursor."""
    turns = _shown_turns(session)
    return _turns_page(len(turns), _turn_index(turns, cursor), lambda index: _redacted_text(turns[index]))


@dataclass(frozen=True, slots=True)
class ThreadTexts:
    """The last turns of a thread as they are shown, from the turn `first` of `count` on, and the first page.

    `before` has the beginnings of the uuids of the turns before them. An `Opened` of the section `thread`.
    """

    first: int
    count: int
    uuids: tuple[str, ...]
    texts: tuple[str, ...]
    before: str
    start: tuple[str, str]
    section: str = "thread"

    @classmethod
    def of(cls, session: Session, size_bytes: int) -> Self:
        """As many of the last turns as fit so many bytes of UTF-8, beside the first page."""
        turns = _shown_turns(session)
        start = thread_page(session, "")
        room = size_bytes - _size(start[0]) - len(turns) * (_PREFIX + 1)
        texts: list[str] = []
        first = len(turns)
        while first > 0 and (room := room - _size(text := _redacted_text(turns[first - 1]))) >= 0:
            texts.insert(0, text)
            first -= 1
        before = "".join(f"\n{turn.uuid[:_PREFIX]}" for turn in turns[:first])
        return cls(first, len(turns), tuple(turn.uuid for turn in turns[first:]), tuple(texts), before, start)

    @property
    def size_bytes(self) -> int:
        """What it takes, in UTF-8."""
        return sum(map(_size, self.texts)) + _size(self.start[0]) + _size(self.before)

    def page(self, cursor: str) -> tuple[str, str] | None:
        """The page at that cursor, if all of it is here."""
        if cursor in ("", "0"):
            return self.start
        index = self._index(cursor)
        if index is None or index < self.first:
            return None
        return _turns_page(self.count, index, lambda at: self.texts[at - self.first])

    def _index(self, cursor: str) -> int | None:
        if len(cursor) < 6 and (number := _number(cursor)) is not None and number <= self.count:
            return number
        if len(cursor) < 4 or "\n" in cursor or f"\n{cursor[:_PREFIX]}" in self.before:
            return None
        hits = (self.first + at for at, uuid in enumerate(self.uuids) if uuid.startswith(cursor))
        return next(hits, None)


def _shown_turns(session: Session) -> list[Turn]:
    # Turns of thinking alone, which no model sees again, would be headings without a text.
    return [turn for turn in session.all_turns() if not turn.is_meta and any(map(_is_shown, turn.blocks))]


def _redacted_text(turn: Turn) -> str:
    # Redacted before anything is cut: half a key is none that a detector knows.
    return _turn_text(redact_turn(turn))


def _turns_page(count: int, index: int, text_of: Callable[[int], str]) -> tuple[str, str]:
    """The page that begins with that turn of so many, and the cursor of the next."""
    page: list[str] = []
    size = 0
    while index < count:
        text = text_of(index)
        if page and size + len(text) > PAGE_CHARACTERS:
            break
        page.append(text)
        size += len(text) + 2
        index += 1
    return "\n\n".join(page), str(index) if index < count else ""


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _turn_index(turns: Sequence[Turn], cursor: str) -> int:
    if not cursor:
        return 0
    # A uuid's first characters can be digits alone; positions are shorter than any prefix that is shown.
    if len(cursor) < 6 and (number := _number(cursor)) is not None and number <= len(turns):
        return number
    hits = [index for index, turn in enumerate(turns) if len(cursor) >= 4 and turn.uuid.startswith(cursor)]
    if not hits:
        raise UsageError(
            f"{cursor[:40]!r} is neither a cursor of the thread nor the beginning of a turn's uuid",
            operation="load context",
            subject="thread",
            hint="Pass the next_cursor of the page before, a uuid from the brief, or none to begin.",
        )
    return hits[0]


def _turn_text(turn: Turn) -> str:
    when = turn.timestamp.isoformat(timespec="minutes") if turn.timestamp else ""
    speaker = "compaction summary" if turn.is_compact_summary else turn.role
    lines = [f"[{one_line(turn.uuid)}] {speaker} {when}".rstrip()]
    lines += [part for block in turn.blocks if (part := _block_text(block))]
    return "\n".join(lines)


def _is_shown(block: Block) -> bool:
    return bool(clean(block.text)) if block.kind == "text" else block.kind in ("tool_use", "tool_result", "image")


def _block_text(block: Block) -> str:
    if block.kind == "text":
        return quoted("", clean(block.text)).strip("\n")
    if block.kind == "tool_use":
        return f"calls {one_line(block.tool_name)}: {_shortened(one_line(block.text))}"
    if block.kind == "tool_result":
        label = "failed" if block.is_error else "result"
        return f"{label}:\n{fence(_shortened(clean(block.text)))}" if block.text.strip() else f"{label}: (empty)"
    return "(image)" if block.kind == "image" else ""


def _shortened(text: str) -> str:
    if len(text) <= MAX_RESULT_CHARACTERS:
        return text
    return f"{text[:MAX_RESULT_CHARACTERS]}\n… {len(text) - MAX_RESULT_CHARACTERS:,} more characters"


def _state(package: OpenedPackage) -> str:
    return json.dumps(package.state, ensure_ascii=False, indent=2)


def _definitions(package: OpenedPackage) -> str:
    """The agent definitions that were carried, and what changed in them since the handoff before."""
    kept = [file for file in package.manifest.files if file.kind == "agent_definition"]
    lines = [f"- {one_line(file.name)}: {_FILE_PREFIX}{file.order}" for file in kept]
    changes = package.agents.get("definition_changes")
    for change in changes if isinstance(changes, list) else ():
        lines.append(f"- {one_line(str(change.get('change')))} since the handoff before: {change.get('file_name')}")
        if change.get("diff"):
            lines.append(fence(clean(str(change["diff"]))))
    return redact("\n".join(lines)) or "No agent definitions were carried."


def _file_list(package: OpenedPackage) -> str:
    lines: Iterable[str] = (
        f"- {_FILE_PREFIX}{one.order} {one.kind}: {redact(one_line(one.name))}, {one.size:,} bytes, "
        f"SHA-256 {one.sha256}"
        for one in package.manifest.files
    )
    return "\n".join(lines) or "No files were carried."


def _file_text(package: OpenedPackage, which: str) -> str:
    for file, data in package.carried_files():
        if which in (str(file.order), file.name):
            try:
                return redact(data.decode("utf-8"))
            except UnicodeDecodeError:
                return f"({file.size:,} bytes that are no text; SHA-256 {file.sha256})"
    raise NotFoundError(
        f"no carried file {json.dumps(which[:60])}",
        operation="load context",
        subject=which[:60],
        hint="The section carried_files lists them.",
    )


def _cut(text: str, cursor: str) -> tuple[str, str]:
    start = _number(cursor or "0")
    if start is None or start > len(text):
        raise UsageError(
            f"{cursor[:40]!r} is no cursor of this section",
            operation="load context",
            hint="Pass the next_cursor of the page before, or none to begin.",
        )
    end = start + PAGE_CHARACTERS
    return text[start:end], str(end) if end < len(text) else ""


def _number(cursor: str) -> int | None:
    return int(cursor) if cursor.isascii() and cursor.isdecimal() and len(cursor) < 12 else None


_TEXTS: Mapping[str, Callable[[OpenedPackage], str]] = {
    "state": _state,
    "agent_definitions": _definitions,
    "carried_files": _file_list,
}
