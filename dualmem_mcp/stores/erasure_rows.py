"""Conversations that are erased: their rows and ops go from memory.db, and nothing brings them back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.ids import ConversationId, DeviceId, HandoffId
from dualmem_mcp.model.oplog import OpKind, Stamp
from dualmem_mcp.model.search import COLLECTION_OF, ItemKind, item_key, key_digest
from dualmem_mcp.ports import CLIENT_PLACES, Clock
from dualmem_mcp.stores.columns import from_column, to_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.op_log import OpWriter

NameOf = Callable[[str], str]
"""A conversation's id to the keyed hash that stands for it."""

_PACKAGE: Final = "package"
_KEYS: Final = "keys"
"""What else than an index has to let go of things: the packages kept here, and the copies of keys."""

_ABOUT_CONVERSATIONS: Final = "(kind LIKE 'record.%' OR subject IS NULL)"
"""Which ops may be about a conversation: of records, and of rows, which have no subject."""

_OMITTED: Final = compact_json({"omitted": True})
_NAME_DIGITS: Final = 32
_MOST_LEFT: Final = 100_000


def banned_by(connection: Connection, name_of: NameOf) -> Callable[[str], bool]:
    """Whether the conversation of an id is erased, as of now."""
    names = {row[0] for row in connection.execute("SELECT name FROM erased")}
    return lambda conversation_id: bool(names) and name_of(conversation_id) in names


def apply_erasure(
    connection: Connection, payload: Mapping[str, Any], stamp: Stamp, name_of: NameOf
) -> frozenset[str]:
    """Ban the conversation that a `conversation.erase` op names, and remove what is here of it; ids of what was.

    Again it changes nothing, but for what has come since of a conversation whose id was not known here before.
    """
    name = payload.get("name")
    if not isinstance(name, str) or len(name) != _NAME_DIGITS:
        return frozenset()
    connection.execute("INSERT OR IGNORE INTO erased VALUES (?, ?)", (name, stamp.to_bytes()))
    known = {*_known_ids(connection), *_ids_in_log(connection)}
    found = [one for one in sorted(known) if name_of(one) == name]
    for conversation_id in found:
        _remove(connection, conversation_id, name)
    return frozenset(found)


class ErasedConversations:
    """Bans of memory.db, and the op that tells the other devices of one."""

    def __init__(self, database: Database, clock: Clock, device_id: DeviceId, *, name_of: NameOf) -> None:
        self._database = database
        self._clock = clock
        self._device_id = device_id
        self._name_of = name_of

    def erase(self, conversation_id: ConversationId) -> bool:
        """Ban the conversation and remove what is here of it; whether anything was, or it was not banned yet."""
        name = self._name_of(conversation_id)
        with self._database.write() as connection:
            connection.execute("INSERT OR IGNORE INTO erased_conversations VALUES (?)", (conversation_id,))
            banned = connection.execute("SELECT 1 FROM erased WHERE name = ?", (name,)).fetchone() is not None
            payload = {"name": name}
            if banned:
                stamp = Stamp(0, self._device_id)
            else:
                writer = OpWriter(connection, self._device_id, self._clock.now())
                stamp = writer.record(OpKind.CONVERSATION_ERASE, payload)
                writer.finish()
            return bool(apply_erasure(connection, payload, stamp, self._name_of)) or not banned

    def knows(self, conversation_id: ConversationId) -> bool:
        """Whether there is anything of the conversation here."""
        with self._database.read() as connection:
            return conversation_id in _known_ids(connection) or conversation_id in _ids_in_log(connection)

    def is_erased(self, conversation_id: ConversationId) -> bool:
        """Whether the conversation is banned."""
        with self._database.read() as connection:
            return banned_by(connection, self._name_of)(conversation_id)

    def sweep(self) -> frozenset[str]:
        """Remove what has come of banned conversations past the ops, as from a session file; the ids of it."""
        with self._database.read() as connection:
            banned = banned_by(connection, self._name_of)
            found = [one for one in _known_ids(connection) if banned(one)]
        if found:
            with self._database.write() as connection:
                for conversation_id in found:
                    _remove(connection, conversation_id, self._name_of(conversation_id))
        return frozenset(found)

    def left_over(self) -> tuple[Sequence[HandoffId], Sequence[ConversationId]]:
        """The handoffs whose packages may lie here still, and the conversations whose keys do."""
        with self._database.read() as connection:
            packages = forgotten_items(connection, _PACKAGE, _MOST_LEFT)
            keys = forgotten_items(connection, _KEYS, _MOST_LEFT)
        return (
            [HandoffId(key.removeprefix(f"{_PACKAGE}/")) for key in packages],
            [ConversationId(key.removeprefix(f"{_KEYS}/")) for key in keys],
        )

    def note_gone(self, handoffs: Sequence[HandoffId], conversations: Sequence[ConversationId]) -> None:
        """These packages and keys have gone from here."""
        keys = [f"{_PACKAGE}/{one}" for one in handoffs] + [f"{_KEYS}/{one}" for one in conversations]
        if keys:
            with self._database.write() as connection:
                note_forgotten(connection, keys)

    def names(self) -> Sequence[str]:
        """The names of all banned conversations."""
        with self._database.read() as connection:
            return [row[0] for row in connection.execute("SELECT name FROM erased ORDER BY name")]


