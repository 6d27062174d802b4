"""Records of a session file, read one line at a time into small values; nothing here raises on what it reads.

Source: docs/transcripts.md states which fields are relied on and where each fact was seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dualmem_mcp.errors import MalformedError, NotFoundError, StoreUnreachableError
from dualmem_mcp.model.conversation import Block, PullRequest, Turn

MAX_LINE_BYTES: Final = 32 * 2**20
"""A longer line is not read: the API itself takes no request of more than 32 MB."""

MAX_DEPTH: Final = 40
"""Values nested deeper than this inside a record are cut, so that no later code recurses without bound."""

MAX_DETAIL_TEXT: Final = 8_000
"""Characters kept of one string inside a tool's structured result."""

CHAINED: Final = frozenset({"user", "assistant", "system", "attachment", "progress"})
"""Types whose records carry uuid and parentUuid."""

UNCHAINED: Final = frozenset(
    {
        "summary",
        "ai-title",
        "custom-title",
        "agent-name",
        "agent-color",
        "agent-setting",
        "last-prompt",
        "mode",
        "permission-mode",
        "pr-link",
        "queue-operation",
        "bridge-session",
        "file-history-snapshot",
        "file-history-delta",
        "attribution-snapshot",
        "tag",
        "content-replacement",
        "task-summary",
        "worktree-state",
        "cost-state",
        "frame-link",
        "relocated",
        "speculation-accept",
        "session-meta",
        "saved_hook_context",
        "effort",
    }
)
"""Types that stand beside the thread and are known; any other type is counted and named in a warning."""

# What a tool's structured result says again that the result's text or the call's input already says.
_REPEATED_KEYS: Final = frozenset(
    {
        "originalFile",
        "originalFileContents",
        "stdout",
        "oldString",
        "newString",
        "content",
        "prompt",
        "oldTodos",
        "edits",
        "base64",
        "result",
        "durationMs",
        "totalDurationMs",
        "results",
        "output",
    }
)

_TAGS: Final = (
    ("<task-notification>", "task-notification"),
    ("<command-name>", "slash-command"),
    ("<command-message>", "slash-command"),
    ("<local-command-", "local-command-output"),
    ("<bash-input>", "bash-input"),
    ("<bash-stdout>", "bash-output"),
    ("<bash-stderr>", "bash-output"),
    ("[Request interrupted by user", "interruption"),
)

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class Record:
    """One record that has a place in a thread; `turn` only if it is a message.

    `linked` says whether the record has the key parentUuid at all (synthetic and very old files do not).
    `preserved` lists what a compaction kept: (anchor, uuids) or (anchor, (head, …, tail)) as the client states it.
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
    agent_ids: dict[str, str] = field(default_factory=dict)
    """Agent id by launching call, as far as progress records name it."""
    custom_title: str = ""
    ai_title: str = ""
    last_prompt: str = ""
    summaries: list[tuple[str, str]] = field(default_factory=list)
    """(leaf uuid, summary)"""
    permission_mode: str = ""
    version: str = ""
    session_id: str = ""
    enqueued: list[str] = field(default_factory=list)
    pull_requests: list[PullRequest] = field(default_factory=list)
    record_count: int = 0
    skipped_lines: list[int] = field(default_factory=list)
    oversized_lines: list[int] = field(default_factory=list)
    unknown_types: dict[str, list[int]] = field(default_factory=dict)
    torn_line: int = 0


def text_of(value: object) -> str:
    """The value if it is a string, free of lone surrogates (which no UTF-8 file can hold); else an empty one."""
    if not isinstance(value, str):
        return ""
    if value.isascii():
        return value
    return _SURROGATE.sub("\ufffd", value)


def object_of(value: object) -> Mapping[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[Any]:
    """The value if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def time_of(value: object) -> datetime | None:
    """An ISO 8601 instant as UTC, or None if it is none."""
    if not isinstance(value, str) or not 10 <= len(value) <= 40:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def count_of(value: object) -> int:
    """The value if it is a plausible count, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def bounded(value: object, *, depth: int = MAX_DEPTH, max_text: int | None = None) -> Any:
    """A copy of a JSON value, free of lone surrogates, nested no deeper than `depth`, strings cut at `max_text`."""
    if isinstance(value, str):
        text = text_of(value)
        return text if max_text is None or len(text) <= max_text else text[:max_text] + "…"
    if isinstance(value, dict):
        if depth <= 0:
            return "…"
        return {text_of(key): bounded(item, depth=depth - 1, max_text=max_text) for key, item in value.items()}
    if isinstance(value, list):
        if depth <= 0:
            return "…"
        return [bounded(item, depth=depth - 1, max_text=max_text) for item in value]
    return value


def json_text(value: object) -> str:
    """Compact JSON of a value that `bounded` gave."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read_transcript(path: Path) -> Transcript:
    """What a session file says.

    Raises NotFoundError if there is no such file, StoreUnreachableError if it cannot be read,
    MalformedError if it is empty or holds no record.
    """
    transcript = Transcript()
    lines = 0
    try:
        with path.open("rb") as file:
            for number, line in _lines(file, transcript):
                lines = number
                _read_line(transcript, number, line)
    except FileNotFoundError:
        raise NotFoundError(
            f"there is no session file {path.name}",
            operation="read session",
            subject=str(path),
            hint="Give a session file, or an id that `dualmem conversations` lists.",
        ) from None
    except IsADirectoryError:
        raise MalformedError(
            f"{path.name} is a folder, not a session file",
            operation="read session",
            subject=str(path),
            hint="Give the .jsonl file of the session.",
        ) from None
    except OSError as error:
        raise StoreUnreachableError(
            f"{path.name} cannot be read: {error.strerror or type(error).__name__}",
            operation="read session",
            subject=str(path),
            hint="Check the rights of the file and the disk it lies on.",
        ) from error
    if transcript.record_count == 0:
        state = "is empty" if lines == 0 else "holds no record of a session"
        raise MalformedError(
            f"{path.name} {state}",
            operation="read session",
            subject=str(path),
            hint="Give a session file of Claude Code: one JSON object a line.",
        )
    return transcript


