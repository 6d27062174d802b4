"""Changes of the graph that no new op tells of, as a snapshot makes them.

Who follows the graph by the numbers of ops comes by them all the same: each takes a number that no op has. The
cache sees a gap, and reads the graph anew; which entities are different stands in `sync_state` under that number.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dualmem_mcp.model.search import Collection
from dualmem_mcp.stores.columns import from_column, to_column
from dualmem_mcp.stores.connection import Connection

_PREFIX: Final = "graph/changed/"


def tell_of(connection: Connection, entities: Iterable[str]) -> None:
    """Take a number for a change of the graph, and remember that these entities are different since."""
    row = connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'ops' RETURNING seq").fetchone()
    if row is None:
        return  # there has never been an op, and nobody has followed any
    (indexed,) = connection.execute(
        "SELECT min(ops) FROM index_progress WHERE collection = ?", (Collection.CONTEXT.value,)
    ).fetchone()
    # An index that is begun later reads the graph as it is then.
    connection.execute(
        "DELETE FROM sync_state WHERE name > ? AND name < ?",
        (_PREFIX, _name(row[0] if indexed is None else indexed + 1)),
    )
    connection.executemany(
        "INSERT OR REPLACE INTO sync_state VALUES (?, ?)",
        [(f"{_name(row[0])}/{at}", to_column(entity)) for at, entity in enumerate(entities)],
    )


def entities_changed(connection: Connection, after: int, upto: int) -> list[str]:
    """The entities that changed untold under the numbers in (after, upto]."""
    rows = connection.execute(
        "SELECT value FROM sync_state WHERE name >= ? AND name < ? ORDER BY name",
        (_name(after + 1), _name(upto + 1)),
    )
    return [from_column(value) for (value,) in rows]


def _name(number: int) -> str:
    return f"{_PREFIX}{number:020d}"
