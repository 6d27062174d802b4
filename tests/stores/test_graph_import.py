"""Imports into a graph: additions only, repeatable, and aware of what was deleted meanwhile."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.model.graph import Entity, EntityObservations, Graph, Relation
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import Stamp
from dualmem_mcp.ports import Clock, SystemClock
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_import import ImportCounts
from dualmem_mcp.stores.graph_store import GraphStore

KEY = bytes(range(32))
DEVICE = DeviceId("ab" * 16)
FILE = Graph(
    (Entity("a", "t", ("x", "y"), {"created_at": "2025"}), Entity("b", "t")),
    (Relation("a", "b", "r", {"since": 1}), Relation("a", "c", "r")),
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "memory.db", KEY) as opened:
        yield opened


@pytest.fixture
def graph(database: Database, clock: Clock) -> GraphStore:
    return GraphStore(database, clock, DEVICE)


def test_everything_is_added_and_counted(graph: GraphStore) -> None:
    assert graph.import_graph(FILE) == ImportCounts(entities=2, relations=2, observations=2)
    assert graph.read_graph() == FILE


def test_again_changes_nothing(graph: GraphStore) -> None:
    graph.import_graph(FILE)
    version = graph.version()
    assert graph.import_graph(FILE) == ImportCounts()
    assert graph.version() == version


def test_what_is_stored_stays_and_gets_what_it_lacks(graph: GraphStore) -> None:
    graph.create_entities([Entity("a", "older", ("z", "x"), {"mood": 1})])
    graph.create_relations([Relation("a", "b", "r")])
    assert graph.import_graph(FILE) == ImportCounts(entities=1, relations=1, observations=1, other_types=1)
    read = graph.read_graph()
    assert read.entities[0] == Entity("a", "older", ("z", "x", "y"), {"mood": 1, "created_at": "2025"})
    assert read.relations[0] == Relation("a", "b", "r", {"since": 1})


def test_repeated_names_become_one(graph: GraphStore) -> None:
    repeated = Graph((Entity("a", "t", ("x", "x")), Entity("a", "t", ("y",))), (Relation("a", "b", "r"),) * 2)
    assert graph.import_graph(repeated) == ImportCounts(entities=1, relations=1, observations=2)
    assert graph.read_graph() == Graph((Entity("a", "t", ("x", "y")),), (Relation("a", "b", "r"),))


def test_more_items_than_a_batch(graph: GraphStore) -> None:
    large = Graph(tuple(Entity(f"e{number}", "t", ("x",)) for number in range(4_500)))
    assert graph.import_graph(large) == ImportCounts(entities=4_500, observations=4_500)
    assert graph.read_graph() == large


def test_an_edited_copy_adds_and_changes_fields(graph: GraphStore) -> None:
    graph.import_graph(FILE)
    version, read = graph.snapshot()
    a, b = read.entities
    edited = Graph(
        (
            Entity("a", "person", (*a.observations, "by hand"), {"created_at": "2024", "note": "n"}),
            b,
            Entity("d", "t"),
        ),
        (Relation("a", "b", "r", {"since": 2}), *read.relations[1:]),
    )
    counts = graph.import_graph(edited, edited_since=version)
    assert counts == ImportCounts(entities=1, observations=1)
    assert graph.read_graph() == edited


def test_an_edited_copy_does_not_bring_back_what_was_deleted_meanwhile(graph: GraphStore) -> None:
    graph.import_graph(FILE)
    version, read = graph.snapshot()
    graph.delete_entities(["b"])
    graph.delete_observations([EntityObservations("a", ("x",))])
    graph.delete_relations([Relation("a", "c", "r")])
    edited = Graph((*read.entities, Entity("new", "t")), read.relations)
    counts = graph.import_graph(edited, edited_since=version)
    assert counts == ImportCounts(entities=1, outdated=4)
    assert graph.read_graph() == Graph((Entity("a", "t", ("y",), {"created_at": "2025"}), Entity("new", "t")))


def test_a_field_set_here_meanwhile_stays(graph: GraphStore) -> None:
    graph.import_graph(FILE)
    version, read = graph.snapshot()
    theirs = Graph((Entity("a", "theirs", ("x", "y"), {"created_at": "1"}), read.entities[1]), read.relations)
    ours = Graph((Entity("a", "ours", ("x", "y"), {"created_at": "2"}), read.entities[1]), read.relations)
    graph.import_graph(ours, edited_since=version)
    assert graph.import_graph(theirs, edited_since=version) == ImportCounts(other_types=1)
    assert graph.read_graph() == ours


def test_a_version_that_this_database_never_had_counts_as_a_strangers(graph: GraphStore) -> None:
    graph.import_graph(FILE)
    graph.delete_entities(["b"])
    assert graph.import_graph(FILE, edited_since=10_000).entities == 1


def test_fields_changed_later_carry_their_stamp(graph: GraphStore, database: Database) -> None:
    graph.import_graph(FILE)
    edited = Graph((Entity("a", "person", (), {"created_at": "1"}),), (Relation("a", "b", "r", {"since": 2}),))
    graph.import_graph(edited, edited_since=graph.version())
    with database.read() as connection:
        rows = connection.execute("SELECT kind, ticks, payload FROM ops ORDER BY id").fetchall()
        (entity_stamps,) = connection.execute("SELECT field_stamps FROM entities WHERE name = 'a'").fetchone()
        (relation_stamps,) = connection.execute("SELECT field_stamps FROM relations WHERE target = 'b'").fetchone()
    created = next(str(Stamp(ticks, DEVICE)) for kind, ticks, _ in rows if kind == "entity.create")
    related = next(str(Stamp(ticks, DEVICE)) for kind, ticks, _ in rows if kind == "relation.create")
    assert [(kind, json.loads(payload)) for kind, _, payload in rows[-2:]] == [
        (
            "entity.set",
            {
                "name": "a",
                "entity": [f"{created}.0"],
                "fields": {"extra.created_at": "1", "entityType": "person"},
                "over": {"extra.created_at": [created], "entityType": [created]},
            },
        ),
        (
            "relation.set",
            {
                "from": "a",
                "to": "b",
                "relationType": "r",
                "relation": [f"{related}.0"],
                "fields": {"extra.since": 2},
                "over": {"extra.since": [related]},
            },
        ),
    ]
    assert entity_stamps.count(DEVICE) == 2
    assert "extra.since" in relation_stamps


names = st.sampled_from("abc")
graphs = st.builds(
    lambda entities, relations: Graph(tuple(entities), tuple(relations)),
    st.lists(
        st.builds(Entity, names, st.just("t"), st.lists(st.sampled_from("xyz"), unique=True).map(tuple)),
        unique_by=lambda entity: entity.name,
    ),
    st.lists(st.builds(Relation, names, names, st.just("r")), unique_by=lambda relation: relation.triple),
)


@settings(max_examples=30)
@given(graphs, graphs)
def test_a_union_holds_both(tmp_path_factory: pytest.TempPathFactory, first: Graph, second: Graph) -> None:
    def items(graph: Graph) -> set[tuple[str, ...]]:
        observations = {(entity.name, text) for entity in graph.entities for text in entity.observations}
        return (
            {(entity.name,) for entity in graph.entities} | observations | {item.triple for item in graph.relations}
        )

    with Database.open(tmp_path_factory.mktemp("union") / "memory.db", KEY) as database:
        graph = GraphStore(database, SystemClock(), DEVICE)
        graph.import_graph(first)
        counts = graph.import_graph(second)
        union = items(graph.read_graph())
    assert union == items(first) | items(second)
    assert counts.entities + counts.observations + counts.relations == len(items(second) - items(first))
