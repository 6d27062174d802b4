"""Notes, tasks and bookmarks that a person makes on a device, with or without a network; they merge on return."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.model.ids import ConversationId, parse_conversation_id
from dualmem_mcp.model.record import RecordType
from dualmem_mcp.ports import Record, Records, Threads
from dualmem_mcp.sync.erasure import was_erased
from dualmem_mcp.sync.progress import turn_named

TaskStatus = Literal["open", "done", "dropped"]
TASK_STATUSES: Final[tuple[TaskStatus, ...]] = get_args(TaskStatus)
NOTEBOOK_TYPES: Final[tuple[RecordType, ...]] = ("note", "task", "bookmark")
MAX_TEXT_CHARACTERS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Notebook:
    """The notes, tasks and bookmarks of all devices. Without `threads` nothing is known of conversations, and a
    bookmark names its turn as it is given."""

    records: Records
    threads: Threads | None = None

    def add_note(self, text: str, *, title: str = "", conversation_id: str | None = None) -> dict[str, Any]:
        """A new note, as `entries` shows it. Raises UsageError for a text that is empty or too long."""
        fields = {"text": _checked(text, "note"), **({"title": title} if title else {})}
        return self._add("note", fields, conversation_id)

    def add_task(self, text: str, *, conversation_id: str | None = None) -> dict[str, Any]:
        """A new open task, as `entries` shows it. Raises UsageError for a text that is empty or too long."""
        return self._add("task", {"text": _checked(text, "task"), "status": "open"}, conversation_id)

    def set_task(self, task_id: str, status: TaskStatus) -> dict[str, Any]:
        """The task with its new status; the beginning of its id will do. Raises NotFoundError, UsageError."""
        record = self._named(task_id, ("task",))
        self.records.put("task", record.id, {"status": status})
        return _entry(self.records.get("task", record.id) or record)

    def add_bookmark(self, conversation_id: str, turn_uuid: str, *, label: str = "") -> dict[str, Any]:
        """A new bookmark on a turn, as `entries` shows it; of a turn here the beginning of its uuid will do.

        Raises UsageError, NotFoundError for a conversation that is not known here.
        """
        turn = self._turn(parse_conversation_id(conversation_id), _checked(turn_uuid, "turn"))
        return self._add("bookmark", {"turn_uuid": turn, "label": label}, conversation_id)

    def _turn(self, conversation_id: ConversationId, name: str) -> str:
        if self.threads is None:
            return name
        if self.threads.conversation(conversation_id) is None:
            raise NotFoundError(
                f"there is no conversation {conversation_id} here",
                operation="add bookmark",
                subject=conversation_id,
                hint="`dualmem conversations` lists them; `dualmem sync` brings those of other devices.",
            )
        return turn_named([link.uuid for link in self.threads.links(conversation_id)], name, conversation_id)

    def remove(self, entry_id: str) -> dict[str, Any]:
        """The entry that was there under that id, or the beginning of one. Raises NotFoundError, UsageError."""
        record = self._named(entry_id, NOTEBOOK_TYPES)
        self.records.delete(record.type, record.id)
        return _entry(record)

    def entries(
        self, *, conversation_id: str | None = None, types: Sequence[RecordType] = NOTEBOOK_TYPES
    ) -> list[dict[str, Any]]:
        """Those of one conversation, or all: id, type, the fields, conversation_id, created_at, device_id."""
        wanted = None if conversation_id is None else parse_conversation_id(conversation_id)
        return [_entry(record) for record in self.records.find(conversation_id=wanted, types=types)]

    def _add(self, record_type: RecordType, fields: dict[str, Any], conversation_id: str | None) -> dict[str, Any]:
        conversation = parse_conversation_id(conversation_id) if conversation_id else None
        record_id = uuid.uuid4().hex
        self.records.put(record_type, record_id, fields, conversation_id=conversation or "")
        record = self.records.get(record_type, record_id)
        if record is None and conversation:
            raise was_erased(conversation, operation=f"add {record_type}")
        if record is None:
            raise NotFoundError(
                f"the {record_type} was removed by another process",
                operation=f"add {record_type}",
                subject=record_id,
                hint="Add it again if it is still wanted.",
            )
        return _entry(record)

    def _named(self, entry_id: str, types: Sequence[RecordType]) -> Record:
        found = [
            record for record in self.records.find(types=types, limit=1_000_000) if record.id.startswith(entry_id)
        ]
        if not entry_id or not found:
            raise _missing(entry_id, types)
        exact = [record for record in found if record.id == entry_id]
        if len(exact or found) > 1:
            raise UsageError(
                f"{len(found)} entries have an id that begins with {entry_id!r}",
                operation="find entry",
                subject=entry_id,
                hint="Give more of the id; `dualmem notes` lists them.",
            )
        return (exact or found)[0]


def _checked(text: str, what: str) -> str:
    if not text.strip() or len(text) > MAX_TEXT_CHARACTERS:
        raise UsageError(
            f"the {what} is empty"
            if not text.strip()
            else f"the {what} has more than {MAX_TEXT_CHARACTERS:,} characters",
            operation=f"add {what}",
            hint=f"Give the {what}'s text, of at most {MAX_TEXT_CHARACTERS:,} characters.",
        )
    return text


def _missing(entry_id: str, types: Sequence[RecordType]) -> NotFoundError:
    *others, last = types
    return NotFoundError(
        f"there is no {', '.join(others)}{' or ' if others else ''}{last} {entry_id[:60]!r}",
        operation="find entry",
        subject=entry_id[:60],
        hint="`dualmem notes` lists them.",
    )


def _entry(record: Record) -> dict[str, Any]:
    return {
        **record.fields,
        "id": record.id,
        "type": record.type,
        "conversation_id": record.conversation_id or None,
        "created_at": record.created.instant.isoformat(),
        "device_id": record.created.device_id,
    }
