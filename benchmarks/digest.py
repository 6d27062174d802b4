"""What the brief of a session keeps in how many tokens, measured on every session of a Claude Code folder.

    python benchmarks/digest.py [--claude-dir DIR] [--budget N ...] [--print ID]

Takes `$CLAUDE_CONFIG_DIR`, `~/.claude` or DIR. For each session, at its natural budget and at each N:

- tokens of the brief, and the reduction against the whole conversation, for those of at least 20,000 tokens;
- `last`: the last request stands in the brief verbatim; `branch`: so does the git branch;
- `files`, `agents`, `tasks`: how many of the edited files (folder and name), agents (description and status) and
  tasks of the final list (first 30 characters of the subject) stand in it;
- `requests`: share of the user's requests held, where a request is held if its text, or of a longer one the first
  `cap` characters, stands in the brief (white space compared as single spaces); `cap` is the largest at which 95 %
  are held (the claim: 200 or more); `full` the share held verbatim to the last character.

What there is to hold is read here from the raw records, by rules of its own and not by the digest's: so the
two can disagree. Prompts that the user took back (rewound) are not counted. Times are the best of three.
Lines marked ! miss a claim. Exit status 1 if any does at the natural budget.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dualmem_mcp.handoff.brief import Brief, build_brief, natural_budget
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.handoff.redact import redact
from dualmem_mcp.model.conversation import Session
from dualmem_mcp.transcripts.claude_code import ClaudeCode, read_session

WRAPPED = re.compile(
    r"<(system-reminder|ide_\w+|local-command-\w+|bash-\w+|task-notification|command-message|command-contents)\b.*?(</\1>|\Z)",
    re.DOTALL,
)
CLIENT_COMMANDS = {
    "/exit",
    "/plugin",
    "/compact",
    "/clear",
    "/model",
    "/mcp",
    "/config",
    "/cost",
    "/help",
    "/resume",
}
REFUSED = re.compile(r"the user said:\n(.*?)(?:\n\nNote: The user's next message.*)?\Z", re.DOTALL)

LEAST_CAP = 200
"""Characters up to which 95 % of the requests must be held at the natural budget."""


@dataclass
class Truth:
    """What a session holds, as its raw records say."""

    requests: list[str] = field(default_factory=list)
    last: str = ""
    files: set[str] = field(default_factory=set)
    agents: list[str] = field(default_factory=list)
    tasks: dict[str, str] = field(default_factory=dict)
    branch: str = ""


def records_of(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def blocks_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    message = record.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def text_of(block: dict[str, Any]) -> str:
    content = block.get("content")
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def request_of(record: dict[str, Any]) -> str:
    """What the user said in a record: without the client's wrappers; a slash command as it was typed."""
    text = "\n\n".join(block.get("text", "") for block in blocks_of(record) if block.get("type") == "text").strip()
    if text.startswith(("<task-notification>", "Caveat: The messages below")) or "[Request interrupted" in text:
        return ""
    command = re.search(r"<command-name>\s*/?(.*?)\s*</command-name>", text, re.DOTALL)
    if command:
        given = re.search(r"<command-args>\s*(.*?)\s*</command-args>", text, re.DOTALL)
        typed = f"/{command[1]} {given[1] if given else ''}".strip()
        return "" if typed.split()[0] in CLIENT_COMMANDS else typed
    return WRAPPED.sub("", text).strip()


def truth_of(session: Session) -> Truth:
    """Requests, files, agents, tasks and branch of a session from its files."""
    truth = Truth()
    in_thread = {turn.uuid for turn in session.all_turns()}
    for file in session.files:
        if file.name.endswith(".jsonl"):
            read_records(records_of(Path(file.path)), truth, in_thread, main=file is session.files[0])
    records = records_of(Path(session.files[0].path)) if session.files else []
    rewound = {request_of(one) for one in records if one.get("type") == "user" and one.get("uuid") not in in_thread}
    truth.requests = list(dict.fromkeys(text for text in truth.requests if text and text not in rewound))
    return truth


def read_records(records: list[dict[str, Any]], truth: Truth, in_thread: set[str], *, main: bool) -> None:
    failed = {
        block.get("tool_use_id")
        for record in records
        for block in blocks_of(record)
        if block.get("type") == "tool_result" and block.get("is_error")
    }
    for record in records:
        in_main = main and not record.get("isSidechain") and record.get("uuid") in in_thread
        if in_main and record.get("gitBranch"):
            truth.branch = record["gitBranch"]
        if record.get("type") == "user" and in_main:
            read_user(record, truth)
        elif record.get("type") == "queue-operation" and record.get("operation") == "enqueue":
            prompt = str(record.get("content") or "")
            if not prompt.startswith("<") and not prompt.startswith("/"):
                truth.requests.append(prompt)
        for block in blocks_of(record):
            if block.get("type") == "tool_use" and block.get("id") not in failed:
                read_call(block, truth, in_main=in_main)


def read_user(record: dict[str, Any], truth: Truth) -> None:
    if record.get("isMeta") or record.get("isCompactSummary"):
        return
    results = [block for block in blocks_of(record) if block.get("type") == "tool_result"]
    for block in results:
        said = REFUSED.search(text_of(block)) if block.get("is_error") else None
        if said:
            truth.requests.append(said[1].strip())
            truth.last = said[1].strip()
    said_now = "" if results else request_of(record)
    truth.requests.append(said_now)
    truth.last = said_now or truth.last


