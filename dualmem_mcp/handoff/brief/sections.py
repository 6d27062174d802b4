"""The sections of a digest in full, as `load_context` gives them, in pages; what of them a brief has not."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.handoff.quoting import clean, defuse, fence, one_line, quoted
from dualmem_mcp.model.digest import AgentEntry, Digest, Entry

PAGE_CHARACTERS = 16_000
"""Size of a page, about 4,000 tokens: a tool result of that size is shown whole by every client."""

MOST_SPANS: Final = 60
"""Spans of entries that a cursor names; a section with more gaps is given from its first gap to its end."""


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a section: its text in full, the words of the conversation that it is made of, and its place in
    the digest (list and index) where a brief's lines name that."""

    text: str
    parts: tuple[str, ...] = ()
    place: tuple[str, int] | None = None


def _line(entry: Entry, *parts: str) -> str:
    shown = " — ".join(one_line(part) for part in parts if part.strip())
    return f"- {f'[{one_line(entry.uuid)}] ' if entry.uuid else ''}{shown}"


def _block(entry: Entry, head: str, text: str) -> str:
    prefix = f"- {f'[{one_line(entry.uuid)}] ' if entry.uuid else ''}{one_line(head)}".rstrip()
    return quoted(prefix, clean(text)) if text else prefix


def _resumption(digest: Digest) -> Iterable[Item]:
    now = digest.resumption
    yield Item(_block(now.last_request, "last request:", now.last_request.text), (now.last_request.text,))
    yield Item(
        _block(now.last_reply, "last reply:", now.last_reply.text), (now.last_reply.text,), ("last_reply", 0)
    )
    if now.interrupted:
        yield Item("- the user interrupted the model", ("**Interrupted** by the user",))
    for index, tool in enumerate(now.pending_tools):
        text = _block(tool, f"unfinished call {tool.name}:", tool.input)
        yield Item(text, (tool.name, tool.input), ("pending_tools", index))
    git = now.git
    text = _line(
        git,
        f"branch {git.branch}" if git.branch else "",
        f"last commit seen {git.last_commit}" if git.last_commit else "",
        git.status,
    )
    yield Item(text, (git.branch, git.last_commit, git.status), ("git", 0))
    for path in git.uncommitted:
        yield Item(f"- edited after the last commit: {one_line(path)}", (path,), ("git", 0))
    for index, step in enumerate(now.steps):
        yield Item(_line(step, step.text), (step.text,), ("steps", index))


def _notes(digest: Digest) -> Iterable[Item]:
    if digest.summary:
        yield Item(quoted("- summary:", clean(digest.summary)), (digest.summary,), ("notes", 0))
    decided = [one.text for one in digest.decisions if one.origin == "model"]
    kinds = (("next", digest.next_steps), ("open", digest.open_questions), ("decided", decided))
    for kind, (label, texts) in enumerate(kinds, start=1):
        for index, text in enumerate(texts):
            yield Item(quoted(f"- {label}:", clean(text)), (text,), ("notes", kind * 10_000 + index))


_KINDS = {"prompt": "", "mid-turn": "typed while the model worked", "withdrawn": "queued, then taken back"}


def _requests(digest: Digest) -> Iterable[Item]:
    last = digest.resumption.last_request
    for index, one in enumerate(digest.requests):
        flags = [_KINDS.get(one.kind, one.kind), "correction or rule" if one.constraint else ""]
        flags.append(f"said {one.repeats + 1} times" if one.repeats else "")
        note = ", ".join(flag for flag in flags if flag)
        text = _block(one, f"({note})" if note else "", one.text)
        text += f"\n  ↳ asked: {one_line(one.context)}" if one.context else ""
        text += f"\n  → {one_line(one.outcome)}" if one.outcome else ""
        # The last one stands at the head of a brief, without a place of its own.
        place = None if (one.text, one.uuid) == (last.text, last.uuid) else ("requests", index)
        yield Item(text, (one.text, one.context, one.outcome), place)


def _files(digest: Digest) -> Iterable[Item]:
    for index, one in enumerate(digest.files):
        counts = ", ".join(f"{name} {count}" for name, count in one.operations.items())
        text = _line(
            one,
            one.path,
            "created" if one.created else "edited" if one.edited else "read",
            counts,
            f"last {one.last_operation}",
            one.agent,
        )
        # A terse brief names a folder once, for all its files.
        yield Item(text, posixpath.split(one.path), ("files", index))


