"""A VectorTier in one encrypted SQLite file: a tier without a service, and what the service is compared with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

import numpy as np

from dualmem_mcp.errors import StoreRefusedError
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports.tiers import SparseVector, TierHit, TierPage, TierPoint, check_dimensions
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database, DatabaseKind
from dualmem_mcp.stores.database_faults import Remedies
from dualmem_mcp.stores.search_index.layout import load_sqlite_vec

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

FORMAT: Final = 1

_AT_ONCE: Final = 500
_MOST_NEIGHBOURS: Final = 4096
"""Source: sqlite-vec 0.1.9, the largest k of a vec0 table."""

_TABLES: Final = (
    "CREATE TABLE state (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE points (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        tenant TEXT NOT NULL,
        payload BLOB NOT NULL,
        indices BLOB,                         -- NULL: has no words
        weights BLOB
    ) STRICT""",
    "CREATE INDEX points_of_tenants ON points (tenant, id)",
    # Vectors are in a vec0 table, made when their length is known.
    """CREATE TABLE words (
        tenant TEXT NOT NULL,
        word INTEGER NOT NULL,
        number INTEGER NOT NULL,
        weight REAL NOT NULL,
        PRIMARY KEY (tenant, word, number)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX words_of_points ON words (number)",
)

_WHOLE: Final = (
    "SELECT p.id, p.payload, p.indices, p.weights, v.vector FROM points p JOIN vectors v ON v.number = p.number "
    "WHERE p.tenant = ? AND p.id IN (SELECT value FROM json_each(?))"
)
_NEAREST: Final = "SELECT number, distance FROM vectors WHERE vector MATCH ? AND tenant = ? AND k = ?"
_WITH_WORDS: Final = "SELECT count(*) FROM points WHERE tenant = ? AND indices IS NOT NULL AND length(indices) > 0"
_HOLDING: Final = (
    "SELECT word, count(*) FROM words WHERE tenant = ? AND word IN (SELECT value FROM json_each(?)) GROUP BY word"
)
_BEST: Final = (
    "SELECT w.number, sum(w.weight * q.value) AS score FROM json_each(?) q "
    "JOIN words w ON w.tenant = ? AND w.word = CAST(q.key AS INTEGER) "
    "GROUP BY w.number ORDER BY score DESC, w.number LIMIT ?"
)


class SqliteVectorTier:
    """As VectorTier says; searches are exact, and take time in proportion to the tenant's points."""

    def __init__(self, database: Database, name: TierName, dimensions: int) -> None:
        """Use `open`."""
        self._database = database
        self._name: TierName = name
        self._dimensions = dimensions

    @classmethod
    def open(cls, path: Path, key: bytes, *, name: TierName, model_id: str, dimensions: int) -> Self:
        """The tier in that file, made if there is none; `key` has 32 bytes.

        Raises StoreRefusedError if it holds the vectors of another model, and what `Database.open` raises.
        """
        database = Database.open(path, key, _KIND)
        try:
            with database.write() as connection:
                _use_model(connection, model_id, dimensions, str(path))
        except BaseException:
            database.close()
            raise
        return cls(database, name, dimensions)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def name(self) -> TierName:
        """As VectorTier says."""
        return self._name

    @property
    def dimensions(self) -> int:
        """As VectorTier says."""
        return self._dimensions

    def upsert(self, points: Sequence[TierPoint]) -> None:
        """As VectorTier says; some hundred in one transaction."""
        check_dimensions(points, self._dimensions)
        for part in _parts(points):
            with self._database.write() as connection:
                _remove(connection, _numbers(connection, [point.id for point in part]))
                # Of two points of one id the later counts.
                for point in {point.id: point for point in part}.values():
                    _insert(connection, point)

    def nearest(
        self,
        tenant: str,
        limit: int,
        *,
        vector: NDArray[np.float32] | None = None,
        words: SparseVector | None = None,
    ) -> Sequence[TierHit]:
        """As VectorTier says; at most 4,096 by the vector."""
        similarities: dict[int, float] = {}
        scores: dict[int, float] = {}
        with self._database.read() as connection:
            if vector is not None and limit > 0:
                rows = connection.execute(
                    _NEAREST, (vector.astype("<f4").tobytes(), tenant, min(limit, _MOST_NEIGHBOURS))
                ).fetchall()
                similarities = {number: 1 - distance for number, distance in rows if distance is not None}
            if words is not None and len(words.indices) and limit > 0:
                scores = _by_words(connection, tenant, words, limit)
            found = json.dumps([*(similarities | scores)])
            rows = connection.execute(
                "SELECT number, id, payload FROM points WHERE number IN (SELECT value FROM json_each(?))", (found,)
            ).fetchall()
        return [
            TierHit(point, payload, similarities.get(number), scores.get(number)) for number, point, payload in rows
        ]

    def fetch(self, tenant: str, ids: Sequence[str]) -> Sequence[TierPoint]:
        """As VectorTier says."""
        found: list[TierPoint] = []
        for part in _parts(ids):
            with self._database.read() as connection:
                rows = connection.execute(_WHOLE, (tenant, json.dumps(list(part)))).fetchall()
            for point, payload, indices, weights, vector in rows:
                words = None
                if indices is not None:
                    words = SparseVector(np.frombuffer(indices, "<u4"), np.frombuffer(weights, "<f4"))
                found.append(TierPoint(point, tenant, np.frombuffer(vector, "<f4"), payload, words))
        return found

    def remove(self, tenant: str, ids: Sequence[str]) -> None:
        """As VectorTier says."""
        for part in _parts(ids):
            with self._database.write() as connection:
                _remove(connection, _numbers(connection, part, tenant))

    def ids(self, tenant: str, *, start: str | None = None, limit: int = 1_000) -> TierPage:
        """As VectorTier says."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id FROM points WHERE tenant = ? AND id >= ? ORDER BY id LIMIT ?",
                (tenant, start or "", limit + 1),
            ).fetchall()
        found = [row[0] for row in rows]
        return TierPage(tuple(found[:limit]), found[limit] if len(found) > limit else None)

    def count(self, tenant: str) -> int:
        """As VectorTier says."""
        with self._database.read() as connection:
            row = connection.execute("SELECT count(*) FROM points WHERE tenant = ?", (tenant,)).fetchone()
        return int(row[0])


def rarity(points: int, holding: int) -> float:
    """How much a word counts that so many of the points hold. Source: Qdrant's modifier IDF."""
    return math.log((points - holding + 0.5) / (holding + 0.5) + 1)


