"""What failed in a conversation, and what made it succeed."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from dualmem_mcp.handoff.digest.commands import SHELL_TOOLS, is_looking, telling_lines
from dualmem_mcp.handoff.digest.files import Change, changed_between
from dualmem_mcp.handoff.digest.suites import is_test_command, read_counts
from dualmem_mcp.handoff.digest.tool_calls import ToolCall
from dualmem_mcp.handoff.quoting import clean, cut, one_line
from dualmem_mcp.model.digest import ErrorEntry

_LOOKING_TOOLS = frozenset({"Read", "NotebookRead", "Grep", "Glob", "LS", "TaskOutput", "BashOutput", "ToolSearch"})
_ERROR_LIMIT = 300

# A command worded wrongly: of no use to who continues.
_SLIP = re.compile(
    r"parse error near|command not found|unknown (?:option|flag|command|shorthand)|unrecognized (?:option|arg)|"
    r"no matches found|invalid option|syntax error near unexpected token|has not been read yet"
)

_WORD = re.compile(r"[\w./:@-]+")
_IGNORED_WORDS = frozenset({"cd", "tail", "head", "grep", "echo", "time", "env", "sudo"})
_LEADING = re.compile(r"^\s*(?:cd\s+\S+\s*(?:&&|;)\s*|\w+=\S+\s+|#[^\n]*\n)*")
_MERGE_DONE = re.compile(r"^(?>[^\n]*?\bgit\b)[^\n]*\b(?:commit|merge|rebase|cherry-pick|am)\b", re.MULTILINE)


def extract_errors(calls: Sequence[ToolCall], changes: Sequence[Change]) -> tuple[ErrorEntry, ...]:
    """What failed, in order, each with the success that followed and the files edited in between.

    Left out: refusals by the user; failing looks (a search without hits, a file that is not there); commands
    worded wrongly; and a tool's complaint about its own use where the same call then went through.
    """
    found: list[ErrorEntry] = []
    places: dict[tuple[str, str], int] = {}
    successes = _Successes(calls)
    for index, call in enumerate(calls):
        if (
            not call.is_error
            or call.rejected
            or call.cancelled
            or call.result is None
            or call.name in _LOOKING_TOOLS
        ):
            continue
        command = call.argument("command")
        error = telling_lines(call.result, _ERROR_LIMIT)
        is_shell = call.name in SHELL_TOOLS
        if not error or _SLIP.search(error) or (is_shell and is_looking(command)):
            continue
        later = successes.after(index)
        if not is_shell and later is not None:
            continue
        key = (successes.subjects[index], one_line(error)[:80])
        if key in places:
            found[places[key]] = replace(found[places[key]], count=found[places[key]].count + 1)
            continue
        places[key] = len(found)
        edits = changed_between(changes, call.position, later.position) if later else []
        found.append(
            ErrorEntry(
                command=clean(command) or successes.subjects[index],
                error=error,
                fix=_fix_text(
                    [edit.path for edit in edits if "/.claude/" not in edit.path and not edit.undone], later, call
                ),
                fix_uuid=edits[-1].uuid if edits else (later.result_uuid if later else ""),
                resolved=later is not None,
                uuid=call.result_uuid,
            )
        )
    return tuple(found)


def _subject(call: ToolCall) -> str:
    """What a call is about, so that a later success can be told to be of the same thing."""
    if call.name not in SHELL_TOOLS:
        return f"{call.name} {call.argument('file_path', 'notebook_path', 'path', 'url')}".strip()
    first = re.split(r"&&|\|\||[;|\n]|2>", _LEADING.sub("", call.argument("command")))[0]
    words = [word for word in _WORD.findall(first) if word not in _IGNORED_WORDS]
    return " ".join([word for word in words if not word.startswith("-")][:3] or words[:2])


class _Successes:
    """Which call ended a failure: the next of the same subject that went through; for tests any run without
    failures, for a merge conflict the commit, for a rejected push the push.

    What a run of tests states is read when it is asked for: most sessions run far more tests than fail.
    """

    def __init__(self, calls: Sequence[ToolCall]) -> None:
        self._calls = calls
        self.subjects = [_subject(call) for call in calls]
        self._done: dict[str, list[int]] = {}
        self._merges: list[int] = []
        self._pushes: list[int] = []
        self._test_runs: list[int] = []
        self._passed_from: dict[int, ToolCall | None] = {}
        for index, call in enumerate(calls):
            if call.done:
                self._add(index, call)

    def _add(self, index: int, call: ToolCall) -> None:
        self._done.setdefault(self.subjects[index], []).append(index)
        command = call.argument("command")
        if "git" in command and _MERGE_DONE.search(command):
            self._merges.append(index)
        if "git push" in command:
            self._pushes.append(index)
        if is_test_command(command):
            self._test_runs.append(index)

    def after(self, index: int) -> ToolCall | None:
        """The call that ended the failure of that call, or None."""
        failed = self._calls[index]
        if "CONFLICT (" in (failed.result or ""):
            candidates = self._merges
        elif "failed to push" in (failed.result or ""):
            candidates = self._pushes
        elif is_test_command(failed.argument("command")):
            return self._passed_after(index)
        else:
            candidates = self._done.get(self.subjects[index], [])
        at = bisect_right(candidates, index)
        return self._calls[candidates[at]] if at < len(candidates) else None

    def _passed_after(self, index: int) -> ToolCall | None:
        """The next run of tests that states no failure, or None; each is read once, however many ask."""
        first = at = bisect_right(self._test_runs, index)
        found = None
        while at < len(self._test_runs):
            if at in self._passed_from:
                found = self._passed_from[at]
                break
            run = self._calls[self._test_runs[at]]
            if not read_counts(run.result or "").failed:
                found = run
                self._passed_from[at] = run
                break
            at += 1
        self._passed_from.update(dict.fromkeys(range(first, at), found))
        return found


def _fix_text(paths: Sequence[str], later: ToolCall | None, failed: ToolCall) -> str:
    if later is None:
        return ""
    again = one_line(later.argument("command"))
    same = again == one_line(failed.argument("command"))
    ending = "it then succeeded" if same or not again else f"then `{cut(again, 100)}` succeeded"
    if not paths:
        return ending
    shown = ", ".join(paths[:4]) + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")
    return f"edited {shown}; {ending}"
