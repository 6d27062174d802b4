"""What of memory.db an index does not have yet, and how far each index has come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, get_args

from dualmem_mcp.model.graph import Entity
from dualmem_mcp.model.oplog import COUNTER_BITS, Tag
from dualmem_mcp.model.search import Collection, SearchItem, item_key
from dualmem_mcp.model.source import Finding, FindingKind, IndexProgress, StoredTurn
from dualmem_mcp.stores.columns import from_column, from_time, to_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.erasure_rows import forgotten_items, note_forgotten
from dualmem_mcp.stores.finding_rows import read_findings_after
from dualmem_mcp.stores.folded_records import RECORD_FINDING
from dualmem_mcp.stores.graph_cache import GRAPH_PAYLOAD, graph_version, read_entity
from dualmem_mcp.stores.untold_changes import entities_changed

_CHARACTERS_AT_ONCE: Final = 2_000_000
"""Texts read into memory at once end after so many characters; at least one is read."""

FINDING_KINDS: Final = frozenset(get_args(FindingKind))


class SearchFeed:
    """A SearchTruth in memory.db. `device_names` gives the names of the vault's devices by their ids: records know
    the ids alone of those who made them."""

    def __init__(self, database: Database, device_names: Callable[[], Mapping[str, str]] = dict) -> None:
        self._database = database
        self._device_names = device_names

    def turns(self, after: int, limit: int) -> Sequence[StoredTurn]:
        """As the port says."""
        found: list[StoredTurn] = []
        size = 0
        with self._database.read() as connection:
            for row in connection.execute(
                "SELECT turns.id, conversation_id, uuid, role, text, timestamp, author,"
                " CASE turns.device_name WHEN '' THEN conversations.device_name ELSE turns.device_name END,"
                " origin, is_compact_summary FROM turns JOIN conversations ON conversations.id = conversation_id"
                " WHERE turns.id > ? AND NOT is_meta AND text <> '' ORDER BY turns.id LIMIT ?",
                (after, limit),
            ):
                found.append(_turn(row))
                size += len(found[-1].text)
                if size > _CHARACTERS_AT_ONCE:
                    break
        return found

    def turns_after(self, after: int) -> int:
        """As the port says."""
        with self._database.read() as connection:
            (last,) = connection.execute("SELECT max(id) FROM turns").fetchone()
            return max(0, (last or 0) - after)

    def findings(self, after: int, kinds: Sequence[FindingKind], limit: int) -> Sequence[tuple[int, Finding]]:
        """As the port says."""
        with self._database.read() as connection:
            found = read_findings_after(connection, after, kinds, limit)
        if not any(_is_of_record(one) for _, one in found):
            return found
        names = self._device_names()
        return [
            (number, replace(one, device=names.get(one.device, "")) if _is_of_record(one) else one)
            for number, one in found
        ]

    def graph_version(self) -> int:
        """The number of the graph's last change; 0 before the first."""
        with self._database.read() as connection:
            return graph_version(connection)

    def changed_entities(self, after: int, limit: int) -> tuple[Sequence[str], int]:
        """As the port says."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT id, {GRAPH_PAYLOAD} FROM ops WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608
                (after, limit),
            ).fetchall()
            # Behind the last op there may be numbers of changes that none tells of.
            last = rows[-1][0] if len(rows) == limit else max(after, graph_version(connection))
            untold = entities_changed(connection, after, last)
        names = [json.loads(payload).get("name") for _, payload in rows if payload is not None]
        return list(dict.fromkeys(name for name in (*names, *untold) if isinstance(name, str))), last

    def entities(self, names: Iterable[str]) -> Sequence[tuple[Entity, datetime]]:
        """As the port says."""
        found: list[tuple[Entity, datetime]] = []
        with self._database.read() as connection:
            for name in names:
                row = read_entity(connection, name)
                if row is not None:
                    found.append((row[1], _changed_at(connection, row[0])))
        return found

    def deleted(self, items: Sequence[SearchItem]) -> set[str]:
        """The keys of those of the items that this memory knows to be deleted: findings that were removed, and
        entities that are not there and are no newer than what this device has heard of. One without any entity has
        heard of none yet."""
        with self._database.read() as connection:
            gone = _removed_findings(connection, [item for item in items if item.kind in FINDING_KINDS])
            return gone | _missing_entities(connection, [item for item in items if item.kind == "entity"])

    def forgotten(self, collection: Collection, limit: int) -> Sequence[str]:
        """As the port says."""
        with self._database.read() as connection:
            return forgotten_items(connection, collection.value, limit)

    def note_forgotten(self, keys: Sequence[str]) -> None:
        """As the port says."""
        with self._database.write() as connection:
            note_forgotten(connection, keys)

    def progress(self, generation: str) -> IndexProgress | None:
        """As the port says."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT turns, findings, ops FROM index_progress WHERE generation = ?", (generation,)
            ).fetchone()
            return IndexProgress(*row) if row else None

    def save_progress(self, generation: str, collection: Collection, progress: IndexProgress) -> None:
        """As the port says."""
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM index_progress WHERE collection = ? AND generation <> ?",
                (collection.value, generation),
            )
            connection.execute(
                "INSERT OR REPLACE INTO index_progress VALUES (?, ?, ?, ?, ?)",
                (generation, collection.value, progress.turns, progress.findings, progress.ops),
            )


