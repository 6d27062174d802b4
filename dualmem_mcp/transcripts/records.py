"""Records of a session file, read one line at a time into small values; nothing here raises on what it reads.

Source: docs/transcripts.md states which fields are relied on and where each fact was seen.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final

from dualmem_mcp.errors import MalformedError, NotFoundError, StoreUnreachableError
from dualmem_mcp.model.conversation import PullRequest, Turn
from dualmem_mcp.transcripts.content import blocks_of, detail_of, tagged_origin
from dualmem_mcp.transcripts.json_values import count_of, is_blank, json_line, list_of, object_of, text_of, time_of
from dualmem_mcp.transcripts.prompt_queue import QueueOperation

MAX_LINE_BYTES: Final = 32 * 2**20
"""A longer line is not read: the API itself takes no request of more than 32 MB."""

CHAINED: Final = frozenset({"user", "assistant", "system", "attachment", "progress"})
"""Types whose records carry uuid and parentUuid."""

UNCHAINED: Final = frozenset(
    """
    summary ai-title custom-title agent-name agent-color agent-setting last-prompt mode permission-mode
    pr-link queue-operation bridge-session file-history-snapshot file-history-delta attribution-snapshot tag
    content-replacement task-summary worktree-state cost-state frame-link relocated speculation-accept
    session-meta saved_hook_context effort
    """.split()  # noqa: SIM905 - a list of one word a line says no more
)
"""Types that stand beside the thread and are known; any other type is counted and named in a warning."""


@dataclass(slots=True)
class Record:
    """One record that has a place in a thread; `turn` only if it is a message.

    `linked` says whether the record has the key parentUuid at all (synthetic and very old files do not).
    `boundary` marks a compaction, `preserved` what it kept.
    """

    line: int
    type: str
    uuid: str
    parent_uuid: str | None
    linked: bool
    sidechain: bool = False
    boundary: bool = False
    logical_parent_uuid: str | None = None
    agent_id: str = ""
    message_id: str = ""
    turn: Turn | None = None
    usage_tokens: int = 0
    preserved: Preserved | None = None


@dataclass(frozen=True, slots=True)
class Preserved:
    """Messages that a compaction kept: a list of uuids, or only the ends of a stretch of the chain."""

    anchor: str
    uuids: tuple[str, ...]
    head: str = ""
    tail: str = ""


@dataclass(slots=True)
class Transcript:
    """All that one session file says, in file order."""

    records: list[Record] = field(default_factory=list)
    agent_progress: dict[str, list[Record]] = field(default_factory=dict)
    """Messages of subagents that older clients wrote as progress of the launching call, by that call's id."""
    custom_title: str = ""
    ai_title: str = ""
    last_prompt: str = ""
    summaries: list[tuple[str, str]] = field(default_factory=list)
    """(leaf uuid, summary)"""
    permission_mode: str = ""
    version: str = ""
    session_id: str = ""
    queue_operations: list[QueueOperation] = field(default_factory=list)
    pull_requests: list[PullRequest] = field(default_factory=list)
    record_count: int = 0
    skipped_lines: list[int] = field(default_factory=list)
    oversized_lines: list[int] = field(default_factory=list)
    unknown_types: dict[str, list[int]] = field(default_factory=dict)
    duplicate_lines: list[int] = field(default_factory=list)
    torn_line: int = 0


def read_transcript(path: Path) -> Transcript:
    """What a session file says.

    Raises NotFoundError if there is no such file, StoreUnreachableError if it cannot be read,
    MalformedError if it is empty, holds no record, or is no regular file.
    """
    try:
        _refuse_special(path)
        with path.open("rb") as file:
            return parse_transcript(file, str(path))
    except FileNotFoundError:
        raise NotFoundError(
            f"there is no session file {path.name}",
            operation="read session",
            subject=str(path),
            hint="Give a session file of Claude Code, such as ~/.claude/projects/PROJECT/ID.jsonl.",
        ) from None
    except IsADirectoryError:
        raise MalformedError(
            f"{path.name} is a folder, not a session file",
            operation="read session",
            subject=str(path),
            hint="Give the .jsonl file of the session.",
        ) from None
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> StoreUnreachableError:
    """What to raise for a file of a session that the system does not let be read."""
    return StoreUnreachableError(
        f"{path.name} cannot be read: {error.strerror or type(error).__name__}",
        operation="read session",
        subject=str(path),
        hint="Check the rights of the file and the disk it lies on.",
    )


