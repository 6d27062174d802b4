"""Files that a conversation read, made and changed, told from its tool calls."""

from __future__ import annotations

import re
import shlex
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dualmem_mcp.handoff.digest.tool_calls import ToolCall
from dualmem_mcp.handoff.quoting import one_line, relative_path
from dualmem_mcp.model.conversation import AgentRun
from dualmem_mcp.model.digest import FileEntry

# Claude Code's tools that take one file. Source: Claude Code 1.0 to 2.1 transcripts and Agent SDK.
_FILE_TOOLS = {
    "Read": "read",
    "NotebookRead": "read",
    "Edit": "edit",
    "MultiEdit": "edit",
    "Update": "edit",
    "NotebookEdit": "edit",
    "str_replace_editor": "edit",
    "Write": "write",
    "Create": "write",
}

_HEREDOC_OR_REDIRECT = re.compile(
    r"(?:^|[\s;&|])(?:cat|echo|printf|tee)\b[^|;&\n]*?(?:>{1,2}|\btee\s+(?:-a\s+)?)\s*(?P<path>[\w./~@+-]+)"
)
_IN_PLACE = re.compile(r"(?:^|[;&|]\s*)(?:sed\s+(?:-\w+\s+)*-i|perl\s+-\w*i\w*)\b(?P<rest>[^;&|\n]*)")
_REMOVE_OR_MOVE = re.compile(r"(?:^|[;&|]\s*|\n\s*)(?:git\s+)?(?P<verb>rm|mv)\s+(?P<rest>[^;&|\n]+)")
# What takes files back to the last commit; another source or the index alone is something else.
_RESTORE = re.compile(
    r"(?:^|[;&|]\s*|\n\s*)git\s+(?:checkout\s+(?:HEAD\s+)?--(?=\s)|restore\b(?![^;&|\n]*\s(?:--source|-s|--staged|-S)\b))"
    r"(?P<rest>[^;&|\n]*)"
)
_RESET = re.compile(r"(?:^|[;&|]\s*|\n\s*)git\s+(?:reset\s+(?:-q\s+)?--hard\b|checkout\s+(?:-f\s+)?\.(?=\s|$))")
_PLAIN_PATH = re.compile(r"[\w./~@+-]*[\w-]\.[A-Za-z]\w{0,9}|[\w./~@+-]*/[\w.@+-]+")
_ELSEWHERE = ("/dev/", "/tmp/", "/private/tmp/", "/var/", "/proc/")  # noqa: S108 - names compared, nothing is written there


class Change(NamedTuple):
    """One change of a file: where in the sequence of turns, in which turn, which path (relative to the cwd).

    `undone` tells that it took back what had been changed.
    """

    position: int
    uuid: str
    path: str
    undone: bool = False


@dataclass(slots=True)
class _Tally:
    operations: Counter[str] = field(default_factory=Counter)
    last_operation: str = ""
    uuid: str = ""
    position: int = -1
    created: bool = False
    edited: bool = False


def file_changes(calls: Sequence[ToolCall]) -> Iterator[tuple[ToolCall, str, str]]:
    """Each carried-out operation on a file in order: the call, the operation's name, the path as it was given."""
    for call in calls:
        if not call.done:
            continue
        operation = _FILE_TOOLS.get(call.name)
        if operation:
            path = call.argument("file_path", "notebook_path", "path", "filePath")
            if path:
                yield call, operation, path
        elif call.name == "Bash":
            for changed, path in shell_changes(call.argument("command")):
                yield call, changed, path


