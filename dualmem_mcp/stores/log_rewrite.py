"""Ops of this device that nobody else has: given another device's id, other stamps or other numbers.

Stamps of these ops stand in the payloads of later ones, in rows and among the deleted tags; all of them follow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import OpKind, Stamp, Tag
from dualmem_mcp.stores.connection import Connection

_OF_ROWS: Final = frozenset({OpKind.TURN_ADD, OpKind.CONVERSATION_SET, OpKind.FINDING_PUT, OpKind.HANDOFF_ADD})
_TABLES: Final = ("turns", "conversations", "findings", "handoffs")
_STAMP_TEXT: Final = 49


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Which ops: those of `old` behind the sequence `after`. They become `new`'s; with `now`, ticks, they are
    stamped anew from there on, else they keep their ticks."""

    old: DeviceId
    new: DeviceId
    after: int
    now: int | None = None


@dataclass(frozen=True, slots=True)
class Rewritten:
    """How many ops there were, and the subjects of those that stay ops."""

    ops: int
    subjects: frozenset[bytes]


def rewrite_log(connection: Connection, plan: Rewrite) -> Rewritten:
    """Rewrite the ops within a transaction of the caller's, who refolds their subjects.

    Ops that tell of rows go: their rows count as told of by none, and get new ops when the next segment is sealed.
    """
    rows = connection.execute(
        "SELECT sequence, ticks, kind, payload, subject FROM ops"
        " WHERE device_id = ? AND sequence > ? ORDER BY sequence",
        (plan.old, plan.after),
    ).fetchall()
    if not rows:
        _set_sequence(connection, plan.old, plan.after)
        return Rewritten(0, frozenset())
    first = min(row[1] for row in rows)
    _untell(connection, plan.old, first)
    kept = [row for row in rows if row[2] not in _OF_ROWS]
    ticks = plan.now
    names: dict[str, Stamp] = {}
    for row in kept:
        names[str(Stamp(row[1], plan.old))] = Stamp(row[1] if ticks is None else ticks, plan.new)
        ticks = None if ticks is None else ticks + 1
    connection.execute("DELETE FROM ops WHERE device_id = ? AND sequence > ?", (plan.old, plan.after))
    _set_sequence(connection, plan.old, plan.after)
    last = _last_sequence(connection, plan.new)
    connection.executemany(
        "INSERT INTO ops (device_id, sequence, ticks, kind, payload, subject) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (
                plan.new,
                last + number,
                names[str(Stamp(old_ticks, plan.old))].ticks,
                kind,
                rename(kind, payload, names),
                subject,
            )
            for number, (_, old_ticks, kind, payload, subject) in enumerate(kept, start=1)
        ],
    )
    _set_sequence(connection, plan.new, last + len(kept))
    _rename_stamps(connection, plan.old, first, names)
    if ticks is not None:
        connection.execute("UPDATE hybrid_clock SET ticks = ?", (ticks,))
    return Rewritten(len(rows), frozenset(row[4] for row in kept if row[4] is not None))


def rename(kind: str, payload: str, names: Mapping[str, Stamp]) -> str:
    """The payload with other names for these stamps, and for the add-tags that carry them.

    Only where docs/ops.md has stamps or tags: a text that looks like one stays.
    """
    if not any(name[: name.index("-") + 1] in payload for name in names):
        return payload  # the common case: it names no op that is renamed
    values = json.loads(payload)

    def stamps(given: Any) -> Any:
        return [_renamed(text, names) for text in given] if isinstance(given, list) else given

    for member in ("tags", "entity", "relation"):
        if member in values:
            values[member] = stamps(values[member])
    if isinstance(values.get("over"), dict):
        values["over"] = {name: stamps(given) for name, given in values["over"].items()}
    elif "over" in values:
        values["over"] = stamps(values["over"])
    if kind == OpKind.ENTITY_DELETE and "observations" in values:
        values["observations"] = stamps(values["observations"])
    if kind == OpKind.OBSERVATION_DELETE:
        for deleted in values.get("observations", []):
            deleted["tags"] = stamps(deleted.get("tags"))
    return compact_json(values)


def _renamed(text: Any, names: Mapping[str, Stamp]) -> Any:
    new = names.get(text[:_STAMP_TEXT]) if isinstance(text, str) else None
    return text if new is None else f"{new}{text[_STAMP_TEXT:]}"


def _untell(connection: Connection, old: DeviceId, first: int) -> None:
    """Let no op tell of the rows whose ops go: stamps grow, so these are all from the first on."""
    for table in _TABLES:
        connection.execute(
            f"UPDATE {table} SET stamp = NULL WHERE stamp >= ? AND substr(stamp, 9) = ?",  # noqa: S608
            (Stamp(first, old).to_bytes(), bytes.fromhex(old)),
        )


def _rename_stamps(connection: Connection, old: DeviceId, first: int, names: Mapping[str, Stamp]) -> None:
    """Let deleted tags and bans follow."""
    device = bytes.fromhex(old)
    binary = {Stamp.parse(text).to_bytes(): stamp.to_bytes() for text, stamp in names.items()}
    size = Tag.SIZE_BYTES - 4

    def renamed(data: bytes) -> bytes:
        return binary.get(data[:size], data[:size]) + data[size:]

    from_first = first.to_bytes(8, "big")
    rows: Sequence[tuple[bytes, bytes]] = connection.execute(
        "SELECT tag, deleted_by FROM tombstones WHERE (tag >= ?1 AND substr(tag, 9, 16) = ?2)"
        " OR (deleted_by >= ?1 AND substr(deleted_by, 9, 16) = ?2)",
        (from_first, device),
    ).fetchall()
    connection.executemany("DELETE FROM tombstones WHERE tag = ?", [(tag,) for tag, _ in rows])
    connection.executemany(
        "INSERT OR IGNORE INTO tombstones VALUES (?, ?)", [(renamed(tag), renamed(by)) for tag, by in rows]
    )
    erased = connection.execute("SELECT name, stamp FROM erased WHERE substr(stamp, 9) = ?", (device,)).fetchall()
    connection.executemany(
        "UPDATE erased SET stamp = ? WHERE name = ?", [(renamed(stamp), name) for name, stamp in erased]
    )


def _last_sequence(connection: Connection, device_id: DeviceId) -> int:
    row = connection.execute("SELECT last_sequence FROM op_sequences WHERE device_id = ?", (device_id,)).fetchone()
    return int(row[0]) if row else 0


def _set_sequence(connection: Connection, device_id: DeviceId, sequence: int) -> None:
    connection.execute("INSERT OR REPLACE INTO op_sequences VALUES (?, ?)", (device_id, sequence))
