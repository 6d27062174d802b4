"""`save_progress`: what was said and settled where no session file is, added to the conversation it belongs to."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.handoff.quoting import cut, one_line
from dualmem_mcp.model.branches import HandoffPlace, TurnTree
from dualmem_mcp.model.conversation import Block, Turn
from dualmem_mcp.model.ids import ConversationId, DeviceId, parse_conversation_id
from dualmem_mcp.model.record import RecordType
from dualmem_mcp.model.source import PROGRESS
from dualmem_mcp.ports import CLIENT_PLACES, BlobCache, Catalogue, Clock, Records, Threads
from dualmem_mcp.sync.erasure import was_erased
from dualmem_mcp.sync.progress_input import Message, ProgressGiven, TaskGiven, spread_times

_NAMESPACE: Final = uuid.UUID("6d0a4d4b-2f3e-5c0e-9a57-0d4f7ad0c1ee")
"""Of the uuids made here: the same thing said at the same place has the same one on every device."""

MAX_TITLE: Final = 200
_TURNS_IN_OP: Final = 64
_SHORTEST_PREFIX: Final = 4


@dataclass(frozen=True, slots=True)
class ProgressKeeper:
    """What `save_progress` works on: the stores of this device, and its names."""

    catalogue: Catalogue
    threads: Threads
    records: Records
    blobs: BlobCache
    clock: Clock
    device_id: DeviceId
    device_name: str
    exclusive: Callable[[], AbstractContextManager[object]] = nullcontext
    """Held while turns are placed: of two calls at once the second follows on the first."""


def save_progress(keeper: ProgressKeeper, conversation_id: str | None, given: ProgressGiven) -> dict[str, Any]:
    """Keep what is given: conversation_id, title, saved {turns, summary, decisions, next_steps, notes, tasks,
    bookmarks}, op_count, warnings. `saved` counts what was new or changed.

    The messages follow on the last turn that this device's client knows: what it was shown last of the
    conversation, or saved itself. Saving the same again, as after an answer that was lost, or more of the same,
    adds only what is missing. Without an id it is the conversation handed over last; an id that is not known
    begins a conversation.

    All is checked before anything is written. Turns are written in one transaction, then each record in one; a
    crash between them leaves the first ones, and the same call again brings the rest.

    Raises UsageError for an id or bookmark that does not fit, NotFoundError if there is no conversation to add to,
    or it was erased.
    """
    if given.is_empty:
        raise UsageError(
            "there is nothing to save",
            operation="save progress",
            hint="Pass messages, a summary, decisions, next_steps, notes, tasks or bookmarks.",
        )
    wanted = _wanted(keeper, conversation_id)
    with keeper.exclusive():
        return _save(keeper, wanted, given)


def _save(keeper: ProgressKeeper, wanted: ConversationId, given: ProgressGiven) -> dict[str, Any]:
    known = keeper.threads.conversation(wanted)
    place = _Place(keeper, wanted)
    bookmarks = [(place.turn_named(mark.turn_id), mark.label) for mark in given.bookmarks]
    tasks = [_task_record(keeper.records, wanted, task) for task in given.tasks]
    warnings = [*given.warnings]

    turns = place.turns(given.messages)
    title = known.title if known else _title(given)
    added, changed = keeper.threads.add(wanted, turns, title=title, device_name=keeper.device_name)
    if known is None and keeper.threads.conversation(wanted) is None:
        raise was_erased(wanted, operation="save progress")
    if given.messages and not added:
        warnings.append("these messages were saved before")
    place.remember(turns[-1].uuid if turns else None)

    writer = _RecordWriter(keeper.records, wanted, warnings)
    if given.summary:
        summary_id = derived_id(wanted, "summary", keeper.device_id)
        writer.put("summary", summary_id, {"text": given.summary, "origin": "model"})
    for kind, texts in (("decision", given.decisions), ("next_step", given.next_steps)):
        for text in texts:
            writer.put(kind, derived_id(wanted, kind, text), {"text": text, "origin": "model"})  # type: ignore[arg-type]
    for note in given.notes:
        titled = {"title": note.title} if note.title else {}
        writer.put("note", derived_id(wanted, "note", note.title, note.text), {"text": note.text, **titled})
    for task_id, fields in tasks:
        writer.put("task", task_id, fields)
    for turn_uuid, label in bookmarks:
        mark_id = derived_id(wanted, "bookmark", turn_uuid)
        writer.put("bookmark", mark_id, {"turn_uuid": turn_uuid, "label": label})

    saved = {"turns": added, **{name: writer.count(kind) for kind, name in _NAMES.items()}}
    return {
        "conversation_id": wanted,
        "title": one_line(title),
        "saved": saved,
        "op_count": -(-added // _TURNS_IN_OP) + changed + writer.total,
        "warnings": warnings,
    }


_NAMES: Final[Mapping[RecordType, str]] = {
    "summary": "summary",
    "decision": "decisions",
    "next_step": "next_steps",
    "note": "notes",
    "task": "tasks",
    "bookmark": "bookmarks",
}


def derived_id(conversation_id: str, *parts: str) -> str:
    """The uuid (version 5) of something in a conversation, which follows from what it is."""
    name = "\0".join((conversation_id, *parts)).encode("utf-8", "surrogatepass")
    return str(uuid.UUID(bytes=hashlib.sha1(_NAMESPACE.bytes + name).digest()[:16], version=5))  # noqa: S324 - a name, no secret


def turn_uuid(conversation_id: str, parent: str | None, role: str, text: str) -> str:
    """The uuid of a turn, which follows from what was said and where."""
    return derived_id(conversation_id, "turn", parent or "", role, text)


def remember_shown(blobs: BlobCache, conversation_id: str, last_turn: str) -> None:
    """Note that a client of this device was shown the conversation up to that turn: what it saves follows on it."""
    _write_place(blobs, conversation_id, {**_read_place(blobs, conversation_id), "shown": last_turn})


def _wanted(keeper: ProgressKeeper, conversation_id: str | None) -> ConversationId:
    if conversation_id is not None:
        return parse_conversation_id(conversation_id)
    newest = keeper.catalogue.newest_handoff()
    if newest is None:
        raise NotFoundError(
            "no conversation has been handed over yet",
            operation="save progress",
            hint="Pass a conversation_id: `list_conversations` has those that are known, and a new id begins one.",
        )
    return newest.conversation_id


def _title(given: ProgressGiven) -> str:
    requests = (message.text for message in given.messages if message.role == "user")
    texts = (*requests, *(message.text for message in given.messages), given.summary, *given.decisions)
    return cut(next((line for text in texts if (line := one_line(text))), ""), MAX_TITLE)


class _Place:
    """Where this device's client stands in a conversation."""

    def __init__(self, keeper: ProgressKeeper, conversation_id: ConversationId) -> None:
        self._keeper = keeper
        self._id = conversation_id
        handoffs = keeper.catalogue.handoffs(conversation_id)
        places = [HandoffPlace(one.last_turn_uuid, one.device_name, one.created_at) for one in handoffs]
        self._tree = TurnTree(keeper.threads.links(conversation_id), places)
        self._remembered = _read_place(keeper.blobs, conversation_id)
        shown = self._remembered.get("shown", "")
        start = shown if self._tree.path(shown) else next((one.uuid for one in places if one.uuid), None)
        self._tip = self._own_end(start) if start else self._tree.newest()

    def _own_end(self, start: str) -> str:
        """The end of what this device saved after that turn; a crash can have come before it was remembered."""
        below: dict[str, str] = {}
        for turn_id in self._tree.order:
            link, parent = self._tree.links.get(turn_id), self._tree.parents[turn_id]
            own = link is not None and link.origin == PROGRESS and link.device == self._keeper.device_name
            if own and parent is not None:
                below[parent] = turn_id
        passed = {start}
        while (start in below) and below[start] not in passed:
            start = below[start]
            passed.add(start)
        return start

    def turns(self, messages: Sequence[Message]) -> list[Turn]:
        """The messages that are not there yet, each below the one before."""
        if not messages:
            return []
        rest = messages[self._already_said(messages) :]
        now = self._keeper.clock.now()
        turns: list[Turn] = []
        parent = self._tip
        for message, time in zip(rest, spread_times(rest, now), strict=True):
            turn = Turn(
                uuid=turn_uuid(self._id, parent, message.role, message.text),
                parent_uuid=parent,
                role=message.role,
                timestamp=time,
                blocks=(Block("text", message.text),),
                origin=PROGRESS,
            )
            turns.append(turn)
            parent = turn.uuid
        return turns

    def _already_said(self, messages: Sequence[Message]) -> int:
        """How many of the first messages are the last that were saved: a client repeats a call whose answer it did
        not get, or passes with each all that was said so far."""
        said = [(message.role, message.text) for message in messages]
        saved_before = self._remembered.get("saved", "")
        if saved_before != self._tip and self._ending(saved_before, len(said)) == said:
            return len(said)
        ending = self._ending(self._tip or "", len(said))
        return next((size for size in range(len(ending), 0, -1) if ending[-size:] == said[:size]), 0)

    def _ending(self, tip: str, most: int) -> list[tuple[str, str]]:
        """Role and text of the last turns up to that one, as far as they were saved by progress."""
        last: list[str] = []
        for turn_id in reversed(self._tree.path(tip)):
            link = self._tree.links.get(turn_id)
            if link is None or link.origin != PROGRESS or len(last) == most:
                break
            last.insert(0, turn_id)
        texts = self._keeper.threads.texts(self._id, last)
        return [(self._tree.links[turn_id].role, texts.get(turn_id, "")) for turn_id in last]

    def turn_named(self, name: str) -> str:
        """The uuid of the turn that goes by that uuid or the beginning of it. Raises UsageError."""
        return turn_named(self._tree.order, name, self._id)

    def remember(self, last_turn: str | None) -> None:
        """Note the turn saved last."""
        if last_turn is not None:
            _write_place(self._keeper.blobs, self._id, {"shown": last_turn, "saved": last_turn})


