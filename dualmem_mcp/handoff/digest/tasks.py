"""The task list in its final state and the last plan, replayed from the calls that changed them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dualmem_mcp.handoff.digest.tool_calls import ToolCall
from dualmem_mcp.handoff.quoting import clean, one_line
from dualmem_mcp.model.digest import Decision, Plan, TaskEntry

_CREATED_ID = re.compile(r"Task #?([\w-]+) created")
_APPROVED = re.compile(r"User has approved|has been approved|approved your plan", re.IGNORECASE)
_ANSWERS_LIMIT = 20_000
_ANSWERED = re.compile(r'"((?:[^"\\]|\\.)+)"\s*=\s*"((?:[^"\\]|\\.)*)"')


def extract_tasks(calls: Sequence[ToolCall]) -> tuple[TaskEntry, ...]:
    """The tasks as the last calls left them, in order of creation; deleted ones are gone.

    TodoWrite states the whole list each time, TaskCreate and TaskUpdate change it; refused or failed
    calls change nothing. A list that a TodoWrite replaces is gone with it.
    """
    tasks: dict[str, TaskEntry] = {}
    for call in calls:
        if not call.done:
            continue
        if call.name == "TodoWrite":
            tasks = _todo_list(call)
        elif call.name == "TaskCreate":
            task = _created(call, len(tasks))
            tasks[task.id] = task
        elif call.name == "TaskUpdate":
            _update(tasks, call)
    return tuple(tasks.values())


def _text(value: Any) -> str:
    return one_line(value) if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _todo_list(call: ToolCall) -> dict[str, TaskEntry]:
    todos = call.input.get("todos")
    tasks: dict[str, TaskEntry] = {}
    for index, todo in enumerate(todos if isinstance(todos, Sequence) and not isinstance(todos, str) else ()):
        if isinstance(todo, Mapping):
            number = _text(todo.get("id")) or str(index + 1)
            tasks[f"{index}:{number}"] = TaskEntry(
                id=number,
                subject=_text(todo.get("content")),
                status=_text(todo.get("status")) or "pending",
                uuid=call.uuid,
            )
    return tasks


def _created(call: ToolCall, count: int) -> TaskEntry:
    named = _CREATED_ID.search(call.result or "")
    task = call.outcome.get("task")
    number = _text(task.get("id")) if isinstance(task, Mapping) else ""
    return TaskEntry(
        id=number or (named[1] if named else str(count + 1)),
        subject=_text(call.input.get("subject")) or _text(call.input.get("title")),
        description=clean(call.argument("description")),
        status="pending",
        uuid=call.uuid,
    )


def _update(tasks: dict[str, TaskEntry], call: ToolCall) -> None:
    number = _text(call.input.get("taskId")) or _text(call.input.get("task_id")) or _text(call.input.get("id"))
    if not number or call.outcome.get("success") is False:
        return
    known = tasks.get(number, TaskEntry(id=number, status="pending"))
    status = _text(call.input.get("status")) or known.status
    if status == "deleted":
        tasks.pop(number, None)
        return
    tasks[number] = TaskEntry(
        id=number,
        subject=_text(call.input.get("subject")) or known.subject,
        description=clean(call.argument("description")) or known.description,
        status=status,
        uuid=call.uuid,
    )


def extract_plan(calls: Sequence[ToolCall]) -> Plan:
    """The last plan put before the user, else the last one written to a plans folder; empty if there is none."""
    proposed = [call for call in calls if call.name in ("ExitPlanMode", "exit_plan_mode")]
    written = [
        call
        for call in calls
        if call.name == "Write" and call.done and "/.claude/plans/" in call.argument("file_path")
    ]
    if proposed:
        call = proposed[-1]
        text = call.argument("plan") or _text_of(call.outcome.get("plan"))
        if not text and written:
            text = written[-1].argument("content")
        return Plan(
            text=clean(text),
            status=_plan_status(call),
            path=one_line(_text_of(call.outcome.get("filePath"))),
            uuid=call.uuid,
        )
    if written:
        call = written[-1]
        return Plan(
            text=clean(call.argument("content")),
            status="proposed",
            path=one_line(call.argument("file_path")),
            uuid=call.uuid,
        )
    return Plan()


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _plan_status(call: ToolCall) -> str:
    if call.result is None:
        return "proposed"
    if call.is_error:
        return "rejected"
    return "approved" if _APPROVED.search(call.result[:400]) or call.done else "proposed"


def user_choices(calls: Sequence[ToolCall]) -> list[Decision]:
    """What the user chose when asked by the client: answers to questions, plans approved or rejected."""
    found: list[Decision] = []
    for call in calls:
        if call.name == "AskUserQuestion" and call.done:
            found.extend(
                Decision(
                    text=clean(answer),
                    question=one_line(question),
                    origin="user",
                    uuid=call.result_uuid,
                    timestamp=call.timestamp,
                )
                for question, answer in _answers(call)
                if answer
            )
        elif call.name in ("ExitPlanMode", "exit_plan_mode") and call.result is not None:
            heading = next(
                (line.lstrip("# ").strip() for line in call.argument("plan").split("\n") if line.strip()), ""
            )
            status = _plan_status(call)
            said = f": {one_line(call.feedback)}" if call.feedback else ""
            found.append(
                Decision(
                    text=f"plan {status}{said}",
                    question=one_line(heading),
                    origin="user",
                    uuid=call.result_uuid,
                    timestamp=call.timestamp,
                )
            )
    return found


def _answers(call: ToolCall) -> list[tuple[str, str]]:
    stated = call.outcome.get("answers")
    if isinstance(stated, Mapping):
        return [(str(question), _answer_text(answer)) for question, answer in stated.items()]
    return [
        (question.replace('\\"', '"'), answer.replace('\\"', '"'))
        for question, answer in _ANSWERED.findall((call.result or "")[:_ANSWERS_LIMIT])
    ]


def _answer_text(answer: Any) -> str:
    if isinstance(answer, str):
        return answer
    if isinstance(answer, Sequence):
        return ", ".join(one for one in answer if isinstance(one, str))
    return ""