def forgotten_items(connection: Connection, collection: str, limit: int) -> list[str]:
    """Keys of items that the index of that collection has to let go of."""
    rows = connection.execute(
        "SELECT key FROM forgotten_items WHERE collection = ? ORDER BY key LIMIT ?", (collection, limit)
    )
    return [from_column(key) for (key,) in rows]


def note_forgotten(connection: Connection, keys: Sequence[str]) -> None:
    """The indexes have let go of these items."""
    connection.executemany("DELETE FROM forgotten_items WHERE key = ?", [(to_column(key),) for key in keys])


def _known_ids(connection: Connection) -> list[str]:
    rows = connection.execute(
        "SELECT id FROM conversations UNION SELECT conversation_id FROM findings"
        " UNION SELECT conversation_id FROM records UNION SELECT conversation_id FROM session_files ORDER BY 1"
    )
    return [row[0] for row in rows if row[0]]


def _ids_in_log(connection: Connection) -> set[str]:
    """The conversations that ops are about, whatever became of it. Reads the whole log."""
    found = f"SELECT DISTINCT payload ->> 'conversation_id' FROM ops WHERE {_ABOUT_CONVERSATIONS}"  # noqa: S608
    rows = connection.execute(found)
    return {row[0] for row in rows if isinstance(row[0], str) and row[0]}


def _remove(connection: Connection, conversation_id: str, name: str) -> None:
    connection.execute("INSERT OR IGNORE INTO erased_conversations VALUES (?)", (conversation_id,))
    _note_left_over(connection, conversation_id)
    connection.execute(
        # A record may name anything as its package, a segment that waits too.
        "DELETE FROM outbox WHERE (key GLOB 'packages/*'"
        "  AND key IN (SELECT package_key FROM handoffs WHERE conversation_id = ?))"
        " OR substr(key, 1, 43) = ?",
        (conversation_id, f"manifests/{name}/"),
    )
    keys = list(_item_keys(connection, conversation_id))
    connection.executemany(
        "INSERT OR REPLACE INTO forgotten_items VALUES (?, ?)",
        [(to_column(key), COLLECTION_OF[kind].value) for kind, key in keys],
    )
    connection.executemany(
        "DELETE FROM accesses WHERE digest = ? AND key = ?", [(key_digest(key), to_column(key)) for _, key in keys]
    )
    connection.execute("DELETE FROM working_set WHERE item ->> 'conversation_id' = ?", (conversation_id,))
    _remove_ops(connection, conversation_id)
    for table in ("turns", "findings", "handoffs", "records"):
        connection.execute(f"DELETE FROM {table} WHERE conversation_id = ?", (conversation_id,))  # noqa: S608
    connection.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))
    place = CLIENT_PLACES + conversation_id
    connection.execute("DELETE FROM blobs WHERE key = ?1 OR substr(key, 1, length(?1) + 1) = ?1 || '/'", (place,))


def _note_left_over(connection: Connection, conversation_id: str) -> None:
    rows = connection.execute("SELECT handoff_id FROM handoffs WHERE conversation_id = ?", (conversation_id,))
    left = [(f"{_PACKAGE}/{handoff_id}", _PACKAGE) for (handoff_id,) in rows.fetchall()]
    connection.executemany(
        "INSERT OR REPLACE INTO forgotten_items VALUES (?, ?)", [*left, (f"{_KEYS}/{conversation_id}", _KEYS)]
    )


def _item_keys(connection: Connection, conversation_id: str) -> Iterator[tuple[ItemKind, str]]:
    for uuid, is_summary in connection.execute(
        "SELECT uuid, is_compact_summary FROM turns WHERE conversation_id = ?", (conversation_id,)
    ):
        kind: ItemKind = "summary" if is_summary else "turn"
        yield kind, item_key(kind, conversation_id, from_column(uuid))
    for kind, finding_id in connection.execute(
        "SELECT kind, finding_id FROM findings WHERE conversation_id = ?", (conversation_id,)
    ):
        yield kind, item_key(kind, conversation_id, from_column(finding_id))


def _remove_ops(connection: Connection, conversation_id: str) -> None:
    """Take the ops about a conversation out of the log. Those that no segment holds yet leave an empty op each,
    since the sequences of a segment have no gaps."""
    subjects: set[bytes] = set()
    gone: list[tuple[int]] = []
    for row_id, payload, subject in connection.execute(
        f"SELECT id, payload, subject FROM ops WHERE {_ABOUT_CONVERSATIONS}"  # noqa: S608
    ):
        if json.loads(payload).get("conversation_id") == conversation_id:
            gone.append((row_id,))
            if subject is not None:
                subjects.add(subject)
    for subject in subjects:
        rows = connection.execute("SELECT id FROM ops WHERE subject = ?", (subject,))
        gone += [(row_id,) for (row_id,) in rows]
        connection.execute("DELETE FROM conflicts WHERE subject = ?", (subject,))
    connection.executemany(
        "UPDATE ops SET payload = ?, subject = NULL WHERE id = ?", [(_OMITTED, row_id) for (row_id,) in gone]
    )
    connection.executemany(
        "DELETE FROM ops WHERE id = ? AND sequence <= coalesce("
        "(SELECT sequence FROM log_heads WHERE log_heads.device_id = ops.device_id), 0)",
        gone,
    )
