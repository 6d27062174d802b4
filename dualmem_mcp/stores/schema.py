"""The schema of memory.db as it came to be: the steps that `migrations.py` applies, each under its name for good.

A step that has been released is never changed: a later one corrects it. Times are ISO 8601 in UTC with
microseconds, so that they sort as text. Columns of type ANY hold text of other people: `columns.py` says how.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dualmem_mcp.model.oplog import subject_digest
from dualmem_mcp.model.search import key_digest
from dualmem_mcp.stores.columns import from_column, from_time, to_microseconds

if TYPE_CHECKING:
    from dualmem_mcp.stores.connection import Connection

GRAPH_AND_OPS = """
CREATE TABLE hybrid_clock (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    ticks INTEGER NOT NULL             -- of the newest op made or merged here
) STRICT;
INSERT INTO hybrid_clock VALUES (1, 0);

CREATE TABLE op_sequences (            -- for each device the last op that is here, without a gap before it
    device_id TEXT PRIMARY KEY,
    last_sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE ops (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival on this device; never used twice
    device_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    ticks INTEGER NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,             -- JSON object, docs/ops.md
    UNIQUE (device_id, sequence)
) STRICT;

CREATE TABLE entities (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of creation; never used twice
    name ANY NOT NULL UNIQUE,
    entity_type ANY NOT NULL,
    tags BLOB NOT NULL,                -- add-tags, 28 bytes each
    extra TEXT,                        -- JSON object of fields that the reference format does not know
    field_stamps TEXT                  -- JSON object: field to the stamp of its last change after creation
) STRICT;

CREATE TABLE observations (
    id INTEGER PRIMARY KEY,            -- order of addition
    entity_id INTEGER NOT NULL REFERENCES entities (id),
    digest BLOB NOT NULL,              -- of the text, so that the index does not hold long texts a second time
    text ANY NOT NULL,
    tags BLOB NOT NULL,
    UNIQUE (entity_id, digest)
) STRICT;

CREATE TABLE relations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source ANY NOT NULL,
    target ANY NOT NULL,
    relation_type ANY NOT NULL,
    tags BLOB NOT NULL,
    extra TEXT,
    field_stamps TEXT,
    UNIQUE (source, target, relation_type)
) STRICT;
CREATE INDEX relations_by_target ON relations (target);

CREATE TABLE tombstones (              -- add-tags whose items were deleted: they never come back
    tag BLOB PRIMARY KEY,
    deleted_by BLOB NOT NULL           -- stamp of the op that deleted it, 24 bytes
) STRICT, WITHOUT ROWID;
"""

CONVERSATIONS = """
CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    title ANY NOT NULL,
    cwd ANY NOT NULL,
    updated_at TEXT NOT NULL,
    message_count INTEGER NOT NULL,
    device_name ANY NOT NULL           -- of the device where it was last worked on or handed over
) STRICT;
CREATE INDEX conversations_by_time ON conversations (updated_at, id);

CREATE TABLE turns (
    id INTEGER PRIMARY KEY,            -- order within the conversation
    conversation_id TEXT NOT NULL REFERENCES conversations (id),
    uuid ANY NOT NULL,
    parent_uuid ANY,
    role TEXT NOT NULL,
    timestamp TEXT,
    text ANY NOT NULL,                 -- text blocks only, as the turn shows them
    visible_tokens INTEGER NOT NULL,
    is_meta INTEGER NOT NULL,
    is_compact_summary INTEGER NOT NULL,
    UNIQUE (conversation_id, uuid)
) STRICT;

CREATE TABLE handoffs (
    handoff_id TEXT PRIMARY KEY,
    conversation_id TEXT NOT NULL REFERENCES conversations (id),
    title ANY NOT NULL,
    cwd ANY NOT NULL,
    created_at TEXT NOT NULL,
    device_id TEXT NOT NULL,
    device_name ANY NOT NULL,
    base TEXT,
    package_key TEXT NOT NULL,
    package_bytes INTEGER NOT NULL,
    manifest_key TEXT NOT NULL,
    message_count INTEGER NOT NULL,
    visible_tokens INTEGER NOT NULL,
    digest_tokens INTEGER NOT NULL,
    last_turn_uuid ANY NOT NULL
) STRICT;
CREATE INDEX handoffs_by_conversation ON handoffs (conversation_id, created_at);
CREATE INDEX handoffs_by_time ON handoffs (created_at);

