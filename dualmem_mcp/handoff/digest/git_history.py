"""What left the conversation for the outside: commits, pull requests, and changes made in other systems."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dualmem_mcp.handoff.digest.commands import is_looking
from dualmem_mcp.handoff.digest.files import Change, changed_between, restores_all
from dualmem_mcp.handoff.digest.requests import said_by_user
from dualmem_mcp.handoff.digest.tool_calls import ToolCall
from dualmem_mcp.handoff.quoting import clean, cut, one_line
from dualmem_mcp.model.conversation import PullRequest, Turn
from dualmem_mcp.model.digest import Commit, ExternalAction, GitState, PullRequestEntry

# `[main 1a2b3c4] subject`, as commit, merge, cherry-pick and revert print it. Source: git, builtin/commit.c.
_COMMIT_LINE = re.compile(
    r"^\[(?P<branch>[^\]\s]+|detached HEAD)(?: \(root-commit\))? (?P<hash>[0-9a-f]{7,40})\] (?P<subject>.+)$",
    re.MULTILINE,
)
# Atomic: the first `git` of a line is enough, and trying each of very many would take the square of their number.
_COMMITTING = re.compile(
    r"^(?>[^\n]*?\bgit\b)[^\n]*\b(?:commit|merge|cherry-pick|revert|rebase|am|pull)\b|\bgt\b|\bjj\b", re.MULTILINE
)
_PUSHED = re.compile(
    r"^\s*(?:[0-9a-f]{7,40}\.\.\.?[0-9a-f]{7,40}|\*\s+\[new (?:branch|"
    r"tag)\])\s+(?P<from>\S+)\s+->\s+(?P<to>\S+)(?P<rest>.*)$",
    re.MULTILINE,
)
_PUSH_FAILED = re.compile(
    r"^\s*! \[(?:remote )?rejected\]\s+(?P<from>\S+)\s+->\s+(?P<to>\S+)(?P<rest>.*)$", re.MULTILINE
)
_PULL_REQUEST_URL = re.compile(
    r"https?://[\w.-]+/(?P<repository>[\w.-]+/[\w.-]+)/(?:pull|-/merge_requests|"
    r"merge_requests)/(?P<number>\d+)(?![\d#/])"
)
_CREATES_PULL_REQUEST = re.compile(r"\bgh\s+pr\s+create\b|\bglab\s+mr\s+create\b|\bhub\s+pull-request\b")
_TITLE = re.compile(r"--title[= ]+(?:\"((?:[^\"\\]|\\.)*)\"|'([^']*)'|(\S+))")
_STATUS = re.compile(r"(?:^|[;&|]\s*)git\s+(?:-C\s+\S+\s+)?status\b")

# Commands of forges and the like that change something there. Source: manuals of gh and glab.
_FORGE_CHANGE = re.compile(
    r"\b(?:gh|glab)\s+(?P<what>pr|mr|issue|release|repo|label|workflow|run|gist)\s+(?P<verb>create|comment|"
    r"note|close|reopen|merge|ready|edit|update|review|"
    r"delete|approve|rerun|dispatch|upload)\b(?P<rest>[^\n]*)"
)
_FORGE_API = re.compile(
    r"\bgh\s+api\s+(?P<path>[^\s\\]+)(?=.*?(?:-X\s*(?:POST|PUT|PATCH|DELETE)|--method\s+(?:POST|PUT|PATCH|DELETE)|\s-f\s|\s-F\s|--field))",
    re.DOTALL,
)
_BODY = re.compile(
    r"(?:--body|-b|-f\s+body=|body=)[= ]*(?:\"\$\(cat <<'?\w+'?\n(?P<doc>.*?)\n\w+\n\)\"|"
    r"[\"'](?P<text>(?:[^\"\\]|\\.)*)[\"'])",
    re.DOTALL,
)
_COMMAND_LIMIT = 20_000
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CHANGING_VERB = re.compile(
    r"(?:^|_|-)(?:create|update|add|delete|remove|edit|set|send|post|reply|comment|close|merge|move|assign|"
    r"archive|publish|upload|write|insert|schedule)"
    r"(?:_|-|$|[A-Z])",
)
_OWN_TOOLS = re.compile(r"memory|dualmem", re.IGNORECASE)
_NAMES = ("identifier", "key", "number", "name", "title", "id")
_TELLING_INPUTS = (
    "title",
    "name",
    "subject",
    "id",
    "issue",
    "issueId",
    "state",
    "status",
    "channel",
    "to",
    "path",
    "body",
    "text",
    "message",
)


def extract_commits(calls: Sequence[ToolCall]) -> tuple[Commit, ...]:
    """Commits in the order in which git reported them, each once; also where a later part of the command failed."""
    found: dict[str, Commit] = {}
    for call in calls:
        if call.result is None or call.name != "Bash" or not _COMMITTING.search(call.argument("command")):
            continue
        for match in _COMMIT_LINE.finditer(clean(call.result)):
            found.setdefault(
                match["hash"],
                Commit(
                    hash=match["hash"],
                    subject=one_line(match["subject"]),
                    branch="" if match["branch"] == "detached HEAD" else match["branch"],
                    uuid=call.result_uuid,
                ),
            )
    return tuple(found.values())


def extract_pull_requests(calls: Sequence[ToolCall], linked: Sequence[PullRequest]) -> tuple[PullRequestEntry, ...]:
    """Pull requests that the session made, and those that the client linked to it."""
    found: dict[str, PullRequestEntry] = {}
    for call in calls:
        command = call.argument("command")
        if call.name != "Bash" or not call.result or not _CREATES_PULL_REQUEST.search(command):
            continue
        match = _PULL_REQUEST_URL.search(call.result)
        if match:
            title = _TITLE.search(command)
            found[match[0]] = PullRequestEntry(
                number=int(match["number"]),
                url=match[0],
                repository=match["repository"],
                title=one_line(next((one for one in title.groups() if one), "")) if title else "",
                uuid=call.result_uuid,
            )
    for one in linked:
        if one.url not in found:
            found[one.url] = PullRequestEntry(
                number=one.number, url=one_line(one.url), repository=one_line(one.repository)
            )
    return tuple(found.values())


def extract_actions(calls: Sequence[ToolCall]) -> tuple[ExternalAction, ...]:
    """Changes outside the working folder that were carried out: by MCP tools named for a change, by `gh` and
    `glab`, and pushes; the last push of each branch only."""
    found: list[ExternalAction] = []
    pushes: dict[str, ExternalAction] = {}
    for call in calls:
        if call.result is None or call.rejected or call.cancelled:
            continue
        if call.name.startswith("mcp__"):
            if (
                call.done
                and _CHANGING_VERB.search(call.name.rsplit("__", 1)[-1])
                and not _OWN_TOOLS.search(call.name)
            ):
                found.append(_tool_action(call))
        elif call.name == "Bash":
            found.extend(_forge_actions(call))
            pushes.update(_pushes(call))
    return (*found, *pushes.values())


def _tool_action(call: ToolCall) -> ExternalAction:
    parts = call.name.split("__")
    telling = [
        f"{name}: {cut(one_line(str(call.input[name])), 100)}"
        for name in _TELLING_INPUTS
        if isinstance(call.input.get(name), (str, int)) and call.input.get(name)
    ]
    return ExternalAction(
        action=f"{parts[1]} {parts[-1]}" if len(parts) > 2 else call.name,
        subject="; ".join(telling[:3]),
        result=_named_result(call.result or ""),
        uuid=call.result_uuid,
    )


def _named_result(result: str) -> str:
    """The identifier that a JSON result states and its address, else the first line of the text."""
    try:
        data: Any = json.loads(result)
    except (ValueError, RecursionError):
        return cut(one_line(result[:400]), 120)
    if isinstance(data, Mapping):
        name = next((str(data[key]) for key in _NAMES if isinstance(data.get(key), (str, int))), "")
        url = data.get("url")
        return cut(one_line(f"{name} {url if isinstance(url, str) else ''}"), 160)
    return ""


def _forge_actions(call: ToolCall) -> list[ExternalAction]:
    command = call.argument("command")[:_COMMAND_LIMIT]
    if "gh " not in command and "glab " not in command:
        return []
    body = _BODY.search(command)
    text = _COMMENT.sub("", body["doc"] or body["text"] or "") if body else ""
    said = one_line(text.replace('\\"', '"').replace("\\`", "`"))
    result = "" if call.done else "failed"
    found = []
    for match in _FORGE_CHANGE.finditer(command):
        target = re.match(r"\s+(?!-)(\S+)", match["rest"])
        title = _TITLE.search(match["rest"])
        heading = next((one for one in title.groups() if one), "") if title else ""
        speaks = match["verb"] in ("create", "comment", "note", "edit", "update", "review")
        found.append(
            ExternalAction(
                action=f"{match['what']} {match['verb']}" + (f" {one_line(target[1])}" if target else ""),
                subject=cut(one_line(heading) or (said if speaks else ""), 200),
                result=result,
                uuid=call.result_uuid,
            )
        )
    for match in _FORGE_API.finditer(command):
        if not found:
            found.append(
                ExternalAction(
                    action=_api_action(match["path"]),
                    subject=cut(said, 200),
                    result=result,
                    uuid=call.result_uuid,
                )
            )
    return found


_REPLY_PATH = re.compile(
    r"repos/[^/]+/[^/]+/(?P<kind>pulls|issues)/(?P<number>\d+)/(?:comments|reviews)(?:/\d+/replies)?"
)


def _api_action(path: str) -> str:
    reply = _REPLY_PATH.search(path)
    if reply:
        return f"comment on {'pull request' if reply['kind'] == 'pulls' else 'issue'} {reply['number']}"
    return f"gh api {one_line(path)}"


def _pushes(call: ToolCall) -> dict[str, ExternalAction]:
    if "push" not in call.argument("command") or call.result is None:
        return {}
    found: dict[str, ExternalAction] = {}
    output = clean(call.result)
    for match in _PUSHED.finditer(output):
        found[match["to"]] = ExternalAction(
            action="git push", subject=match["to"], result="pushed", uuid=call.result_uuid
        )
    for match in _PUSH_FAILED.finditer(output):
        reason = one_line(match["rest"]).strip("()")
        found[match["to"]] = ExternalAction(
            action="git push", subject=match["to"], result=f"rejected: {reason}", uuid=call.result_uuid
        )
    return found


def git_state(
    turns: Sequence[Turn],
    calls: Sequence[ToolCall],
    *,
    commits: Sequence[Commit],
    changes: Sequence[Change],
    branch: str,
) -> GitState:
    """The branch at the end, the last commit, files edited since, and what `git status` said if nothing followed.

    Files are only called uncommitted where the session shows a commit at all, and not if they were restored. A
    status counts as long as the user has not asked twice since then, for what the user does meanwhile does not
    show.
    """
    seen = next((turn for turn in reversed(turns) if turn.git_branch), None)
    last = commits[-1] if commits else None
    commit_position = max((call.position for call in calls if last and call.result_uuid == last.uuid), default=-1)
    reset_position = max(
        (call.position for call in calls if call.done and restores_all(call.argument("command"))), default=-1
    )
    uncommitted = changed_between(changes, max(commit_position, reset_position)) if last else []
    status = ""
    looks = (call for call in reversed(calls) if call.done and _STATUS.search(call.argument("command")))
    look = next(looks, None)
    if look is not None and look.position > commit_position and is_looking(look.argument("command")):
        asked_since = sum(bool(said_by_user(turn)) for turn in turns[look.position :])
        if asked_since < 2 and not changed_between(changes, look.position):
            status = cut(one_line(look.result or ""), 200)
    return GitState(
        branch=one_line(seen.git_branch if seen else branch),
        last_commit=f"{last.hash} {last.subject}" if last else "",
        status=status,
        uncommitted=tuple(
            change.path for change in uncommitted if not change.undone and not change.path.startswith("/")
        ),
        uuid=seen.uuid if seen else "",
    )
