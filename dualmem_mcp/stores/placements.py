"""Where items' vectors lie in the service, in the encrypted database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.model.search import key_digest
from dualmem_mcp.model.tiers import TIER_NAMES, TierName
from dualmem_mcp.ports.placements import NOT_MOVING, Placement, PlacementColumns
from dualmem_mcp.stores.columns import from_column, to_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DIGESTS_A_QUERY: Final = 500
_FIELDS: Final = "key, tier, moving_to, epoch, passages, content, words"


class DatabasePlacements:
    """Placements in memory.db, rows in the order of their keys' digests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, placements: Sequence[Placement]) -> None:
        """As the port says. Raises ValueError for one on the edge: that is no place in the service."""
        rows = [_row(placement) for placement in placements]
        if not rows:
            return
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO placements VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def get(self, keys: Sequence[str]) -> Mapping[str, Placement]:
        """As the port says."""
        wanted = set(keys)
        found = self.of_digests([key_digest(key) for key in wanted])
        return {placement.key: placement for placement in found if placement.key in wanted}

    def of_digests(self, digests: Sequence[int]) -> Sequence[Placement]:
        """As the port says."""
        found: list[Placement] = []
        wanted = list(dict.fromkeys(map(int, digests)))
        with self._database.read() as connection:
            for start in range(0, len(wanted), _DIGESTS_A_QUERY):
                some = wanted[start : start + _DIGESTS_A_QUERY]
                found += _select(connection, f"digest IN ({', '.join('?' * len(some))})", some)
        return found

    def remove(self, keys: Sequence[str]) -> None:
        """As the port says."""
        if not keys:
            return
        with self._database.write() as connection:
            connection.executemany(
                "DELETE FROM placements WHERE digest = ? AND key = ?",
                [(key_digest(key), to_column(key)) for key in keys],
            )

    def columns(self) -> PlacementColumns:
        """As the port says."""
        import numpy as np  # noqa: PLC0415  (0.1 s, which a start need not wait for)

        types = ("i8", "u1", "u1", "i8", "i4", "i8", "?")
        names = ("digest", "tier", "moving_to", "epoch", "passages", "content", "words")
        with self._database.read() as connection:
            found = connection.execute(f"SELECT {', '.join(names)} FROM placements ORDER BY digest")  # noqa: S608
            rows = np.fromiter(found, dtype=np.dtype(list(zip(names, types, strict=True))))
        return PlacementColumns(
            keys=_column(rows, "digest"),
            tiers=_column(rows, "tier"),
            moving_to=_column(rows, "moving_to"),
            epochs=_column(rows, "epoch"),
            passages=_column(rows, "passages"),
            contents=_column(rows, "content"),
            words=_column(rows, "words"),
        )

    def moving(self) -> Sequence[Placement]:
        """As the port says."""
        with self._database.read() as connection:
            # Written out, so that the partial index serves it.
            return _select(connection, f"moving_to != {NOT_MOVING}", ())

    def counts(self) -> Mapping[TierName, int]:
        """As the port says."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT tier, sum(passages) FROM placements GROUP BY tier").fetchall()
        return {TIER_NAMES[tier]: points for tier, points in sorted(rows) if points}

    def epochs(self) -> Mapping[int, int]:
        """As the port says."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT epoch, sum(passages) FROM placements GROUP BY epoch").fetchall()
        return {epoch: points for epoch, points in sorted(rows) if points}


def _select(connection: Connection, condition: str, parameters: Sequence[int]) -> list[Placement]:
    rows = connection.execute(f"SELECT {_FIELDS} FROM placements WHERE {condition}", parameters)  # noqa: S608
    return [
        Placement(
            key=from_column(key),
            tier=TIER_NAMES[tier],
            epoch=epoch,
            passages=passages,
            content=content,
            words=bool(words),
            moving_to=None if moving_to == NOT_MOVING else TIER_NAMES[moving_to],
        )
        for key, tier, moving_to, epoch, passages, content, words in rows
    ]


def _row(placement: Placement) -> tuple[Any, ...]:
    if placement.tier == "edge":
        raise ValueError("an item on the edge alone has no placement")
    return (
        key_digest(placement.key),
        to_column(placement.key),
        TIER_NAMES.index(placement.tier),
        NOT_MOVING if placement.moving_to is None else TIER_NAMES.index(placement.moving_to),
        placement.epoch,
        placement.passages,
        placement.content,
        int(placement.words),
    )


def _column(rows: NDArray[np.void], name: str) -> NDArray[Any]:
    """A column of its own, so that the rows can go."""
    return rows[name].copy()
