"""What failed, and what made it succeed."""

from __future__ import annotations

from dualmem_mcp.handoff.digest.errors_met import extract_errors
from dualmem_mcp.handoff.digest.files import change_log
from dualmem_mcp.handoff.digest.tool_calls import tool_calls
from dualmem_mcp.model.digest import ErrorEntry
from tests.handoff.dialogue import CWD, Dialogue


def errors_of(dialogue: Dialogue) -> tuple[ErrorEntry, ...]:
    calls = tool_calls(dialogue.turns)
    return extract_errors(calls, change_log(calls, CWD))


def test_a_failure_names_the_edits_before_its_success() -> None:
    dialogue = Dialogue()
    failed = dialogue.bash("go build ./...", "Exit code 1\na.go:3: undefined: x", error=True)
    dialogue.edit("a.go")
    dialogue.bash("go build ./...")
    [error] = errors_of(dialogue)
    assert (error.error, error.resolved, error.uuid) == ("a.go:3: undefined: x", True, failed)
    assert error.fix == "edited a.go; it then succeeded"
    assert error.fix_uuid == tool_calls(dialogue.turns)[1].uuid


def test_a_failure_without_success_is_open() -> None:
    dialogue = Dialogue()
    dialogue.bash("go build ./...", "Exit code 1\na.go:3: undefined: x", error=True)
    [error] = errors_of(dialogue)
    assert (error.resolved, error.fix) == (False, "")


def test_any_run_without_failures_resolves_a_failing_test() -> None:
    dialogue = Dialogue()
    dialogue.bash("pytest tests/test_a.py", "== 1 failed in 0.1s ==\nError: x", error=True)
    dialogue.edit("a.py")
    dialogue.bash("pytest", "== 1 failed, 8 passed in 0.1s ==")
    dialogue.bash("pytest -q", "== 9 passed in 0.1s ==")
    assert errors_of(dialogue)[0].fix == "edited a.py; then `pytest -q` succeeded"


def test_a_merge_conflict_ends_with_the_commit_and_a_rejected_push_with_the_push() -> None:
    dialogue = Dialogue()
    dialogue.bash("git merge main", "Exit code 1\nCONFLICT (content): Merge conflict in a.go", error=True)
    dialogue.edit("a.go")
    dialogue.bash("git add a.go && git commit --no-edit", "[main 1a2b3c4] Merge")
    dialogue.bash("git push", "Exit code 1\nerror: failed to push some refs", error=True)
    dialogue.bash("git pull --rebase && git push", "done")
    merge, push = errors_of(dialogue)
    assert merge.fix == "edited a.go; then `git add a.go && git commit --no-edit` succeeded"
    assert push.fix == "then `git pull --rebase && git push` succeeded"


def test_refusals_failing_looks_and_corrected_tool_use_are_no_errors() -> None:
    dialogue = Dialogue()
    dialogue.refuse("Bash", {"command": "make"}, "wait")
    dialogue.bash("grep -rn x src", "Exit code 1", error=True)
    dialogue.tool("Read", {"file_path": "/x"}, "File does not exist.", error=True)
    dialogue.tool("Edit", {"file_path": "/a.py"}, "File has not been read yet.", error=True)
    dialogue.tool("Edit", {"file_path": "/a.py"}, "updated")
    assert errors_of(dialogue) == ()


def test_the_same_failure_again_is_counted() -> None:
    dialogue = Dialogue()
    for _ in range(3):
        dialogue.bash("make", "Exit code 2\nmake: *** missing separator. Error", error=True)
    [error] = errors_of(dialogue)
    assert error.count == 3


def test_every_failing_test_before_it_is_resolved_by_the_next_run_without_failures() -> None:
    dialogue = Dialogue()
    for name in ("a", "b"):
        dialogue.bash(f"pytest test_{name}.py", f"== 1 failed in 0.1s ==\nError: {name}", error=True)
        dialogue.bash("pytest -q", "== 1 failed, 8 passed in 0.1s ==")
    dialogue.bash("pytest -x", "== 9 passed in 0.1s ==")
    dialogue.bash("pytest test_c.py", "== 1 failed in 0.1s ==\nError: c", error=True)
    assert [(error.resolved, error.fix) for error in errors_of(dialogue)] == [
        (True, "then `pytest -x` succeeded"),
        (True, "then `pytest -x` succeeded"),
        (False, ""),
    ]
