"""Writes records as Claude Code 2.1 does: chained, one for each content block, with the fields around them."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

VERSION = "2.1.217"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call with its answer; `detail` is the structured result, which the model does not see."""

    name: str
    input: Mapping[str, Any]
    result: str | Sequence[Mapping[str, Any]]
    detail: Any = None
    is_error: bool = False


@dataclass
class Recorder:
    """The records of one thread: the session itself, or a subagent if `agent_id` is given."""

    session_id: str
    cwd: str
    branch: str
    slug: str
    numbers: random.Random
    now: datetime
    model: str = "claude-opus-4-6"
    agent_id: str = ""
    permission_mode: str = "default"
    lines: list[str] = field(default_factory=list)
    parent: str | None = None
    turns: int = 0
    context_tokens: int = 18_000

    def wait(self, low: float, high: float) -> None:
        """Let some seconds pass."""
        self.now += timedelta(seconds=self.numbers.uniform(low, high))

    def new_id(self) -> str:
        """A random UUID, the same in every run."""
        return str(uuid.UUID(int=self.numbers.getrandbits(128), version=4))

    def _name(self, prefix: str) -> str:
        alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
        return f"{prefix}_01" + "".join(self.numbers.choice(alphabet) for _ in range(22))

    @property
    def time(self) -> str:
        """The moment, as records state it."""
        return self.now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.now.microsecond // 1000:03d}Z"

    def beside(self, kind: str, **members: Any) -> None:
        """A record that stands outside the chain."""
        self.lines.append(_line({"type": kind, **members, "sessionId": self.session_id}))

    def chained(self, kind: str, *, parent: str | None = None, **members: Any) -> str:
        """A record of the chain; the next one hangs below it unless it says otherwise. Returns its uuid."""
        record_id = self.new_id()
        self.wait(0.01, 0.4)
        aside = {"agentId": self.agent_id} if self.agent_id else {}
        record = {
            "parentUuid": parent or self.parent,
            "isSidechain": bool(self.agent_id),
            **aside,
            "type": kind,
            **members,
            "uuid": record_id,
            "timestamp": self.time,
            "userType": "external",
            "entrypoint": "cli",
            "cwd": self.cwd,
            "sessionId": self.session_id,
            "version": VERSION,
            "gitBranch": self.branch,
            "slug": self.slug,
        }
        self.lines.append(_line(record))
        self.parent = record_id
        return record_id

    def prompt(self, text: str, **members: Any) -> str:
        """What the user typed."""
        self.wait(20, 240)
        self.turns += 1
        self.context_tokens += len(text) // 4
        self.beside(
            "file-history-snapshot",
            messageId=self.new_id(),
            snapshot={"trackedFileBackups": {}},
            isSnapshotUpdate=False,
        )
        extra = {"promptId": self.new_id(), "permissionMode": self.permission_mode} if not self.agent_id else {}
        return self.chained("user", message={"role": "user", "content": text}, **extra, **members)

    def queue(self, text: str) -> None:
        """A prompt that the user typed while the model worked; that alone does not deliver it."""
        self.beside("queue-operation", operation="enqueue", timestamp=self.time, content=text)

    def assistant(self, *blocks: Mapping[str, Any]) -> list[str]:
        """One message of the model; each block is a record of its own with the same message id."""
        message_id, request_id = self._name("msg"), self._name("req")
        written = []
        for block in blocks:
            self.wait(0.5, 6)
            size = len(json.dumps(block, ensure_ascii=False)) // 4
            self.context_tokens += size
            usage = {
                "input_tokens": self.numbers.randint(1, 9),
                "cache_creation_input_tokens": size,
                "cache_read_input_tokens": self.context_tokens,
                "output_tokens": size,
                "service_tier": "standard",
            }
            message = {
                "model": self.model,
                "id": message_id,
                "type": "message",
                "role": "assistant",
                "content": [block],
                "stop_reason": "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn",
                "stop_sequence": None,
                "usage": usage,
            }
            self.turns += 1
            written.append(self.chained("assistant", message=message, requestId=request_id))
        return written

    def say(self, text: str, thought: str = "") -> None:
        """Text of the model, after some thinking."""
        self.assistant(*self._thinking(thought), {"type": "text", "text": text})

    def _thinking(self, thought: str) -> list[dict[str, Any]]:
        signature = f"{self.numbers.getrandbits(2400):0600x}"
        return [{"type": "thinking", "thinking": thought, "signature": signature}] if thought else []

    def call(self, *calls: Call, text: str = "", thought: str = "") -> list[str]:
        """One message with tool calls, and their answers: each below the record of its own call, as parallel
        calls are written. Returns the calls' ids."""
        ids = [self._name("toolu") for _ in calls]
        spoken = [{"type": "text", "text": text}] if text else []
        uses = [
            {"type": "tool_use", "id": call_id, "name": call.name, "input": dict(call.input)}
            for call_id, call in zip(ids, calls, strict=True)
        ]
        written = self.assistant(*self._thinking(thought), *spoken, *uses)[-len(calls) :]
        for call_id, call, source in zip(ids, calls, written, strict=True):
            self.answer(call_id, call, source)
        return ids

    def answer(self, call_id: str, call: Call, source: str) -> None:
        """The result of one call."""
        self.wait(0.1, 9)
        self.turns += 1
        content = call.result if isinstance(call.result, str) else list(call.result)
        self.context_tokens += len(str(content)) // 4
        block = {"tool_use_id": call_id, "type": "tool_result", "content": content, "is_error": call.is_error}
        detail = call.detail if call.detail is not None else call.result
        self.chained(
            "user",
            parent=source,
            message={"role": "user", "content": [block]},
            toolUseResult=detail,
            sourceToolAssistantUUID=source,
        )

    def end_of_turn(self, title: str, last_prompt: str) -> None:
        """What the client notes when the model has finished."""
        self.chained(
            "system", subtype="turn_duration", durationMs=self.numbers.randint(8_000, 240_000), isMeta=False
        )
        self.beside("last-prompt", lastPrompt=last_prompt[:200], leafUuid=self.parent)
        self.beside("mode", mode="normal")
        self.beside("permission-mode", permissionMode=self.permission_mode)
        self.beside("ai-title", aiTitle=title)

    def compact(self, summary: str) -> None:
        """A compaction: a boundary without parent, and the summary that stands for what was before."""
        before, logical = self.context_tokens, self.parent
        self.parent = None
        self.wait(20, 90)
        self.chained(
            "system",
            subtype="compact_boundary",
            content="Conversation compacted",
            isMeta=False,
            level="info",
            logicalParentUuid=logical,
            compactMetadata={"trigger": "auto", "preTokens": before},
        )
        self.turns += 1
        self.context_tokens = 18_000 + len(summary) // 4
        message = {"role": "user", "content": summary}
        self.chained("user", message=message, isVisibleInTranscriptOnly=True, isCompactSummary=True)

    def data(self) -> bytes:
        """The file."""
        return ("\n".join(self.lines) + "\n").encode()


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))
