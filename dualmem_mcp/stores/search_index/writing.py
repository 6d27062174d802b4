"""Changes of an index, each inside a transaction of the caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.model.search import KINDS, SearchItem, item_key, key_digest
from dualmem_mcp.model.words import index_text_of, term_count, traits
from dualmem_mcp.stores.columns import from_column, to_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.search_index.layout import (
    ALL_CHANGED,
    FIRST_ASIDE,
    KEPT_CHANGES,
    ORDINAL_BITS,
    create_bits,
)
from dualmem_mcp.stores.search_index.snapshot import model
from dualmem_mcp.stores.search_index.vectors import EXACT, bits_of, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item with what the index holds of it beside its fields; made before the write lock is taken."""

    item: SearchItem
    key: str | bytes | None
    key_digest: int
    contents: int
    searched: str
    words: int
    terms: int
    traits: int


def prepared(item: SearchItem) -> Prepared:
    """The item, read."""
    searched = searchable(index_text_of(item.author, item.text))
    return Prepared(
        item,
        None if item.key == _usual_key(item.kind, item.conversation_id, item.turn_id) else to_column(item.key),
        key_digest(item.key),
        key_digest(item.text),
        searched,
        searched.count(" ") + 1 if searched else 0,
        term_count(item.text),
        int(traits(item.text)),
    )


def searchable(text: str) -> str:
    """The text as FTS5 takes it: what UTF-8 cannot express is replaced."""
    return text.encode("utf-8", "replace").decode()


def find(connection: Connection, key: str) -> tuple[int, str] | None:
    """Id and text of the item with that key."""
    for item_id, stored, kind, conversation, turn, text in connection.execute(
        "SELECT id, key, kind, conversation_id, turn_id, text FROM whole_items WHERE key_digest = ?",
        (key_digest(key),),
    ):
        if key == stored_key(stored, KINDS[kind], from_column(conversation), from_column(turn)):
            return item_id, from_column(text)
    return None


def stored_key(stored: str | bytes | None, kind: str, conversation_id: str, turn_id: str) -> str:
    """The key of a row of `texts`."""
    return _usual_key(kind, conversation_id, turn_id) if stored is None else from_column(stored)


def _usual_key(kind: str, conversation_id: str, turn_id: str) -> str:
    return item_key(kind, conversation_id, turn_id)  # type: ignore[arg-type]  # a kind, read from KINDS


def put(connection: Connection, items: Iterable[Prepared]) -> int:
    """Add or change items; returns how many were not there like this."""
    names = _Names(connection)
    count = 0
    for new in items:
        item = new.item
        known = find(connection, item.key)
        if known is not None and known[1] == item.text:
            continue
        count += 1
        item_id = _place(connection, item, known and known[0])
        if known is not None:
            _erase(connection, known[0])
        connection.execute(
            "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?, ?, NULL)",
            (
                item_id,
                KINDS.index(item.kind),
                names.number(item.author),
                None if item.timestamp is None else microseconds(item.timestamp),
                new.terms,
                new.words,
                new.traits,
                new.key_digest,
                new.contents,
            ),
        )
        connection.execute(
            "INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?)",
            (
                item_id,
                new.key,
                to_column(item.turn_id),
                names.number(item.device),
                _record(connection, item_id),
                to_column(item.text),
            ),
        )
        connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (item_id, new.searched))
    _trim_changes(connection)
    return count


def remove(connection: Connection, keys: Iterable[str]) -> int:
    """Forget items; returns how many were there."""
    count = 0
    for key in keys:
        known = find(connection, key)
        if known is not None:
            _erase(connection, known[0])
            count += 1
    _trim_changes(connection)
    return count


