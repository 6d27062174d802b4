"""Lines of a brief about what was done: tasks, plan, files, tests, commands, errors, commits, agents."""

from __future__ import annotations

import posixpath
from itertools import groupby

from dualmem_mcp.handoff.activation import by_activation
from dualmem_mcp.handoff.brief.view import Line, View
from dualmem_mcp.handoff.quoting import cut, fence, one_line, relative_path
from dualmem_mcp.model.digest import AgentEntry, Command, ErrorEntry, FileEntry, SuiteResult, TaskEntry

_OTHERS_OUTCOME = 80
"""Characters of the report of an agent beyond those that a device takes up."""


def open_tasks(view: View) -> list[Line]:
    """Tasks that are not done."""
    return [_task(view, index, task) for index, task in enumerate(view.digest.tasks) if task.status != "completed"]


def done_tasks(view: View) -> list[Line]:
    """Tasks that are done; in a terse brief on one line."""
    done = [(index, task) for index, task in enumerate(view.digest.tasks) if task.status == "completed"]
    if not view.detail.terse or not done:
        return [_task(view, index, task) for index, task in done]
    names = "; ".join(cut(task.subject, 40 if view.detail.bare else 60) for _, task in done)
    text = f"- [x] {view.mark(done[-1][1].uuid)} {names}"
    return [Line("tasks", (len(view.digest.tasks),), text, tuple(("tasks", index) for index, _ in done))]


def _task(view: View, index: int, task: TaskEntry) -> Line:
    box = {"completed": "[x]", "in_progress": "[~]"}.get(task.status, "[ ]")
    state = (
        "" if task.status in ("completed", "in_progress", "pending", "") else f" ({cut(one_line(task.status), 30)})"
    )
    text = f"- {box} {view.mark(task.uuid)} {cut(task.subject, 70 if view.detail.terse else 160)}{state}"
    return Line("tasks", (index,), text, (("tasks", index),))


def task_details(view: View) -> list[Line]:
    """Descriptions of the tasks that are not done."""
    return [
        Line(
            "tasks",
            (index, 1),
            f"  {cut(one_line(task.description), 160 if view.detail.terse else 320)}",
            (("task_details", index),),
        )
        for index, task in enumerate(view.digest.tasks)
        if task.description and task.status != "completed"
    ]


def plan(view: View) -> list[Line]:
    """The last plan, by its beginning."""
    plan = view.digest.plan
    if not plan.text and not plan.path:
        return []
    shown = cut(plan.text, view.detail.reply)
    heading = f"- {view.mark(plan.uuid)} {plan.status or 'written'}"
    if plan.path:
        heading += f" `{_code(relative_path(plan.path, view.digest.cwd), 160)}`"
    return [
        Line("plan", (0,), f"{heading}\n{fence(shown)}" if shown else heading, (("plan", 0),), shown == plan.text)
    ]


def edited_files(view: View) -> list[Line]:
    """Every file made or changed: one line each with what was done, in a terse brief by folder."""
    edited = [(index, one) for index, one in enumerate(view.digest.files) if one.edited]
    if not view.detail.terse:
        return [
            Line("files", (index,), f"- {view.mark(one.uuid)} {one.path} — {_operations(one)}", (("files", index),))
            for index, one in edited
        ]
    edited.sort(key=lambda pair: (posixpath.dirname(pair[1].path), pair[0]))
    lines = []
    for folder, group in groupby(edited, key=lambda pair: posixpath.dirname(pair[1].path)):
        members = list(group)
        names = ", ".join(posixpath.basename(one.path) + _terse_operation(one) for _, one in members)
        last, newest = max(members, key=lambda pair: pair[0])
        place = f"{folder}/{' ' if len(members) > 1 else ''}" if folder else ""
        text = f"- {view.mark(newest.uuid)} {place}{names}"
        lines.append(Line("files", (last,), text, tuple(("files", index) for index, _ in members)))
    return sorted(lines, key=lambda line: line.order)


def read_files(view: View) -> list[Line]:
    """Files that were only read, the last read first."""
    read = [(index, one) for index, one in enumerate(view.digest.files) if not one.edited]
    return [
        Line("files", (1_000_000 - index,), f"- {view.mark(one.uuid)} {one.path} — read", (("files", index),))
        for index, one in reversed(read)
    ]


def _operations(one: FileEntry) -> str:
    changes = sum(count for name, count in one.operations.items() if name not in ("read", "restore"))
    made = "created" if one.created else "written" if one.agent and one.last_operation == "write" else "edited"
    last = {
        "delete": ", then deleted",
        "move": ", then moved",
        "restore": ", then restored",
        "shell": ", by shell command",
    }.get(one.last_operation, "")
    by = f" by agent: {cut(one.agent, 40)}" if one.agent else ""
    return made + (f", {changes} changes" if changes > 1 else "") + last + by


def _terse_operation(one: FileEntry) -> str:
    note = {"delete": "deleted", "restore": "restored"}.get(one.last_operation, "new" if one.created else "")
    return f" ({note})" if note else ""


def last_tests(view: View) -> list[Line]:
    """The last test run; if it failed, also those before it back to the last that passed."""
    lines = []
    for index, one in enumerate(view.digest.tests[:5]):
        lines.append(_test(view, index, one))
        if one.status == "ok" and not one.failed:
            break
    return lines[:2] if view.detail.terse else lines


def other_tests(view: View) -> list[Line]:
    """All test commands at their last result, the latest first."""
    return [_test(view, index, one) for index, one in enumerate(view.digest.tests)]


