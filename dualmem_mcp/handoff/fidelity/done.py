"""What was done in a conversation, read from its tool calls by rules that are not the digest's (see `said.py`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.model.conversation import AgentRun, Block, Turn

# Claude Code's tools. Source: Claude Code 1.0 to 2.1 transcripts (docs/transcripts.md).
_EDITING = frozenset({"Edit", "Write", "MultiEdit", "NotebookEdit", "Update", "Create"})
_LAUNCHING = frozenset({"Task", "Agent"})
_CREATED = re.compile(r"Task #?([\w-]+) created")

# A program that runs tests, at the beginning of a command or after `&&`, `;`, `|` and the like.
_TEST_RUN = re.compile(
    r"(?:^|[;&|(\n])\s*(?:[A-Z_]+=\S*\s+|(?:uv|poetry|pdm|hatch|bundle|npx|pnpm|yarn|bunx?|time|"
    r"timeout \S+|xvfb-run|python[\d.]* -m|run|exec)\s+(?:-\S+\s+)*)*"
    r"(?:\S{0,200}/)?(?:pytest|py\.test|unittest|tox|nox|jest|vitest|mocha|rspec|phpunit|ctest|gotestsum|bats|"
    r"(?:go|cargo|npm|pnpm|yarn|bun|deno|dotnet|swift|mix|flutter|dart|zig|mvn|gradlew?|make|just|mise|task|rake|node)"
    r"\s+(?:run\s+|--)?(?:nextest|[\w:-]*tests?[\w:-]*|check))(?=[\s;&|)]|$)"
)
_COUNT = re.compile(r"\b(\d{1,9}) (passed|passing|failed|failing)\b")
_SUITES = re.compile(r"^\s*Test (?:Files|Suites)\b")
_OUTCOME_WORDS = {"failed": ("failed", "failing"), "passed": ("passed", "passing")}
_FAILED = re.compile(r"^[ \t]*(?:--- )?FAIL(?:ED)?\b|^panic:|\bfailed\b|\bExit code [1-9]", re.MULTILINE)
_PASSED = re.compile(r"^ok\b|\bPASS(?:ED)?\b|\bOK\b|\bpassed\b", re.MULTILINE)
_SAID_FAILED = ("failed", "FAIL", "FAILED", "failing", "Exit code", "panic", "error", "Error")
_SAID_PASSED = ("ok", "OK", "PASS", "PASSED", "passed")


@dataclass(frozen=True, slots=True)
class CallMade:
    """One tool call: its turn, and the result that came back; None if none did."""

    call: Block
    uuid: str
    position: int
    result: Block | None = None
    result_uuid: str = ""
    result_position: int = -1

    @property
    def done(self) -> bool:
        """Whether a result came back that is no error."""
        return self.result is not None and not self.result.is_error

    def argument(self, name: str) -> str:
        """A member of the input if it is a text, else ""."""
        value = self.call.tool_input.get(name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """A test run: the uuid of its result's turn, the turns that a line on it may name, and the words of which any
    tells its outcome."""

    uuid: str
    turns: tuple[int, ...]
    outcomes: tuple[str, ...]


def calls_made(turns: Sequence[Turn]) -> list[CallMade]:
    """Every call in order, each id once."""
    results = {
        block.tool_use_id: (block, turn.uuid, position)
        for position, turn in enumerate(turns)
        for block in turn.blocks
        if block.kind == "tool_result" and block.tool_use_id
    }
    calls: dict[str, CallMade] = {}
    for position, turn in enumerate(turns):
        for block in turn.blocks:
            if block.kind == "tool_use":
                key = block.tool_use_id or f"{position}/{len(calls)}"
                calls.setdefault(key, CallMade(block, turn.uuid, position, *results.get(block.tool_use_id, ())))
    return list(calls.values())


def files_changed(calls: Sequence[CallMade], agents: Sequence[AgentRun], cwd: str) -> dict[str, str]:
    """Paths that editing tools changed, relative to the folder, each with the turn that did so last, or that
    launched the agent that did."""
    found = {
        _relative(path, cwd): agent.launched_by
        for agent in agents
        for path, tool in agent.edited_files
        if tool in _EDITING and path
    }
    for call in calls:
        path = call.argument("file_path") or call.argument("notebook_path") or call.argument("path")
        if call.done and path and call.call.tool_name in _EDITING:
            found[_relative(path, cwd)] = call.uuid
    return found


def _relative(path: str, cwd: str) -> str:
    path, folder = (one_line(one).replace("\\", "/") for one in (path, cwd))
    folder = folder.rstrip("/")
    return path.removeprefix(f"{folder}/") if folder else path


def last_test(calls: Sequence[CallMade]) -> SuiteRun | None:
    """The last run of tests; None if there was none, or its output does not say how it ended."""
    for call in reversed(calls):
        command, result = call.argument("command"), call.result
        if result is None or not command or not _TEST_RUN.search(command[:4_000]):
            continue
        if "doesn't want to" in result.text[:400]:
            continue  # refused, so not run
        outcomes = _outcomes(result)
        return SuiteRun(call.result_uuid, (call.result_position, call.position), outcomes) if outcomes else None
    return None


def _outcomes(result: Block) -> tuple[str, ...]:
    """The words of which one must stand where the outcome is told: its counts, else that it failed or passed."""
    text = result.text[-20_000:]
    counts = [
        {("failed" if word.startswith("fail") else "passed"): int(number) for number, word in _COUNT.findall(line)}
        for line in text.split("\n")
        if not _SUITES.match(line)
    ]
    counts = [one for one in counts if one]
    if counts:
        # Some runners state one total, others one for each part: both the last and the sum are right.
        word = "failed" if any(one.get("failed") for one in counts) else "passed"
        numbers = {counts[-1].get(word, 0), sum(one.get(word, 0) for one in counts)}
        return tuple(f"{number} {name}" for number in sorted(numbers) for name in _OUTCOME_WORDS[word])
    if result.is_error or _FAILED.search(text):
        return _SAID_FAILED
    return _SAID_PASSED if _PASSED.search(text) else ()


def open_tasks(calls: Sequence[CallMade]) -> list[tuple[str, str]]:
    """Subjects of the tasks that the last calls left open, each with the turn that stated it last."""
    tasks: dict[str, dict[str, str]] = {}
    for call in calls:
        name, given = call.call.tool_name, call.call.tool_input
        if not call.done:
            continue
        if name == "TodoWrite":
            tasks = {str(at): one for at, one in enumerate(_todos(given, call.uuid))}
        elif name == "TaskCreate":
            named = _CREATED.search(call.result.text if call.result else "")
            number = named[1] if named else str(len(tasks) + 1)
            tasks[number] = {"subject": call.argument("subject") or call.argument("title"), "uuid": call.uuid}
        elif name == "TaskUpdate":
            number = str(given.get("taskId") or given.get("task_id") or given.get("id") or "")
            if number in tasks:
                changes = {key: str(given[key]) for key in ("subject", "status") if given.get(key)}
                tasks[number] = {**tasks[number], **changes, "uuid": call.uuid}
    closed = ("completed", "deleted")
    return [(one["subject"], one["uuid"]) for one in tasks.values() if one.get("status") not in closed]


def _todos(given: Mapping[str, Any], uuid: str) -> list[dict[str, str]]:
    todos = given.get("todos")
    return [
        {"subject": str(one.get("content") or ""), "status": str(one.get("status") or ""), "uuid": uuid}
        for one in (todos if isinstance(todos, list) else ())
        if isinstance(one, Mapping)
    ]


def agents_launched(calls: Sequence[CallMade]) -> list[tuple[str, str]]:
    """What the agents that the main thread launched are called, each with the turn that launched it; launches that
    were refused or failed are none."""
    return [
        (call.argument("description") or call.argument("prompt"), call.uuid)
        for call in calls
        if call.call.tool_name in _LAUNCHING
        and (call.result is None or not call.result.is_error or "interrupted" in call.result.text[:400])
    ]
