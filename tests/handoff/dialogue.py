"""A session made up for a test, said and done line by line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dualmem_mcp.model.conversation import AgentRun, Block, PullRequest, QueuedPrompt, Session, Turn
from dualmem_mcp.model.ids import ConversationId

CWD = "/home/ada/engine"
REFUSAL = (
    "The user doesn't want to proceed with this tool use. The tool use was rejected (eg. if it was a file edit, "
    "the new_string was NOT written to the file). To tell you how to proceed, the user said:\n"
)


class Dialogue:
    """Collects turns; every method adds one or two and returns the uuid of the last."""

    def __init__(self, *, branch: str = "main") -> None:
        self.branch = branch
        self.turns: list[Turn] = []
        self.earlier: list[Turn] = []
        self._start = datetime(2026, 3, 1, 9, tzinfo=UTC)

    def _add(self, role: str, *blocks: Block, **more: Any) -> str:
        count = len(self.turns) + len(self.earlier)
        uuid = f"{count:08x}-1111-4111-8111-111111111111"
        self.turns.append(
            Turn(
                uuid=uuid,
                parent_uuid=self.turns[-1].uuid if self.turns else None,
                role=role,  # type: ignore[arg-type]
                timestamp=self._start + timedelta(minutes=count),
                blocks=blocks,
                cwd=CWD,
                git_branch=self.branch,
                **more,
            )
        )
        return uuid

    def user(self, text: str, **more: Any) -> str:
        return self._add("user", Block("text", text), **more)

    def model(self, text: str, **more: Any) -> str:
        return self._add("assistant", Block("text", text), **more)

    def call(self, name: str, given: Mapping[str, Any], *, uuid: str = "") -> str:
        """A tool call that gets no result."""
        number = f"toolu_{len(self.turns)}"
        return self._add("assistant", Block("tool_use", json.dumps(given), name, uuid or number, given))

    def tool(
        self, name: str, given: Mapping[str, Any], result: str = "ok", *, error: bool = False, detail: Any = None
    ) -> str:
        """A tool call and its result; returns the uuid of the result's turn."""
        number = f"toolu_{len(self.turns)}"
        self.call(name, given, uuid=number)
        return self._add("user", Block("tool_result", result, name, number, is_error=error), detail=detail)

    def bash(self, command: str, output: str = "", *, error: bool = False) -> str:
        return self.tool("Bash", {"command": command}, output, error=error)

    def edit(self, path: str) -> str:
        return self.tool("Edit", {"file_path": f"{CWD}/{path}", "old_string": "a", "new_string": "b"}, "updated")

    def create(self, path: str) -> str:
        result = f"File created successfully at: {CWD}/{path}"
        return self.tool("Write", {"file_path": f"{CWD}/{path}", "content": "x"}, result, detail={"type": "create"})

    def refuse(self, name: str, given: Mapping[str, Any], said: str) -> str:
        return self.tool(name, given, REFUSAL + said, error=True)

    def compact(self, summary: str) -> str:
        """All turns so far become earlier ones, replaced by a summary."""
        self.earlier += self.turns
        self.turns = []
        return self._add("user", Block("text", summary), is_compact_summary=True)

    def session(
        self,
        *,
        agents: tuple[AgentRun, ...] = (),
        queued: tuple[QueuedPrompt, ...] = (),
        pull_requests: tuple[PullRequest, ...] = (),
        title: str = "a made-up session",
    ) -> Session:
        turns = (*self.earlier, *self.turns)
        return Session(
            conversation_id=ConversationId("5f0c1d2e-0000-4000-8000-000000000000"),
            project="-home-ada-engine",
            title=title,
            cwd=CWD,
            git_branch=self.branch,
            version="2.1.0",
            model="claude-test",
            permission_mode="default",
            started_at=turns[0].timestamp if turns else None,
            ended_at=turns[-1].timestamp if turns else None,
            turns=tuple(self.turns),
            earlier=tuple(self.earlier),
            agents=agents,
            files=(),
            pull_requests=pull_requests,
            queued_prompts=queued,
        )


def agent(order: int, description: str, status: str = "completed", result: str = "", **more: Any) -> AgentRun:
    """An agent of a session."""
    return AgentRun(
        id=f"agent{order}",
        agent_type="general-purpose",
        description=description,
        prompt=f"Please do this: {description}.",
        status=status,  # type: ignore[arg-type]
        order=order,
        result=result,
        **more,
    )