def shell_changes(command: str) -> list[tuple[str, str]]:
    """Operations and paths of a shell command that plainly writes, edits, removes, moves or restores files.

    Only what stands in the command in so many words; scratch and device paths are left out.
    """
    command = command[:20_000]
    if not any(word in command for word in (">", "sed", "perl", "rm", "mv", "tee", "checkout", "restore")):
        return []
    found = [("shell", match["path"]) for match in _HEREDOC_OR_REDIRECT.finditer(command)]
    for match in _IN_PLACE.finditer(command):
        found.extend(("shell", path) for path in _words(match["rest"])[1:])
    for match in _REMOVE_OR_MOVE.finditer(command):
        found.extend(("delete" if match["verb"] == "rm" else "move", path) for path in _words(match["rest"]))
    for match in _RESTORE.finditer(command):
        found.extend(("restore", path) for path in _words(match["rest"]))
    return [
        (operation, path)
        for operation, path in found
        if _PLAIN_PATH.fullmatch(path) and not path.startswith(_ELSEWHERE)
    ]


def restores_all(command: str) -> bool:
    """Whether a shell command takes the whole folder back to the last commit."""
    command = command[:20_000]
    return bool(_RESET.search(command)) or any("." in _words(one["rest"]) for one in _RESTORE.finditer(command))


def _words(rest: str) -> list[str]:
    try:
        words = shlex.split(rest, comments=True)
    except ValueError:
        return []
    return [word for word in words if not word.startswith("-")]


def extract_files(calls: Sequence[ToolCall], agents: Sequence[AgentRun], cwd: str) -> tuple[FileEntry, ...]:
    """Every file touched, the last touched last; those that a call failed on are left out.

    Files that only agents changed come first, each with the agent that did so last.
    """
    tallies: dict[str, _Tally] = {}
    for call, operation, given in file_changes(calls):
        path = relative_path(given, cwd)
        if operation == "restore" and not (path in tallies and tallies[path].edited):
            continue
        tally = tallies.setdefault(path, _Tally())
        tally.operations[operation] += 1
        if operation == "read" and tally.edited:
            continue
        tally.last_operation, tally.uuid, tally.position = operation, call.uuid, call.position
        if operation != "read":
            tally.edited = True
            tally.created = tally.created or is_creation(call)
    ordered = sorted(tallies.items(), key=lambda one: one[1].position)
    by_agents = {
        relative_path(path, cwd): FileEntry(
            path=relative_path(path, cwd),
            operations={_FILE_TOOLS.get(tool, "edit"): 1},
            last_operation=_FILE_TOOLS.get(tool, "edit"),
            edited=True,
            agent=one_line(agent.description or agent.id),
            uuid=agent.launched_by,
        )
        for agent in agents
        for path, tool in agent.edited_files
        if not (tallies.get(relative_path(path, cwd)) or _Tally()).edited
    }
    return (
        *by_agents.values(),
        *(_entry(path, tally) for path, tally in ordered if path not in by_agents),
    )


def _entry(path: str, tally: _Tally) -> FileEntry:
    return FileEntry(
        path=path,
        operations=dict(tally.operations),
        last_operation=tally.last_operation,
        created=tally.created,
        edited=tally.edited,
        uuid=tally.uuid,
    )


def is_creation(call: ToolCall) -> bool:
    """Whether a call made a file that was not there, by the client's own account."""
    kind: object = call.outcome.get("type")
    if kind is not None:
        return kind == "create"
    return call.result is not None and call.result.startswith("File created")


def change_log(calls: Sequence[ToolCall], cwd: str) -> tuple[Change, ...]:
    """Every change of a file in order, without what was only read; restored files if they had been changed."""
    found: list[Change] = []
    changed: set[str] = set()
    for call, operation, given in file_changes(calls):
        path = relative_path(given, cwd)
        if operation != "read" and (operation != "restore" or path in changed):
            changed.add(path)
            found.append(Change(call.position, call.uuid, path, undone=operation == "restore"))
    return tuple(found)


def changed_between(changes: Sequence[Change], after: int, before: int | None = None) -> list[Change]:
    """The last change of each file after one position (and before another), in order."""
    start = bisect_right(changes, after, key=_position)
    end = len(changes) if before is None else bisect_left(changes, before, key=_position)
    return list({change.path: change for change in changes[start:end]}.values())


def _position(change: Change) -> int:
    return change.position