def read_call(block: dict[str, Any], truth: Truth, *, in_main: bool) -> None:
    name, given = block.get("name"), block.get("input")
    if not isinstance(given, dict):
        return
    if name in ("Edit", "Write", "MultiEdit", "NotebookEdit"):
        truth.files.add(str(given.get("file_path") or given.get("notebook_path")))
    elif not in_main:
        return
    elif name in ("Task", "Agent"):
        truth.agents.append(str(given.get("description") or ""))
    elif name == "TodoWrite":
        truth.tasks = {str(at): todo.get("content", "") for at, todo in enumerate(given.get("todos", []))}
    elif name == "TaskCreate":
        truth.tasks[str(len(truth.tasks) + 1)] = str(given.get("subject") or "")


def plain(text: str) -> str:
    return " ".join(text.replace("\x1b", "").split())


def share_held(requests: list[str], brief: str, cap: int) -> float:
    """Share of requests whose text, or its first `cap` characters, stands in the brief."""
    if not requests:
        return 1.0
    held = sum(plain(request)[:cap].rstrip() in brief for request in requests)
    return held / len(requests)


def largest_cap(requests: list[str], brief: str) -> int:
    """The largest number of characters at which 95 % of the requests are held; 0 if there is none."""
    low, high = 0, 20_000
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if share_held(requests, brief, middle) >= 0.95 else (low, middle - 1)
    return low


def file_held(path: str, cwd: str, brief: str) -> bool:
    shown = path.removeprefix(cwd.rstrip("/") + "/")
    folder, _, name = shown.rpartition("/")
    return shown in brief or any(f"{folder}/ " in line and name in line for line in brief.split("\n"))


def measure(session: Session, truth: Truth, brief: Brief) -> tuple[str, list[str]]:
    """One row of the table, and the claims that the brief misses."""
    flat, missed = plain(brief.text), []
    large = session.visible_tokens >= 20_000
    reduction = 1 - brief.tokens / session.visible_tokens if large else 0.0
    if large and reduction < 0.95:
        missed.append("reduction")
    requests = [redact(text) for text in truth.requests]
    last = plain(redact(truth.last))
    checks = {
        "last": (int(last in flat), 1),
        "branch": (int(truth.branch in flat), 1),
        "files": (sum(file_held(path, session.cwd, brief.text) for path in truth.files), len(truth.files)),
        "agents": (sum(plain(one)[:60] in flat for one in truth.agents), len(truth.agents)),
        "tasks": (sum(plain(one)[:30] in flat for one in truth.tasks.values()), len(truth.tasks)),
    }
    missed += [name for name, (held, total) in checks.items() if held < total]
    cap = largest_cap(requests, flat)
    if cap < LEAST_CAP and requests:
        missed.append("requests")
    full = share_held(requests, flat, 10**6)
    held = " ".join(f"{name} {one}/{total}" for name, (one, total) in checks.items())
    limit = "all" if cap >= 20_000 else str(cap)
    row = (
        f"{brief.tokens:>6} {f'{reduction:6.1%}' if large else '     –'}  {held}  "
        f"requests {len(requests)}: cap {limit}, full {full:.0%}"
    )
    return row, missed


def seconds_of(session: Session) -> float:
    """How long the digest and the brief at its natural budget take."""
    started = time.perf_counter()
    digest = build_digest(session)
    build_brief(digest, token_budget=natural_budget(digest))
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--claude-dir", type=Path, default=Path(os.environ.get("CLAUDE_CONFIG_DIR", Path.home() / ".claude"))
    )
    parser.add_argument("--budget", type=int, action="append", default=[])
    parser.add_argument("--print", dest="printed", help="Print the briefs of the session whose id begins so.")
    arguments = parser.parse_args()
    claims_missed = 0
    print("session  budget     tokens    less  what the brief holds")
    for entry in ClaudeCode(arguments.claude_dir).sessions():
        session = read_session(entry.path)
        truth = truth_of(session)
        digest = build_digest(session)
        elapsed = min(seconds_of(session) for _ in range(3))
        print(
            f"{session.conversation_id[:8]} {entry.size_bytes / 1e6:.2f} MB, {session.visible_tokens:,} tokens, "
            f"{session.active_tokens:,} active; digest and brief in {elapsed * 1000:.0f} ms"
        )
        for budget in (natural_budget(digest), *arguments.budget):
            brief = build_brief(digest, token_budget=budget)
            row, missed = measure(session, truth, brief)
            natural = budget == natural_budget(digest)
            claims_missed += bool(missed) and natural and session.visible_tokens >= 20_000
            note = f"  ! {', '.join(missed)}" if missed and (natural or brief.tokens > budget) else ""
            print(f"  {'natural' if natural else budget!s:>7} {row}{note}")
            if arguments.printed and session.conversation_id.startswith(arguments.printed):
                print(brief.text)
    return 1 if claims_missed else 0


if __name__ == "__main__":
    sys.exit(main())
