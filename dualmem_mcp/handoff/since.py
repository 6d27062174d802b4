"""What a conversation gained since it was handed over, from whatever device: for the brief, and for tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from dualmem_mcp.handoff.brief.sections import Item
from dualmem_mcp.handoff.brief.talk import News
from dualmem_mcp.handoff.quoting import cut, mark, one_line, quoted
from dualmem_mcp.handoff.redact import redact
from dualmem_mcp.model.branches import Branch, branches_text
from dualmem_mcp.model.record import RecordType
from dualmem_mcp.ports import Record

MAX_TURNS: Final = 100
MAX_TEXT: Final = 4_000
MAX_CHARACTERS: Final = 60_000
"""Of the turns that are listed, the newest: the brief shows what fits, the truth has all."""
MAX_RECORDS: Final = 50
MAX_RECORD_CHARACTERS: Final = 10_000
"""Of each kind, the newest; at least one."""

SHOWN_TYPES: Final[tuple[RecordType, ...]] = ("summary", "decision", "next_step", "task", "note")


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A turn that the handoff does not have; `device` is the name of the one that it comes from."""

    uuid: str
    role: str
    text: str
    device: str
    timestamp: datetime | None


@dataclass(frozen=True, slots=True)
class Newer:
    """What there is beyond a handoff: turns oldest first (`count` of them, of which the last are here, with text),
    records, branches, and the last turn of the newest way on. `own_turns` counts those of this device's session
    file."""

    turns: Sequence[NewTurn] = ()
    count: int = 0
    records: Sequence[Record] = ()
    branches: Sequence[Branch] = ()
    last_turn: str = ""
    own_turns: int = 0


def is_new(record: Record, handed_over_at: datetime) -> bool:
    """Whether a record says something that the handoff cannot have: notes, and tasks as long as they are open, are
    in no digest."""
    if record.type == "note" or (record.type == "task" and record.fields.get("status") == "open"):
        return True
    # To the millisecond, which is as far as a stamp tells.
    return int(record.changed.instant.timestamp() * 1000) >= int(handed_over_at.timestamp() * 1000)


def since_to_json(newer: Newer) -> dict[str, Any]:
    """The members of `since_handoff` that tell what is new, redacted and bounded."""
    by_type = _by_type(newer.records)
    summaries = by_type["summary"]
    return {
        "count": newer.count,
        "turns": _turns(newer.turns),
        "summary": _text(summaries[-1]) if summaries else "",
        "decisions": [_entry(one) for one in by_type["decision"]],
        "next_steps": [_entry(one) for one in by_type["next_step"]],
        "tasks": [{**_entry(one), "status": str(one.fields.get("status", ""))} for one in by_type["task"]],
        "notes": [{**_entry(one), "title": _text(one, "title")} for one in by_type["note"]],
        "branches": branches_to_json(newer.branches),
        "last_turn": newer.last_turn,
    }


def since_news(newer: Newer) -> list[News]:
    """What is new as lines of a brief, in their order; `worth` says what is given up last."""
    by_type = _by_type(newer.records)
    news = [News(branches_text(branches_to_json(newer.branches)), "", worth=0)] if newer.branches else []
    shown = [turn for turn in newer.turns if turn.text.strip()][-MAX_TURNS:]
    for place, turn in enumerate(shown):
        label = f"{turn.role} on {one_line(turn.device)}" if turn.device else turn.role
        news.append(News(label, redact(turn.text), uuid=turn.uuid, worth=20 + len(shown) - place))
    news += [News("summary", _text(one), worth=2) for one in by_type["summary"][-1:]]
    news += [News("decided", _text(one), worth=3) for one in by_type["decision"]]
    news += [News("next", _text(one), worth=4) for one in by_type["next_step"]]
    for task in by_type["task"]:
        status = one_line(str(task.fields.get("status", "")))
        worth = 5 if status == "open" else 16
        news.append(News(f"task, {status} (id {task.id[:8]})", _text(task), worth=worth))
    news += [
        News("note", ": ".join(filter(None, (_text(one, "title"), _text(one)))), worth=15)
        for one in by_type["note"]
    ]
    return news


def since_items(newer: Newer) -> list[Item]:
    """The same in full, as `load_context` gives them."""
    return [
        Item(
            quoted(f"{' '.join(filter(None, ('-', mark(one.uuid), one.label)))}:", one.text),
            (one.text,),
            ("since", at),
        )
        for at, one in enumerate(since_news(newer))
    ]


def branches_to_json(branches: Sequence[Branch]) -> list[dict[str, Any]]:
    """The branches as tools show them; names that others chose end no line there."""
    return [
        {
            **branch.to_json(),
            "devices": [cut(one_line(device), 60) for device in branch.devices],
            "last_turn": one_line(branch.uuids[-1]),
        }
        for branch in branches
    ]


def _by_type(records: Iterable[Record]) -> Mapping[RecordType, list[Record]]:
    found: dict[RecordType, list[Record]] = {kind: [] for kind in SHOWN_TYPES}
    for record in records:
        if record.type in found:
            found[record.type].append(record)
    return {kind: _newest(sorted(some, key=lambda record: record.changed)) for kind, some in found.items()}


def _newest(records: Sequence[Record]) -> list[Record]:
    """The last of them, as many as are shown."""
    kept: list[Record] = []
    room = MAX_RECORD_CHARACTERS
    for record in reversed(records[-MAX_RECORDS:]):
        room -= min(len(str(record.fields.get("text", ""))), MAX_TEXT)
        if kept and room < 0:
            break
        kept.insert(0, record)
    return kept


def _turns(turns: Sequence[NewTurn]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    room = MAX_CHARACTERS
    for turn in reversed(turns[-MAX_TURNS:]):
        text = cut(redact(turn.text), MAX_TEXT)
        room -= len(text)
        if listed and room < 0:
            break
        time = turn.timestamp.isoformat() if turn.timestamp else None
        device = one_line(turn.device)
        listed.insert(0, {"uuid": turn.uuid, "role": turn.role, "text": text, "device": device, "timestamp": time})
    return listed


def _entry(record: Record) -> dict[str, Any]:
    return {"id": record.id, "text": _text(record), "changed_at": record.changed.instant.isoformat()}


def _text(record: Record, field: str = "text") -> str:
    return cut(redact(str(record.fields.get(field, ""))), MAX_TEXT)