def _test(view: View, index: int, test: SuiteResult) -> Line:
    terse = view.detail.terse
    counted = ((test.passed, "passed"), (test.failed, "failed"), (test.skipped, "skipped"))
    counts = ", ".join(f"{count} {name}" for count, name in counted if count is not None)
    text = f"- test {view.mark(test.uuid)} `{_code(test.command, 60 if terse else 200)}` → {test.status}"
    text += (f" ({counts})" if counts else "") + (
        f"; {test.edits_after} files edited since" if test.edits_after else ""
    )
    if test.summary and (test.status != "ok" or not (counts or terse)):
        text += f": {cut(one_line(test.summary), 100 if terse else 300)}"
    return Line("commands", (0, index), text, (("tests", index),))


def commands(view: View) -> list[Line]:
    """Other commands, the last first: how each ended."""
    digest = view.digest
    told = {one.uuid for one in (*digest.commits, *digest.actions, *digest.pull_requests)}
    others = [(index, one) for index, one in enumerate(digest.commands) if not one.is_test and one.uuid not in told]
    return [_command(view, index, one) for index, one in reversed(others)]


def _command(view: View, index: int, command: Command) -> Line:
    ending = command.status + (f" (exit {command.exit})" if command.exit else "")
    told = f": {cut(one_line(command.output), 200)}" if command.output and command.status == "failed" else ""
    runs = f" ×{command.runs}" if command.runs > 1 else ""
    shown = _code(command.command, 120 if view.detail.terse else 200)
    text = f"- {view.mark(command.uuid)} `{shown}`{runs} → {ending}{told}"
    return Line("commands", (1, index), text, (("commands", index),))


def errors(view: View, *, resolved: bool) -> list[Line]:
    """What failed and was fixed, or what failed and was not seen to succeed; the newest first."""
    chosen = [(index, one) for index, one in enumerate(view.digest.errors) if one.resolved == resolved]
    return [_error(view, index, one) for index, one in reversed(chosen)]


def _error(view: View, index: int, error: ErrorEntry) -> Line:
    limit = 140 if view.detail.terse else 260
    count = f" ×{error.count}" if error.count > 1 else ""
    shown = _code(error.command, 60 if view.detail.terse else 120)
    text = f"- {view.mark(error.uuid)} `{shown}`{count}: {cut(one_line(error.error), limit)}"
    text += (
        f" → {view.mark(error.fix_uuid)} {cut(one_line(error.fix), limit)}"
        if error.fix
        else " (no later success seen)"
    )
    return Line("errors", (index,), text, (("errors", index),))


def changes(view: View) -> list[Line]:
    """Pull requests, then commits and changes in other systems, of each the last first."""
    digest = view.digest
    limit = 50 if view.detail.bare else 70 if view.detail.terse else 160
    lines = []
    for index, one in enumerate(digest.pull_requests):
        title = f" {cut(one.title, limit)}" if one.title else ""
        text = f"- {view.mark(one.uuid)} pull request #{one.number}{title} {one.url}".replace("-  ", "- ")
        lines.append(Line("commits", (0, index), text, (("pull_requests", index),)))
    commits = [
        Line(
            "commits",
            (1, index),
            f"- {view.mark(one.uuid)} commit {one.hash[:9]} {cut(one.subject, limit)}",
            (("commits", index),),
        )
        for index, one in reversed(list(enumerate(digest.commits)))
    ]
    actions = []
    for index, action in reversed(list(enumerate(digest.actions))):
        text = f"- {view.mark(action.uuid)} {action.action}" + (
            f": {cut(action.subject, limit)}" if action.subject else ""
        )
        result = action.result.partition(" http")[0] if view.detail.terse else action.result
        text += f" → {cut(result, limit)}" if result else ""
        actions.append(Line("commits", (2, index), text, (("actions", index),)))
    paired = [line for pair in zip(commits, actions, strict=False) for line in pair]
    return lines + paired + commits[len(actions) :] + actions[len(commits) :]


def agents(view: View, limit: int) -> list[Line]:
    """Every agent with how it ended and what it reported, in the order of `by_activation`.

    `limit` of them are described; of the others, which the device does not take up, a few words are told.
    """
    ordered = by_activation(view.digest.agents)
    if not view.detail.bare:
        return [_agent(view, index, one, told=place < limit) for place, (index, one) in enumerate(ordered)]
    lines = []
    for place, (status, group) in enumerate(
        groupby(sorted(ordered, key=lambda pair: pair[1].status), key=lambda pair: pair[1].status)
    ):
        members = sorted(group, key=lambda pair: pair[1].order)
        names = "; ".join(f"{cut(_agent_name(one), 60)} {view.mark(one.uuid)}".rstrip() for _, one in members)
        lines.append(
            Line("agents", (place,), f"- {status}: {names}", tuple(("agents", index) for index, _ in members))
        )
    return lines


def _agent_name(agent: AgentEntry) -> str:
    return agent.description or cut(one_line(agent.prompt), 60) or agent.id


def _agent(view: View, index: int, agent: AgentEntry, *, told: bool) -> Line:
    detail = view.detail
    described = told and not detail.terse
    kind = f" ({agent.type})" if agent.type and described else ""
    size = f", {agent.context_tokens // 1000}k tokens" if agent.context_tokens >= 1000 and described else ""
    report = cut(agent.outcome, detail.outcome if told else min(detail.outcome, _OTHERS_OUTCOME))
    text = f"- {view.mark(agent.uuid)} {agent.status}: {cut(_agent_name(agent), 80)}{kind}{size}" + (
        f" → {report}" if report else ""
    )
    return Line("agents", (agent.order,), text, (("agents", index),), told)


def _code(command: str, limit: int) -> str:
    """A command as inline code on one line, without back quotes that would end it."""
    return cut(one_line(command), limit).replace("`", "'")