def _commands(digest: Digest) -> Iterable[Item]:
    for index, test in enumerate(digest.tests):
        counts = ", ".join(
            f"{count} {name}"
            for name, count in (("passed", test.passed), ("failed", test.failed), ("skipped", test.skipped))
            if count is not None
        )
        head = f"test `{one_line(test.command)}` → {test.status} {counts}; {test.edits_after} files edited since"
        yield Item(_block(test, head, test.summary), (test.command, counts, test.summary), ("tests", index))
    for index, one in enumerate(digest.commands):
        ending = f"{one.status} (exit {one.exit})" if one.exit is not None else one.status
        text = _block(one, f"`{one_line(one.command)}` ×{one.runs} → {ending}", one.output)
        yield Item(text, (one.command, one.output), ("commands", index))


def _errors(digest: Digest) -> Iterable[Item]:
    for index, one in enumerate(digest.errors):
        fix = f"fixed [{one_line(one.fix_uuid)}]: {one_line(one.fix)}" if one.fix else "no later success seen"
        text = _block(one, f"`{one_line(one.command)}` ×{one.count}; {fix}", one.error)
        yield Item(text, (one.command, one.error, one.fix), ("errors", index))


def _commits(digest: Digest) -> Iterable[Item]:
    for index, request in enumerate(digest.pull_requests):
        text = _line(request, f"pull request #{request.number}", request.title, request.url)
        yield Item(text, (request.title, request.url), ("pull_requests", index))
    for index, commit in enumerate(digest.commits):
        text = _line(commit, f"commit {commit.hash}", commit.subject, commit.branch)
        yield Item(text, (commit.hash[:9], commit.subject), ("commits", index))
    for index, action in enumerate(digest.actions):
        text = _line(action, action.action, action.subject, action.result)
        yield Item(text, (action.action, action.subject, action.result), ("actions", index))


def _agents(digest: Digest) -> Iterable[Item]:
    for index, one in enumerate(digest.agents):
        parts = (one.description, one.prompt, one.result, one.last_message)
        yield Item(_agent(one), parts, ("agents", index))


def _agent(one: AgentEntry) -> str:
    size = f"{one.message_count} messages, {one.tool_uses} tool calls, {one.context_tokens:,} tokens, {one.model}"
    text = _line(one, f"{one.id} ({one.type})", one.status, one.description, size)
    for label, part in (("asked", one.prompt), ("reported", one.result), ("last message", one.last_message)):
        if part:
            text += f"\n  {label}:\n{fence(clean(part))}"
    return text


def _tasks(digest: Digest) -> Iterable[Item]:
    for index, one in enumerate(digest.tasks):
        text = _block(one, f"#{one.id} {one.status}: {one.subject}", one.description)
        yield Item(text, (one.subject, one.description), ("tasks", index))


def _plan(digest: Digest) -> Iterable[Item]:
    plan = digest.plan
    if plan.text or plan.path:
        yield Item(_block(plan, f"plan {plan.status} {plan.path}", plan.text), (plan.text,), ("plan", 0))


def _decisions(digest: Digest) -> Iterable[Item]:
    words = {"user": "the user chose:", "model": "noted by the model:", "extracted": "candidate:"}
    noted = 0
    for index, one in enumerate(digest.decisions):
        text = _block(one, f"{words.get(one.origin, one.origin)} {one.question}", one.text)
        if one.origin == "model":  # the notes show it
            yield Item(text, (one.text,), ("notes", 30_000 + noted))
            noted += 1
            continue
        yield Item(text, (one.question, one.text), ("decisions", index))


def _compaction_summary(digest: Digest) -> Iterable[Item]:
    summary = digest.compaction_summary
    if summary.text:
        text = _block(summary, "Claude Code's summary at its last compaction:", summary.text)
        yield Item(text, (summary.text,))


SECTIONS: dict[str, Callable[[Digest], Iterable[Item]]] = {
    "resumption": _resumption,
    "notes": _notes,
    "tasks": _tasks,
    "requests": _requests,
    "files": _files,
    "commands": _commands,
    "errors": _errors,
    "commits": _commits,
    "plan": _plan,
    "agents": _agents,
    "decisions": _decisions,
    "compaction_summary": _compaction_summary,
}
"""How each section is written in full; the keys are the names that `load_context` takes, in order of worth."""