def _removed_findings(connection: Connection, items: Sequence[SearchItem]) -> set[str]:
    gone: set[str] = set()
    for conversation_id in {item.conversation_id for item in items}:
        rows = connection.execute(
            "SELECT kind, finding_id FROM findings WHERE conversation_id = ? AND text = ''", (conversation_id,)
        )
        gone.update(item_key(kind, conversation_id, from_column(finding_id)) for kind, finding_id in rows)
    return gone.intersection(item.key for item in items)


def _missing_entities(connection: Connection, items: Sequence[SearchItem]) -> set[str]:
    if not items or connection.execute("SELECT 1 FROM entities LIMIT 1").fetchone() is None:
        return set()
    (ticks,) = connection.execute("SELECT ticks FROM hybrid_clock").fetchone()
    heard = datetime.fromtimestamp((ticks >> COUNTER_BITS) / 1000, UTC)
    gone = set()
    for item in items:
        name = to_column(item.key.removeprefix(item_key("entity", "")))
        if item.timestamp is not None and item.timestamp > heard:
            continue
        if connection.execute("SELECT 1 FROM entities WHERE name = ?", (name,)).fetchone() is None:
            gone.add(item.key)
    return gone


def _turn(row: tuple[Any, ...]) -> StoredTurn:
    return StoredTurn(
        id=row[0],
        conversation_id=row[1],
        uuid=from_column(row[2]),
        role=row[3],
        text=from_column(row[4]),
        timestamp=from_time(row[5]) if row[5] else None,
        author=from_column(row[6]),
        device=from_column(row[7]),
        origin=row[8],
        is_compact_summary=bool(row[9]),
    )


def _is_of_record(finding: Finding) -> bool:
    return finding.finding_id.startswith(RECORD_FINDING)


def _changed_at(connection: Connection, entity_id: int) -> datetime:
    """When the entity, or the newest of its observations, was added: the latest of their add-tags."""
    newest = 0
    for (tags,) in connection.execute(
        "SELECT tags FROM entities WHERE id = ?1 UNION ALL SELECT tags FROM observations WHERE entity_id = ?1",
        (entity_id,),
    ):
        for at in range(0, len(tags), Tag.SIZE_BYTES):
            newest = max(newest, int.from_bytes(tags[at : at + 8], "big"))
    return datetime.fromtimestamp((newest >> COUNTER_BITS) / 1000, UTC)
