"""Task lists and plans in their final state, and what the user chose."""

from __future__ import annotations

from dualmem_mcp.handoff.digest.tasks import extract_plan, extract_tasks, user_choices
from dualmem_mcp.handoff.digest.tool_calls import tool_calls
from tests.handoff.dialogue import Dialogue


def test_task_create_and_update_replay_to_the_final_state() -> None:
    dialogue = Dialogue()
    dialogue.tool(
        "TaskCreate", {"subject": "parse", "description": "the header"}, "Task #1 created successfully: parse"
    )
    dialogue.tool("TaskCreate", {"subject": "print"}, "Task #2 created successfully: print")
    dialogue.tool("TaskCreate", {"subject": "drop me"}, "Task #3 created successfully: drop me")
    dialogue.tool("TaskUpdate", {"taskId": "1", "status": "in_progress"}, "Updated task #1 status")
    dialogue.tool("TaskUpdate", {"taskId": "1", "status": "completed"}, "Updated task #1 status")
    dialogue.tool("TaskUpdate", {"taskId": "2", "addBlockedBy": ["1"]}, "Updated task #2 blockedBy")
    dialogue.tool("TaskUpdate", {"taskId": "3", "status": "deleted"}, "Updated task #3 status")
    dialogue.tool("TaskUpdate", {"taskId": "2", "status": "completed"}, "no such task", error=True)
    tasks = extract_tasks(tool_calls(dialogue.turns))
    assert [(one.id, one.subject, one.status) for one in tasks] == [
        ("1", "parse", "completed"),
        ("2", "print", "pending"),
    ]
    assert tasks[0].description == "the header"


def test_the_ids_that_the_client_gives_win_over_counting() -> None:
    dialogue = Dialogue()
    dialogue.tool("TaskCreate", {"subject": "a"}, "created", detail={"task": {"id": "7", "subject": "a"}})
    dialogue.tool("TaskUpdate", {"taskId": "7", "status": "completed"}, "ok")
    [task] = extract_tasks(tool_calls(dialogue.turns))
    assert (task.id, task.status) == ("7", "completed")


def test_a_todo_list_replaces_the_one_before() -> None:
    dialogue = Dialogue()
    dialogue.tool("TodoWrite", {"todos": [{"content": "old", "status": "pending"}]})
    last = dialogue.call("TodoWrite", {"todos": []})
    dialogue.tool(
        "TodoWrite",
        {"todos": [{"content": "a", "status": "completed"}, {"content": "b", "status": "in_progress"}, 3]},
    )
    tasks = extract_tasks(tool_calls(dialogue.turns))
    assert [(one.subject, one.status) for one in tasks] == [("a", "completed"), ("b", "in_progress")]
    assert all(one.uuid != last for one in tasks)


def test_the_last_plan_is_kept_with_the_users_verdict() -> None:
    dialogue = Dialogue()
    dialogue.refuse("ExitPlanMode", {"plan": "# First\nall at once"}, "smaller steps")
    dialogue.tool(
        "ExitPlanMode",
        {"plan": "# Second\none by one"},
        "User has approved your plan.",
        detail={"filePath": "/p.md"},
    )
    calls = tool_calls(dialogue.turns)
    plan = extract_plan(calls)
    assert (plan.text, plan.status, plan.path) == ("# Second\none by one", "approved", "/p.md")
    assert [(one.question, one.text) for one in user_choices(calls)] == [
        ("First", "plan rejected: smaller steps"),
        ("Second", "plan approved"),
    ]


def test_a_plan_without_an_answer_is_only_proposed() -> None:
    dialogue = Dialogue()
    dialogue.call("ExitPlanMode", {"plan": "do it"})
    calls = tool_calls(dialogue.turns)
    assert extract_plan(calls).status == "proposed"
    assert user_choices(calls) == []


def test_a_plan_written_to_the_plans_folder_counts() -> None:
    dialogue = Dialogue()
    dialogue.tool("Write", {"file_path": "/home/ada/.claude/plans/x.md", "content": "the plan"})
    assert extract_plan(tool_calls(dialogue.turns)).text == "the plan"


def test_answers_to_questions_are_choices_of_the_user() -> None:
    dialogue = Dialogue()
    asked = {"questions": [{"question": "Which store?"}]}
    stated = {"answers": {"Which store?": "SQLite", "Where?": ["here", "there"]}}
    dialogue.tool("AskUserQuestion", asked, "User has answered your questions", detail=stated)
    dialogue.tool(
        "AskUserQuestion", asked, 'User has answered your questions: "Which \\"key\\"?"="the long one". Go on.'
    )
    found = user_choices(tool_calls(dialogue.turns))
    assert [(one.question, one.text, one.origin) for one in found] == [
        ("Which store?", "SQLite", "user"),
        ("Where?", "here, there", "user"),
        ('Which "key"?', "the long one", "user"),
    ]
