"""What a session file gained since it was last read, in chunks that can be stored one by one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from dualmem_mcp.errors import MalformedError
from dualmem_mcp.model.conversation import Turn
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.source import ReadMark, SessionChunk
from dualmem_mcp.transcripts.agents import LAUNCHING_TOOLS
from dualmem_mcp.transcripts.records import (
    MAX_LINE_BYTES,
    Record,
    Transcript,
    message_before,
    parse_transcript,
    unreadable,
)
from dualmem_mcp.transcripts.session import MAX_TITLE, conversation_id_of, session_cwd

CHUNK_LINES: Final = 200
CHUNK_BYTES: Final = 1 << 20
"""A chunk ends after so many lines or bytes: what it holds is stored in one short transaction."""

_FINGERPRINT_BYTES: Final = 4096
_MAX_OPEN_CALLS: Final = 200

_DECIDING_TOOLS: Final = LAUNCHING_TOOLS | {"AskUserQuestion", "ExitPlanMode", "exit_plan_mode"}
"""Tools whose calls and results make up the decisions and agents of a session."""


def read_tail(path: Path, mark: ReadMark | None) -> Iterator[SessionChunk]:
    """What the file holds after the mark, chunk by chunk; nothing if it is as the mark left it.

    A file that was rewritten or cut is read from its beginning. A last line that is not whole yet is left for
    the next time. Each chunk's mark can be gone on from; the last one's says how large the file was. Raises
    StoreUnreachableError if the file cannot be read; one that has gone holds nothing.
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or (mark is not None and _is_unchanged(mark, status)):
            return
        with path.open("rb") as file:
            yield from _read(path, file, mark)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreadable(path, error) from error


def _is_unchanged(mark: ReadMark, status: os.stat_result) -> bool:
    seen = (mark.size_bytes, mark.mtime_ns, mark.inode)
    return seen == (status.st_size, status.st_mtime_ns, status.st_ino)


def _read(path: Path, file: BinaryIO, mark: ReadMark | None) -> Iterator[SessionChunk]:
    status = os.fstat(file.fileno())
    if mark is None or status.st_size < mark.offset or _fingerprint(file, mark.offset) != mark.fingerprint:
        mark = ReadMark(str(path), mark.conversation_id if mark else ConversationId(""))
    while True:
        file.seek(mark.offset)
        lines = _take_lines(file)
        if lines.size_bytes == 0:
            break
        chunk = _chunk(path, mark, lines)
        mark = replace(
            chunk.mark,
            offset=mark.offset + lines.size_bytes,
            fingerprint=_fingerprint(file, mark.offset + lines.size_bytes),
        )
        yield replace(chunk, mark=mark)
    if mark.conversation_id:
        # As it was before it was read: should it have grown meanwhile, it is looked at again.
        seen = (status.st_size, status.st_mtime_ns, status.st_ino)
        yield SessionChunk(replace(mark, size_bytes=seen[0], mtime_ns=seen[1], inode=seen[2]))