CREATE TABLE blobs (
    key TEXT PRIMARY KEY,
    data BLOB NOT NULL
) STRICT;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival
    key TEXT NOT NULL UNIQUE,
    file_name TEXT NOT NULL,           -- in handoff_cache/sync_queue/
    sha256 BLOB NOT NULL
) STRICT;
"""

SEARCH_SOURCES = """
-- 0 for what search alone knows of: lists show what was handed over
ALTER TABLE conversations ADD COLUMN listed INTEGER NOT NULL DEFAULT 1;
-- a name; empty where only the role is known
ALTER TABLE turns ADD COLUMN author ANY NOT NULL DEFAULT '';
-- empty for the conversation's own
ALTER TABLE turns ADD COLUMN device_name ANY NOT NULL DEFAULT '';
ALTER TABLE turns ADD COLUMN origin TEXT NOT NULL DEFAULT '';
-- the API's; the content of one message can be written as several turns
ALTER TABLE turns ADD COLUMN message_id TEXT;
CREATE INDEX turns_by_message ON turns (conversation_id, message_id) WHERE message_id IS NOT NULL;

CREATE TABLE session_files (
    path ANY PRIMARY KEY,
    conversation_id TEXT NOT NULL,
    mark TEXT NOT NULL,                -- JSON object: how far it was read, docs/indexing.md
    findings_due INTEGER NOT NULL      -- 1: what the session decided has to be looked at again
) STRICT;

CREATE TABLE findings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- a new one with each change; never used twice
    conversation_id TEXT NOT NULL,     -- empty for those of a project
    kind TEXT NOT NULL,
    finding_id ANY NOT NULL,
    turn_uuid ANY NOT NULL,
    text ANY NOT NULL,                 -- empty: removed
    author ANY NOT NULL,
    timestamp TEXT,
    device_name ANY NOT NULL,
    UNIQUE (conversation_id, kind, finding_id)
) STRICT;

