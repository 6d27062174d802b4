"""Turns, conversations, findings and handoffs: ops for the rows that have none, and rows for the ops of others.

A row's stamp is that of the op it came by: null as long as there is none, empty for a row that this device learned
from another's package, whose author tells of it. Which of two ops counts is decided row by row, by stamps and what
the rows hold alone, so that their order does not matter. Source: docs/ops.md, "turn.add" to "handoff.add".
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as made_by
from typing import Any, Final

from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.oplog import Op, OpKind
from dualmem_mcp.stores.columns import from_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.op_log import OpWriter
from dualmem_mcp.stores.row_payloads import (
    CONVERSATION_COLUMNS,
    FINDING_COLUMNS,
    HANDOFF_COLUMNS,
    NEVER,
    TURN_COLUMNS,
    Row,
    UnfitError,
    conversation_json,
    conversation_row,
    finding_json,
    finding_row,
    handoff_json,
    handoff_row,
    turn_batch,
    turn_json,
    turn_row,
)

TURNS_IN_OP: Final = 64
BYTES_IN_OP: Final = 256 * 1024
"""Of the payload's UTF-8; a longer turn stands alone. Source: docs/ops.md, "turn.add"."""
_MOST_LINE_BYTES: Final = 16 * 2**20 - 4096
"""Of a payload written as a text within its op's line, which has 16 MiB. Source: docs/format.md, "Log segments"."""
_MOST_COUNTED: Final = 10_000
UNKNOWN_TIME: Final = "0001-01-01T00:00:00.000000+00:00"
"""`updated_at` of a conversation of which no op has told yet, but its turns: everything is later."""


def nobody(conversation_id: str) -> bool:  # noqa: ARG001
    """Says of each conversation that it is not banned."""
    return False


def unlogged(connection: Connection) -> int:
    """How many rows no op tells of yet, counted to 10,000 of each table."""
    counts = (
        connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE stamp IS NULL LIMIT {_MOST_COUNTED})"  # noqa: S608
        ).fetchone()[0]
        for table in ("conversations", "turns", "findings", "handoffs")
    )
    return sum(counts)


def log_rows(
    connection: Connection,
    writer: OpWriter,
    *,
    most_turns: int = 2000,
    banned: Callable[[str], bool] = nobody,
) -> int:
    """Record ops for rows that have none, in the order of their ids and at most so many turns, and stamp the rows;
    how many ops. Whoever owns the writer finishes it.

    Rows of banned conversations, findings of no conversation, and what an op cannot hold get none, ever.
    """
    return sum(
        (
            _log_table(connection, writer, _CONVERSATIONS, banned),
            _log_turns(connection, writer, most_turns, banned),
            _log_table(connection, writer, _FINDINGS, banned),
            _log_table(connection, writer, _HANDOFFS, banned),
        )
    )


def apply_row_op(
    connection: Connection, op: Op, payload: Mapping[str, Any], *, banned: Callable[[str], bool] = nobody
) -> str | None:
    """Merge the op of another device, or of this one, into the rows; the id of the conversation if rows changed.

    What does not have the form of its kind, and what is of a banned conversation, has no effect; the turns of a
    batch are taken one by one.
    """
    apply = _APPLY.get(op.kind)
    if apply is None:
        return None
    try:
        return apply(connection, op.stamp.to_bytes(), payload, banned)
    except UnfitError:
        return None


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    key: str
    order: str
    columns: str
    conversation: int
    kind: OpKind
    to_json: Callable[[Row], dict[str, Any]]
    to_row: Callable[[Mapping[str, Any]], Row]


_CONVERSATIONS: Final = _Table(
    "conversations",
    "id",
    "rowid",
    CONVERSATION_COLUMNS,
    0,
    OpKind.CONVERSATION_SET,
    conversation_json,
    conversation_row,
)
_FINDINGS: Final = _Table("findings", "id", "id", FINDING_COLUMNS, 0, OpKind.FINDING_PUT, finding_json, finding_row)
_HANDOFFS: Final = _Table(
    "handoffs",
    "handoff_id",
    "created_at, handoff_id",
    HANDOFF_COLUMNS,
    1,
    OpKind.HANDOFF_ADD,
    handoff_json,
    handoff_row,
)


