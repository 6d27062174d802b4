"""Which items search gave as answers, how often and when, and the working set, in the encrypted database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.ports import Access, CachedItem
from dualmem_mcp.stores.columns import from_column, from_time, to_column, to_time
from dualmem_mcp.stores.database import Database

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEYS_A_QUERY: Final = 500


class DatabaseAccessLog:
    """An AccessLog in memory.db, so that it outlives the indexes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, keys: Sequence[str], at: datetime) -> None:
        """As the port says."""
        if not keys:
            return
        moment = to_time(at)
        with self._database.write() as connection:
            connection.executemany(
                "INSERT INTO accesses VALUES (?, 1, ?) ON CONFLICT (key) DO UPDATE"
                " SET count = count + 1, last_at = max(last_at, excluded.last_at)",
                [(to_column(key), moment) for key in keys],
            )

    def accesses(self, keys: Sequence[str]) -> Mapping[str, Access]:
        """As the port says."""
        found: dict[str, Access] = {}
        with self._database.read() as connection:
            for start in range(0, len(keys), _KEYS_A_QUERY):
                some = keys[start : start + _KEYS_A_QUERY]
                marks = ", ".join("?" * len(some))
                rows = connection.execute(
                    f"SELECT key, count, last_at FROM accesses WHERE key IN ({marks})",  # noqa: S608
                    [to_column(key) for key in some],
                )
                found.update((from_column(key), Access(count, from_time(last))) for key, count, last in rows)
        return found

    def working_set(self, model_id: str) -> Sequence[CachedItem]:
        """As the port says, the highest priority first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT item, model_id, vector, priority FROM working_set ORDER BY position"
            ).fetchall()
        return [
            CachedItem(_item(json.loads(item)), _vector(vector) if model == model_id else None, priority)
            for item, model, vector, priority in rows
        ]

    def save_working_set(self, model_id: str, entries: Sequence[CachedItem]) -> None:
        """As the port says."""
        ordered = sorted(entries, key=lambda entry: -entry.priority)
        rows = [
            (position, _json(entry.item), model_id, _blob(entry.vector), entry.priority)
            for position, entry in enumerate(ordered)
        ]
        with self._database.write() as connection:
            connection.execute("DELETE FROM working_set")
            connection.executemany("INSERT INTO working_set VALUES (?, ?, ?, ?, ?)", rows)


def _json(item: SearchItem) -> str:
    # ASCII, so that half surrogate pairs survive.
    return json.dumps({**asdict(item), "timestamp": item.timestamp and to_time(item.timestamp)})


def _item(fields: dict[str, Any]) -> SearchItem:
    return SearchItem(**{**fields, "timestamp": fields["timestamp"] and from_time(fields["timestamp"])})


def _blob(vector: NDArray[np.float32] | None) -> bytes | None:
    return None if vector is None else vector.astype("<f2").tobytes()


def _vector(blob: bytes | None) -> NDArray[np.float32] | None:
    import numpy as np  # noqa: PLC0415  (0.1 s, which a start need not wait for)

    return None if blob is None else np.frombuffer(blob, dtype="<f2").astype(np.float32)