CREATE TABLE index_progress (
    generation TEXT PRIMARY KEY,       -- of the index that has everything up to these
    collection TEXT NOT NULL,
    turns INTEGER NOT NULL,
    findings INTEGER NOT NULL,
    ops INTEGER NOT NULL
) STRICT;
"""

ACCESSES = """
CREATE TABLE accesses (                -- of items that search gave as answers
    key ANY PRIMARY KEY,               -- SearchItem.key
    count INTEGER NOT NULL,
    last_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX accesses_by_time ON accesses (last_at);

CREATE TABLE working_set (             -- what a device with a small cache keeps at hand
    position INTEGER PRIMARY KEY,      -- by priority, the highest first
    item TEXT NOT NULL,                -- SearchItem as JSON
    model_id TEXT NOT NULL,
    vector BLOB,                       -- float16, little-endian
    priority REAL NOT NULL
) STRICT;
"""

SYNC = """
-- 16 bytes, docs/ops.md "Subjects"; null for ops whose effect is rows of their own
ALTER TABLE ops ADD COLUMN subject BLOB;
-- 1 for an op from the future that has no effect yet
ALTER TABLE ops ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
CREATE INDEX ops_by_subject ON ops (subject) WHERE subject IS NOT NULL;
CREATE INDEX ops_held ON ops (ticks) WHERE held;

-- of the ops that are made here; null until it differs from the one the data home began with
ALTER TABLE hybrid_clock ADD COLUMN device_id TEXT;
-- how far this machine's clock is ahead of the bucket's, in milliseconds, as last seen
ALTER TABLE hybrid_clock ADD COLUMN ahead_ms INTEGER NOT NULL DEFAULT 0;

CREATE TABLE log_heads (               -- for each device the last segment of its log that is here
    device_id TEXT PRIMARY KEY,        -- for this one: the last that was sealed
    segment INTEGER NOT NULL,
    object_hash BLOB NOT NULL,
    sequence INTEGER NOT NULL          -- of the last op in it
) STRICT, WITHOUT ROWID;

-- stamp of the op that the row came by, 24 bytes; null: no op tells of it yet; empty: none will
ALTER TABLE turns ADD COLUMN stamp BLOB;
CREATE INDEX turns_unlogged ON turns (id) WHERE stamp IS NULL;
ALTER TABLE findings ADD COLUMN stamp BLOB;
CREATE INDEX findings_unlogged ON findings (id) WHERE stamp IS NULL;
ALTER TABLE conversations ADD COLUMN stamp BLOB;
CREATE INDEX conversations_unlogged ON conversations (id) WHERE stamp IS NULL;
ALTER TABLE handoffs ADD COLUMN stamp BLOB;
CREATE INDEX handoffs_unlogged ON handoffs (handoff_id) WHERE stamp IS NULL;

CREATE TABLE records (                 -- notes, tasks, bookmarks and their like, docs/ops.md "record.set"
    type TEXT NOT NULL,
    id TEXT NOT NULL,
    conversation_id TEXT NOT NULL,     -- empty for those of no conversation
    fields TEXT NOT NULL,              -- JSON object
    stamps TEXT NOT NULL,              -- JSON object: field to the stamp of its value
    created BLOB NOT NULL,             -- stamp of the first op of it, 24 bytes
    changed BLOB NOT NULL,             -- and of the last
    PRIMARY KEY (type, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX records_by_conversation ON records (conversation_id, type);

CREATE TABLE conflicts (               -- what lost, or is hidden by a deletion, until somebody decides
    subject BLOB NOT NULL,
    field TEXT NOT NULL,               -- empty for what a deletion hides
    detail TEXT NOT NULL,              -- JSON object, docs/sync.md "Conflicts"
    PRIMARY KEY (subject, field)
) STRICT, WITHOUT ROWID;

CREATE TABLE erased (                  -- conversations that are banned for good
    name TEXT PRIMARY KEY,             -- keyed hash of the id
    stamp BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sync_state (
    name TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;
"""

THREADS = """
CREATE INDEX turns_by_device ON turns (conversation_id, device_name);
CREATE INDEX turns_saved ON turns (conversation_id) WHERE origin = 'progress';
"""

ERASED_CONVERSATIONS = """
-- ids, where this device knew them, of the conversations in `erased`: nothing brings rows of them back, neither an
-- op nor a session file that still lies here
CREATE TABLE erased_conversations (
    id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TRIGGER no_erased_conversation BEFORE INSERT ON conversations
    WHEN EXISTS (SELECT 1 FROM erased_conversations AS e WHERE e.id = NEW.id)
    BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER no_erased_turn BEFORE INSERT ON turns
    WHEN EXISTS (SELECT 1 FROM erased_conversations AS e WHERE e.id = NEW.conversation_id)
    BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER no_erased_finding BEFORE INSERT ON findings
    WHEN EXISTS (SELECT 1 FROM erased_conversations AS e WHERE e.id = NEW.conversation_id)
    BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER no_erased_handoff BEFORE INSERT ON handoffs
    WHEN EXISTS (SELECT 1 FROM erased_conversations AS e WHERE e.id = NEW.conversation_id)
    BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER no_erased_record BEFORE INSERT ON records
    WHEN EXISTS (SELECT 1 FROM erased_conversations AS e WHERE e.id = NEW.conversation_id)
    BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER no_erased_cached BEFORE INSERT ON working_set
    WHEN EXISTS (SELECT 1 FROM erased_conversations AS e WHERE e.id = NEW.item ->> 'conversation_id')
    BEGIN SELECT RAISE(IGNORE); END;

CREATE TABLE forgotten_items (         -- of erased conversations, what lies elsewhere than here still
    key ANY PRIMARY KEY,               -- SearchItem.key, `package/<handoff id>` or `keys/<conversation id>`
    collection TEXT NOT NULL           -- of the index; else `package` or `keys`
) STRICT, WITHOUT ROWID;
"""

DAILY_USE = """
CREATE TABLE daily_use (               -- of this device, by day (UTC) and what is counted
    day TEXT NOT NULL, component TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (day, component)
) STRICT, WITHOUT ROWID;
"""

PLACEMENTS = """
CREATE TABLE placements (              -- where the points of items lie in a service, ports/placements.py
    digest INTEGER NOT NULL,           -- model.search.key_digest of the key: rows lie in the order of columns
    key ANY NOT NULL,                  -- SearchItem.key
    tier INTEGER NOT NULL,             -- place in model.tiers.TIER_NAMES
    moving_to INTEGER NOT NULL,        -- likewise, or 255
    epoch INTEGER NOT NULL,
    passages INTEGER NOT NULL,
    content INTEGER NOT NULL,
    words INTEGER NOT NULL,
    PRIMARY KEY (digest, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX placements_moving ON placements (moving_to) WHERE moving_to != 255;
"""

DATED_ACCESSES = """
CREATE TABLE accesses (                -- of items that search gave as answers
    digest INTEGER NOT NULL,           -- as in placements
    key ANY NOT NULL,
    count INTEGER NOT NULL,
    last_at INTEGER NOT NULL,          -- microseconds since 1970
    weight REAL NOT NULL,              -- accesses with a half-life, as of last_at: model/use.py
    relevance REAL,                    -- mean of their scores by the same weights; null: not known yet
    PRIMARY KEY (digest, key)
) STRICT, WITHOUT ROWID;
"""

_MOST_UNDATED: Final = 3.0


def name_subjects(connection: Connection) -> None:
    """Say of each op what it is about."""
    rows = connection.execute("SELECT id, kind, payload FROM ops WHERE subject IS NULL").fetchall()
    connection.executemany(
        "UPDATE ops SET subject = ? WHERE id = ?",
        [(subject_digest(kind, json.loads(payload)), row_id) for row_id, kind, payload in rows],
    )


def use_with_weights(connection: Connection) -> None:
    """Make the table of accesses anew, by digest, with what is known of each.

    When the accesses were is not known, only when the last one was. So an item gets the weight of that one at
    least, and no more than `_MOST_UNDATED`, which is less than what counts as in use (3.33): an old count alone
    brings nothing into the tier of what is in use, and what is still asked for gets there with the next access.
    The scores that it was given with are not known.
    """
    connection.execute("ALTER TABLE accesses RENAME TO undated_accesses")
    for statement in statements(DATED_ACCESSES):
        connection.execute(statement)
    rows = connection.execute("SELECT key, count, last_at FROM undated_accesses").fetchall()
    connection.executemany(
        "INSERT INTO accesses VALUES (?, ?, ?, ?, ?, NULL)",
        [
            (key_digest(from_column(key)), key, count, to_microseconds(from_time(last)), min(count, _MOST_UNDATED))
            for key, count, last in rows
        ],
    )
    connection.execute("DROP TABLE undated_accesses")


def statements(script: str) -> list[str]:
    """The statements of a script whose statements each end with a semicolon at the end of a line."""
    return [statement for statement in script.split(";\n") if statement.strip()]


Step = str | Callable[["Connection"], None]

SCRIPTS: Final[tuple[tuple[str, Step], ...]] = (
    ("0001_graph_and_ops", GRAPH_AND_OPS),
    ("0002_conversations", CONVERSATIONS),
    ("0003_search_sources", SEARCH_SOURCES),
    ("0004_accesses", ACCESSES),
    ("0005_sync", SYNC),
    ("0006_subjects", name_subjects),
    ("0007_threads", THREADS),
    ("0008_erased_conversations", ERASED_CONVERSATIONS),
    ("0009_daily_use", DAILY_USE),
    ("0010_placements", PLACEMENTS),
    ("0011_dated_accesses", use_with_weights),
)
