"""All items of an index in columns, for a plan over them: read in one walk over `items`, which has no texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dualmem_mcp.model.search import key_digest
from dualmem_mcp.ports import ItemColumns
from dualmem_mcp.stores.columns import from_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.search_index.layout import FIRST_ASIDE, ORDINAL_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLUMNS: Final = (
    "id, key_digest, kind, ifnull(time, -9223372036854775808), words, ifnull(passages, 0), contents, "
    "ifnull(likeness, 0)"
)
# The same columns, by the names of the fields of ItemColumns.
_TYPES: Final = np.dtype(
    [
        ("ids", "i8"),
        ("keys", "i8"),
        ("kinds", "u1"),
        ("times", "i8"),
        ("words", "i4"),
        ("passages", "i4"),
        ("contents", "i8"),
        ("likenesses", "i8"),
    ]
)
_FIELDS: Final[tuple[str, ...]] = _TYPES.names or ()
_ROWS_AT_ONCE: Final = 5_000


def read_columns(connection: Connection) -> ItemColumns:
    """The columns of what the transaction sees."""
    cursor: Any = connection.execute(f"SELECT {_COLUMNS} FROM items ORDER BY id")  # noqa: S608
    blocks = [np.empty(0, _TYPES)]
    # Block by block: a row of Python's numbers takes ten times the memory.
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        blocks.append(np.array(rows, _TYPES))
    columns: dict[str, Any] = {field: np.concatenate([block[field] for block in blocks]) for field in _FIELDS}
    ids: NDArray[np.int64] = columns["ids"]
    places = ids & ((1 << ORDINAL_BITS) - 1)
    return ItemColumns(
        conversations=_conversations(connection, ids),
        ordinals=np.where(places < FIRST_ASIDE, places, -1).astype(np.int32),
        **columns,
    )


def _conversations(connection: Connection, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The digest of each item's conversation, 0 for none."""
    numbers, places = np.unique(ids >> ORDINAL_BITS, return_inverse=True)
    names = dict(
        connection.execute("SELECT number, conversation_id FROM conversations WHERE number > 0").fetchall()
    )
    digests = [key_digest(from_column(names[number])) if number else 0 for number in numbers.tolist()]
    return np.array(digests, np.int64)[places]