def use_model(connection: Connection, model_id: str, dimensions: int) -> None:
    """Drop the vectors of any other model."""
    if model(connection) == (model_id, dimensions):
        return
    connection.execute("DELETE FROM vectors")
    create_bits(connection, dimensions)
    connection.execute("UPDATE items SET passages = NULL, likeness = NULL WHERE passages IS NOT NULL")
    connection.executemany(
        "INSERT OR REPLACE INTO state VALUES (?, ?)",
        [("model_id", to_column(model_id)), ("dimensions", dimensions)],
    )
    connection.execute("DELETE FROM state WHERE name = 'shared'")
    _record(connection, ALL_CHANGED)


def share_vectors(
    connection: Connection, model_id: str, likenesses: Mapping[int, int], revisions: Mapping[int, int]
) -> set[int]:
    """Give items that wait for vectors those of an item of their likeness; the ids of those that got some. None
    whose text is not of the revision given for it is among them."""
    if model(connection)[0] != model_id:
        return set()
    shared = set()
    for item_id, likeness in likenesses.items():
        waits = _is_of_revision(connection, item_id, revisions) and _passages(connection, item_id) is None
        if waits and _share(connection, item_id, likeness):
            shared.add(item_id)
    _trim_changes(connection)
    return shared


def put_vectors(
    connection: Connection,
    model_id: str,
    vectors: Sequence[tuple[int, NDArray[np.float32]]],
    likenesses: Mapping[int, int],
    revisions: Mapping[int, int],
) -> None:
    """Store the vectors of items, but of none whose text is not of the revision given for it. An item of a likeness
    that has vectors shares those instead."""
    used, dimensions = model(connection)
    if used != model_id:
        return
    # Never used twice: whoever has seen a passage knows its vector.
    first = _count(connection, "next_passage")
    for item_id, passages in vectors:
        if passages.ndim != 2 or (len(passages) and passages.shape[1] != dimensions):
            raise ValueError(f"vectors of shape {passages.shape}, not (k, {dimensions})")
        if not _is_of_revision(connection, item_id, revisions):
            continue
        _erase_vectors(connection, item_id)
        # An item without any passage has nothing to share.
        likeness = likenesses.get(item_id) if len(passages) else None
        if likeness is not None and _share(connection, item_id, likeness):
            continue
        stored = unit(passages).astype(EXACT).reshape(-1, dimensions)
        connection.executemany(
            "INSERT INTO vectors VALUES (?, ?)", [(first + n, row.tobytes()) for n, row in enumerate(stored)]
        )
        connection.executemany(
            "INSERT INTO bits (passage, bits) VALUES (?, vec_bit(?))",
            [(first + n, row.tobytes()) for n, row in enumerate(bits_of(stored))],
        )
        _use_passages(connection, item_id, first, len(stored), likeness)
        first += len(stored)
    connection.execute("INSERT OR REPLACE INTO state VALUES ('next_passage', ?)", (first,))
    _trim_changes(connection)


def microseconds(instant: datetime) -> int:
    """Microseconds since 1970."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def instant(time: int) -> datetime:
    """The instant of so many microseconds since 1970, in UTC."""
    return _EPOCH + timedelta(microseconds=time)


class _Names:
    """Numbers for the names of authors and devices."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, int] = {"": 0}

    def number(self, name: str) -> int:
        if name not in self._known:
            column = to_column(name)
            self._connection.execute("INSERT INTO names (name) VALUES (?) ON CONFLICT DO NOTHING", (column,))
            row = self._connection.execute("SELECT id FROM names WHERE name = ?", (column,)).fetchone()
            self._known[name] = row[0]
        return self._known[name]


def _place(connection: Connection, item: SearchItem, known: int | None) -> int:
    """The id for an item: its old one, as long as it is in the same conversation."""
    column = to_column(item.conversation_id)
    connection.execute("INSERT INTO conversations (conversation_id) VALUES (?) ON CONFLICT DO NOTHING", (column,))
    number, turns, asides = connection.execute(
        "SELECT number, turns, asides FROM conversations WHERE conversation_id = ?", (column,)
    ).fetchone()
    is_turn = item.kind == "turn"
    first: int = number << ORDINAL_BITS
    if known is not None and known >> ORDINAL_BITS == number and (known < first + FIRST_ASIDE) == is_turn:
        return known
    column_name, given = ("turns", turns) if is_turn else ("asides", asides)
    if given >= FIRST_ASIDE:
        raise ValueError(f"a conversation with more than {FIRST_ASIDE} turns")
    connection.execute(f"UPDATE conversations SET {column_name} = ? WHERE number = ?", (given + 1, number))  # noqa: S608
    return first + (0 if is_turn else FIRST_ASIDE) + int(given)


