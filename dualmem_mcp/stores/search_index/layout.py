"""Tables and ids of an index file; `docs/search-index.md` describes them."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from dualmem_mcp.durable_files import file_faults
from dualmem_mcp.errors import StoreRefusedError, TamperedError
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import DatabaseKind
from dualmem_mcp.stores.database_faults import Remedies

# An item's id: the number of its conversation (0: none) and its place in it, so that a conversation is one range of
# ids and neighbours differ by one. What is no turn has places of its own, so that it comes between no two turns.
ORDINAL_BITS: Final = 24
FIRST_ASIDE: Final = 1 << 23

ALL_CHANGED: Final = -1
"""An id in `changes` that stands for every item."""

KEPT_CHANGES: Final = 4_000

# Porter's stemmer over words of letters and digits, without their accents. Contentless: the text is in `texts`.
TOKENIZER: Final = "porter unicode61 remove_diacritics 2"

_TABLES: Final = (
    "CREATE TABLE state (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE names (id INTEGER PRIMARY KEY, name ANY NOT NULL UNIQUE) STRICT",
    """CREATE TABLE conversations (
        number INTEGER PRIMARY KEY,
        conversation_id ANY NOT NULL UNIQUE,
        turns INTEGER NOT NULL DEFAULT 0,     -- places given out so far, never twice
        asides INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    # What filters and ranking need, apart from the texts: a whole index of it is read at once.
    """CREATE TABLE items (
        id INTEGER PRIMARY KEY,
        kind INTEGER NOT NULL,
        author INTEGER NOT NULL,
        time INTEGER,                         -- microseconds since 1970
        terms INTEGER NOT NULL,
        words INTEGER NOT NULL,
        traits INTEGER NOT NULL,              -- model.words.Trait
        first_passage INTEGER,                -- items of one likeness have the same passages
        passages INTEGER,                     -- NULL: has no vectors yet
        key_digest INTEGER NOT NULL,
        contents INTEGER NOT NULL,            -- digest of the text
        likeness INTEGER                      -- digest of what was embedded; NULL: not known, and not shared
    ) STRICT""",
    "CREATE INDEX items_without_vectors ON items (time) WHERE passages IS NULL",
    "CREATE INDEX items_by_key ON items (key_digest)",
    "CREATE INDEX items_by_likeness ON items (likeness) WHERE likeness IS NOT NULL",
    """CREATE TABLE texts (
        id INTEGER PRIMARY KEY,
        key ANY,                              -- NULL: kind, conversation and turn, joined by /
        turn_id ANY NOT NULL,
        device INTEGER NOT NULL,
        revision INTEGER NOT NULL,            -- the change that brought the text
        text ANY NOT NULL
    ) STRICT""",
    "CREATE TABLE changes (number INTEGER PRIMARY KEY, id INTEGER NOT NULL) STRICT",
    # By the number of the passage, which grows: the newest items get their vectors first, and were those stored by
    # the items' ids, pages would be split in the middle and stay half empty.
    "CREATE TABLE vectors (passage INTEGER PRIMARY KEY, vector BLOB NOT NULL) STRICT",
    f"""CREATE VIRTUAL TABLE words USING fts5
        (text, content='', contentless_delete=1, tokenize='{TOKENIZER}')""",
    "CREATE VIRTUAL TABLE word_places USING fts5vocab(words, instance)",
    "CREATE VIRTUAL TABLE word_counts USING fts5vocab(words, row)",
    f"""CREATE VIEW whole_items AS
        SELECT t.id, t.key, i.kind, c.conversation_id, t.turn_id, a.name AS author, i.time, d.name AS device,
               t.text, t.revision, i.key_digest
        FROM texts t
        JOIN items i ON i.id = t.id
        JOIN conversations c ON c.number = t.id >> {ORDINAL_BITS}
        JOIN names a ON a.id = i.author
        JOIN names d ON d.id = t.device""",  # noqa: S608 - the only value in it is a constant
    "INSERT INTO names VALUES (0, '')",
    "INSERT INTO conversations (number, conversation_id) VALUES (0, '')",
)


