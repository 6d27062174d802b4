"""A conversation as it was read from its source: turns, the agents it launched, the files it lies in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from dualmem_mcp.model.ids import ConversationId

Role = Literal["user", "assistant"]
BlockKind = Literal["text", "thinking", "tool_use", "tool_result", "image", "other"]


def estimate_tokens(text: str) -> int:
    """Tokens of a text, estimated as ceil(characters / 4); the one estimate used everywhere."""
    return -(-len(text) // 4)


@dataclass(frozen=True, slots=True)
class Block:
    """One content block of a turn.

    `text` is what the model sees: the text itself; for a tool result its flattened text; for a tool
    call the JSON of its input; empty for images and unknown blocks.
    """

    kind: BlockKind
    text: str = ""
    tool_name: str = ""
    tool_use_id: str = ""
    tool_input: Mapping[str, Any] = field(default_factory=dict)
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One user or assistant message of a thread.

    `detail` is the client's structured account of a tool's result (`toolUseResult`), or None, without what
    the result's text or the call's input says already. A turn of role "user" that carries only tool results
    is no request of the user's. `origin` tells other user turns apart: empty for a prompt typed between
    turns, "queued_command" for one delivered while the model worked; what the client wrote is
    "slash-command", "bash-input", "bash-output", "local-command-output", "task-notification" or
    "interruption", or the origin that the record itself names.
    """

    uuid: str
    parent_uuid: str | None
    role: Role
    timestamp: datetime | None
    blocks: tuple[Block, ...]
    model: str = ""
    cwd: str = ""
    git_branch: str = ""
    permission_mode: str = ""
    is_meta: bool = False
    is_compact_summary: bool = False
    is_api_error: bool = False
    origin: str = ""
    detail: Any = None
    message_id: str = ""
    """The API's id of the message; the content of one message can stand in several turns."""

    @property
    def text(self) -> str:
        """The text blocks, joined by blank lines; without thinking, tool calls and results."""
        return "\n\n".join(block.text for block in self.blocks if block.kind == "text" and block.text)

    @property
    def visible_tokens(self) -> int:
        """Estimated tokens that the model sees of this turn; thinking is not carried on, so not counted."""
        return sum(estimate_tokens(block.text) for block in self.blocks if block.kind != "thinking")

    def blocks_of(self, kind: BlockKind) -> Iterator[Block]:
        """The blocks of one kind, in order."""
        return (block for block in self.blocks if block.kind == kind)


AgentStatus = Literal["completed", "failed", "interrupted", "running", "unknown"]


@dataclass(frozen=True, slots=True)
class AgentRun:
    """One subagent that the conversation launched.

    `result` is the report that came back to the main thread, empty if none did; `last_message` the
    agent's last own text; `context_tokens` the size of its context at its end (the last usage record's
    input and output tokens, else estimated from its text). `order` counts launches from 0.
    """

    id: str
    agent_type: str
    description: str
    prompt: str
    status: AgentStatus
    order: int
    tool_use_id: str = ""
    launched_by: str = ""
    """uuid of the turn that launched it, empty if unknown."""
    result: str = ""
    last_message: str = ""
    context_tokens: int = 0
    message_count: int = 0
    model: str = ""
    tool_uses: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    edited_files: tuple[tuple[str, str], ...] = ()
    """Paths that its calls changed, each with the tool that did so last; as the calls name them."""


@dataclass(frozen=True, slots=True)
class SessionFile:
    """One file that belongs to a session. `name` is relative to the session's project folder, with `/`:
    `<id>.jsonl`, `<id>/subagents/agent-x.jsonl`, …; `path` where it lies now."""

    name: str
    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A pull request that the client linked to the session."""

    number: int
    url: str
    repository: str


QueuedState = Literal["waiting", "delivered", "withdrawn"]


@dataclass(frozen=True, slots=True)
class QueuedPrompt:
    """A prompt typed while the model worked, and what became of it: it still waits, the model got it, or the
    user took it back into the input line."""

    text: str
    timestamp: datetime | None = None
    state: QueuedState = "waiting"


@dataclass(frozen=True, slots=True)
class Session:
    """One Claude Code session.

    `turns` is the active thread from its root (or its last compaction) to its leaf; `earlier` the turns
    that compactions replaced, oldest first, which the model no longer sees but the user said. Queued
    prompts that stand in no turn are in `queued_prompts`. `warnings` name what could not be
    read, with line numbers and never with content.
    """

    conversation_id: ConversationId
    project: str
    """Name of the project folder (Claude Code's lossy slug)."""
    title: str
    cwd: str
    git_branch: str
    version: str
    model: str
    permission_mode: str
    started_at: datetime | None
    ended_at: datetime | None
    turns: tuple[Turn, ...]
    earlier: tuple[Turn, ...]
    agents: tuple[AgentRun, ...]
    files: tuple[SessionFile, ...]
    pull_requests: tuple[PullRequest, ...] = ()
    queued_prompts: tuple[QueuedPrompt, ...] = ()
    record_count: int = 0
    skipped_records: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def active_tokens(self) -> int:
        """Estimated tokens of the active thread as the model sees it now."""
        return sum(turn.visible_tokens for turn in self.turns)

    @property
    def visible_tokens(self) -> int:
        """Estimated tokens that the model saw in all, those that compactions replaced included."""
        return self.active_tokens + sum(turn.visible_tokens for turn in self.earlier)

    @property
    def message_count(self) -> int:
        """Turns in all, those that compactions replaced included, without meta records."""
        return sum(not turn.is_meta for turn in (*self.earlier, *self.turns))

    def all_turns(self) -> Iterator[Turn]:
        """Earlier turns, then the active thread."""
        yield from self.earlier
        yield from self.turns
