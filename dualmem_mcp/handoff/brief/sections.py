"""The sections of a digest in full, as `load_context` gives them, in pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.handoff.quoting import clean, defuse, fence, one_line, quoted
from dualmem_mcp.model.digest import AgentEntry, Digest, Entry

PAGE_CHARACTERS = 16_000
"""Size of a page, about 4,000 tokens: a tool result of that size is shown whole by every client."""


def _line(entry: Entry, *parts: str) -> str:
    shown = " — ".join(one_line(part) for part in parts if part.strip())
    return f"- {f'[{one_line(entry.uuid)}] ' if entry.uuid else ''}{shown}"


def _block(entry: Entry, head: str, text: str) -> str:
    prefix = f"- {f'[{one_line(entry.uuid)}] ' if entry.uuid else ''}{one_line(head)}".rstrip()
    return quoted(prefix, clean(text)) if text else prefix


def _resumption(digest: Digest) -> Iterable[str]:
    now = digest.resumption
    yield _block(now.last_request, "last request:", now.last_request.text)
    yield _block(now.last_reply, "last reply:", now.last_reply.text)
    if now.interrupted:
        yield "- the user interrupted the model"
    yield from (_block(tool, f"unfinished call {tool.name}:", tool.input) for tool in now.pending_tools)
    git = now.git
    yield _line(
        git,
        f"branch {git.branch}" if git.branch else "",
        f"last commit seen {git.last_commit}" if git.last_commit else "",
        git.status,
    )
    yield from (f"- edited after the last commit: {one_line(path)}" for path in git.uncommitted)
    yield from (_line(step, step.text) for step in now.steps)


def _notes(digest: Digest) -> Iterable[str]:
    if digest.summary:
        yield quoted("- summary:", clean(digest.summary))
    yield from (quoted("- next:", clean(text)) for text in digest.next_steps)
    yield from (quoted("- open:", clean(text)) for text in digest.open_questions)
    yield from (quoted("- decided:", clean(one.text)) for one in digest.decisions if one.origin == "model")


_KINDS = {"prompt": "", "mid-turn": "typed while the model worked", "withdrawn": "queued, then taken back"}


def _requests(digest: Digest) -> Iterable[str]:
    for one in digest.requests:
        flags = [_KINDS.get(one.kind, one.kind), "correction or rule" if one.constraint else ""]
        flags.append(f"said {one.repeats + 1} times" if one.repeats else "")
        note = ", ".join(flag for flag in flags if flag)
        text = _block(one, f"({note})" if note else "", one.text)
        text += f"\n  ↳ asked: {one_line(one.context)}" if one.context else ""
        yield text + (f"\n  → {one_line(one.outcome)}" if one.outcome else "")


def _files(digest: Digest) -> Iterable[str]:
    for one in digest.files:
        counts = ", ".join(f"{name} {count}" for name, count in one.operations.items())
        yield _line(
            one,
            one.path,
            "created" if one.created else "edited" if one.edited else "read",
            counts,
            f"last {one.last_operation}",
            one.agent,
        )


def _commands(digest: Digest) -> Iterable[str]:
    for test in digest.tests:
        counts = ", ".join(
            f"{count} {name}"
            for name, count in (("passed", test.passed), ("failed", test.failed), ("skipped", test.skipped))
            if count is not None
        )
        yield _block(
            test,
            f"test `{one_line(test.command)}` → {test.status} {counts}; {test.edits_after} files edited since",
            test.summary,
        )
    for one in digest.commands:
        ending = f"{one.status} (exit {one.exit})" if one.exit is not None else one.status
        yield _block(one, f"`{one_line(one.command)}` ×{one.runs} → {ending}", one.output)


def _errors(digest: Digest) -> Iterable[str]:
    for one in digest.errors:
        fix = f"fixed [{one_line(one.fix_uuid)}]: {one_line(one.fix)}" if one.fix else "no later success seen"
        yield _block(one, f"`{one_line(one.command)}` ×{one.count}; {fix}", one.error)


def _commits(digest: Digest) -> Iterable[str]:
    yield from (_line(one, f"pull request #{one.number}", one.title, one.url) for one in digest.pull_requests)
    yield from (_line(one, f"commit {one.hash}", one.subject, one.branch) for one in digest.commits)
    yield from (_line(one, one.action, one.subject, one.result) for one in digest.actions)


def _agent(one: AgentEntry) -> str:
    size = f"{one.message_count} messages, {one.tool_uses} tool calls, {one.context_tokens:,} tokens, {one.model}"
    text = _line(one, f"{one.id} ({one.type})", one.status, one.description, size)
    for label, part in (("asked", one.prompt), ("reported", one.result), ("last message", one.last_message)):
        if part:
            text += f"\n  {label}:\n{fence(clean(part))}"
    return text


def _tasks(digest: Digest) -> Iterable[str]:
    yield from (_block(one, f"#{one.id} {one.status}: {one.subject}", one.description) for one in digest.tasks)


def _plan(digest: Digest) -> Iterable[str]:
    if digest.plan.text or digest.plan.path:
        yield _block(digest.plan, f"plan {digest.plan.status} {digest.plan.path}", digest.plan.text)


def _decisions(digest: Digest) -> Iterable[str]:
    words = {"user": "the user chose:", "model": "noted by the model:", "extracted": "candidate:"}
    for one in digest.decisions:
        yield _block(one, f"{words.get(one.origin, one.origin)} {one.question}", one.text)


def _compaction_summary(digest: Digest) -> Iterable[str]:
    if digest.compaction_summary.text:
        yield _block(
            digest.compaction_summary,
            "Claude Code's summary at its last compaction:",
            digest.compaction_summary.text,
        )


SECTIONS: dict[str, Callable[[Digest], Iterable[str]]] = {
    "resumption": _resumption,
    "notes": _notes,
    "tasks": _tasks,
    "requests": _requests,
    "files": _files,
    "commands": _commands,
    "errors": _errors,
    "commits": _commits,
    "plan": _plan,
    "agents": lambda digest: (_agent(one) for one in digest.agents),
    "decisions": _decisions,
    "compaction_summary": _compaction_summary,
}
"""How each section is written in full; the keys are the names that `load_context` takes, in order of worth."""


def whole_section(digest: Digest, name: str) -> list[str]:
    """Every entry of a section in full. Raises NotFoundError, with the names there are."""
    if name not in SECTIONS:
        raise NotFoundError(
            f"a digest has no section {json.dumps(name[:60])}",
            operation="load context",
            subject=name[:60],
            hint=f"Use one of: {', '.join(SECTIONS)}.",
        )
    return [text for text in SECTIONS[name](digest) if text.strip("- ")]


def section_text(digest: Digest, name: str, cursor: str = "") -> tuple[str, str]:
    """One page of a section in full, and the cursor of the next page, empty at the end.

    A page holds whole entries up to 16,000 characters; a longer entry is continued on the next page.
    A cursor is `ENTRY:OFFSET`; the empty one is the beginning. Raises NotFoundError for an unknown
    section, UsageError for a cursor that this section never gave.
    """
    entries = whole_section(digest, name)
    index, offset = _position(cursor, entries, name)
    page: list[str] = []
    size = 0
    while index < len(entries):
        rest = entries[index][offset:]
        if page and size + len(rest) + 1 > PAGE_CHARACTERS:
            break
        page.append(rest[:PAGE_CHARACTERS])
        size += len(page[-1]) + 1
        if len(rest) > PAGE_CHARACTERS:
            offset += PAGE_CHARACTERS
            break
        index, offset = index + 1, 0
    return defuse("\n".join(page)), f"{index}:{offset}" if index < len(entries) else ""


def _position(cursor: str, entries: list[str], name: str) -> tuple[int, int]:
    if not cursor or cursor == "0":
        return 0, 0
    index, _, offset = cursor.partition(":")
    if index.isdecimal() and offset.isdecimal() and len(cursor) < 20:
        at, start = int(index), int(offset)
        if at < len(entries) and start <= len(entries[at]):
            return at, start
    raise UsageError(
        f"{cursor[:40]!r} is no cursor of section {name}",
        operation="load context",
        subject=name,
        hint="Pass the next_cursor of the page before, or none to begin.",
    )