def _refuse_special(path: Path) -> None:
    """A pipe would be waited on for ever or give its bytes only once, a device may have no end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise MalformedError(
            f"{path.name} is a pipe or a device, not a session file",
            operation="read session",
            subject=str(path),
            hint="Write it to a file first, and give that.",
        )


def parse_transcript(file: BinaryIO, name: str, *, lines_before: int = 0) -> Transcript:
    """What a session file that is open already says; `name` is for messages.

    `lines_before` counts the lines of the session that stand before these, where they are only a part of it.
    Raises MalformedError if it is empty or holds no record, OSError if it cannot be read.
    """
    transcript = Transcript()
    uuids: set[str] = set()
    lines = 0
    for number, line in _lines(file, transcript, lines_before):
        lines = number
        _read_line(transcript, number, line, uuids)
    if transcript.record_count == 0:
        state = "is empty" if lines == 0 else "holds no record of a session"
        raise MalformedError(
            f"{PurePath(name).name} {state}",
            operation="read session",
            subject=name,
            hint="Give a session file of Claude Code: one JSON object a line.",
        )
    _link_turns(transcript.records)
    return transcript


def _link_turns(records: Sequence[Record]) -> None:
    """Let each message name the message that it follows on, past the records between them that are none."""
    beside = {record.uuid: record for record in records if record.turn is None}
    for record in records:
        turn = record.turn
        if turn is not None and turn.parent_uuid in beside:
            record.turn = replace(turn, parent_uuid=message_before(beside[turn.parent_uuid], beside))


def message_before(record: Record, beside: Mapping[str, Record]) -> str | None:
    """The uuid of the message that a record follows on, past those of `beside`; None for the first of a thread."""
    passed: set[str] = set()
    parent: str | None = record.uuid
    while parent is not None and parent in beside and parent not in passed:
        passed.add(parent)
        parent = beside[parent].parent_uuid or beside[parent].logical_parent_uuid
    return None if parent in passed else parent


def _lines(file: BinaryIO, transcript: Transcript, number: int) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers after `number`; one that is too long is passed over without being held in memory."""
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        transcript.oversized_lines.append(number)


def _read_line(transcript: Transcript, number: int, line: bytes, uuids: set[str]) -> None:
    try:
        data = json_line(line)
        if isinstance(data, dict) and isinstance(data.get("type"), str):
            _take(transcript, number, data, uuids)
            transcript.record_count += 1
            return
        if data is None and is_blank(line):
            return
    except (ValueError, RecursionError):
        # The session may be being written to at this moment: its last line is then cut short.
        if not line.endswith(b"\n"):
            transcript.torn_line = number
            return
    transcript.skipped_lines.append(number)


def _take(transcript: Transcript, number: int, data: dict[str, Any], uuids: set[str]) -> None:
    kind = data["type"]
    transcript.version = text_of(data.get("version")) or transcript.version
    transcript.session_id = transcript.session_id or text_of(data.get("sessionId"))
    if kind in CHAINED:
        _take_chained(transcript, number, kind, data, uuids)
    elif kind == "queue-operation":
        prompt, moment = _prompt_text(data.get("content")), time_of(data.get("timestamp"))
        transcript.queue_operations.append(QueueOperation(text_of(data.get("operation")), prompt, moment))
    elif kind in UNCHAINED:
        _take_metadata(transcript, kind, data)
    else:
        transcript.unknown_types.setdefault(kind, []).append(number)


def _take_metadata(transcript: Transcript, kind: str, data: dict[str, Any]) -> None:
    if kind == "custom-title":
        transcript.custom_title = text_of(data.get("customTitle")) or transcript.custom_title
    elif kind == "ai-title":
        transcript.ai_title = text_of(data.get("aiTitle")) or transcript.ai_title
    elif kind == "last-prompt":
        transcript.last_prompt = text_of(data.get("lastPrompt")) or transcript.last_prompt
    elif kind == "summary":
        transcript.summaries.append((text_of(data.get("leafUuid")), text_of(data.get("summary"))))
    elif kind == "permission-mode":
        transcript.permission_mode = text_of(data.get("permissionMode")) or transcript.permission_mode
    elif kind == "pr-link":
        link = PullRequest(
            number=count_of(data.get("prNumber")),
            url=text_of(data.get("prUrl")),
            repository=text_of(data.get("prRepository")),
        )
        if link.url and link not in transcript.pull_requests:
            transcript.pull_requests.append(link)


def _take_chained(transcript: Transcript, number: int, kind: str, data: dict[str, Any], uuids: set[str]) -> None:
    if kind == "progress":
        _take_agent_progress(transcript, number, data)
    mode = text_of(data.get("permissionMode"))
    if mode and kind == "user":
        transcript.permission_mode = mode
    record = chained_record(number, kind, data)
    if record.uuid in uuids:
        transcript.duplicate_lines.append(number)
        return
    uuids.add(record.uuid)
    transcript.records.append(record)


