"""Shell commands of a conversation: their last exit, the last test results, and what failed and was fixed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from dualmem_mcp.handoff.files import edited_paths, file_changes
from dualmem_mcp.handoff.quoting import clean, cut, cut_middle, one_line
from dualmem_mcp.handoff.test_results import is_test_command, read_counts
from dualmem_mcp.handoff.tool_calls import ToolCall
from dualmem_mcp.model.digest import Command, ErrorEntry, TestResult

_SHELL_TOOLS = frozenset({"Bash", "PowerShell", "Shell"})
_EXIT_CODE = re.compile(r"\A(?:Error: )?Exit code (\d+)\s*")
_TOOL_ERROR = re.compile(r"</?tool_use_error>|\A(?:Error: )+")

# A run that only looks: its output is of use to the model at that moment, not to who continues.
_LOOKING = re.compile(
    r"(?:cd\s+\S+\s*(?:&&|;)\s*)?(?:\w+=\S+\s+)*(?:ls|cat|head|tail|less|grep|rg|ag|fd|find|tree|wc|stat|file|which|type|echo|printf|pwd|sed\s+-n|awk|jq|"
    r"sort|diff|du|df|ps|lsof|env|date|sleep|true|test\s|git\s+(?:-C\s+\S+\s+)?(?:status|log|show|diff|branch|rev-parse|remote|ls-files|ls-tree|"
    r"cat-file|blame|reflog|config\s+--get|stash\s+list|describe|merge-base|count-objects|fsck|worktree\s+list)|"
    r"gh\s+(?:api\s+(?!.*-X|.*-f|.*--method)|\w+\s+(?:view|list|status|diff|checks)))\b"
)

# Lines of an output that tell what went wrong. Source: usual wording of compilers, interpreters, git and tools.
_TELLING = re.compile(
    r"\b(?:error|errors|fatal|panic|exception|traceback|failed|failure|fail|denied|not found|cannot|can't|unable|undefined|invalid|"
    r"conflict|unexpected|missing|no such|refused|timed? ?out|assert\w*|expected|mismatch|unknown|killed)\b|\w+Error\b|E\d{3,4}\b|✗|✖|❌",
    re.IGNORECASE,
)
_NOISE = re.compile(r"^\s*(?:at\s|\^|\d+\s*\||=+$|-+$|~+$|npm warn)|^\[\w+\] \$", re.IGNORECASE)

_OUTPUT_LIMIT = 400
_ERROR_LIMIT = 300


def status_of(call: ToolCall) -> tuple[str, int | None]:
    """How a shell call ended and its exit code: `status` as in Command; a code of None is not known."""
    if call.result is None:
        return "unfinished", None
    if call.rejected:
        return "rejected", None
    if call.cancelled:
        return "cancelled", None
    if call.outcome.get("backgroundTaskId") or call.result.startswith("Command running in background"):
        return "background", None
    code = _EXIT_CODE.match(call.result)
    if call.is_error:
        return "failed", int(code[1]) if code else None
    if call.outcome.get("interrupted") is True:
        return "interrupted", None
    return "ok", 0


def is_looking(command: str) -> bool:
    """Whether a command only looks at things and changes nothing; every part of a chain must."""
    parts = [part.strip() for part in re.split(r"&&|\|\||[;|\n]", command) if part.strip()]
    return bool(parts) and all(_LOOKING.match(part) or part.startswith(("cd ", "#")) for part in parts)


def telling_lines(output: str, limit: int) -> str:
    """The lines of an output that say what went wrong, in order, within `limit` characters; else its end."""
    lines = [line.strip() for line in clean(_EXIT_CODE.sub("", _TOOL_ERROR.sub("", output[:60_000]))).split("\n")]
    lines = [line for line in lines if line]
    telling = [line for line in lines if _TELLING.search(line) and not _NOISE.match(line)]
    if not telling:
        return cut_middle("\n".join(lines[-4:]), limit)
    chosen: list[str] = []
    size = 0
    for line in dict.fromkeys(telling):
        line = cut(line, max(limit // 2, 120))
        if chosen and size + len(line) > limit:
            break
        chosen.append(line)
        size += len(line) + 1
    return cut("\n".join(chosen), limit)


def extract_commands(calls: Sequence[ToolCall]) -> tuple[Command, ...]:
    """Every command that does more than look, at its last run, in order of the last runs."""
    latest: dict[str, Command] = {}
    for call in calls:
        command = call.argument("command")
        if call.name not in _SHELL_TOOLS or not command:
            continue
        is_test = is_test_command(command)
        status, code = status_of(call)
        if status == "cancelled" or (is_looking(command) and not is_test):
            continue
        key = one_line(command)
        runs = latest.pop(key).runs + 1 if key in latest else 1
        output = call.result or ""
        latest[key] = Command(
            command=clean(command),
            description=one_line(call.argument("description")),
            status=status,
            exit=code,
            output=telling_lines(output, _OUTPUT_LIMIT) if status == "failed" else _end_of(output),
            is_test=is_test,
            runs=runs,
            uuid=call.result_uuid or call.uuid,
        )
    return tuple(latest.values())


def _end_of(output: str) -> str:
    lines = [line.rstrip() for line in clean(output[-4_000:]).split("\n") if line.strip()]
    return cut_middle("\n".join(lines[-4:]), _OUTPUT_LIMIT)


def extract_tests(calls: Sequence[ToolCall], cwd: str) -> tuple[TestResult, ...]:
    """The last result of every distinct test command, the latest first, each with the edits made since."""
    latest: dict[str, TestResult] = {}
    for call in calls:
        command = call.argument("command")
        if call.name not in _SHELL_TOOLS or call.result is None or not command or not is_test_command(command):
            continue
        status, _ = status_of(call)
        if status in ("rejected", "cancelled", "background"):
            continue
        counts = read_counts(clean(call.result))
        if status == "ok" and counts.failed:  # a pipe into tail or grep hides the exit code
            status = "failed"
        latest.pop(one_line(command), None)
        latest[one_line(command)] = TestResult(
            command=clean(command),
            status=status,
            passed=counts.passed,
            failed=counts.failed,
            skipped=counts.skipped,
            summary=cut(counts.summary, _ERROR_LIMIT)
            or (telling_lines(call.result, _ERROR_LIMIT) if status == "failed" else ""),
            edits_after=len(edited_paths(calls, cwd, call.position)),
            uuid=call.result_uuid,
        )
    return tuple(reversed(latest.values()))


_WORD = re.compile(r"[\w./:@-]+")
_IGNORED_WORDS = frozenset(["cd", "2>&1", "tail", "head", "grep", "echo", "time", "env", "sudo"])


def _subject(call: ToolCall) -> str:
    """What a call is about, so that a later success can be told to be of the same thing."""
    if call.name not in _SHELL_TOOLS:
        return f"{call.name} {call.argument('file_path', 'notebook_path', 'path', 'url')}".strip()
    command = re.sub(r"^\s*(?:cd\s+\S+\s*(?:&&|;)\s*|\w+=\S+\s+|#[^\n]*\n)*", "", call.argument("command"))
    first = re.split(r"&&|\|\||[;|\n]|2>", command)[0]
    words = [word for word in _WORD.findall(first) if word not in _IGNORED_WORDS]
    return " ".join([word for word in words if not word.startswith("-")][:3] or words[:2])


def extract_errors(calls: Sequence[ToolCall], cwd: str) -> tuple[ErrorEntry, ...]:
    """What failed, in order, and for what later succeeded the edits in between; refusals by the user are no errors.

    A failing look (a search without hits, a file not there) that nothing was done about is left out, and so is
    a tool's complaint about its own use when the same call then went through.
    """
    found: list[ErrorEntry] = []
    places: dict[tuple[str, str], int] = {}
    changes = [(call.position, call.uuid) for call, operation, _ in file_changes(calls) if operation != "read"]
    for index, call in enumerate(calls):
        if not call.is_error or call.rejected or call.cancelled or call.result is None:
            continue
        command = call.argument("command")
        error = telling_lines(call.result, _ERROR_LIMIT)
        if not error or (call.name in _SHELL_TOOLS and is_looking(command)):
            continue
        subject = _subject(call)
        later = next((one for one in calls[index + 1 :] if one.done and _subject(one) == subject), None)
        if call.name not in _SHELL_TOOLS and later is not None:
            continue
        key = (subject, one_line(error)[:80])
        if key in places:
            place = places[key]
            found[place] = replace(found[place], count=found[place].count + 1)
            continue
        paths = edited_paths(calls, cwd, call.position, later.position) if later else []
        edits = [uuid for position, uuid in changes if later and call.position < position < later.position]
        places[key] = len(found)
        found.append(
            ErrorEntry(
                command=clean(command) or subject,
                error=error,
                fix=_fix_text(paths, later, call),
                fix_uuid=edits[-1] if edits else (later.result_uuid if later else ""),
                resolved=later is not None,
                uuid=call.result_uuid,
            )
        )
    return tuple(found)


def _fix_text(paths: Sequence[str], later: ToolCall | None, failed: ToolCall) -> str:
    if later is None:
        return ""
    if paths:
        shown = ", ".join(paths[:4]) + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")
        return f"edited {shown}; it then succeeded"
    again = one_line(later.argument("command"))
    return (
        f"then succeeded as `{cut(again, 160)}`"
        if again != one_line(failed.argument("command"))
        else "succeeded on a later run"
    )
