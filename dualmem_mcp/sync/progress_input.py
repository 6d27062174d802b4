"""What a client passes to `save_progress`, checked and bounded before anything of it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.conversation import Role

MAX_MESSAGES: Final = 500
MAX_MESSAGE_BYTES: Final = 256 * 2**10
MAX_ENTRIES: Final = 200
"""Of each kind: decisions, next steps, notes, tasks, bookmarks."""
MAX_ENTRY_BYTES: Final = 32 * 2**10
MAX_CALL_BYTES: Final = 8 * 2**20
"""Of all texts of one call, in UTF-8."""

TaskStatus = Literal["open", "done", "dropped"]

_STATUS: Final[Mapping[str, TaskStatus]] = {
    **dict.fromkeys(("open", "todo", "pending", "in_progress", "in progress", "doing"), "open"),
    **dict.fromkeys(("done", "completed", "complete", "finished", "closed"), "done"),
    **dict.fromkeys(("dropped", "cancelled", "canceled", "deleted"), "dropped"),
}


@dataclass(frozen=True, slots=True)
class Message:
    """A message to be kept as a turn; `timestamp` is None where the client did not say when."""

    role: Role
    text: str
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class NoteGiven:
    """A note: its text, and a title if it has one."""

    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class TaskGiven:
    """A task by its text or the id of one that is there, with the status it is to have (None: leave it)."""

    text: str
    status: TaskStatus | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class BookmarkGiven:
    """A mark at a turn, named by its uuid or the beginning of it."""

    turn_id: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class ProgressGiven:
    """One call's arguments. `warnings` say what was left out of them."""

    messages: tuple[Message, ...] = ()
    summary: str = ""
    decisions: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()
    notes: tuple[NoteGiven, ...] = ()
    tasks: tuple[TaskGiven, ...] = ()
    bookmarks: tuple[BookmarkGiven, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to keep."""
        kinds = (self.messages, self.decisions, self.next_steps, self.notes, self.tasks, self.bookmarks)
        return not self.summary and not any(kinds)


def parse_progress(
    *,
    messages: object = None,
    summary: object = None,
    decisions: object = None,
    next_steps: object = None,
    notes: object = None,
    tasks: object = None,
    bookmarks: object = None,
    now: datetime,
) -> ProgressGiven:
    """The arguments as values; a time to come becomes `now`, messages without a text are left out with a warning.

    Raises UsageError for what has another form, or is more than one call may bring.
    """
    warnings: list[str] = []
    given = ProgressGiven(
        messages=tuple(_messages(messages, now, warnings)),
        summary=_text("summary", summary or ""),
        decisions=tuple(note.text for note in _notes("decisions", decisions)),
        next_steps=tuple(note.text for note in _notes("next_steps", next_steps)),
        notes=tuple(_notes("notes", notes)),
        tasks=tuple(_tasks(tasks)),
        bookmarks=tuple(_bookmarks(bookmarks)),
        warnings=tuple(warnings),
    )
    _check_size(given)
    return given


def _messages(values: object, now: datetime, warnings: list[str]) -> Iterable[Message]:
    empty = 0
    for number, value in _entries("messages", values, MAX_MESSAGES):
        name = f"messages[{number}]"
        if not isinstance(value, Mapping):
            raise _unfit(f"{name} is no object", "Pass each message as {role, text, timestamp?}.")
        role = value.get("role")
        if role not in ("user", "assistant"):
            raise _unfit(f'{name} has no role "user" or "assistant"', "Leave system messages and tool calls out.")
        text = _content(name, value)
        if not text.strip():
            empty += 1
            continue
        yield Message("user" if role == "user" else "assistant", text, _time(name, value.get("timestamp"), now))
    if empty:
        warnings.append(f"{empty} message{'s' if empty > 1 else ''} without a text left out")


def _content(name: str, message: Mapping[str, Any]) -> str:
    """The text of a message, which may stand in the blocks of the API's form."""
    content = message.get("text", message.get("content", ""))
    if isinstance(content, (list, tuple)):
        texts = [
            block.get("text") for block in content if isinstance(block, Mapping) and block.get("type") == "text"
        ]
        content = "\n\n".join(text for text in texts if isinstance(text, str))
    return _text(name, content, MAX_MESSAGE_BYTES)


def _notes(name: str, values: object) -> Iterable[NoteGiven]:
    for number, value in _entries(name, values, MAX_ENTRIES):
        place = f"{name}[{number}]"
        fields = value if isinstance(value, Mapping) else {"text": value}
        text = _text(place, fields.get("text"))
        if not text:
            raise _unfit(f"{place} is empty", "Leave it out, or say what it is.")
        yield NoteGiven(text, _text(place, fields.get("title") or ""))


def _tasks(values: object) -> Iterable[TaskGiven]:
    for number, value in _entries("tasks", values, MAX_ENTRIES):
        place = f"tasks[{number}]"
        fields = value if isinstance(value, Mapping) else {"text": value}
        task = TaskGiven(
            text=_text(place, fields.get("text") or ""),
            status=_status(place, fields.get("status")),
            id=_text(place, fields.get("id") or ""),
        )
        if not task.text and not task.id:
            raise _unfit(f"{place} has neither a text nor an id", "Pass {text, status?}, or {id, status}.")
        yield task


def _status(place: str, value: object) -> TaskStatus | None:
    if value is None:
        return None
    status = _STATUS.get(value.strip().lower()) if isinstance(value, str) else None
    if status is None:
        raise _unfit(f"{place} has no status that is known", 'Use "open", "done" or "dropped".')
    return status


def _bookmarks(values: object) -> Iterable[BookmarkGiven]:
    for number, value in _entries("bookmarks", values, MAX_ENTRIES):
        place = f"bookmarks[{number}]"
        fields = value if isinstance(value, Mapping) else {"turn_id": value}
        turn_id = _text(place, fields.get("turn_id") or "")
        if not turn_id:
            raise _unfit(f"{place} names no turn", "Pass {turn_id, label?} with a uuid as the brief shows it.")
        yield BookmarkGiven(turn_id, _text(place, fields.get("label") or ""))


def _entries(name: str, values: object, most: int) -> Iterable[tuple[int, Any]]:
    if values is None:
        return ()
    if not isinstance(values, (list, tuple)):
        raise _unfit(f"{name} is no list", f"Pass {name} as a list, also for one.")
    if len(values) > most:
        raise _unfit(f"{name} has {len(values)} entries; one call takes {most}", "Save them in several calls.")
    return enumerate(values)


def _text(name: str, value: object, most_bytes: int = MAX_ENTRY_BYTES) -> str:
    if not isinstance(value, str):
        raise _unfit(f"{name} is no text", "Pass plain text.")
    text = value.strip()
    size = _size(text)
    if size > most_bytes:
        raise _unfit(f"{name} has {size} bytes; at most {most_bytes} are kept", "Shorten it, or save it in parts.")
    return text


def _time(name: str, value: object, now: datetime) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        if not isinstance(value, str):
            raise TypeError
        time = datetime.fromisoformat(value)
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        raise _unfit(
            f"{name} has a timestamp that is none", "Use ISO 8601, as 2026-03-01T10:00:00Z, or leave it out."
        ) from None
    return min(time, now)


def _check_size(given: ProgressGiven) -> None:
    entries: Sequence[str] = (
        given.summary,
        *given.decisions,
        *given.next_steps,
        *(message.text for message in given.messages),
        *(note.text + note.title for note in given.notes),
        *(task.text + task.id for task in given.tasks),
        *(mark.turn_id + mark.label for mark in given.bookmarks),
    )
    size = sum(map(_size, entries))
    if size > MAX_CALL_BYTES:
        raise _unfit(
            f"the call brings {size} bytes; at most {MAX_CALL_BYTES} are taken", "Save it in several calls."
        )


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _unfit(message: str, hint: str) -> UsageError:
    return UsageError(message, operation="save progress", hint=hint)


def spread_times(messages: Sequence[Message], now: datetime) -> list[datetime]:
    """When each message was said: as it states, else now; none before the one it follows on."""
    times: list[datetime] = []
    for message in messages:
        time = message.timestamp or now
        times.append(max(time, times[-1] + timedelta(microseconds=1)) if times else time)
    return times