def chained_record(number: int, kind: str, data: Mapping[str, Any]) -> Record:
    """The record of a chained type; one without a usable uuid gets the name of its line."""
    parent = data.get("parentUuid")
    message = object_of(data.get("message"))
    record = Record(
        line=number,
        type=kind,
        uuid=text_of(data.get("uuid")) or f"line-{number}",
        parent_uuid=(text_of(parent) or None),
        linked="parentUuid" in data,
        sidechain=data.get("isSidechain") is True,
        agent_id=text_of(data.get("agentId")),
    )
    if kind == "system":
        record.boundary = data.get("subtype") == "compact_boundary"
        record.logical_parent_uuid = text_of(data.get("logicalParentUuid")) or None
        if record.boundary:
            record.preserved = _preserved(object_of(data.get("compactMetadata")))
    elif kind == "attachment":
        record.turn = _queued_turn(record, data)
    elif kind in {"user", "assistant"}:
        record.message_id = text_of(message.get("id")) if kind == "assistant" else ""
        record.turn = _turn(record, data, message)
        record.usage_tokens = usage_tokens(message.get("usage"))
    return record


def usage_tokens(usage: object) -> int:
    """Tokens of the context that a usage record states: input, cached input, and output."""
    counts = object_of(usage)
    if not counts:
        return 0
    keys = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    return sum(count_of(counts.get(key)) for key in keys)


def _preserved(metadata: Mapping[str, Any]) -> Preserved | None:
    kept = object_of(metadata.get("preservedMessages"))
    uuids = tuple(filter(None, map(text_of, list_of(kept.get("uuids")))))
    if uuids and (anchor := text_of(kept.get("anchorUuid"))):
        return Preserved(anchor=anchor, uuids=uuids)
    segment = object_of(metadata.get("preservedSegment"))
    anchor, head, tail = (text_of(segment.get(key)) for key in ("anchorUuid", "headUuid", "tailUuid"))
    if anchor and head and tail:
        return Preserved(anchor=anchor, uuids=(), head=head, tail=tail)
    return None


def _turn(record: Record, data: Mapping[str, Any], message: Mapping[str, Any]) -> Turn | None:
    if "content" not in message:
        return None
    role = record.type
    blocks = blocks_of(message.get("content"))
    origin = text_of(object_of(data.get("origin")).get("kind")) or text_of(data.get("origin"))
    if role == "user":
        origin = tagged_origin(blocks) or ("" if origin == "human" else origin)
    return Turn(
        uuid=record.uuid,
        parent_uuid=record.parent_uuid,
        role="assistant" if role == "assistant" else "user",
        timestamp=time_of(data.get("timestamp")),
        blocks=blocks,
        model=text_of(message.get("model")),
        cwd=text_of(data.get("cwd")),
        git_branch=text_of(data.get("gitBranch")),
        permission_mode=text_of(data.get("permissionMode")),
        is_meta=data.get("isMeta") is True,
        is_compact_summary=data.get("isCompactSummary") is True,
        is_api_error=data.get("isApiErrorMessage") is True,
        origin=origin,
        detail=detail_of(data.get("toolUseResult")),
        message_id=record.message_id,
    )


def _queued_turn(record: Record, data: Mapping[str, Any]) -> Turn | None:
    """A prompt that the user typed while the model worked, and that it was given between two tool calls."""
    attachment = object_of(data.get("attachment"))
    if attachment.get("type") != "queued_command":
        return None
    blocks = blocks_of(attachment.get("prompt"))
    if not blocks:
        return None
    origin = text_of(object_of(attachment.get("origin")).get("kind"))
    if origin in {"", "human"}:
        origin = tagged_origin(blocks) or "queued_command"
    return Turn(
        uuid=record.uuid,
        parent_uuid=record.parent_uuid,
        role="user",
        timestamp=time_of(data.get("timestamp")),
        blocks=blocks,
        cwd=text_of(data.get("cwd")),
        git_branch=text_of(data.get("gitBranch")),
        origin=origin,
    )


def _prompt_text(content: object) -> str:
    return "\n\n".join(block.text for block in blocks_of(content) if block.kind == "text" and block.text).strip()


def _take_agent_progress(transcript: Transcript, number: int, data: Mapping[str, Any]) -> None:
    """Keep a subagent's message from a progress record; all other progress is only a link of the chain."""
    progress = object_of(data.get("data"))
    if progress.get("type") != "agent_progress":
        return
    call = text_of(data.get("parentToolUseID"))
    inner = object_of(progress.get("message"))
    kind = text_of(inner.get("type"))
    if not call or kind not in {"user", "assistant"}:
        return
    known = {"timestamp": data.get("timestamp"), "agentId": progress.get("agentId")}
    record = chained_record(number, kind, {**known, **inner})
    transcript.agent_progress.setdefault(call, []).append(record)
