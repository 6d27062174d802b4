"""Ops of a log that was read further than it counts: told to the others by an op of one's own, and taken from one.

What a segment brought is here as ops and as rows; what a snapshot brought, as rows with stamps and deleted tags,
too. Source: docs/sync.md, "Revoked devices".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from dualmem_mcp.errors import MalformedError
from dualmem_mcp.model.adoption import adoption
from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import Op, OpKind, Stamp, Tag
from dualmem_mcp.model.whole_log import TOMBSTONES
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.log_export import OF_ROWS, row_ops
from dualmem_mcp.stores.op_log import OpWriter
from dualmem_mcp.stores.subject_fold import batched

_MOST_OPS: Final = 100
_MOST_BYTES: Final = 256 * 1024
"""Of the payloads that one op hands on; a longer one is handed on alone."""


def adopt(connection: Connection, writer: OpWriter, device_id: DeviceId, after: int) -> int:
    """Record ops of this device that hand on what is here of the other's log behind that sequence; how many of the
    other's they hand on. The writer's owner finishes it."""
    by_conversation: dict[str, list[Op]] = {}
    for conversation_id, op in _late(connection, device_id, after):
        by_conversation.setdefault(conversation_id, []).append(op)
    for conversation_id, ops in by_conversation.items():
        for some in _in_parts(ops):
            writer.record(OpKind.LOG_ADOPT, adoption(device_id, some, conversation_id))
    return sum(map(len, by_conversation.values()))


def bury(connection: Connection, pairs: Iterable[Any]) -> set[bytes]:
    """Remember deleted tags, each with the stamp of the op that deleted it; subjects of ops that added them."""
    found: dict[bytes, bytes] = {}
    added_by: set[Stamp] = set()
    for pair in pairs:
        try:
            tag, stamp = Tag.parse(pair[0]), Stamp.parse(pair[1])
        except (MalformedError, TypeError, IndexError, KeyError):
            continue
        found[tag.to_bytes()] = stamp.to_bytes()
        added_by.add(tag.stamp)
    connection.executemany("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", found.items())
    subjects: set[bytes] = set()
    for stamp in added_by:
        subjects.update(
            subject
            for (subject,) in connection.execute(
                "SELECT subject FROM ops WHERE device_id = ? AND ticks = ? AND subject IS NOT NULL",
                (stamp.device_id, stamp.ticks),
            )
        )
    return subjects


def _late(connection: Connection, device_id: DeviceId, after: int) -> Iterator[tuple[str, Op]]:
    """What is behind the sequence, and the conversation that it is about, empty for none."""
    marks = ", ".join("?" * len(OF_ROWS))
    for sequence, ticks, kind, payload in connection.execute(
        "SELECT sequence, ticks, kind, payload FROM ops WHERE device_id = ? AND sequence > ?"  # noqa: S608
        f" AND (held OR kind NOT IN ({marks})) ORDER BY sequence",
        (device_id, after, *OF_ROWS),
    ).fetchall():
        yield _about(connection, kind, payload), Op(Stamp(ticks, device_id), sequence, kind, payload)
    # Rows tell their stamp. Where ops of the last segment that counts have gone, more is handed on than need be.
    (last,) = connection.execute(
        "SELECT coalesce(max(ticks), 0) FROM ops WHERE device_id = ? AND sequence <= ?", (device_id, after)
    ).fetchone()
    behind = (Stamp(last + 1, device_id).to_bytes(), bytes.fromhex(device_id))
    for op in row_ops(connection, "length(stamp) = 24 AND stamp >= ?1 AND substr(stamp, 9) = ?2", behind):
        yield _about(connection, op.kind, op.payload), op
    for name, stamp in connection.execute(
        "SELECT name, stamp FROM erased WHERE stamp >= ? AND substr(stamp, 9) = ?", behind
    ):
        yield "", Op(Stamp.from_bytes(stamp), 0, OpKind.CONVERSATION_ERASE, compact_json({"name": name}))
    rows = connection.execute(
        "SELECT tag, deleted_by FROM tombstones WHERE deleted_by >= ? AND substr(deleted_by, 9) = ?", behind
    )
    for some in batched(rows, _MOST_OPS):
        pairs = [[str(Tag.from_bytes(tag)), str(Stamp.from_bytes(stamp))] for tag, stamp in some]
        yield "", Op(Stamp(last, device_id), 0, TOMBSTONES, compact_json(pairs))


def _about(connection: Connection, kind: str, payload: str) -> str:
    values = json.loads(payload)
    found = values.get("conversation_id")
    if kind.startswith("record.") and not found:
        row = connection.execute(
            "SELECT conversation_id FROM records WHERE type = ? AND id = ?", (values.get("type"), values.get("id"))
        ).fetchone()
        found = row[0] if row else ""
    return found if isinstance(found, str) else ""


def _in_parts(ops: Sequence[Op]) -> Iterator[list[Op]]:
    some: list[Op] = []
    size = 0
    for op in ops:
        if some and (len(some) == _MOST_OPS or size + len(op.payload) > _MOST_BYTES):
            yield some
            some, size = [], 0
        some.append(op)
        size += len(op.payload)
    if some:
        yield some