def turn_named(uuids: Sequence[str], name: str, conversation_id: ConversationId) -> str:
    """The uuid among these that is this name, or alone begins with it; a whole one may be of a turn that is not
    here yet. Raises UsageError."""
    if name in uuids:
        return name
    hits = [one for one in uuids if len(name) >= _SHORTEST_PREFIX and one.startswith(name)]
    if len(hits) == 1:
        return hits[0]
    if not hits and is_uuid(name):
        return name
    what = "no turn" if not hits else f"{len(hits)} turns"
    raise UsageError(
        f"{what} of the conversation begin{'s' if not hits else ''} with {name[:40]!r}",
        operation="find turn",
        subject=conversation_id,
        hint="Name the turn by its uuid, or as many of its first characters as tell it from the others.",
    )


def _task_record(records: Records, conversation_id: ConversationId, task: TaskGiven) -> tuple[str, dict[str, Any]]:
    """Id and fields of a task's record. Raises UsageError for an id that names none where no text begins one."""
    record_id = derived_id(conversation_id, "task", "", task.text)
    if task.id:
        record_id = _known_task(records, conversation_id, task.id) or derived_id(conversation_id, "task", task.id)
    there = records.get("task", record_id) is not None
    if not task.text and not there:
        raise UsageError(
            f"there is no task {task.id[:40]!r} in this conversation",
            operation="save progress",
            subject=conversation_id,
            hint="Take the id from the brief's tasks, or pass the task's text.",
        )
    fields: dict[str, Any] = {"text": task.text} if task.text else {}
    # Said again without a status, a task that is done stays done.
    status = task.status or (None if there else "open")
    return record_id, {**fields, "status": status} if status else fields


