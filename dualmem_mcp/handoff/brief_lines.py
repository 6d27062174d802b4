"""The lines of a brief, section by section, at a chosen level of detail; which of them fit is decided elsewhere."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from dualmem_mcp.handoff.agents import outcome_of
from dualmem_mcp.handoff.cues import is_constraint, sentences
from dualmem_mcp.handoff.decisions import lead_of
from dualmem_mcp.handoff.quoting import cut, cut_middle, fence, one_line, quoted, relative_path, short_id
from dualmem_mcp.model.digest import (
    AgentEntry,
    Command,
    Decision,
    Digest,
    ErrorEntry,
    FileEntry,
    Quote,
    Request,
    TaskEntry,
    TestResult,
)


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of each entry is shown, in characters; `terse` groups files and tasks and drops context."""

    request: int
    reply: int
    outcome: int
    terse: bool
    id_length: int


# From the richest to the barest; a brief takes the first whose indispensable lines fit.
LEVELS: tuple[Detail, ...] = (
    Detail(request=4_000, reply=4_000, outcome=700, terse=False, id_length=8),
    Detail(request=2_000, reply=3_000, outcome=500, terse=False, id_length=8),
    Detail(request=1_200, reply=2_000, outcome=400, terse=False, id_length=8),
    Detail(request=800, reply=1_600, outcome=300, terse=False, id_length=8),
    Detail(request=500, reply=1_200, outcome=240, terse=False, id_length=8),
    Detail(request=320, reply=900, outcome=200, terse=False, id_length=8),
    Detail(request=220, reply=700, outcome=160, terse=False, id_length=8),
    Detail(request=160, reply=500, outcome=120, terse=True, id_length=4),
    Detail(request=110, reply=360, outcome=80, terse=True, id_length=4),
    Detail(request=80, reply=240, outcome=60, terse=True, id_length=4),
    Detail(request=60, reply=160, outcome=0, terse=True, id_length=4),
    Detail(request=44, reply=100, outcome=0, terse=True, id_length=4),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One item of a section, possibly of several lines of text; `order` places it within its section.

    `entries` names what it shows of the digest (list and index), so that what was left out can be counted;
    `whole` says whether it shows that in full.
    """

    section: str
    order: tuple[int, ...]
    text: str
    entries: tuple[tuple[str, int], ...] = ()
    whole: bool = True


class Lines:
    """The lines of one digest at one level of detail."""

    def __init__(self, digest: Digest, detail: Detail) -> None:
        self.digest = digest
        self.detail = detail
        self._ids = _unique_ids(digest, detail.id_length)

    def mark(self, uuid: str, flag: str = "") -> str:
        """`[1a2b3c4d]`, the turn that a line comes from; the flag alone where there is none."""
        name = self._ids.get(uuid) or short_id(uuid)
        return f"[{name}{flag}]" if name or flag else ""

    # --- where it stands -------------------------------------------------------------------------------

    def last_reply(self) -> list[Line]:
        """What the model said last, cut in its middle."""
        reply = self.digest.resumption.last_reply
        if not reply.text:
            return []
        shown = cut_middle(reply.text, self.detail.reply)
        if self.detail.terse:
            shown = one_line(shown)
        head = f"**Last reply** {self.mark(reply.uuid)}:"
        text = f"{head}\n{fence(shown)}" if "\n" in shown else f"{head} {shown}"
        return [Line("resumption", (1,), text, (("resumption", 1),), shown == reply.text)]

    def unfinished(self) -> list[Line]:
        """Tool calls without a result, and that the user stopped the model."""
        resumption = self.digest.resumption
        lines = [
            Line(
                "resumption",
                (3, index),
                f"**Unfinished call** {self.mark(tool.uuid)}: {tool.name} {cut(tool.input, max(60, self.detail.outcome))}".rstrip(),
                (("pending_tools", index),),
            )
            for index, tool in enumerate(resumption.pending_tools)
        ]
        if resumption.interrupted:
            lines.insert(0, Line("resumption", (2,), "**The user interrupted** the model here and said no more."))
        return lines

    def git(self) -> list[Line]:
        """The branch, the last commit seen, and what was edited since."""
        git = self.digest.resumption.git
        if not git.branch and not git.last_commit:
            return []
        parts = [f"branch `{cut(git.branch, 120)}`"] if git.branch else []
        if git.last_commit:
            parts.append(f"last commit seen {cut(git.last_commit, 60 if self.detail.terse else 120)}")
        if git.uncommitted:
            limit = 3 if self.detail.terse else 8
            names = [posixpath.basename(path) if self.detail.terse else path for path in git.uncommitted]
            more = f" and {len(names) - limit} more" if len(names) > limit else ""
            parts.append(f"edited after it: {', '.join(names[:limit])}{more}")
        if git.status and not self.detail.terse:
            parts.append(f"git status: {git.status}")
        return [Line("resumption", (4,), f"**Git** {self.mark(git.uuid)}: {'; '.join(parts)}")]

    def steps(self) -> list[Line]:
        """What was done after the last request, newest kept longest."""
        steps = self.digest.resumption.steps
        return [
            Line(
                "resumption",
                (5, index),
                f"- did {self.mark(step.uuid)}: {cut(step.text, 160)}",
                (("steps", index),),
            )
            for index, step in enumerate(steps)
        ]

    # --- requests ----------------------------------------------------------------------------------------

    def requests(self) -> list[Line]:
        """Every request but the last, in order; corrections and rules are flagged with `!`."""
        return [
            self._request(index, one) for index, one in enumerate(self.digest.requests) if not self._is_last(one)
        ]

    def _is_last(self, request: Request) -> bool:
        last = self.digest.resumption.last_request
        return request.text == last.text and request.uuid == last.uuid

    def _request(self, index: int, request: Request) -> Line:
        shown = shorten_request(request.text, self.detail.request)
        if self.detail.terse and shown != request.text:
            shown = one_line(shown)
        flag = "!" if request.constraint else ""
        text = quoted(
            f"- {self.mark(request.uuid, flag)}".rstrip(" []")
            if not request.uuid and not flag
            else f"- {self.mark(request.uuid, flag)}",
            shown,
        )
        if request.repeats:
            text += f"\n  (said {request.repeats + 1} times)" if "\n" in shown else f" (×{request.repeats + 1})"
        if request.context and (not self.detail.terse or len(request.text) <= 12):
            text += f"\n  ↳ asked: {cut(request.context, 220 if not self.detail.terse else 90)}"
        return Line("requests", (index, 0), text, (("requests", index),), shown == request.text)

    def outcomes(self) -> list[Line]:
        """What came of each request, in the model's words."""
        return [
            Line(
                "requests",
                (index, 1),
                f"  → {self.mark(one.outcome_uuid)} {cut(one.outcome, max(self.detail.outcome, 160))}",
                (("outcomes", index),),
            )
            for index, one in enumerate(self.digest.requests)
            if one.outcome and not self._is_last(one)
        ]

    # --- tasks, plan, notes ------------------------------------------------------------------------------

    def tasks(self) -> list[Line]:
        """The task list as it stands; in a terse brief those that are done share a line."""
        tasks = list(enumerate(self.digest.tasks))
        done = [(index, task) for index, task in tasks if task.status == "completed"]
        lines = [
            self._task(index, task) for index, task in tasks if not self.detail.terse or task.status != "completed"
        ]
        if self.detail.terse and done:
            names = "; ".join(cut(task.subject, 60) for _, task in done)
            text = f"- [x] {self.mark(done[-1][1].uuid)} {names}"
            lines.append(Line("tasks", (len(tasks),), text, tuple(("tasks", index) for index, _ in done)))
        return lines

    def _task(self, index: int, task: TaskEntry) -> Line:
        box = {"completed": "[x]", "in_progress": "[~]"}.get(task.status, "[ ]")
        state = (
            ""
            if task.status in ("completed", "in_progress", "pending", "")
            else f" ({cut(one_line(task.status), 30)})"
        )
        text = f"- {box} {self.mark(task.uuid)} {cut(task.subject, 60 if self.detail.terse else 160)}{state}"
        return Line("tasks", (index,), text, (("tasks", index),))

    def task_details(self) -> list[Line]:
        """Descriptions of the tasks that are not done."""
        return [
            Line("tasks", (index, 1), f"  {cut(one_line(task.description), 300)}", (("task_details", index),))
            for index, task in enumerate(self.digest.tasks)
            if task.description and task.status != "completed" and not self.detail.terse
        ]

    def plan(self) -> list[Line]:
        """The last plan, by its beginning."""
        plan = self.digest.plan
        if not plan.text and not plan.path:
            return []
        shown = cut(plan.text, self.detail.reply)
        heading = f"{plan.status or 'written'} {self.mark(plan.uuid)}" + (
            f" `{relative_path(plan.path, self.digest.cwd)}`" if plan.path else ""
        )
        return [
            Line(
                "plan", (0,), f"{heading}\n{fence(shown)}" if shown else heading, (("plan", 0),), shown == plan.text
            )
        ]

    def notes(self) -> list[Line]:
        """What the calling model passed at the handoff."""
        digest, limit = self.digest, max(self.detail.reply, 160)
        lines = (
            [
                Line(
                    "notes",
                    (0,),
                    quoted("Summary:", cut(digest.summary, limit * 2)),
                    (("notes", 0),),
                    len(digest.summary) <= limit * 2,
                )
            ]
            if digest.summary
            else []
        )
        decisions = [one.text for one in digest.decisions if one.origin == "model"]
        for place, (label, texts) in enumerate(
            (("Next", digest.next_steps), ("Open", digest.open_questions), ("Decided", decisions)), start=1
        ):
            lines += [
                Line(
                    "notes",
                    (place, index),
                    f"- {label}: {cut(one_line(text), limit)}",
                    ((f"notes {label}", index),),
                )
                for index, text in enumerate(texts)
            ]
        return lines

    # --- files, commands, errors -------------------------------------------------------------------------

    def edited_files(self) -> list[Line]:
        """Every file made or changed: one line each with its last operation, or by folder in a terse brief."""
        edited = [(index, one) for index, one in enumerate(self.digest.files) if one.edited]
        if not self.detail.terse:
            return [
                Line(
                    "files",
                    (index,),
                    f"- {self.mark(one.uuid)} {one.path} — {_operations(one)}",
                    (("files", index),),
                )
                for index, one in edited
            ]
        edited.sort(key=lambda pair: (posixpath.dirname(pair[1].path), pair[0]))
        lines = []
        for folder, group in groupby(edited, key=lambda pair: posixpath.dirname(pair[1].path)):
            members = list(group)
            names = ", ".join(posixpath.basename(one.path) + _terse_operation(one) for _, one in members)
            newest = max(members, key=lambda pair: pair[0])
            text = f"- {self.mark(newest[1].uuid)} {folder + '/' if folder else ''}{'' if len(members) == 1 or not folder else ' '}{names}"
            lines.append(Line("files", (members[0][0],), text, tuple(("files", index) for index, _ in members)))
        return lines

    def read_files(self) -> list[Line]:
        """Files that were only read, the last read first."""
        read = [(index, one) for index, one in enumerate(self.digest.files) if not one.edited]
        return [
            Line("files", (1_000_000 - index,), f"- {self.mark(one.uuid)} {one.path} — read", (("files", index),))
            for index, one in reversed(read)
        ]

    def last_tests(self) -> list[Line]:
        """The last test run, and the last run of every other test command that failed."""
        return [
            self._test(index, one) for index, one in enumerate(self.digest.tests) if index == 0 or _failed(one)
        ][:6]

    def other_tests(self) -> list[Line]:
        """The remaining test commands."""
        return [self._test(index, one) for index, one in enumerate(self.digest.tests) if index and not _failed(one)]

    def _test(self, index: int, test: TestResult) -> Line:
        counts = ", ".join(
            f"{count} {name}"
            for count, name in ((test.passed, "passed"), (test.failed, "failed"), (test.skipped, "skipped"))
            if count is not None
        )
        stale = f"; {test.edits_after} files edited since" if test.edits_after else ""
        limit = 70 if self.detail.terse else 200
        text = f"- test {self.mark(test.uuid)} `{_code(test.command, limit)}` → {test.status}{f' ({counts})' if counts else ''}{stale}"
        if test.summary and (test.status != "ok" or not counts) and not (self.detail.terse and test.status == "ok"):
            text += f": {cut(one_line(test.summary), 120 if self.detail.terse else 300)}"
        return Line("commands", (0, index), text, (("tests", index),))

    def commands(self) -> list[Line]:
        """Other commands, the last first: how each ended."""
        ordered = [(index, one) for index, one in enumerate(self.digest.commands) if not one.is_test]
        return [self._command(index, one) for index, one in reversed(ordered)]

    def _command(self, index: int, command: Command) -> Line:
        ending = command.status + (f" (exit {command.exit})" if command.exit else "")
        told = f": {cut(one_line(command.output), 200)}" if command.output and command.status == "failed" else ""
        runs = f" ×{command.runs}" if command.runs > 1 else ""
        text = f"- {self.mark(command.uuid)} `{_code(command.command, 160)}`{runs} → {ending}{told}"
        return Line("commands", (1, index), text, (("commands", index),))

    def errors(self, *, resolved: bool) -> list[Line]:
        """What failed and was fixed, or what failed and was not seen to succeed; the newest first."""
        chosen = [(index, one) for index, one in enumerate(self.digest.errors) if one.resolved == resolved]
        return [self._error(index, one) for index, one in reversed(chosen)]

    def _error(self, index: int, error: ErrorEntry) -> Line:
        count = f" ×{error.count}" if error.count > 1 else ""
        text = f"- {self.mark(error.uuid)} `{_code(error.command, 90)}`{count}: {cut(one_line(error.error), 240)}"
        if error.fix:
            text += f" → {self.mark(error.fix_uuid)} {cut(one_line(error.fix), 240)}"
        elif not error.resolved:
            text += " (no later success seen)"
        return Line("errors", (index,), text, (("errors", index),))

    # --- changes outside, agents, findings ---------------------------------------------------------------

    def changes(self) -> list[Line]:
        """Pull requests, commits (the last first in worth) and changes in other systems."""
        digest, lines = self.digest, []
        for index, one in enumerate(digest.pull_requests):
            title = f" {cut(one.title, 120)}" if one.title else ""
            lines.append(
                Line(
                    "commits",
                    (0, index),
                    f"- {self.mark(one.uuid)} pull request #{one.number}{title} {one.url}".replace("-  ", "- "),
                    (("pull_requests", index),),
                )
            )
        limit = 60 if self.detail.terse else 140
        for index, commit in reversed(list(enumerate(digest.commits))):
            lines.append(
                Line(
                    "commits",
                    (1, index),
                    f"- {self.mark(commit.uuid)} commit {commit.hash[:9]} {cut(commit.subject, limit)}",
                    (("commits", index),),
                )
            )
        for index, action in reversed(list(enumerate(digest.actions))):
            text = f"- {self.mark(action.uuid)} {action.action}: {cut(action.subject, limit)}" + (
                f" → {cut(action.result, limit)}" if action.result else ""
            )
            lines.append(Line("commits", (2, index), text, (("actions", index),)))
        return lines

    def agents(self, limit: int) -> list[Line]:
        """Agents with how each ended and what it reported; at most `limit`, unfinished and late ones first."""
        ordered = sorted(
            enumerate(self.digest.agents), key=lambda pair: (pair[1].status == "completed", -pair[1].order)
        )
        return [self._agent(index, one) for index, one in ordered[:limit]]

    def _agent(self, index: int, agent: AgentEntry) -> Line:
        name = agent.description or cut(one_line(agent.prompt), 80) or agent.id
        kind = f" ({agent.type})" if agent.type and not self.detail.terse else ""
        size = (
            f", {agent.context_tokens // 1000}k tokens"
            if agent.context_tokens >= 1000 and not self.detail.terse
            else ""
        )
        report = (
            cut(lead_of(outcome_of(agent)) or one_line(outcome_of(agent)), self.detail.outcome)
            if self.detail.outcome
            else ""
        )
        text = f"- {self.mark(agent.uuid)} {agent.status}: {cut(name, 80)}{kind}{size}" + (
            f" → {report}" if report else ""
        )
        return Line("agents", (agent.order,), text, (("agents", index),))

    def choices(self, shown: Callable[[str], bool]) -> list[Line]:
        """What the user decided when asked, but for answers that stand among the shown requests."""
        return [
            Line(
                "decisions",
                (0, index),
                f"- user {self.mark(one.uuid)}: {_question(one)}{cut(one_line(one.text), 300)}",
                (("decisions", index),),
            )
            for index, one in enumerate(self.digest.decisions)
            if one.origin == "user" and not shown(one.uuid)
        ]

    def findings(self) -> list[Line]:
        """Candidates quoted from the model, the most telling first."""
        limit = 200 if self.detail.terse else 320
        return [
            Line(
                "decisions",
                (1, self._turn_order(one)),
                f"- {self.mark(one.uuid)} {cut(one_line(one.text), limit)}",
                (("decisions", index),),
            )
            for index, one in enumerate(self.digest.decisions)
            if one.origin == "extracted"
        ]

    def _turn_order(self, decision: Decision) -> int:
        return int(decision.timestamp.timestamp()) if decision.timestamp else 0

    def since(self, quotes: Sequence[Quote]) -> list[Line]:
        """What was added on other devices after the handoff."""
        return [
            Line(
                "since",
                (index,),
                quoted(f"- {self.mark(one.uuid)}".rstrip(), cut(one.text, max(self.detail.request, 120))),
                (("since", index),),
                len(one.text) <= max(self.detail.request, 120),
            )
            for index, one in enumerate(quotes)
        ]


def shorten_request(text: str, limit: int) -> str:
    """A request within about `limit` characters: as it stands, else its beginning, then what else the user said in
    it that sets a rule or asks, and how much was left out."""
    if len(text) <= limit:
        return text
    rest_mark = f" […{len(text):,} characters in all]" if limit >= 120 else "…"
    room = max(limit - len(rest_mark), 24)
    head = cut(text, room * 2 // 3 if limit >= 160 else room).rstrip("…").rstrip()
    if limit < 160:
        return head + rest_mark
    kept, left = "", room - len(head)
    for sentence in sentences(text[len(head) :]):
        line = one_line(sentence)
        telling = (
            12 <= len(line) <= 300
            and (is_constraint(line) or line.endswith(("?", "？", "؟")))
            and not _looks_pasted(line)
        )
        if telling and len(line) + 3 <= left:
            kept += f" … {line}"
            left -= len(line) + 3
    return head + kept + rest_mark


def _looks_pasted(line: str) -> bool:
    """Whether a line is output or data that the user pasted rather than said."""
    odd = sum(char in '{}[]"=|<>/\\:;' for char in line)
    return odd > len(line) / 8 or line[:3].isdigit()


def _question(decision: Decision) -> str:
    return f"{cut(decision.question, 200)} — " if decision.question else ""


def _failed(test: TestResult) -> bool:
    return test.status == "failed" or bool(test.failed)


def _operations(one: FileEntry) -> str:
    changes = sum(count for name, count in one.operations.items() if name != "read")
    made = "created" if one.created else "edited"
    last = {"delete": ", last deleted", "move": ", last moved", "shell": ", by shell command"}.get(
        one.last_operation, ""
    )
    return (
        made
        + (f", {changes} changes" if changes > 1 else "")
        + last
        + (f", by agent {one.agent}" if one.agent else "")
    )


def _terse_operation(one: FileEntry) -> str:
    note = "deleted" if one.last_operation == "delete" else "new" if one.created else ""
    return f" ({note})" if note else ""


def _code(command: str, limit: int) -> str:
    """A command as inline code on one line, without back quotes that would end it."""
    return cut(one_line(command), limit).replace("`", "'")


def _unique_ids(digest: Digest, length: int) -> dict[str, str]:
    """For each turn named in the digest its shortest name that no other has, of at least `length` characters."""
    uuids = sorted({uuid for uuid in _uuids(digest) if uuid})
    if length >= 8:
        return {uuid: short_id(uuid) for uuid in uuids}
    for size in range(length, 37):
        heads = {one_line(uuid)[:size].replace("]", "") for uuid in uuids}
        if len(heads) == len(uuids):
            return {uuid: one_line(uuid)[:size].replace("]", "") for uuid in uuids}
    return {uuid: short_id(uuid) for uuid in uuids}


def _uuids(digest: Digest) -> Iterable[str]:
    resumption = digest.resumption
    yield from (resumption.last_request.uuid, resumption.last_reply.uuid, resumption.git.uuid, digest.plan.uuid)
    yield from (one.outcome_uuid for one in digest.requests)
    yield from (one.fix_uuid for one in digest.errors)
    for group in (
        resumption.steps,
        resumption.pending_tools,
        digest.requests,
        digest.files,
        digest.commands,
        digest.tests,
        digest.errors,
        digest.commits,
        digest.pull_requests,
        digest.actions,
        digest.tasks,
        digest.agents,
        digest.decisions,
    ):
        yield from (one.uuid for one in group)
    yield digest.compaction_summary.uuid
