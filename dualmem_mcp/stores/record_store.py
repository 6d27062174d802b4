"""Notes, tasks, bookmarks and their like in the encrypted database."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from dualmem_mcp.model.field_versions import same_value
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import OpKind, Stamp, subject_digest
from dualmem_mcp.model.record import RecordType
from dualmem_mcp.ports import Clock, Record
from dualmem_mcp.stores.conflict_rows import conflict_heads
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.op_log import OpWriter
from dualmem_mcp.stores.subject_fold import refold

_COLUMNS: Final = "type, id, conversation_id, fields, created, changed"


class RecordStore:
    """Records, for use from any thread, beside other processes on the same data home."""

    def __init__(self, database: Database, clock: Clock, device_id: DeviceId) -> None:
        self._database = database
        self._clock = clock
        self._device_id = device_id
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call the listener after each call that changed a record, in that call's thread, after its commit."""
        self._listeners.append(listener)

    def put(
        self, record_type: RecordType, record_id: str, fields: Mapping[str, Any], *, conversation_id: str = ""
    ) -> bool:
        """As the port says."""
        with self._change() as writer:
            return writer.put(record_type, record_id, fields, conversation_id)

    def get(self, record_type: RecordType, record_id: str) -> Record | None:
        """As the port says."""
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM records WHERE type = ? AND id = ?",  # noqa: S608
                (record_type, record_id),
            ).fetchone()
            return _record(row) if row else None

    def find(
        self, *, conversation_id: str | None = None, types: Sequence[RecordType] = (), limit: int = 1000
    ) -> Sequence[Record]:
        """As the port says."""
        conditions: list[str] = []
        values: list[Any] = []
        if conversation_id is not None:
            conditions.append("conversation_id = ?")
            values.append(conversation_id)
        if types:
            conditions.append(f"type IN ({', '.join('?' * len(types))})")
            values += types
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM records{where} ORDER BY created DESC LIMIT ?",  # noqa: S608
                (*values, limit),
            ).fetchall()
        return [_record(row) for row in reversed(rows)]

    def delete(self, record_type: RecordType, record_id: str) -> bool:
        """As the port says."""
        with self._change() as writer:
            return writer.delete(record_type, record_id)

    @contextlib.contextmanager
    def _change(self) -> Iterator[RecordWriter]:
        with self._database.write() as connection:
            ops = OpWriter(connection, self._device_id, self._clock.now())
            writer = RecordWriter(connection, ops)
            yield writer
            changed = ops.finish()
            refold(connection, writer.subjects)
        if changed:
            for listener in self._listeners:
                listener()


class RecordWriter:
    """Writes ops of records; `subjects` are those to be made anew once the ops are in the database."""

    def __init__(self, connection: Connection, ops: OpWriter) -> None:
        self.subjects: set[bytes] = set()
        self._connection = connection
        self._ops = ops

    def put(self, record_type: str, record_id: str, fields: Mapping[str, Any], conversation_id: str) -> bool:
        """Set those of the fields that differ; whether there were any. Nothing for a record that was deleted, nor
        for one of a conversation that was erased."""
        row = self._connection.execute(
            "SELECT fields, stamps, conversation_id FROM records WHERE type = ? AND id = ?",
            (record_type, record_id),
        ).fetchone()
        old: dict[str, Any] = json.loads(row[0]) if row else {}
        stamps: dict[str, str] = json.loads(row[1]) if row else {}
        changed = {
            name: value for name, value in fields.items() if name not in old or not same_value(value, old[name])
        }
        if (row and not changed) or (row is None and self._was_deleted(record_type, record_id)):
            return False
        if row is None and self._is_erased(conversation_id):
            return False
        belongs_to = row[2] if row else conversation_id
        self._record(
            OpKind.RECORD_SET,
            {
                "type": record_type,
                "id": record_id,
                **({"conversation_id": belongs_to} if belongs_to else {}),
                "fields": changed,
                "over": {name: stamps[name].split() for name in changed if name in stamps},
            },
        )
        return True

    def _is_erased(self, conversation_id: str) -> bool:
        found = self._connection.execute("SELECT 1 FROM erased_conversations WHERE id = ?", (conversation_id,))
        return found.fetchone() is not None

    def delete(self, record_type: str, record_id: str) -> bool:
        """Delete the record; whether there was one."""
        row = self._connection.execute(
            "SELECT stamps FROM records WHERE type = ? AND id = ?", (record_type, record_id)
        ).fetchone()
        if row is None:
            return False
        payload: dict[str, Any] = {"type": record_type, "id": record_id}
        heads = {stamp for stamps in json.loads(row[0]).values() for stamp in stamps.split()}
        subject = subject_digest(OpKind.RECORD_DELETE, payload)
        if subject is not None:
            heads |= conflict_heads(self._connection, subject)
        payload["over"] = sorted(heads)
        self._record(OpKind.RECORD_DELETE, payload)
        return True

    def _record(self, kind: OpKind, payload: Mapping[str, Any]) -> None:
        self._ops.record(kind, payload)
        subject = subject_digest(kind, payload)
        if subject is not None:
            self.subjects.add(subject)

    def _was_deleted(self, record_type: str, record_id: str) -> bool:
        subject = subject_digest(OpKind.RECORD_DELETE, {"type": record_type, "id": record_id})
        return (
            self._connection.execute(
                "SELECT 1 FROM ops WHERE subject = ? AND kind = ? AND NOT held",
                (subject, OpKind.RECORD_DELETE.value),
            ).fetchone()
            is not None
        )


def _record(row: Sequence[Any]) -> Record:
    record_type, record_id, conversation_id, fields, created, changed = row
    return Record(
        record_type,
        record_id,
        conversation_id,
        json.loads(fields),
        Stamp.from_bytes(created),
        Stamp.from_bytes(changed),
    )