def _by_words(connection: Connection, tenant: str, words: SparseVector, limit: int) -> dict[int, float]:
    points = connection.execute(_WITH_WORDS, (tenant,)).fetchone()[0]
    asked = dict(zip(words.indices.tolist(), words.values.tolist(), strict=True))
    holding = connection.execute(_HOLDING, (tenant, json.dumps([*asked]))).fetchall()
    weights = {word: asked[word] * rarity(points, count) for word, count in holding}
    rows = connection.execute(_BEST, (json.dumps(weights), tenant, limit)).fetchall()
    return dict(rows)


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _numbers(connection: Connection, ids: Sequence[str], tenant: str | None = None) -> list[int]:
    rows = connection.execute(
        "SELECT number FROM points WHERE id IN (SELECT value FROM json_each(?)) AND tenant = ifnull(?, tenant)",
        (json.dumps(list(ids)), tenant),
    ).fetchall()
    return [row[0] for row in rows]


def _remove(connection: Connection, numbers: Sequence[int]) -> None:
    for table in ("points", "vectors", "words"):
        connection.executemany(f"DELETE FROM {table} WHERE number = ?", [(number,) for number in numbers])  # noqa: S608


def _insert(connection: Connection, point: TierPoint) -> None:
    words = point.words
    cursor = connection.execute(
        "INSERT INTO points (id, tenant, payload, indices, weights) VALUES (?, ?, ?, ?, ?)",
        (
            point.id,
            point.tenant,
            point.payload,
            None if words is None else words.indices.astype("<u4").tobytes(),
            None if words is None else words.values.astype("<f4").tobytes(),
        ),
    )
    number = cursor.lastrowid
    connection.execute(
        "INSERT INTO vectors (number, tenant, vector) VALUES (?, ?, ?)",
        (number, point.tenant, point.vector.astype("<f4").tobytes()),
    )
    if words is not None:
        pairs = zip(words.indices.tolist(), words.values.tolist(), strict=True)
        rows = [(point.tenant, word, number, weight) for word, weight in pairs]
        connection.executemany("INSERT INTO words VALUES (?, ?, ?, ?)", rows)


def _use_model(connection: Connection, model_id: str, dimensions: int, path: str) -> None:
    state = dict(connection.execute("SELECT name, value FROM state").fetchall())
    if not state:
        connection.executemany(
            "INSERT INTO state VALUES (?, ?)", [("model_id", model_id), ("dimensions", dimensions)]
        )
        connection.execute(
            "CREATE VIRTUAL TABLE vectors USING vec0(number INTEGER PRIMARY KEY, tenant TEXT PARTITION KEY, "
            f"vector float[{dimensions:d}] distance_metric=cosine)"
        )
    elif (state["model_id"], state["dimensions"]) != (model_id, dimensions):
        raise StoreRefusedError(
            f"the tier holds vectors of {state['model_id']}, {state['dimensions']} dimensions, "
            f"and not of {model_id}, {dimensions}",
            operation="open tier",
            subject=path,
            hint="Use the model that it was made for, or delete the file: it is filled again.",
        )


def _set_up(connection: Connection, transaction: Callable[[], AbstractContextManager[None]], path: str) -> None:
    if _version(connection) == 0:
        with transaction():
            if _version(connection) == 0:
                for statement in _TABLES:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {FORMAT}")
    if _version(connection) != FORMAT:
        raise StoreRefusedError(
            "the tier was made by another version of dualmem-mcp",
            operation="open tier",
            subject=path,
            hint="Update dualmem-mcp, or delete the file: it is filled again.",
        )


def _version(connection: Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


_KIND: Final = DatabaseKind(
    salt_label=b"dualmem tier salt\0",
    set_up=_set_up,
    pragmas=("synchronous = NORMAL", "cache_size = -32768"),
    remedies=Remedies(
        does_not_open="It can be deleted: it is filled again.",
        damaged="It can be deleted: it is filled again.",
        cut="Both files can be deleted: they are filled again.",
    ),
    idle_connections=2,
    extend=load_sqlite_vec,
)