def _log_table(connection: Connection, writer: OpWriter, table: _Table, banned: Callable[[str], bool]) -> int:
    rows = connection.execute(
        f"SELECT {table.key}, {table.columns} FROM {table.name} WHERE stamp IS NULL ORDER BY {table.order}"  # noqa: S608
    ).fetchall()
    stamps: list[tuple[bytes, Any]] = []
    for key, *row in rows:
        payload = table.to_json(tuple(row))
        told = not banned(row[table.conversation]) and _fits(payload, tuple(row), table.to_row)
        stamps.append((writer.record(table.kind, payload).to_bytes() if told else NEVER, key))
    connection.executemany(f"UPDATE {table.name} SET stamp = ? WHERE {table.key} = ?", stamps)  # noqa: S608
    return sum(stamp != NEVER for stamp, _ in stamps)


def _fits(payload: Mapping[str, Any], row: Row, to_row: Callable[[Mapping[str, Any]], Row]) -> bool:
    """Whether other devices would take the payload as it is."""
    try:
        return to_row(payload) == row and _line_bytes(compact_json(payload)) <= _MOST_LINE_BYTES
    except UnfitError:
        return False


def _line_bytes(text: str) -> int:
    """Size of the text as a string of canonical JSON."""
    size = len(text.encode())
    # At most three times as much (`é` is an escape of six characters); looked at closely only where that matters.
    return size if 3 * size <= _MOST_LINE_BYTES else len(json.dumps(text))


@dataclass(slots=True)
class _Batch:
    """Turns of one conversation and device that one op will tell of, in their order."""

    turns: list[dict[str, Any]] = made_by(default_factory=list)
    ids: list[int] = made_by(default_factory=list)
    size: int = 0


def _log_turns(connection: Connection, writer: OpWriter, most_turns: int, banned: Callable[[str], bool]) -> int:
    rows = connection.execute(
        f"SELECT id, {TURN_COLUMNS} FROM turns WHERE stamp IS NULL ORDER BY id LIMIT ?",  # noqa: S608
        (most_turns,),
    ).fetchall()
    stamps: list[tuple[bytes, int]] = []
    open_batches: dict[tuple[str, str], _Batch] = {}
    ops = 0

    def close(name: tuple[str, str]) -> None:
        nonlocal ops
        batch = open_batches.pop(name)
        payload = {"conversation_id": name[0], "device_name": name[1], "turns": batch.turns}
        stamp = writer.record(OpKind.TURN_ADD, payload).to_bytes()
        stamps.extend((stamp, turn_id) for turn_id in batch.ids)
        ops += 1

    for turn_id, *columns in rows:
        row = tuple(columns)
        turn = turn_json(row)
        name = (row[0], from_column(row[10]))
        if banned(name[0]) or not _turn_fits(turn, row, name):
            stamps.append((NEVER, turn_id))
            continue
        size = len(compact_json(turn).encode()) + 1
        batch = open_batches.get(name)
        if batch and (len(batch.ids) == TURNS_IN_OP or batch.size + size > BYTES_IN_OP):
            close(name)
        batch = open_batches.setdefault(name, _Batch())
        if not batch.ids:
            batch.size = len(
                compact_json({"conversation_id": name[0], "device_name": name[1], "turns": []}).encode()
            )
        batch.turns.append(turn)
        batch.ids.append(turn_id)
        batch.size += size
    for name in list(open_batches):
        close(name)
    connection.executemany("UPDATE turns SET stamp = ? WHERE id = ?", stamps)
    return ops


def _turn_fits(turn: Mapping[str, Any], row: Row, name: tuple[str, str]) -> bool:
    payload = {"conversation_id": name[0], "device_name": name[1], "turns": [turn]}

    def first(members: Mapping[str, Any]) -> Row:
        conversation_id, device_name, turns = turn_batch(members)
        return turn_row(conversation_id, device_name, turns[0])

    return _fits(payload, row, first)


def _apply_turns(
    connection: Connection, stamp: bytes, payload: Mapping[str, Any], banned: Callable[[str], bool]
) -> str | None:
    conversation_id, device_name, turns = turn_batch(payload)
    if banned(conversation_id):
        return None
    rows: list[Row] = []
    for turn in turns:
        with contextlib.suppress(UnfitError):
            rows.append((*turn_row(conversation_id, device_name, turn), stamp))
    if not rows:
        return None
    _know_conversation(connection, conversation_id)
    changed = connection.executemany(_PUT_TURN, rows).rowcount
    return conversation_id if changed else None


