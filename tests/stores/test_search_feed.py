"""What an index is told: turns, findings and entities after a place, and how far it has come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dualmem_mcp.model.conversation import Block, Turn
from dualmem_mcp.model.graph import Entity, EntityObservations, Graph, Relation
from dualmem_mcp.model.ids import ConversationId, DeviceId
from dualmem_mcp.model.search import Collection
from dualmem_mcp.model.source import ImportedTurn, IndexProgress, ReadMark, SessionChunk
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_import import ImportCounts
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.search_feed import SearchFeed
from dualmem_mcp.stores.source_progress import SourceProgress
from tests.conftest import SteppingClock

CHAT = ConversationId("c0ffee")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "memory.db", bytes(32)) as opened:
        yield opened


@pytest.fixture
def feed(database: Database) -> SearchFeed:
    return SearchFeed(database)


@pytest.fixture
def log(database: Database, clock: SteppingClock) -> SourceProgress:
    return SourceProgress(database, clock, "desk")


@pytest.fixture
def graph(database: Database, clock: SteppingClock) -> GraphStore:
    return GraphStore(database, clock, DeviceId("ab" * 16))


def imported(number: int, text: str = "") -> ImportedTurn:
    return ImportedTurn(CHAT, f"t{number}", "user", text or f"text {number}")


def test_turns_come_in_pages_by_their_place(feed: SearchFeed, log: SourceProgress) -> None:
    log.add_imported([imported(number) for number in range(5)])
    first = feed.turns(0, 2)
    assert [one.text for one in first] == ["text 0", "text 1"]
    assert [one.text for one in feed.turns(first[-1].id, 10)] == ["text 2", "text 3", "text 4"]
    assert feed.turns_after(first[-1].id) == 3
    last = feed.turns(0, 10)[-1].id
    assert feed.turns(last, 10) == []
    assert feed.turns_after(last) == 0


def test_a_page_ends_before_it_is_too_large_but_is_never_empty(feed: SearchFeed, log: SourceProgress) -> None:
    log.add_imported([imported(number, "x" * 1_500_000) for number in range(3)])
    sizes, after = [], 0
    while page := feed.turns(after, 10):
        sizes.append(len(page))
        after = page[-1].id
    assert sizes == [2, 1]


def test_turns_without_text_and_meta_turns_are_left_out(feed: SearchFeed, log: SourceProgress) -> None:
    turns = tuple(
        Turn(uuid, None, "user", None, (Block("text", text),), is_meta=is_meta)
        for uuid, text, is_meta in (("a", "said", False), ("b", "", False), ("c", "to the model", True))
    )
    log.add_chunk(SessionChunk(ReadMark("p", CHAT, offset=1), turns), None)
    assert [one.uuid for one in feed.turns(0, 10)] == ["a"]


def test_entities_come_with_the_time_of_their_last_addition(
    feed: SearchFeed, graph: GraphStore, clock: SteppingClock
) -> None:
    graph.create_entities([Entity("Ada", "person", ("née Byron",)), Entity("Babbage", "person")])
    clock.advance(3600)
    graph.add_observations([EntityObservations("Ada", ("wrote notes",))])
    (ada, ada_at), (babbage, babbage_at) = feed.entities(["Ada", "nobody", "Babbage"])
    assert ada.observations == ("née Byron", "wrote notes")
    assert (ada_at, babbage_at) == (datetime(2026, 3, 1, 13, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert babbage.name == "Babbage"


def test_changes_of_the_graph_name_the_entities_they_touch(feed: SearchFeed, graph: GraphStore) -> None:
    assert feed.graph_version() == 0
    assert feed.changed_entities(0, 10) == ([], 0)
    graph.create_entities([Entity("Ada", "person"), Entity("Babbage", "person")])
    graph.create_relations([Relation("Ada", "Babbage", "knows")])
    graph.delete_entities(["Babbage"])
    names, last = feed.changed_entities(0, 2)
    assert names == ["Ada", "Babbage"]
    names, end = feed.changed_entities(last, 100)
    assert set(names) == {"Babbage"}
    assert end == feed.graph_version()
    graph.add_observations([EntityObservations("Ada", ("x",))])
    assert feed.changed_entities(end, 100) == (["Ada"], end + 1)


def test_ops_of_other_kinds_name_no_entities(database: Database, feed: SearchFeed, graph: GraphStore) -> None:
    graph.create_entities([Entity("Ada", "person")])
    graph.read_graph()
    rows = [
        ("record.set", '{"type":"note","id":"1","name":"Ada","from":"a","to":"b","relationType":"r"}', b"1"),
        ("turn.add", '{"name":"Ada"}', None),
        ("of.another.time", "no JSON at all", None),
    ]
    with database.write() as connection:
        for sequence, row in enumerate(rows, start=1):
            connection.execute(
                "INSERT INTO ops (device_id, sequence, ticks, kind, payload, subject)"
                " VALUES ('cd', ?1, ?1, ?2, ?3, ?4)",
                (sequence, *row),
            )
    assert feed.changed_entities(1, 2) == ([], 3)
    assert feed.changed_entities(3, 2) == ([], 4)
    assert [entity.name for entity in graph.read_graph().entities] == ["Ada"]
    assert graph.version() == 4
    changed = graph.import_graph(Graph((Entity("Ada", "countess"),)), edited_since=1)
    assert changed == ImportCounts()
    assert graph.read_graph().entities == (Entity("Ada", "countess"),)


def test_progress_is_that_of_one_generation(feed: SearchFeed) -> None:
    assert feed.progress("g1") is None
    feed.save_progress("g1", Collection.CONTEXT, IndexProgress(1, 2, 3))
    feed.save_progress("other", Collection.AGENTS, IndexProgress(4))
    assert feed.progress("g1") == IndexProgress(1, 2, 3)
    feed.save_progress("g2", Collection.CONTEXT, IndexProgress(5))
    assert feed.progress("g1") is None
    assert feed.progress("g2") == IndexProgress(5)
    assert feed.progress("other") == IndexProgress(4)