VERSION: Final = 2
"""Raised with every change of the tables, or of how `model.words` reads texts."""

FORMAT: Final = VERSION << 16 | zlib.crc32("\n".join(_TABLES).encode()) & 0xFFFF
"""Kept in the file (`PRAGMA user_version`), with a checksum in case somebody forgot to raise the version."""


def create_bits(connection: Connection, dimensions: int) -> None:
    """Make the coarse index anew for vectors of that length. Its chunks are small so that a small index is."""
    connection.execute("DROP TABLE IF EXISTS bits")
    connection.execute(
        "CREATE VIRTUAL TABLE bits USING vec0"
        f"(passage INTEGER PRIMARY KEY, bits bit[{bit_words(dimensions) * 64}], chunk_size=256)"
    )


def bit_words(dimensions: int) -> int:
    """How many 64-bit words hold one bit a dimension."""
    return -(-dimensions // 64)


def set_up(connection: Connection, transaction: Callable[[], AbstractContextManager[None]], path: str) -> None:
    """Make the tables of a new index.

    Raises TamperedError for one that has been cut or is of an older version, and StoreRefusedError for one of a
    newer version: were it made anew here, two programs would do nothing else but take turns at that.
    """
    if _is_cut(connection, Path(path)):
        raise TamperedError("the index has been cut", operation="open index", subject=path)
    if _format(connection) == 0:
        with transaction():
            if _format(connection) == 0:
                for statement in _TABLES:
                    connection.execute(statement)
                connection.execute("INSERT INTO state VALUES ('generation', ?)", (secrets.token_hex(16),))
                connection.execute(f"PRAGMA user_version = {FORMAT}")
    found = _format(connection)
    if found >> 16 > VERSION:
        raise StoreRefusedError(
            "the search index was made by a newer version of dualmem-mcp",
            operation="open index",
            subject=path,
            hint="Update dualmem-mcp, or restart the program that still runs the older version.",
        )
    if found != FORMAT:
        raise TamperedError("the index is of an older version", operation="open index", subject=path)


def _is_cut(connection: Connection, path: Path) -> bool:
    """Whether pages are missing at the end: SQLCipher reads such as zeros. With a log they may be in there."""
    log = path.with_name(path.name + "-wal")
    with file_faults("look at", path):
        if log.exists() and log.stat().st_size:
            return False
        size_bytes = path.stat().st_size
    pages, page_bytes = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])  # SQLCipher gives a text
        for name in ("page_count", "page_size")
    )
    return size_bytes < pages * page_bytes


def _format(connection: Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def load_sqlite_vec(connection: Any) -> None:
    """Give the connection the tables of sqlite-vec."""
    import sqlite_vec  # noqa: PLC0415

    connection.enable_load_extension(True)
    try:
        sqlite_vec.load(connection)
    finally:
        connection.enable_load_extension(False)


INDEX: Final = DatabaseKind(
    salt_label=b"dualmem index salt\0",
    set_up=set_up,
    # Re-scoring reads hundreds of pages from all over the file. SHA-256, for which processors have instructions,
    # authenticates them in less time than SHA-512.
    cipher=("cipher_hmac_algorithm = HMAC_SHA256",),
    pragmas=(
        # memory.db notes, for good, how far the index has come; were its last writes lost when the machine stops,
        # nobody would know that they lack. One fsync for 100 items is little.
        "synchronous = FULL",
        "journal_size_limit = 16777216",
        "cache_size = -32768",  # KiB: most vectors of 50,000 items
    ),
    remedies=Remedies(
        does_not_open="It can be deleted: it is made again.",
        damaged="It can be deleted: it is made again.",
        cut="Both files can be deleted: they are made again.",
    ),
    idle_connections=2,
    extend=load_sqlite_vec,
)
