"""Shell commands of a conversation: their last exit, the last test results, and what failed and was fixed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from dualmem_mcp.handoff.digest.files import Change, changed_between
from dualmem_mcp.handoff.digest.suites import is_test_command, read_counts
from dualmem_mcp.handoff.digest.tool_calls import ToolCall
from dualmem_mcp.handoff.quoting import clean, cut, cut_middle, one_line
from dualmem_mcp.model.digest import Command, SuiteResult

SHELL_TOOLS = frozenset({"Bash", "PowerShell", "Shell"})
_EXIT_CODE = re.compile(r"\A(?:Error: )?Exit code (\d+)\s*")
_TOOL_ERROR = re.compile(r"</?tool_use_error>|\A(?:Error: )+")

# Programs and subcommands that only look: their output is of use to the model at that moment, not to who continues.
_LOOKING = re.compile(
    r"(?:\w+=\S*\s+)*(?:sudo\s+|time\s+)?(?:"
    r"(?:ls|cat|head|tail|less|grep|rg|ag|fd|find|tree|wc|stat|file|which|type|echo|printf|pwd|awk|jq|sort|"
    r"uniq|cut|tr|diff|cmp|"
    r"du|df|ps|pgrep|lsof|env|date|sleep|true|test|\[|xxd|od|nl|column|md5|md5sum|shasum|sha256sum|read|"
    r"sed\s+-n)(?=\s|$)|"
    r"git\s+(?:-C\s+\S+\s+|--no-pager\s+)*(?:status|log|show|diff|branch(?:\s+-[avr]\S*|\s+--\S+|\s*$)|"
    r"rev-parse|rev-list|remote|ls-files|"
    r"ls-tree|ls-remote|cat-file|blame|reflog|config\s+(?:--\S+\s*)*[\w.]*\s*$|stash\s+list|describe|"
    r"merge-base|count-objects|"
    r"fsck|worktree\s+list|for-each-ref|shortlog|grep|version|--version)\b|"
    r"gh\s+(?:api\b|\w+\s+(?:view|list|status|diff|checks))|(?:do|then|else|done|fi|for\s+\w+\s+in|if)(?=\s|"
    r"$)|\w+=(?=\S*$))"
)
_CAN_SEND = re.compile(r"\b(?:gh\s+api|curl|http)\b")
_SENDING = re.compile(r"\s(?:-X\s*(?!GET)[A-Z]+|--method\s+(?!GET)[A-Z]+|-f|-F|--field|--raw-field|--input)\b")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'", re.DOTALL)

# Lines of an output that tell what went wrong. Source: usual wording of compilers, interpreters, git and tools.
_TELLING = re.compile(
    r"\b(?:error|errors|fatal|panic|exception|traceback|failed|failure|fail|denied|not found|cannot|can't|"
    r"unable|undefined|invalid|"
    r"conflict|unexpected|missing|no such|refused|timed? ?out|assert\w*|expected|mismatch|unknown|killed)\b|"
    r"\w+Error\b|E\d{3,4}\b|✗|✖|❌",
    re.IGNORECASE,
)
# Parts of these of which a line must hold one, all but the codes of compilers: they are found ten times as fast.
_TELLING_PARTS = (
    "error", "fatal", "panic", "exception", "traceback", "fail", "denied", "not found", "cannot", "can't", "unable",
    "undefined", "invalid", "conflict", "unexpected", "missing", "no such", "refused", "out", "assert", "expected",
    "mismatch", "unknown", "killed", "✗", "✖", "❌",
)  # fmt: skip
_ERROR_CODE = re.compile(r"e\d{3}")
_NOISE = re.compile(r"^\s*(?:at\s|\^|\d+\s*\||=+$|-+$|~+$|npm warn)|^\[\w+\] \$", re.IGNORECASE)

_OUTPUT_LIMIT = 400
_ERROR_LIMIT = 300


def status_of(call: ToolCall) -> tuple[str, int | None]:
    """How a shell call ended and its exit code: `status` as in Command; a code of None is not known."""
    code: int | None = None
    if call.result is None:
        status = "unfinished"
    elif call.rejected:
        status = "rejected"
    elif call.cancelled:
        status = "cancelled"
    elif call.is_error:
        stated = _EXIT_CODE.match(call.result)
        status, code = "failed", int(stated[1]) if stated else None
    elif call.outcome.get("backgroundTaskId") or call.result.startswith("Command running in background"):
        status = "background"
    elif call.outcome.get("interrupted") is True:
        status = "interrupted"
    else:
        status, code = "ok", 0
    return status, code


def is_looking(command: str) -> bool:
    """Whether a command only looks at things and changes nothing; every part of a chain must."""
    bare = re.sub(r"\d?>&\d|\d?>\s*/dev/null", "", _QUOTED.sub("''", command[:4_000]))
    if ">" in bare or (_CAN_SEND.search(bare) and _SENDING.search(bare)):
        return False
    parts = [part.strip(" ()") for part in re.split(r"&&|\|\||[;|\n]|\$\(", bare) if part.strip(" ()")]
    return bool(parts) and all(_LOOKING.match(part) or part.startswith(("cd ", "#")) for part in parts)


def telling_lines(output: str, limit: int) -> str:
    """The lines of an output that say what went wrong, in order, within `limit` characters; else its end."""
    lines, telling = read_output(output[:60_000])
    if not telling:
        return cut_middle("\n".join(lines[-4:]), limit)
    chosen: list[str] = []
    size = 0
    for line in dict.fromkeys(cut(line, max(limit // 2, 120)) for line in telling):
        if chosen and size + len(line) > limit:
            break
        chosen.append(line)
        size += len(line) + 1
    return cut("\n".join(chosen), limit)


@lru_cache(maxsize=128)  # of a failed command both what it was and what fixed it are told
def read_output(output: str) -> tuple[Sequence[str], Sequence[str]]:
    """The lines of an output, and those of them that say what went wrong."""
    text = clean(_EXIT_CODE.sub("", _TOOL_ERROR.sub("", output)))
    lines = [cut(line, 1_000) for line in map(str.strip, text.split("\n")) if line]
    return lines, _telling(lines)


def _telling(lines: Sequence[str]) -> list[str]:
    lowered = [line.lower() for line in lines]
    whole = "\n".join(lowered)
    parts = [part for part in _TELLING_PARTS if part in whole]
    has_codes = _ERROR_CODE.search(whole) is not None
    return [
        line
        for line, low in zip(lines, lowered, strict=True)
        if (any(part in low for part in parts) or (has_codes and _ERROR_CODE.search(low)))
        and _TELLING.search(line)
        and not _NOISE.match(line)
    ]


def extract_commands(calls: Sequence[ToolCall]) -> tuple[Command, ...]:
    """Every command that does more than look, at its last run, in order of the last runs."""
    latest: dict[str, Command] = {}
    for call in calls:
        command = call.argument("command")
        if call.name not in SHELL_TOOLS or not command:
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


def extract_tests(calls: Sequence[ToolCall], changes: Sequence[Change]) -> tuple[SuiteResult, ...]:
    """The last result of every distinct test command, the latest first, each with the edits made since."""
    latest: dict[str, ToolCall] = {}
    for call in calls:
        command = call.argument("command")
        if call.name not in SHELL_TOOLS or call.result is None or not command or not is_test_command(command):
            continue
        if status_of(call)[0] not in ("rejected", "cancelled", "background"):
            latest.pop(one_line(command), None)
            latest[one_line(command)] = call
    return tuple(_suite_result(call, changes) for call in reversed(latest.values()))


def _suite_result(call: ToolCall, changes: Sequence[Change]) -> SuiteResult:
    output = call.result or ""
    status, _ = status_of(call)
    counts = read_counts(clean(output))
    if status == "ok" and counts.failed:  # a pipe into tail or grep hides the exit code
        status = "failed"
    faults = telling_lines(output, _ERROR_LIMIT) if status == "failed" else ""
    return SuiteResult(
        command=clean(call.argument("command")),
        status=status,
        passed=counts.passed,
        failed=counts.failed,
        skipped=counts.skipped,
        summary=cut(counts.summary, _ERROR_LIMIT) or faults,
        edits_after=len(changed_between(changes, call.position)),
        uuid=call.result_uuid,
    )
