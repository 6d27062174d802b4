"""Records as their ops say they are: rows of memory.db, and what search finds of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from dualmem_mcp.model.half_pairs import compact_json, has_half_pair
from dualmem_mcp.model.merge import RecordState
from dualmem_mcp.model.oplog import COUNTER_BITS, Stamp
from dualmem_mcp.model.source import Finding, FindingKind
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.finding_rows import put_finding

_KINDS: Final[Mapping[str, FindingKind]] = {
    "note": "note",
    "task": "note",
    "bookmark": "note",
    "summary": "note",
    "next_step": "note",
    "question": "note",
    "decision": "decision",
}
RECORD_FINDING: Final = "record:"
"""Ids of findings that tell of records begin so; their `device` is the id of the one that made the record."""

_AUTHORS: Final = {"model": "assistant", "user": "user"}
"""Names of those whom `origin` of a record tells of, as search knows them."""


def put_records(connection: Connection, states: Sequence[RecordState]) -> None:
    """Make the rows of these records, and their findings, what the states say.

    Ids are random, so one that has no UTF-8 form is of a faulty program: such a record has no row.
    """
    states = [one for one in states if not has_half_pair(one.type + one.id + one.conversation_id)]
    if not states:
        return
    marks = ", ".join(["(?, ?)"] * len(states))
    there = {
        row[:2]: row
        for row in connection.execute(
            "SELECT type, id, conversation_id, fields, stamps, created, changed FROM records"  # noqa: S608
            f" WHERE (type, id) IN (VALUES {marks})",
            [part for state in states for part in (state.type, state.id)],
        )
    }
    gone: list[tuple[str, str]] = []
    changed: list[tuple[Any, ...]] = []
    for state in states:
        old = there.get((state.type, state.id))
        if not state.exists:
            if old is not None:
                gone.append((state.type, state.id))
            _put_finding(connection, state, old)
            continue
        new = _row(state)
        if old is None or new != old:
            changed.append(new)
            _put_finding(connection, state, old)
    connection.executemany("DELETE FROM records WHERE type = ? AND id = ?", gone)
    connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", changed)


def _row(state: RecordState) -> tuple[Any, ...]:
    names = sorted(state.fields)
    return (
        state.type,
        state.id,
        state.conversation_id,
        compact_json({name: state.fields[name].value for name in names}),
        compact_json({name: " ".join(state.fields[name].stamps) for name in names}),
        Stamp.parse(state.created).to_bytes(),
        Stamp.parse(state.changed).to_bytes(),
    )


def _put_finding(connection: Connection, state: RecordState, old: tuple[Any, ...] | None) -> None:
    """Tell search of the record, under the conversation that it belongs to."""
    kind = _KINDS.get(state.type)
    if kind is None or (old is None and not state.exists):
        return
    finding_id = f"{RECORD_FINDING}{state.type}:{state.id}"
    if old is not None and (not state.exists or old[2] != state.conversation_id):
        put_finding(connection, old[2], Finding(kind, finding_id, ""), "", told_elsewhere=True)
    if not state.exists:
        return
    fields = {name: one.value for name, one in state.fields.items()}
    if old is not None and old[2] == state.conversation_id and json.loads(old[3]) == fields:
        return
    finding = Finding(
        kind,
        finding_id,
        _text(state.type, fields),
        turn_uuid=_text_of(fields, "turn_uuid"),
        author=_AUTHORS.get(_text_of(fields, "origin"), ""),
        timestamp=datetime.fromtimestamp((int(state.changed[:16], 16) >> COUNTER_BITS) / 1000, UTC),
    )
    # Its id, which is the same everywhere; what it is called only the vault knows.
    device = Stamp.parse(state.created).device_id
    put_finding(connection, state.conversation_id, finding, device, told_elsewhere=True)


def _text(record_type: str, fields: Mapping[str, Any]) -> str:
    if record_type == "bookmark":
        return _text_of(fields, "label")
    text = _text_of(fields, "text")
    if record_type == "task":
        return f"[{_text_of(fields, 'status')}] {text}"
    title = _text_of(fields, "title")
    return f"{title}\n{text}" if title else text


def _text_of(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
