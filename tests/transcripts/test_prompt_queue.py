from __future__ import annotations

from datetime import UTC, datetime

from dualmem_mcp.model.conversation import QueuedPrompt
from dualmem_mcp.transcripts.claude_code import read_session
from dualmem_mcp.transcripts.prompt_queue import QueueOperation, replay_queue


def replay(*operations: str) -> list[tuple[str, str]]:
    """What became of each prompt; an operation is written as `name text`."""
    split = (operation.partition(" ") for operation in operations)
    return [
        (prompt.text, prompt.state)
        for prompt in replay_queue(QueueOperation(name, text, None) for name, _, text in split)
    ]


def test_an_operation_without_a_text_is_about_the_prompt_that_waits_longest() -> None:
    assert replay("enqueue a", "enqueue b", "enqueue c", "remove", "dequeue") == [
        ("a", "delivered"),
        ("b", "delivered"),
        ("c", "waiting"),
    ]


def test_an_operation_with_a_text_is_about_that_prompt() -> None:
    assert replay("enqueue a", "enqueue b", "enqueue b", "popAll b", "popAll b", "popAll b") == [
        ("a", "waiting"),
        ("b", "withdrawn"),
        ("b", "withdrawn"),
    ]


def test_operations_on_nothing_and_unknown_ones_change_nothing() -> None:
    assert replay("dequeue", "remove x", "enqueue a", "popAll other", "reorder", "enqueue ") == [("a", "waiting")]


def test_very_many_operations_take_little_time() -> None:
    operations = ["enqueue a"] * 50_000 + ["remove"] * 25_000 + ["popAll a"] * 24_999
    assert [state for _, state in replay(*operations)].count("waiting") == 1


def test_what_became_of_a_queued_prompt_is_read_from_a_session(writer) -> None:
    writer.user("hello")
    for name, content in (("enqueue", "use tabs"), ("remove", None), ("enqueue", "no"), ("popAll", "no")):
        members = {"content": content} if content else {}
        writer.beside("queue-operation", operation=name, timestamp="2026-03-01T10:00:09.000Z", **members)
    moment = datetime(2026, 3, 1, 10, 0, 9, tzinfo=UTC)
    assert read_session(writer.write()).queued_prompts == (
        QueuedPrompt("use tabs", moment, "delivered"),
        QueuedPrompt("no", moment, "withdrawn"),
    )