def _erase(connection: Connection, item_id: int) -> None:
    _erase_vectors(connection, item_id)
    connection.execute("DELETE FROM words WHERE rowid = ?", (item_id,))
    connection.execute("DELETE FROM texts WHERE id = ?", (item_id,))
    connection.execute("DELETE FROM items WHERE id = ?", (item_id,))
    _record(connection, item_id)


def _erase_vectors(connection: Connection, item_id: int) -> None:
    """Take its vectors from an item, and remove them if it was the last that has them."""
    first, count, likeness = connection.execute(
        "SELECT first_passage, passages, likeness FROM items WHERE id = ?", (item_id,)
    ).fetchone()
    if not count:
        return
    connection.execute(
        "UPDATE items SET first_passage = NULL, passages = NULL, likeness = NULL WHERE id = ?", (item_id,)
    )
    if (
        likeness is not None
        and connection.execute(
            "SELECT 1 FROM items WHERE likeness = ? AND first_passage = ? LIMIT 1", (likeness, first)
        ).fetchone()
    ):
        _count_shared(connection, -1)
        return
    for passage in range(first, first + count):
        connection.execute("DELETE FROM bits WHERE passage = ?", (passage,))
        connection.execute("DELETE FROM vectors WHERE passage = ?", (passage,))


def _is_of_revision(connection: Connection, item_id: int, revisions: Mapping[int, int]) -> bool:
    """Whether the item is there, with the text that it had when it was given out to be embedded."""
    row = connection.execute("SELECT revision FROM texts WHERE id = ?", (item_id,)).fetchone()
    return row is not None and revisions.get(item_id, row[0]) == row[0]


def _passages(connection: Connection, item_id: int) -> int | None:
    """How many the item has vectors for; None if it waits for them, or is not there."""
    row = connection.execute("SELECT passages FROM items WHERE id = ?", (item_id,)).fetchone()
    return None if row is None else row[0]


def _share(connection: Connection, item_id: int, likeness: int) -> bool:
    """Give the item, which has none, the vectors of that likeness; whether there are any."""
    row = connection.execute(
        "SELECT first_passage, passages FROM items WHERE likeness = ? LIMIT 1", (likeness,)
    ).fetchone()
    if row is None:
        return False
    first, count = row
    _use_passages(connection, item_id, first, count, likeness)
    _count_shared(connection, 1)
    return True


def _use_passages(connection: Connection, item_id: int, first: int, count: int, likeness: int | None) -> None:
    connection.execute(
        "UPDATE items SET first_passage = ?, passages = ?, likeness = ? WHERE id = ?",
        (first, count, likeness, item_id),
    )
    _record(connection, item_id)


def _count(connection: Connection, name: str) -> int:
    row = connection.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
    return row[0] if row else 0


def _count_shared(connection: Connection, more: int) -> None:
    """Counted as it changes, since status asks for it and must not look at every item."""
    connection.execute("INSERT OR REPLACE INTO state VALUES ('shared', ?)", (_count(connection, "shared") + more,))


def _record(connection: Connection, item_id: int) -> int:
    """Tell the snapshots of all processes that an item is no longer as it was; returns the change's number."""
    number: int = connection.execute("INSERT INTO changes (id) VALUES (?)", (item_id,)).lastrowid
    return number


def _trim_changes(connection: Connection) -> None:
    connection.execute("DELETE FROM changes WHERE number <= (SELECT max(number) FROM changes) - ?", (KEPT_CHANGES,))