def _apply_conversation(
    connection: Connection, stamp: bytes, payload: Mapping[str, Any], banned: Callable[[str], bool]
) -> str | None:
    row = conversation_row(payload)
    conversation_id = str(row[0])
    if banned(conversation_id):
        return None
    stored = connection.execute(
        f"SELECT {CONVERSATION_COLUMNS}, stamp FROM conversations WHERE id = ?",  # noqa: S608
        (conversation_id,),
    ).fetchone()
    merged = (*row, stamp) if stored is None else _merged(stored, (*row, stamp))
    if merged == stored:
        return None
    connection.execute(_PUT_CONVERSATION, merged)
    return conversation_id


def _merged(stored: Row, given: Row) -> Row:
    """Of two versions of a conversation the later one; listed if either is."""
    *_, stored_listed, stored_stamp = stored
    listed = max(stored_listed, given[-2])
    at, given_at = stored[3], given[3]
    own = stored_stamp is None
    # What no op tells of yet will have the later stamp, its op being made after all that were merged here. So it is
    # where both say the same, too: an earlier op of this device, which said otherwise, may be later than the given.
    stored_key = (at, b"\xff" if own else stored_stamp)
    later = stored if stored_key >= (given_at, given[-1]) else given
    stamp = later[-1]
    if own and listed > given[-2]:
        stamp = None  # that it is listed nobody else knows
    return (*later[:-2], listed, stamp)


def _apply_finding(
    connection: Connection, stamp: bytes, payload: Mapping[str, Any], banned: Callable[[str], bool]
) -> str | None:
    row = finding_row(payload)
    if banned(row[0]):
        return None
    stored = connection.execute(
        f"SELECT {FINDING_COLUMNS}, stamp FROM findings WHERE conversation_id = ? AND kind = ? AND finding_id = ?",  # noqa: S608
        row[:3],
    ).fetchone()
    if stored is not None:
        # One that no op tells of yet is the later; so it is where it says the same, as with conversations.
        if stored[-1] is None or stored[-1] >= stamp:
            return None
        if stored[:-1] == row:
            connection.execute(
                "UPDATE findings SET stamp = ? WHERE conversation_id = ? AND kind = ? AND finding_id = ?",
                (stamp, *row[:3]),
            )
            return None
    # A new number: what reads on from a number comes by it again.
    connection.execute(
        f"INSERT OR REPLACE INTO findings ({FINDING_COLUMNS}, stamp) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (*row, stamp),
    )
    return str(row[0])


def _apply_handoff(
    connection: Connection, stamp: bytes, payload: Mapping[str, Any], banned: Callable[[str], bool]
) -> str | None:
    row = handoff_row(payload)
    if banned(row[1]):
        return None
    _know_conversation(connection, row[1])
    changed = connection.execute(_PUT_HANDOFF, (*row, stamp)).rowcount
    return str(row[1]) if changed else None


def _know_conversation(connection: Connection, conversation_id: str) -> None:
    """Turns and handoffs may come before their conversation, which then fills this in."""
    connection.execute(
        f"INSERT INTO conversations ({CONVERSATION_COLUMNS}, stamp) VALUES (?, ?, '', ?, 0, '', 0, ?)"  # noqa: S608
        " ON CONFLICT DO NOTHING",
        (conversation_id, conversation_id, UNKNOWN_TIME, NEVER),
    )


def _put(table: str, key: str, columns: str, *, smallest: bool = False) -> str:
    """The statement that puts a row with its stamp over the one of its key, with `smallest` if its stamp is."""
    names = [name.strip() for name in f"{columns}, stamp".split(",")]
    changes = ", ".join(f"{name} = excluded.{name}" for name in names)
    condition = f" WHERE {table}.stamp IS NULL OR {table}.stamp = X'' OR excluded.stamp < {table}.stamp"
    return (
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608
        f" ON CONFLICT ({key}) DO UPDATE SET {changes}{condition if smallest else ''}"
    )


_PUT_CONVERSATION: Final = _put("conversations", "id", CONVERSATION_COLUMNS)
_PUT_TURN: Final = _put("turns", "conversation_id, uuid", TURN_COLUMNS, smallest=True)
_PUT_HANDOFF: Final = _put("handoffs", "handoff_id", HANDOFF_COLUMNS, smallest=True)

_Apply = Callable[[Connection, bytes, Mapping[str, Any], Callable[[str], bool]], str | None]
_APPLY: Final[Mapping[str, _Apply]] = {
    OpKind.TURN_ADD: _apply_turns,
    OpKind.CONVERSATION_SET: _apply_conversation,
    OpKind.FINDING_PUT: _apply_finding,
    OpKind.HANDOFF_ADD: _apply_handoff,
}
