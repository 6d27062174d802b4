"""The op log: each change is written down in the transaction that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import OpKind, Stamp, Tag, next_ticks, subject_digest
from dualmem_mcp.stores.connection import Connection

MOST_AHEAD_MS: Final = 300_000
"""Stamps more than five minutes ahead of the bucket's clock are not made. Source: docs/sync.md, "Time"."""


class OpWriter:
    """Stamps and writes the ops of one write transaction.

    The clock's last reading lies in the database, so stamps grow over all processes of the data home; it is
    read at the start and written by `finish`, which the transaction's owner calls at the end.
    """

    def __init__(self, connection: Connection, device_id: DeviceId, instant: datetime) -> None:
        self._connection = connection
        self._instant = instant
        self._ticks, device, ahead_ms = connection.execute(
            "SELECT ticks, device_id, ahead_ms FROM hybrid_clock"
        ).fetchone()
        # A copied data home takes a new id while programs run that were started with the old one.
        self._device_id = DeviceId(device or device_id)
        # Where this machine's clock is ahead of the bucket's by more than what others take as the present.
        if ahead_ms > MOST_AHEAD_MS:
            self._instant = instant - timedelta(milliseconds=ahead_ms)
        row = connection.execute(
            "SELECT last_sequence FROM op_sequences WHERE device_id = ?", (self._device_id,)
        ).fetchone()
        self._sequence: int = row[0] if row else 0
        self._rows: list[tuple[str, int, int, str, str, bytes | None]] = []
        self._tombstones: list[tuple[bytes, bytes]] = []
        self._written = False

    def next_stamp(self) -> Stamp:
        """A new stamp, for the next op; ops are recorded in the order of their stamps."""
        self._ticks = next_ticks(self._ticks, self._instant)
        return Stamp(self._ticks, self._device_id)

    def record(self, kind: OpKind, payload: Mapping[str, Any], stamp: Stamp | None = None) -> Stamp:
        """Write an op with a stamp from `next_stamp`, or a new one; returns it."""
        stamp = stamp or self.next_stamp()
        self._sequence += 1
        subject = subject_digest(kind, payload)
        self._rows.append(
            (self._device_id, self._sequence, stamp.ticks, kind.value, compact_json(payload), subject)
        )
        return stamp

    def bury(self, tags: bytes, stamp: Stamp) -> None:
        """Remember that the op with this stamp deleted the items of these concatenated tags."""
        deleted_by = stamp.to_bytes()
        size = Tag.SIZE_BYTES
        self._tombstones.extend((tags[at : at + size], deleted_by) for at in range(0, len(tags), size))

    def finish(self) -> bool:
        """Write what was recorded; whether anything was. If not, nothing is written at all."""
        self.flush()
        return self._written

    def flush(self) -> None:
        """Write what was recorded so far, for those who read ops within the transaction."""
        if not self._rows:
            return
        connection = self._connection
        connection.executemany(
            "INSERT INTO ops (device_id, sequence, ticks, kind, payload, subject) VALUES (?, ?, ?, ?, ?, ?)",
            self._rows,
        )
        if self._tombstones:
            connection.executemany("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", self._tombstones)
        connection.execute("UPDATE hybrid_clock SET ticks = ?", (self._ticks,))
        connection.execute(
            "INSERT INTO op_sequences VALUES (?, ?)"
            " ON CONFLICT (device_id) DO UPDATE SET last_sequence = excluded.last_sequence",
            (self._device_id, self._sequence),
        )
        self._rows.clear()
        self._tombstones.clear()
        self._written = True
