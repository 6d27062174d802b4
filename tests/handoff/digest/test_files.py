"""Files that a session touched."""

from __future__ import annotations

import pytest

from dualmem_mcp.handoff.brief import build_brief
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.handoff.digest.files import change_log, changed_between, extract_files, restores_all, shell_changes
from dualmem_mcp.handoff.digest.tool_calls import tool_calls
from dualmem_mcp.model.digest import FileEntry
from tests.handoff.dialogue import CWD, Dialogue, agent


def files_of(dialogue: Dialogue, *agents: object) -> dict[str, FileEntry]:
    return {one.path: one for one in extract_files(tool_calls(dialogue.turns), agents, CWD)}  # type: ignore[arg-type]


def test_every_edited_and_created_file_is_there_with_its_last_operation() -> None:
    dialogue = Dialogue()
    dialogue.tool("Read", {"file_path": f"{CWD}/a.py"})
    dialogue.edit("a.py")
    dialogue.create("new.py")
    dialogue.tool("MultiEdit", {"file_path": f"{CWD}/m.py", "edits": []})
    dialogue.tool("NotebookEdit", {"notebook_path": f"{CWD}/n.ipynb"})
    dialogue.tool("Write", {"file_path": f"{CWD}/old.py"}, "updated", detail={"type": "update"})
    dialogue.tool("Read", {"file_path": "/etc/hosts"})
    found = files_of(dialogue)
    assert {path for path, one in found.items() if one.edited} == {"a.py", "new.py", "m.py", "n.ipynb", "old.py"}
    assert {path for path, one in found.items() if one.created} == {"new.py"}
    assert found["a.py"].operations == {"read": 1, "edit": 1}
    assert found["a.py"].last_operation == "edit"
    assert not found["/etc/hosts"].edited


def test_reading_a_changed_file_again_does_not_hide_its_change() -> None:
    dialogue = Dialogue()
    dialogue.edit("a.py")
    edited = tool_calls(dialogue.turns)[0].uuid
    dialogue.tool("Read", {"file_path": f"{CWD}/a.py"})
    assert (files_of(dialogue)["a.py"].last_operation, files_of(dialogue)["a.py"].uuid) == ("edit", edited)


def test_failed_and_refused_edits_change_nothing() -> None:
    dialogue = Dialogue()
    dialogue.tool("Edit", {"file_path": f"{CWD}/a.py"}, "String to replace not found in file.", error=True)
    dialogue.refuse("Write", {"file_path": f"{CWD}/b.py"}, "no")
    dialogue.call("Edit", {"file_path": f"{CWD}/c.py"})
    assert files_of(dialogue) == {}


def test_files_of_agents_are_there_with_the_agent() -> None:
    dialogue = Dialogue()
    dialogue.edit("shared.py")
    helper = agent(
        0, "build the parser", edited_files=((f"{CWD}/parser.py", "Write"), (f"{CWD}/shared.py", "Edit"))
    )
    found = files_of(dialogue, helper)
    assert (found["parser.py"].edited, found["parser.py"].agent) == (True, "build the parser")
    assert found["shared.py"].agent == ""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("cat > src/a.py <<'EOF'\nx\nEOF", [("shell", "src/a.py")]),
        ("echo x >> notes.md", [("shell", "notes.md")]),
        ("sed -i 's/a/b/' src/a.py src/b.py", [("shell", "src/a.py"), ("shell", "src/b.py")]),
        ("git rm old.py && git mv a.py b.py", [("delete", "old.py"), ("move", "a.py"), ("move", "b.py")]),
        ("make 2>&1 > /dev/null", []),
        ("echo x > /tmp/out.txt", []),
        ("rm 'unbalanced", []),
        ("cat a.py", []),
    ],
)
def test_changes_by_plain_shell_commands_are_seen(command: str, expected: list[tuple[str, str]]) -> None:
    assert shell_changes(command) == expected


def test_changes_between_two_positions_name_each_file_once() -> None:
    dialogue = Dialogue()
    for path in ("a.py", "b.py", "a.py"):
        dialogue.edit(path)
    changes = change_log(tool_calls(dialogue.turns), CWD)
    assert [one.path for one in changed_between(changes, 0)] == ["b.py", "a.py"]
    assert [one.path for one in changed_between(changes, -1, 3)] == ["a.py", "b.py"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("git checkout -- a.py src/b.py", [("restore", "a.py"), ("restore", "src/b.py")]),
        ("cd x && git checkout HEAD -- a.py", [("restore", "a.py")]),
        ("git restore a.py; make", [("restore", "a.py")]),
        # Another source is a change, the index is not the file, and these are branches.
        ("git checkout main -- a.py", []),
        ("git restore --source=main a.py", []),
        ("git restore -s main a.py", []),
        ("git restore --staged a.py", []),
        ("git checkout --theirs a.py", []),
        ("git checkout feature/a.b", []),
    ],
)
def test_restoring_is_told_from_other_checkouts(command: str, expected: list[tuple[str, str]]) -> None:
    assert shell_changes(command) == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("git reset --hard", True),
        ("git reset -q --hard origin/main", True),
        ("git checkout -- . && git merge x", True),
        ("git checkout .", True),
        ("git restore .", True),
        ("git reset --soft HEAD~1", False),
        ("git checkout .github/a.yml", False),
        ("git restore --staged .", False),
    ],
)
def test_restoring_all_is_known(command: str, expected: bool) -> None:
    assert restores_all(command) is expected


def test_a_restored_file_is_said_to_be_so_until_it_is_edited_again() -> None:
    dialogue = Dialogue()
    dialogue.edit("a.py")
    dialogue.edit("b.py")
    dialogue.bash("git checkout -- a.py b.py never_touched.py")
    dialogue.edit("b.py")
    found = files_of(dialogue)
    assert {path: one.last_operation for path, one in found.items()} == {"a.py": "restore", "b.py": "edit"}
    assert found["a.py"].operations == {"edit": 1, "restore": 1}
    changes = changed_between(change_log(tool_calls(dialogue.turns), CWD), -1)
    assert [(change.path, change.undone) for change in changes] == [("a.py", True), ("b.py", False)]
    text = build_brief(build_digest(dialogue.session()), token_budget=2_000).text
    assert "a.py — edited, then restored" in text
    assert "b.py — edited, 2 changes\n" in text
