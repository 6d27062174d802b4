"""Arguments of save_progress: what is taken, what is refused, and with which words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dualmem_mcp.errors import UsageError
from dualmem_mcp.sync.progress_input import (
    MAX_CALL_BYTES,
    MAX_ENTRIES,
    MAX_ENTRY_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGES,
    BookmarkGiven,
    Message,
    NoteGiven,
    TaskGiven,
    parse_progress,
    spread_times,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def parsed(**given: object):
    return parse_progress(**given, now=NOW)  # type: ignore[arg-type]


def test_all_kinds_are_taken() -> None:
    given = parsed(
        messages=[{"role": "user", "text": " hello ", "timestamp": "2026-03-01T10:00:00Z"}],
        summary=" where it stands ",
        decisions=["use A"],
        next_steps=["then B"],
        notes=["plain", {"text": "titled", "title": "T"}],
        tasks=["one", {"text": "two", "status": "done"}, {"id": "abcd1234", "status": "dropped"}],
        bookmarks=[{"turn_id": "1a2b", "label": "here"}, "3c4d"],
    )
    assert given.messages == (Message("user", "hello", datetime(2026, 3, 1, 10, tzinfo=UTC)),)
    assert (given.summary, given.decisions, given.next_steps) == ("where it stands", ("use A",), ("then B",))
    assert given.notes == (NoteGiven("plain"), NoteGiven("titled", "T"))
    assert given.tasks == (TaskGiven("one"), TaskGiven("two", "done"), TaskGiven("", "dropped", "abcd1234"))
    assert given.bookmarks == (BookmarkGiven("1a2b", "here"), BookmarkGiven("3c4d"))
    assert given.warnings == ()


def test_nothing_is_empty() -> None:
    assert parsed().is_empty
    assert parsed(messages=[], summary="", tasks=()).is_empty
    assert not parsed(bookmarks=["abcd"]).is_empty


def test_content_of_the_apis_form_is_its_text() -> None:
    blocks = [{"type": "text", "text": "one"}, {"type": "image", "source": {}}, {"type": "text", "text": "two"}]
    given = parsed(messages=[{"role": "assistant", "content": blocks}, {"role": "user", "content": "three"}])
    assert [message.text for message in given.messages] == ["one\n\ntwo", "three"]


def test_messages_without_a_text_are_left_out_and_counted() -> None:
    given = parsed(
        messages=[{"role": "user", "text": " \n"}, {"role": "user", "content": []}, {"role": "user", "text": "x"}]
    )
    assert len(given.messages) == 1
    assert given.warnings == ("2 messages without a text left out",)


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("open", "open"),
        ("in_progress", "open"),
        ("Completed", "done"),
        (" done ", "done"),
        ("cancelled", "dropped"),
    ],
)
def test_words_of_other_task_lists_are_understood(said: str, taken: str) -> None:
    assert parsed(tasks=[{"text": "x", "status": said}]).tasks[0].status == taken


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"messages": "hello"}, "messages is no list"),
        ({"messages": ["hello"]}, "messages[0] is no object"),
        ({"messages": [{"role": "system", "text": "x"}]}, "messages[0] has no role"),
        ({"messages": [{"role": "user", "text": 7}]}, "messages[0] is no text"),
        ({"messages": [{"role": "user", "text": "x", "timestamp": "noon"}]}, "timestamp"),
        ({"messages": [{"role": "user", "text": "x", "timestamp": 7}]}, "timestamp"),
        ({"messages": [{"role": "user", "text": "x" * (MAX_MESSAGE_BYTES + 1)}]}, "at most"),
        ({"messages": [{"role": "user", "text": "x"}] * (MAX_MESSAGES + 1)}, "501 entries"),
        ({"summary": ["x"]}, "summary is no text"),
        ({"summary": "é" * (MAX_ENTRY_BYTES // 2 + 1)}, "summary has"),
        ({"decisions": "use A"}, "decisions is no list"),
        ({"decisions": [""]}, "decisions[0] is empty"),
        ({"decisions": [None]}, "decisions[0] is no text"),
        ({"next_steps": ["x"] * (MAX_ENTRIES + 1)}, "next_steps has 201"),
        ({"notes": [{"title": "only"}]}, "notes[0] is no text"),
        ({"tasks": [{}]}, "tasks[0] has neither"),
        ({"tasks": [{"text": "x", "status": "perhaps"}]}, "tasks[0] has no status"),
        ({"tasks": [{"text": "x", "status": 1}]}, "tasks[0] has no status"),
        ({"bookmarks": [{"label": "x"}]}, "bookmarks[0] names no turn"),
    ],
)
def test_what_does_not_fit_is_named_and_says_what_to_do(given: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(**given)
    assert named in caught.value.message
    assert caught.value.hint


def test_what_is_too_much_in_all_is_refused() -> None:
    message = {"role": "user", "text": "x" * MAX_MESSAGE_BYTES}
    with pytest.raises(UsageError, match="the call brings"):
        parsed(messages=[message] * (MAX_CALL_BYTES // MAX_MESSAGE_BYTES + 1))


def test_no_message_is_from_the_future_and_none_is_without_a_zone() -> None:
    times = ["2030-01-01T00:00:00Z", "2026-03-01T09:00:00", "2026-03-01T09:00:00+05:00"]
    given = parsed(messages=[{"role": "user", "text": "x", "timestamp": time} for time in times])
    assert [message.timestamp for message in given.messages] == [
        NOW,
        datetime(2026, 3, 1, 9, tzinfo=UTC),
        datetime(2026, 3, 1, 4, tzinfo=UTC),
    ]


def test_times_go_up_from_message_to_message() -> None:
    early = NOW - timedelta(hours=1)
    times = spread_times([Message("user", "a", early), Message("user", "b"), Message("user", "c", early)], NOW)
    assert times[:2] == [early, NOW]
    assert times[2] > times[1]
