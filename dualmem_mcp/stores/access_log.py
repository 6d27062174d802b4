"""Which items search gave as answers, how often and when, and the working set, in the encrypted database."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.model.search import SearchItem, key_digest
from dualmem_mcp.model.use import decayed
from dualmem_mcp.ports import Access, AccessColumns, CachedItem
from dualmem_mcp.stores.columns import (
    from_column,
    from_microseconds,
    from_time,
    to_column,
    to_microseconds,
    to_time,
)
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEYS_A_QUERY: Final = 500
_DAY: Final = 86_400_000_000
"""In microseconds."""


@dataclass(frozen=True, slots=True)
class _Use:
    """A row: `last_at` in microseconds since 1970, `relevance` None where no score is known."""

    count: int
    last_at: int
    weight: float
    relevance: float | None


class DatabaseAccessLog:
    """An AccessLog in memory.db, so that it outlives the indexes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, uses: Sequence[tuple[str, float]], at: datetime) -> None:
        """As the port says; scores beyond 0 and 1 count as these, and what is no number as 0."""
        if not uses:
            return
        moment = to_microseconds(at)
        with self._database.write() as connection:
            known = _uses(connection, list(dict.fromkeys(key for key, _ in uses)))
            for key, score in uses:
                known[key] = _used_again(known.get(key), _fraction(score), moment)
            connection.executemany(
                "INSERT OR REPLACE INTO accesses VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (key_digest(key), to_column(key), use.count, use.last_at, use.weight, use.relevance)
                    for key, use in known.items()
                ],
            )

    def columns(self) -> AccessColumns:
        """As the port says; a relevance that is not known is 0."""
        import numpy as np  # noqa: PLC0415  (0.1 s, which a start need not wait for)

        row = np.dtype([("digest", "i8"), ("weight", "f4"), ("relevance", "f4"), ("last_at", "i8")])
        with self._database.read() as connection:
            rows = np.fromiter(
                connection.execute(
                    "SELECT digest, weight, coalesce(relevance, 0), last_at FROM accesses ORDER BY digest"
                ),
                dtype=row,
            )
        # Columns of their own, so that the rows can go.
        return AccessColumns(
            keys=rows["digest"].copy(),
            weights=rows["weight"].copy(),
            relevances=rows["relevance"].copy(),
            last_at=rows["last_at"].copy(),
        )

    def accesses(self, keys: Sequence[str]) -> Mapping[str, Access]:
        """As the port says; a relevance that is not known is 0."""
        with self._database.read() as connection:
            found = _uses(connection, keys)
        return {
            key: Access(use.count, from_microseconds(use.last_at), use.weight, use.relevance or 0.0)
            for key, use in found.items()
        }

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


def _uses(connection: Connection, keys: Sequence[str]) -> dict[str, _Use]:
    digests = [key_digest(key) for key in keys]
    wanted = set(keys)
    found: dict[str, _Use] = {}
    for start in range(0, len(digests), _KEYS_A_QUERY):
        some = digests[start : start + _KEYS_A_QUERY]
        marks = ", ".join("?" * len(some))
        rows = connection.execute(
            f"SELECT key, count, last_at, weight, relevance FROM accesses WHERE digest IN ({marks})",  # noqa: S608
            some,
        )
        found.update((from_column(key), _Use(*use)) for key, *use in rows if from_column(key) in wanted)
    return found


def _used_again(before: _Use | None, score: float, moment: int) -> _Use:
    if before is None:
        return _Use(1, moment, 1.0, score)
    last = max(before.last_at, moment)
    # One that comes after a clock was set back counts as if it had been at the last: nothing is taken off for it.
    weight = decayed(before.weight, (last - before.last_at) / _DAY)
    relevance = score if before.relevance is None else (weight * before.relevance + score) / (weight + 1.0)
    return _Use(before.count + 1, last, weight + 1.0, relevance)


def _fraction(score: float) -> float:
    return min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0


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
