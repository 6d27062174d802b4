"""Data homes that hand each other ops directly, any of them in any order, as no log would."""

from __future__ import annotations

import functools
import json
import random
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dualmem_mcp.model.field_versions import FieldState
from dualmem_mcp.model.graph import Entity, EntityObservations, Graph, Relation
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.merge import EntityState, RecordState, RelationState, SubjectState, merge
from dualmem_mcp.model.subject_op import SubjectOp
from dualmem_mcp.stores.columns import from_column
from dualmem_mcp.stores.conflict_store import ConflictStore
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.stores.subject_fold import refold
from tests.conftest import SteppingClock

ROW_TABLES = ("entities", "observations", "relations", "records", "conflicts", "tombstones", "findings")


@functools.cache
def _empty_database() -> bytes:
    """A database with its schema, which takes longer to make than many a test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.db"
        Database.open(path, bytes(32)).close()
        return path.read_bytes()


class Home:
    """One data home with its stores. Its clock starts `number` hours after the others'."""

    def __init__(self, folder: Path, number: int) -> None:
        self.clock = SteppingClock(datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=number), step_seconds=1)
        self.device_id = DeviceId(f"{number + 1:032x}")
        path = folder / f"{number}.db"
        path.write_bytes(_empty_database())
        self.database = Database.open(path, bytes(32))
        self.graph = GraphStore(self.database, self.clock, self.device_id)
        self.records = RecordStore(self.database, self.clock, self.device_id)
        self.conflicts = ConflictStore(self.database, self.clock, self.device_id)

    def set_fields(self, entity: Entity) -> None:
        """Change type and extra fields of an entity that there is."""
        self.graph.import_graph(Graph((entity,)), edited_since=self.graph.version())

    def set_relation(self, relation: Relation) -> None:
        self.graph.import_graph(Graph((), (relation,)), edited_since=self.graph.version())

    def ops(self) -> list[tuple[Any, ...]]:
        with self.database.read() as connection:
            return connection.execute(
                "SELECT device_id, sequence, ticks, kind, payload, subject FROM ops ORDER BY id"
            ).fetchall()

    def take(self, ops: Sequence[tuple[Any, ...]]) -> None:
        """Merge ops of other homes."""
        with self.database.write() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO ops (device_id, sequence, ticks, kind, payload, subject)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                ops,
            )
            newest = max((op[2] for op in ops), default=0)
            connection.execute("UPDATE hybrid_clock SET ticks = max(ticks, ?)", (newest,))
            refold(connection, {op[5] for op in ops})

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        with self.database.read() as connection:
            return {
                table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in ROW_TABLES
            }

    def refold_all(self) -> None:
        with self.database.write() as connection:
            refold(connection, [row[0] for row in connection.execute("SELECT DISTINCT subject FROM ops")])

    def as_rows_say(self) -> dict[bytes, SubjectState]:
        """What the rows tell of each subject that exists, without its clashes."""
        return dict(_read_states(self.database))

    def as_ops_say(self) -> dict[bytes, SubjectState]:
        """What the ops add up to on paper, without clashes."""
        own: dict[bytes, list[SubjectOp]] = {}
        for device, _, ticks, kind, payload, subject in self.ops():
            own.setdefault(subject, []).append(SubjectOp(f"{ticks:016x}-{device}", kind, json.loads(payload)))
        found = {}
        for subject, ops in own.items():
            state = merge(random.Random(1).sample(ops, len(ops)))
            if isinstance(state, RecordState) and state.exists:
                found[subject] = RecordState(
                    state.type, state.id, state.conversation_id, state.fields, state.created, state.changed, False
                )
            elif isinstance(state, EntityState) and state.tags:
                found[subject] = EntityState(state.name, state.tags, state.fields, state.observations)
            elif isinstance(state, RelationState) and state.tags:
                found[subject] = RelationState(
                    state.source, state.target, state.relation_type, state.tags, state.fields
                )
        return found


def _read_states(database: Database) -> Any:
    from dualmem_mcp.model.oplog import Stamp, split_tags, subject_digest

    def tags(data: bytes) -> tuple[str, ...]:
        return tuple(map(str, split_tags(data)))

    def fields(values: dict[str, Any], own: tuple[str, ...], stamps: str | None) -> dict[str, FieldState]:
        known = json.loads(stamps or "{}")
        first = own[0].partition(".")[0] if own else ""
        assert set(known) <= set(values)
        return {name: FieldState(value, tuple(known.get(name, first).split())) for name, value in values.items()}

    def extra(text: str | None) -> dict[str, Any]:
        return {f"extra.{key}": value for key, value in json.loads(text or "{}").items()}

    with database.read() as connection:
        for row_id, name, kind, tag_bytes, more, stamps in connection.execute(
            "SELECT id, name, entity_type, tags, extra, field_stamps FROM entities"
        ).fetchall():
            found = {
                from_column(text): tags(own)
                for text, own in connection.execute(
                    "SELECT text, tags FROM observations WHERE entity_id = ?", (row_id,)
                )
            }
            values = {"entityType": from_column(kind), **extra(more)}
            own = tags(tag_bytes)
            yield (
                subject_digest("entity.create", {"name": from_column(name)}),
                EntityState(from_column(name), own, fields(values, own, stamps), found),
            )
        for *ends, tag_bytes, more, stamps in connection.execute(
            "SELECT source, target, relation_type, tags, extra, field_stamps FROM relations"
        ).fetchall():
            triple = [from_column(end) for end in ends]
            own = tags(tag_bytes)
            yield (
                subject_digest("relation.create", {"from": triple[0], "to": triple[1], "relationType": triple[2]}),
                RelationState(triple[0], triple[1], triple[2], own, fields(extra(more), own, stamps)),
            )
        for kind, record_id, conversation_id, values, stamps, created, changed in connection.execute(
            "SELECT type, id, conversation_id, fields, stamps, created, changed FROM records"
        ).fetchall():
            yield (
                subject_digest("record.set", {"type": kind, "id": record_id}),
                RecordState(
                    kind,
                    record_id,
                    conversation_id,
                    fields(json.loads(values), (), stamps),
                    str(Stamp.from_bytes(created)),
                    str(Stamp.from_bytes(changed)),
                    False,
                ),
            )


def additions(name: str, *texts: str) -> list[EntityObservations]:
    return [EntityObservations(name, texts)]