def _fingerprint(file: BinaryIO, offset: int) -> bytes:
    """16 bytes of BLAKE2b over the file's first 4 KiB and the 4 KiB before the offset; empty for offset 0."""
    if offset == 0:
        return b""
    file.seek(0)
    head = file.read(min(_FINGERPRINT_BYTES, offset))
    start = max(0, offset - _FINGERPRINT_BYTES)
    file.seek(start)
    return hashlib.blake2b(head + file.read(offset - start), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class _Lines:
    """Whole lines as they stand one after the other; those that are too long are empty in `data`."""

    data: bytes
    count: int
    size_bytes: int


def _take_lines(file: BinaryIO) -> _Lines:
    parts: list[bytes] = []
    held = size = 0
    while len(parts) < CHUNK_LINES and held < CHUNK_BYTES and (line := file.readline(MAX_LINE_BYTES)):
        length = len(line)
        if length == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
                length += len(line)
            if not line:
                break  # still being written
            line = b"\n"
        elif not line.endswith(b"\n") and not _is_whole(line):
            break
        parts.append(line)
        held += len(line)
        size += length
    return _Lines(b"".join(parts), len(parts), size)


def _is_whole(line: bytes) -> bool:
    """Whether a line without its end is a record all the same: no JSON object is the beginning of another."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _chunk(path: Path, mark: ReadMark, lines: _Lines) -> SessionChunk:
    try:
        transcript = parse_transcript(io.BytesIO(lines.data), str(path), lines_before=mark.lines)
    except MalformedError:  # no record in these lines
        transcript = Transcript()
    thread = [record for record in transcript.records if not record.sidechain]
    messages = [_linked(record.turn, mark) for record in thread if record.turn is not None]
    link, linked_to = _last_link(thread, mark)
    shown = [turn for turn in messages if not turn.is_meta]
    open_calls, findings_due = _calls(messages, mark.open_calls)
    title, title_rank = _title(transcript, shown, mark)
    ended_at = next((turn.timestamp for turn in reversed(messages) if turn.timestamp), None)
    after = replace(
        mark,
        conversation_id=mark.conversation_id or conversation_id_of(path, transcript.session_id),
        lines=mark.lines + lines.count,
        size_bytes=-1,
        mtime_ns=-1,
        inode=-1,
        messages=mark.messages + len(shown),
        title=title,
        title_rank=title_rank,
        cwd=session_cwd([mark.cwd, *(turn.cwd for turn in shown)], path.parent.name),
        open_calls=open_calls,
        link=link,
        linked_to=linked_to,
    )
    return SessionChunk(
        after,
        turns=tuple(turn for turn in shown if turn.text),
        ended_at=ended_at,
        findings_due=findings_due,
        skipped=len(transcript.skipped_lines) + len(transcript.oversized_lines),
    )


def _linked(turn: Turn, mark: ReadMark) -> Turn:
    """The turn below the message that it follows on, where a record that was read before stands between them."""
    return replace(turn, parent_uuid=mark.linked_to) if mark.linked_to and turn.parent_uuid == mark.link else turn


def _last_link(thread: Sequence[Record], mark: ReadMark) -> tuple[str, str]:
    """The last record that is no message, which the next message may follow on, and the message it leads to."""
    beside = {record.uuid: record for record in thread if record.turn is None}
    if not beside:
        return mark.link, mark.linked_to
    last = next(reversed(beside.values()))
    before = message_before(last, beside) or ""
    return last.uuid, mark.linked_to if before and before == mark.link else before


def _calls(turns: Sequence[Turn], open_calls: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """The deciding calls that have no result yet, and whether there were new ones, results or agents' ends."""
    waiting = dict.fromkeys(open_calls)
    due = False
    for turn in turns:
        due = due or turn.origin == "task-notification"
        for block in turn.blocks:
            if block.kind == "tool_use" and block.tool_name in _DECIDING_TOOLS:
                waiting[block.tool_use_id] = None
                due = True
            elif block.kind == "tool_result" and block.tool_use_id in waiting:
                del waiting[block.tool_use_id]
                due = True
    return tuple(waiting)[-_MAX_OPEN_CALLS:], due


def _title(transcript: Transcript, shown: Sequence[Turn], mark: ReadMark) -> tuple[str, int]:
    """The best title so far and its rank; of two of one rank the newer, of requests the first.

    Source of the order: the client's own session list (docs/transcripts.md).
    """
    candidates = (
        (5, transcript.custom_title),
        (4, transcript.ai_title),
        (3, transcript.last_prompt),
        (2, transcript.summaries[-1][1] if transcript.summaries else ""),
    )
    for rank, text in candidates:
        if rank >= mark.title_rank and (title := " ".join(text.split())):
            return _bounded(title), rank
    if mark.title_rank == 0:
        for turn in shown:
            if turn.role == "user" and not turn.is_compact_summary and not turn.origin and turn.text.strip():
                return _bounded(" ".join(turn.text.split())), 1
    return mark.title, mark.title_rank


def _bounded(title: str) -> str:
    return title if len(title) <= MAX_TITLE else title[: MAX_TITLE - 1] + "…"
