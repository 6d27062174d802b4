"""Tool calls joined with their results."""

from __future__ import annotations

from dualmem_mcp.handoff.digest.tool_calls import tool_calls
from dualmem_mcp.model.conversation import Block
from tests.handoff.dialogue import Dialogue


def test_calls_are_joined_with_their_results_by_id() -> None:
    dialogue = Dialogue()
    dialogue._add(
        "assistant",
        Block("tool_use", "", "Read", "a", {"file_path": "/a"}),
        Block("tool_use", "", "Read", "b", {"file_path": "/b"}),
    )
    dialogue._add(
        "user",
        Block("tool_result", "B", tool_use_id="b"),
        Block("tool_result", "A", tool_use_id="a"),
        detail={"x": 1},
    )
    first, second = tool_calls(dialogue.turns)
    assert (first.argument("file_path"), first.result) == ("/a", "A")
    assert (second.argument("path", "file_path"), second.result) == ("/b", "B")
    # The account of a turn with two results cannot be told to belong to either.
    assert first.outcome == {}


def test_an_account_of_one_result_belongs_to_it() -> None:
    dialogue = Dialogue()
    dialogue.tool("Write", {"file_path": "/a"}, detail={"type": "create"})
    assert tool_calls(dialogue.turns)[0].outcome == {"type": "create"}


def test_a_call_repeated_by_a_resumed_session_counts_once() -> None:
    dialogue = Dialogue()
    for _ in range(2):
        dialogue.call("Bash", {"command": "ls"}, uuid="same")
    assert len(tool_calls(dialogue.turns)) == 1


def test_what_became_of_a_call_is_told_apart() -> None:
    dialogue = Dialogue()
    dialogue.refuse("Bash", {"command": "a"}, "not yet\n\nNote: The user's next message may contain a correction.")
    dialogue.tool(
        "Bash", {"command": "b"}, "<tool_use_error>Sibling tool call errored</tool_use_error>", error=True
    )
    dialogue.tool("Bash", {"command": "c"}, "Exit code 1", error=True)
    dialogue.tool("Bash", {"command": "d"}, "The user doesn't want to proceed with this tool use")
    dialogue.call("Bash", {"command": "e"})
    calls = tool_calls(dialogue.turns)
    assert [(one.rejected, one.cancelled, one.done) for one in calls] == [
        (True, False, False),
        (False, True, False),
        (False, False, False),
        (False, False, True),
        (False, False, False),
    ]
    assert calls[0].feedback == "not yet"
    assert [one.feedback for one in calls[1:]] == [""] * 4


def test_results_without_a_call_and_odd_inputs_are_no_fault() -> None:
    dialogue = Dialogue()
    dialogue._add("user", Block("tool_result", "x", tool_use_id="nowhere"))
    dialogue._add("assistant", Block("tool_use", "", "Bash", "", {"command": 7}))
    [call] = tool_calls(dialogue.turns)
    assert (call.argument("command"), call.result) == ("", None)
