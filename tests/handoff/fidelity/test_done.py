"""What was done, by rules that are not the digest's."""

from __future__ import annotations

import pytest

from dualmem_mcp.handoff.fidelity.done import (
    agents_launched,
    calls_made,
    files_changed,
    last_test,
    open_tasks,
)
from dualmem_mcp.model.conversation import Block
from tests.handoff.dialogue import CWD, Dialogue, agent


def test_a_call_is_joined_with_its_result_and_counted_once() -> None:
    dialogue = Dialogue()
    dialogue.bash("ls", "a b")
    dialogue.turns.append(dialogue.turns[0])
    dialogue.call("Bash", {"command": "make"})
    calls = calls_made(dialogue.turns)
    assert [(one.argument("command"), one.position, one.result_position, one.done) for one in calls] == [
        ("ls", 0, 1, True),
        ("make", 3, -1, False),
    ]


def test_files_are_those_that_an_editing_tool_changed_here_or_in_an_agent() -> None:
    dialogue = Dialogue()
    dialogue.tool("Read", {"file_path": f"{CWD}/read.py"})
    dialogue.edit("src/a.py")
    last = dialogue.edit("src/a.py")
    dialogue.create("b.py")
    dialogue.tool("Edit", {"file_path": f"{CWD}/failed.py"}, "no such text", error=True)
    dialogue.tool("NotebookEdit", {"notebook_path": "/elsewhere/n.ipynb"})
    run = agent(0, "docs", edited_files=((f"{CWD}/docs/x.md", "Write"), (f"{CWD}/y", "Read")), launched_by="L")
    found = files_changed(calls_made(dialogue.turns), [run], f"{CWD}/")
    assert set(found) == {"src/a.py", "b.py", "/elsewhere/n.ipynb", "docs/x.md"}
    assert found["docs/x.md"] == "L"
    assert found["src/a.py"] == dialogue.turns[4].uuid != last


def test_windows_paths_are_compared_with_forward_slashes() -> None:
    dialogue = Dialogue()
    dialogue.tool("Edit", {"file_path": "C:\\work\\src\\a.py"})
    assert list(files_changed(calls_made(dialogue.turns), [], "C:\\work")) == ["src/a.py"]


@pytest.mark.parametrize(
    ("command", "output", "error", "told"),
    [
        ("pytest -q", "=== 2 failed, 31 passed in 1.2s ===", False, "2 failed"),
        ("uv run pytest tests/", "41 passed in 3.1s", False, "41 passed"),
        (
            "cd web && npm test",
            "Test Suites: 1 failed, 3 total\nTests: 2 failed, 5 passed, 7 total",
            True,
            "2 failed",
        ),
        (
            "cargo test",
            "test result: ok. 3 passed; 0 failed\ntest result: ok. 4 passed; 0 failed",
            False,
            "7 passed",
        ),
        ("npx mocha", "  12 passing (3s)", False, "12 passed"),
        ("pytest", "9" * 5_000 + " passed\n7 passed", False, "7 passed"),
        ("go test ./...", "ok  \texample.org/a\t0.1s", False, "ok"),
        ("go test ./...", "--- FAIL: TestA\nFAIL\texample.org/a", True, "failed"),
        ("mise run test:ci", "PASS", False, "passed"),
        ("./scripts/run && make check", "Exit code 2\nmake: *** [check] Error 1", True, "failed"),
    ],
)
def test_the_last_test_run_says_how_it_ended(command: str, output: str, error: bool, told: str) -> None:
    dialogue = Dialogue()
    dialogue.bash("pytest old", "1 passed")
    uuid = dialogue.bash(command, output, error=error)
    dialogue.bash("grep pytest setup.cfg", "5 passed")
    run = last_test(calls_made(dialogue.turns))
    assert run is not None
    assert (run.uuid, run.turns) == (uuid, (3, 2))
    assert told in run.outcomes


@pytest.mark.parametrize("output", ["", "collecting ..."])
def test_a_last_test_run_that_says_nothing_is_not_asked_about(output: str) -> None:
    dialogue = Dialogue()
    dialogue.bash("pytest", "3 passed")
    dialogue.bash("pytest", output)
    assert last_test(calls_made(dialogue.turns)) is None


def test_a_test_run_that_was_refused_or_is_not_back_is_none() -> None:
    dialogue = Dialogue()
    dialogue.refuse("Bash", {"command": "pytest"}, "not now")
    dialogue.call("Bash", {"command": "pytest"})
    assert last_test(calls_made(dialogue.turns)) is None


def test_open_tasks_are_those_of_the_last_list_that_are_not_done() -> None:
    dialogue = Dialogue()
    dialogue.tool("TodoWrite", {"todos": [{"content": "gone", "status": "pending"}]})
    dialogue.tool(
        "TodoWrite",
        {"todos": [{"content": "a", "status": "completed"}, {"content": "b", "status": "in_progress"}, "junk"]},
    )
    dialogue.tool("TaskCreate", {"subject": "c"}, "Task #7 created successfully: c")
    dialogue.tool("TaskCreate", {"subject": "d"}, "Task #8 created successfully: d")
    dialogue.tool("TaskUpdate", {"taskId": "8", "status": "completed"}, "ok")
    dialogue.tool("TaskUpdate", {"taskId": 7, "subject": "c renamed"}, "ok")
    dialogue.tool("TaskUpdate", {"taskId": "99", "status": "pending"}, "ok")
    dialogue.tool("TaskCreate", {"subject": "refused"}, "no", error=True)
    dialogue.tool("TodoWrite", {"todos": "junk"}, "no", error=True)
    assert [subject for subject, _ in open_tasks(calls_made(dialogue.turns))] == ["b", "c renamed"]


def test_agents_are_those_launched_and_not_refused() -> None:
    dialogue = Dialogue()
    dialogue.tool("Task", {"description": "map the code", "prompt": "look"}, "a map")
    dialogue.tool("Agent", {"prompt": "no name"}, "done")
    dialogue.tool("Task", {"description": "stopped"}, "[Request interrupted by user for tool use]", error=True)
    dialogue.refuse("Task", {"description": "refused"}, "no")
    dialogue.call("Task", {"description": "still running"})
    found = [name for name, _ in agents_launched(calls_made(dialogue.turns))]
    assert found == ["map the code", "no name", "stopped", "still running"]


def test_a_hostile_command_takes_little_time() -> None:
    dialogue = Dialogue()
    for command in ("(" * 20_000, "a=" * 10_000, "uv " * 7_000 + "-x " * 3_000, ";pytest-" * 3_000, "/" * 20_000):
        dialogue.bash(command, "\n" * 20_000 + "\t" * 20_000)
    assert last_test(calls_made(dialogue.turns)) is None


def test_calls_without_an_id_are_kept_apart() -> None:
    dialogue = Dialogue()
    for _ in range(2):
        dialogue._add("assistant", Block("tool_use", "{}", "Task", "", {"description": "one"}))
    assert len(agents_launched(calls_made(dialogue.turns))) == 2
