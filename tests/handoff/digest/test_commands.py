"""Commands at their last run, and the last results of tests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.handoff.digest import commands
from dualmem_mcp.handoff.digest.commands import extract_commands, extract_tests, is_looking, telling_lines
from dualmem_mcp.handoff.digest.files import change_log
from dualmem_mcp.handoff.digest.tool_calls import tool_calls
from dualmem_mcp.model.digest import Command, SuiteResult
from tests.handoff.dialogue import CWD, Dialogue


def commands_of(dialogue: Dialogue) -> tuple[Command, ...]:
    return extract_commands(tool_calls(dialogue.turns))


def results_of(dialogue: Dialogue) -> tuple[SuiteResult, ...]:
    calls = tool_calls(dialogue.turns)
    return extract_tests(calls, change_log(calls, CWD))


def test_a_command_run_twice_is_listed_at_its_last_run() -> None:
    dialogue = Dialogue()
    dialogue.bash("npm run build", "Exit code 2\nerror TS2304: Cannot find name 'x'", error=True)
    dialogue.bash("npm ci", "added 3 packages")
    last = dialogue.bash("npm run build", "done")
    assert [(one.command, one.status, one.exit, one.runs, one.uuid) for one in commands_of(dialogue)][-1] == (
        "npm run build",
        "ok",
        0,
        2,
        last,
    )


def test_how_a_command_ended_is_told_apart() -> None:
    dialogue = Dialogue()
    dialogue.bash("npm run a", "Exit code 3\nboom", error=True)
    dialogue.refuse("Bash", {"command": "npm run b"}, "not now")
    dialogue.bash("npm run c", "<tool_use_error>Sibling tool call errored</tool_use_error>", error=True)
    dialogue.tool("Bash", {"command": "npm run d"}, "Command running in background with ID: 1")
    dialogue.tool("Bash", {"command": "npm run e"}, "part", detail={"interrupted": True})
    dialogue.call("Bash", {"command": "npm run f"})
    assert [(one.command[-1], one.status, one.exit) for one in commands_of(dialogue)] == [
        ("a", "failed", 3),
        ("b", "rejected", None),
        ("d", "background", None),
        ("e", "interrupted", None),
        ("f", "unfinished", None),
    ]


@pytest.mark.parametrize(
    "command",
    ["ls -la", "cd x && git status", "grep -rn 'a|b' src | head -5", "git -C /x log --oneline -5", "gh pr view 4"],
)
def test_commands_that_only_look_are_left_out(command: str) -> None:
    assert is_looking(command)
    dialogue = Dialogue()
    dialogue.bash(command, "x")
    assert commands_of(dialogue) == ()


@pytest.mark.parametrize(
    "command",
    ["cat a > b", "git commit -m x", "ls && rm a", "gh api repos/o/r/issues -f title=x", "sed -i s/a/b/ f", "make"],
)
def test_commands_that_change_something_are_kept(command: str) -> None:
    assert not is_looking(command)


def test_the_last_result_of_each_test_command_counts_the_edits_since() -> None:
    dialogue = Dialogue()
    dialogue.bash("pytest -q", "== 2 failed, 1 passed in 0.1s ==", error=True)
    dialogue.edit("a.py")
    uuid = dialogue.bash("pytest -q", "== 3 passed in 0.1s ==")
    dialogue.edit("b.py")
    dialogue.edit("b.py")
    dialogue.edit("c.py")
    [result] = results_of(dialogue)
    assert (result.status, result.passed, result.failed, result.edits_after, result.uuid) == ("ok", 3, 0, 2, uuid)


def test_failures_behind_a_pipe_are_failures() -> None:
    dialogue = Dialogue()
    dialogue.bash("pytest -q | tail -3", "== 1 failed, 2 passed in 0.1s ==")
    assert results_of(dialogue)[0].status == "failed"


def test_telling_lines_are_those_that_name_the_fault() -> None:
    output = (
        "Exit code 1\n"
        + "compiling…\n" * 50
        + "src/a.ts:3:1 error TS2304: Cannot find name 'x'\n"
        + "at f (b.js)\n" * 30
    )
    assert telling_lines(output, 200) == "src/a.ts:3:1 error TS2304: Cannot find name 'x'"


def test_without_any_the_end_is_shown() -> None:
    assert telling_lines("one\ntwo\nthree", 200) == "one\ntwo\nthree"


def test_long_lines_are_bounded_in_time_and_size() -> None:
    assert len(telling_lines("x" * 500_000 + "\nfatal: no", 300)) <= 300


@given(
    st.lists(
        st.sampled_from([
            "fine", "E   assert 1", "an Error: x", "TS1234", "e1234 code", "timed out", "time out", "TIMEOUT",
            "at error", "1 | error", "npm warn failed", "npm ERR! E404", "Could not: NO SUCH file", "✖ x", "err",
        ])
    )
)  # fmt: skip
def test_lines_that_are_passed_over_tell_nothing(lines: list[str]) -> None:
    telling = [line for line in lines if commands._TELLING.search(line) and not commands._NOISE.match(line)]
    assert commands._telling(lines) == telling
