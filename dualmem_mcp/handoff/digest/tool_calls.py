"""Tool calls of a conversation, each with the result that came back for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dualmem_mcp.model.conversation import Block, Turn

# How Claude Code words the result of a call that the user refused; what the user typed follows.
# Source: Claude Code 1.0 to 2.1 transcripts.
_REJECTED = re.compile(
    r"The user doesn't want to (?:proceed with this tool use|take this action)|User rejected tool use"
)
_FEEDBACK = re.compile(
    r"(?:the user said|user provided the following reason for the rejection):\s*(?P<text>.*?)"
    r"(?:\n\nNote: The user's next message.*)?\Z",
    re.DOTALL,
)
_CANCELLED = re.compile(r"(?:<tool_use_error>)?(?:Sibling tool call errored|Cancelled: parallel tool call)")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call: its input, the turn that made it, and its result; `result` is None if none came back.

    `position` and `result_position` are indexes in the sequence of turns. `detail` is the client's
    structured account of the result, where it can be told to belong to this call alone.
    """

    name: str
    input: Mapping[str, Any]
    uuid: str
    position: int
    timestamp: datetime | None
    result: str | None = None
    is_error: bool = False
    result_uuid: str = ""
    result_position: int = -1
    detail: Any = None

    @property
    def rejected(self) -> bool:
        """Whether the user refused it, so that it was not carried out."""
        return self.is_error and self.result is not None and bool(_REJECTED.search(self.result[:400]))

    @property
    def cancelled(self) -> bool:
        """Whether it was given up because a call beside it failed."""
        return self.is_error and self.result is not None and bool(_CANCELLED.match(self.result))

    @property
    def done(self) -> bool:
        """Whether a result came back that is no error."""
        return self.result is not None and not self.is_error

    @property
    def feedback(self) -> str:
        """What the user said on refusing it; empty if nothing."""
        if not self.rejected or self.result is None:
            return ""
        found = _FEEDBACK.search(self.result)
        return found["text"].strip() if found else ""

    def argument(self, *names: str) -> str:
        """The first of these members of the input that is a non-empty text, else ""."""
        for name in names:
            value = self.input.get(name)
            if isinstance(value, str) and value:
                return value
        return ""

    @property
    def outcome(self) -> Mapping[str, Any]:
        """`detail` if it is an object, else an empty one."""
        return self.detail if isinstance(self.detail, Mapping) else {}


def tool_calls(turns: Sequence[Turn]) -> tuple[ToolCall, ...]:
    """Every call of these turns in order, joined with its result by id; a call repeated by its id counts once."""
    results: dict[str, tuple[int, Turn, Block, bool]] = {}
    for position, turn in enumerate(turns):
        blocks = [block for block in turn.blocks if block.kind == "tool_result"]
        for block in blocks:
            results.setdefault(block.tool_use_id, (position, turn, block, len(blocks) == 1))
    calls: list[ToolCall] = []
    seen: set[str] = set()
    for position, turn in enumerate(turns):
        for block in turn.blocks:
            if block.kind != "tool_use" or (block.tool_use_id and block.tool_use_id in seen):
                continue
            seen.add(block.tool_use_id)
            found = results.get(block.tool_use_id) if block.tool_use_id else None
            if found is None:
                calls.append(ToolCall(block.tool_name, block.tool_input, turn.uuid, position, turn.timestamp))
                continue
            at, answer, result, alone = found
            calls.append(
                ToolCall(
                    block.tool_name,
                    block.tool_input,
                    turn.uuid,
                    position,
                    turn.timestamp,
                    result=result.text,
                    is_error=result.is_error,
                    result_uuid=answer.uuid,
                    result_position=at,
                    detail=answer.detail if alone else None,
                )
            )
    return tuple(calls)