def _known_task(records: Records, conversation_id: ConversationId, name: str) -> str | None:
    """The task's id that is this name, or begins with it and alone does so."""
    if records.get("task", name) is not None:
        return name
    ids = [one.id for one in records.find(conversation_id=conversation_id, types=("task",))]
    hits = [one for one in ids if len(name) >= _SHORTEST_PREFIX and one.startswith(name)]
    return hits[0] if len(hits) == 1 else None


class _RecordWriter:
    """Records put one by one, and counted where they changed anything."""

    def __init__(self, records: Records, conversation_id: ConversationId, warnings: list[str]) -> None:
        self._records = records
        self._id = conversation_id
        self._warnings = warnings
        self._changed: dict[RecordType, int] = {}

    def put(self, kind: RecordType, record_id: str, fields: Mapping[str, Any]) -> None:
        if self._records.put(kind, record_id, fields, conversation_id=self._id):
            self._changed[kind] = self._changed.get(kind, 0) + 1
        elif self._records.get(kind, record_id) is None:
            self._warnings.append(f"a {kind.replace('_', ' ')} was deleted before and stays so")

    def count(self, kind: RecordType) -> int:
        return self._changed.get(kind, 0)

    @property
    def total(self) -> int:
        return sum(self._changed.values())


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID as Claude Code and this module write them."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _read_place(blobs: BlobCache, conversation_id: str) -> dict[str, str]:
    data = blobs.get(CLIENT_PLACES + conversation_id)
    return {str(name): str(value) for name, value in json.loads(data).items()} if data else {}


def _write_place(blobs: BlobCache, conversation_id: str, place: Mapping[str, str]) -> None:
    data = json.dumps(place).encode()
    if blobs.get(CLIENT_PLACES + conversation_id) != data:
        blobs.put(CLIENT_PLACES + conversation_id, data)