def _lines(file: Any, transcript: Transcript) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; one that is too long is passed over without being held in memory."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        transcript.oversized_lines.append(number)


def _read_line(transcript: Transcript, number: int, line: bytes) -> None:
    text = line.decode("utf-8", "replace").strip("\ufeff \t\r\n")
    if not text:
        return
    try:
        data = json.loads(text)
        if isinstance(data, dict) and isinstance(data.get("type"), str):
            _take(transcript, number, data)
            transcript.record_count += 1
            return
    except (ValueError, RecursionError):
        # The session may be being written to at this moment: its last line is then cut short.
        if not line.endswith(b"\n"):
            transcript.torn_line = number
            return
    transcript.skipped_lines.append(number)


def _take(transcript: Transcript, number: int, data: dict[str, Any]) -> None:
    kind = data["type"]
    transcript.version = text_of(data.get("version")) or transcript.version
    transcript.session_id = transcript.session_id or text_of(data.get("sessionId"))
    if kind in CHAINED:
        _take_chained(transcript, number, kind, data)
    elif kind == "queue-operation":
        if data.get("operation") == "enqueue" and (prompt := _prompt_text(data.get("content"))):
            transcript.enqueued.append(prompt)
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


def _take_chained(transcript: Transcript, number: int, kind: str, data: dict[str, Any]) -> None:
    if kind == "progress":
        _take_agent_progress(transcript, number, data)
    mode = text_of(data.get("permissionMode"))
    if mode and kind == "user":
        transcript.permission_mode = mode
    transcript.records.append(chained_record(number, kind, data))


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
        origin = _tagged_origin(blocks) or ("" if origin == "human" else origin)
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
        detail=_detail(data.get("toolUseResult")),
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
        origin = _tagged_origin(blocks) or "queued_command"
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


def _tagged_origin(blocks: tuple[Block, ...]) -> str:
    """What a user record is if the client, not the user, wrote it: by the tag that its text starts with."""
    first = next((block.text for block in blocks if block.kind == "text"), "").lstrip()
    return next((origin for tag, origin in _TAGS if first.startswith(tag)), "")


def blocks_of(content: object) -> tuple[Block, ...]:
    """The blocks of a message's content: a string, or a list of content blocks."""
    if isinstance(content, str):
        return (Block("text", text_of(content)),) if content else ()
    return tuple(_block(item) for item in list_of(content))


def _block(item: object) -> Block:
    if isinstance(item, str):
        return Block("text", text_of(item))
    data = object_of(item)
    kind = text_of(data.get("type"))
    if kind == "text":
        return Block("text", text_of(data.get("text")))
    if kind in {"thinking", "redacted_thinking"}:
        return Block("thinking", text_of(data.get("thinking")))
    if kind == "tool_use" or kind.endswith("_tool_use"):
        tool_input = bounded(object_of(data.get("input")))
        return Block(
            "tool_use",
            json_text(tool_input),
            tool_name=text_of(data.get("name")),
            tool_use_id=text_of(data.get("id")),
            tool_input=tool_input,
        )
    if kind == "tool_result" or kind.endswith("_tool_result"):
        return Block(
            "tool_result",
            result_text(data.get("content")),
            tool_use_id=text_of(data.get("tool_use_id")),
            is_error=data.get("is_error") is True,
        )
    return Block("image") if kind == "image" else Block("other")


def result_text(content: object) -> str:
    """A tool result's content as text: the string itself, or its text parts one below the other."""
    if isinstance(content, str):
        return text_of(content)
    parts = (item if isinstance(item, str) else object_of(item).get("text") for item in list_of(content))
    return "\n".join(text for part in parts if (text := text_of(part)))


def _prompt_text(content: object) -> str:
    return "\n\n".join(block.text for block in blocks_of(content) if block.kind == "text" and block.text).strip()


def _detail(value: object) -> Any:
    """A tool's structured result without what its text or the call's input says already."""
    if isinstance(value, str):
        return bounded(value, max_text=MAX_DETAIL_TEXT)
    if not isinstance(value, dict):
        return None
    kept = {key: item for key, item in value.items() if key not in _REPEATED_KEYS}
    if isinstance(file := kept.get("file"), dict):
        kept["file"] = {key: item for key, item in file.items() if key not in _REPEATED_KEYS}
    return bounded(kept, max_text=MAX_DETAIL_TEXT)


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
    if agent := text_of(progress.get("agentId")):
        transcript.agent_ids[call] = agent
    record = chained_record(number, kind, {"timestamp": data.get("timestamp"), **inner})
    transcript.agent_progress.setdefault(call, []).append(record)