def section_items(digest: Digest, name: str) -> list[Item]:
    """Every entry of a section. Raises NotFoundError, with the names there are."""
    if name not in SECTIONS:
        raise NotFoundError(
            f"a digest has no section {json.dumps(name[:60])}",
            operation="load context",
            subject=name[:60],
            hint=f"Use one of: {', '.join(SECTIONS)}.",
        )
    return [item for item in SECTIONS[name](digest) if item.text.strip("- ")]


def whole_section(digest: Digest, name: str) -> list[str]:
    """Every entry of a section in full. Raises NotFoundError, with the names there are."""
    return [item.text for item in section_items(digest, name)]


def left_out(items: Sequence[Item], brief: str, shown: Container[tuple[str, int]]) -> list[int]:
    """The entries of which a brief has not every word; `brief` is its `flat` text, `shown` the places it names."""
    return [
        index
        for index, item in enumerate(items)
        if (item.place is not None and item.place not in shown)
        or not all(flat(part) in brief for part in item.parts)
    ]


def flat(text: str) -> str:
    """The text as it is compared with what a brief shows: on one line, without tags of the client's own."""
    return " ".join(defuse(clean(text)).split())


def section_text(digest: Digest, name: str, cursor: str = "") -> tuple[str, str]:
    """One page of a section in full, and the cursor of the next page, empty at the end.

    Raises NotFoundError for an unknown section, and as `entries_page`.
    """
    return entries_page(whole_section(digest, name), cursor, name)


def entries_page(entries: Sequence[str], cursor: str, name: str) -> tuple[str, str]:
    """One page of those of a section's entries that the cursor names, and the cursor of the next, empty at the end.

    A page holds whole entries up to 16,000 characters; a longer entry is continued on the next page.
    A cursor is `ENTRY:OFFSET`, for that entry and all after it, or `SPANS:OFFSET` with spans `FIRST-LAST` of
    entries joined by `.`, the last of which may be open (`FIRST-`); OFFSET is that in the first entry. The empty
    cursor is the beginning. Raises UsageError for a cursor that this section never gave.
    """
    wanted, offset = _wanted(cursor, entries, name)
    page: list[str] = []
    size = done = 0
    for index in wanted:
        rest = entries[index][offset:]
        if page and size + len(rest) + 1 > PAGE_CHARACTERS:
            break
        page.append(rest[:PAGE_CHARACTERS])
        size += len(page[-1]) + 1
        if len(rest) > PAGE_CHARACTERS:
            offset += PAGE_CHARACTERS
            break
        done, offset = done + 1, 0
    return defuse("\n".join(page)), cursor_of(wanted[done:], len(entries), offset)


def cursor_of(wanted: Sequence[int], count: int, offset: int = 0) -> str:
    """The cursor that gives these of a section's `count` entries, from that offset in the first; empty for none."""
    if not wanted:
        return ""
    spans: list[tuple[int, int]] = []
    for index in wanted:
        if spans and spans[-1][1] == index - 1:
            spans[-1] = (spans[-1][0], index)
        else:
            spans.append((index, index))
    first = wanted[0]
    if len(spans) > MOST_SPANS or (len(spans) == 1 and spans[0][1] == count - 1):
        return f"{first}:{offset}" if first or offset else "0"
    named = [f"{start}-" if end == count - 1 else f"{start}-{end}" for start, end in spans]
    return f"{'.'.join(named)}:{offset}"


_CURSOR: Final = re.compile(
    r"(?P<spans>[0-9]{1,6}(?:-[0-9]{0,6}(?:\.[0-9]{1,6}-[0-9]{0,6})*)?):(?P<offset>[0-9]{1,9})"
)
_LONGEST_CURSOR: Final = 1_000


def _wanted(cursor: str, entries: Sequence[str], name: str) -> tuple[list[int], int]:
    """The entries that a cursor names, and the offset in the first."""
    count = len(entries)
    if not cursor or cursor == "0":
        return list(range(count)), 0
    match = _CURSOR.fullmatch(cursor) if len(cursor) <= _LONGEST_CURSOR else None
    if match is not None:
        wanted: list[int] = []
        for span in match["spans"].split("."):
            start, _, end = span.partition("-")
            last = int(end) if end else count - 1
            if not (wanted[-1] if wanted else -1) < int(start) <= last < count:
                break
            wanted += range(int(start), last + 1)
        else:
            offset = int(match["offset"])
            if offset <= len(entries[wanted[0]]):
                return wanted, offset
    raise UsageError(
        f"{cursor[:40]!r} is no cursor of section {name}",
        operation="load context",
        subject=name,
        hint="Pass the next_cursor of the page before, or none to begin.",
    )
