"""What devices have to agree on, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dualmem_mcp.model.graph import Entity, EntityObservations, Relation
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.ports import Clock
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.logical_state import logical_hash, logical_view

DESK = DeviceId("aa" * 16)
STAMP = "X'" + "01" * 24 + "'"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "memory.db", bytes(32)) as opened:
        yield opened


def state(database: Database) -> str:
    with database.read() as connection:
        return logical_hash(connection)


def change(database: Database, *statements: str) -> None:
    with database.write() as connection:
        for statement in statements:
            connection.execute(statement)


FILLED = f"""
INSERT INTO conversations VALUES ('c', 'title', '/c', '2026', 3, 'desk', 1, {STAMP});
INSERT INTO turns (id, conversation_id, uuid, role, text, visible_tokens, is_meta, is_compact_summary, stamp)
    VALUES (1, 'c', 'u1', 'user', 'one', 1, 0, 0, {STAMP}), (2, 'c', 'u2', 'user', X'eda0bd', 1, 0, 0, {STAMP});
INSERT INTO findings (id, conversation_id, kind, finding_id, turn_uuid, text, author, device_name, stamp)
    VALUES (1, 'c', 'note', 'f', '', 'text', '', '', {STAMP});
INSERT INTO handoffs
    VALUES ('h', 'c', 'title', '/c', '2026', 'd', 'desk', NULL, 'p', 1, 'm', 1, 1, 1, 'u2', {STAMP});
INSERT INTO records VALUES ('note', 'n', '', '{{"text":"a","title":"b"}}', '{{}}', {STAMP}, {STAMP});
INSERT INTO conflicts VALUES (X'00', 'title', '{{"lost":[1]}}');
INSERT INTO erased VALUES ('name', {STAMP});
INSERT INTO entities (id, name, entity_type, tags, extra) VALUES
    (1, 'Ada', 'person', zeroblob(28), '{{"a":1,"b":2}}');
INSERT INTO observations VALUES (1, 1, X'01', 'née Byron', zeroblob(28)), (2, 1, X'02', 'wrote', zeroblob(28));
INSERT INTO relations (source, target, relation_type, tags) VALUES ('Ada', 'Engine', 'studies', zeroblob(28))
"""


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entities SET entity_type = 'countess'",
        "UPDATE entities SET extra = NULL",
        "UPDATE entities SET tags = X'" + "01" * 28 + "'",
        "UPDATE observations SET text = 'read' WHERE id = 2",
        "UPDATE observations SET tags = zeroblob(56) WHERE id = 2",
        "DELETE FROM observations WHERE id = 1",
        "UPDATE relations SET relation_type = 'built'",
        "UPDATE relations SET extra = '{\"since\":1842}'",
        'UPDATE records SET fields = \'{"text":"a"}\'',
        "UPDATE records SET changed = X'02'",
        "UPDATE conversations SET title = 'other'",
        "UPDATE conversations SET listed = 0",
        "UPDATE conversations SET stamp = NULL",
        "UPDATE turns SET text = 'two' WHERE id = 2",
        "UPDATE turns SET stamp = X'' WHERE id = 2",
        "UPDATE turns SET device_name = 'phone'",
        "UPDATE findings SET text = 'other'",
        "UPDATE findings SET text = ''",
        "UPDATE handoffs SET manifest_key = 'other'",
        "UPDATE conflicts SET detail = '{}'",
        "DELETE FROM erased",
        "DELETE FROM conflicts",
    ],
)
def test_all_that_was_said_counts(database: Database, statement: str) -> None:
    change(database, *FILLED.split(";\n"))
    before = state(database)
    assert state(database) == before
    change(database, statement)
    assert state(database) != before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE turns SET id = id + 10",
        "UPDATE turns SET id = 3 - id + 20",
        "UPDATE findings SET id = 7",
        "UPDATE observations SET id = 5 - id",
        'UPDATE entities SET extra = \'{"b": 2, "a": 1}\', field_stamps = \'{"entityType":"x"}\'',
        'UPDATE records SET fields = \'{"title": "b", "text": "a"}\'',
        "UPDATE erased SET stamp = X'02'",
        "UPDATE hybrid_clock SET ticks = 5, ahead_ms = 9",
        "INSERT INTO ops (device_id, sequence, ticks, kind, payload) VALUES ('d', 1, 1, 'x', '{}')",
        "INSERT INTO conversations VALUES ('d', 'd', '', '0001', 0, '', 0, X'')",
        """INSERT INTO findings (conversation_id, kind, finding_id, turn_uuid, text, author, device_name, stamp)
        VALUES ('', 'note', 'user/1', '', 'text', '', '', X''), ('c', 'note', 'gone', '', '', '', '', X'02')""",
        """INSERT INTO turns (conversation_id, uuid, role, text, visible_tokens, is_meta, is_compact_summary, stamp)
        VALUES ('c', 'u3', 'user', 'of a package', 1, 0, 0, X'')""",
        "INSERT INTO accesses VALUES (1, 'k', 1, 0, 1.0, NULL)",
        "INSERT INTO placements VALUES (1, 'k', 0, 255, 1, 1, 1, 0)",
    ],
)
def test_what_is_a_devices_own_does_not_count(database: Database, statement: str) -> None:
    change(database, *FILLED.split(";\n"))
    before = state(database)
    change(database, statement)
    assert state(database) == before


def test_the_view_shows_what_the_hash_is_of(database: Database) -> None:
    change(database, *FILLED.split(";\n"))
    with database.read() as connection:
        view = logical_view(connection)
    assert {section: len(items) for section, items in view.items()} == {
        "entities": 1,
        "observations": 2,
        "relations": 1,
        "records": 1,
        "conversations": 1,
        "turns": 2,
        "findings": 1,
        "handoffs": 1,
        "bans": 1,
        "conflicts": 1,
    }
    assert view["turns"][1][5] == "\ud83d"
    assert view["entities"][0][:3] == ["Ada", "person", '{"a": 1, "b": 2}']


def test_the_order_of_creation_is_a_devices_own(tmp_path: Path, clock: Clock) -> None:
    hashes = []
    for names in (["Ada", "Engine", "half \ud83d"], ["half \ud83d", "Engine", "Ada"]):
        with Database.open(tmp_path / f"{names[0][:3]}.db", bytes(32)) as database:
            graph = GraphStore(database, clock, DESK)
            for name in names:
                graph.create_entities([Entity(name, "thing", ())])
                graph.add_observations([EntityObservations(name, ("a", "b"))])
            graph.create_relations([Relation("Ada", "Engine", "studies")])
            # The tags tell when each was made, which here is not the same.
            change(database, "UPDATE entities SET tags = X''", "UPDATE observations SET tags = X''")
            change(database, "UPDATE relations SET tags = X''")
            hashes.append(state(database))
    assert hashes[0] == hashes[1]
