"""The graph store against a plain model of the reference server, alone and among other processes."""

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.model.graph import AddedObservations, Entity, EntityObservations, Graph, Relation
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import Stamp, physical_ticks
from dualmem_mcp.ports import Clock, SystemClock
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore

KEY = bytes(range(32))
DEVICE = DeviceId("ab" * 16)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "memory.db", KEY) as opened:
        yield opened


@pytest.fixture
def graph(database: Database, clock: Clock) -> GraphStore:
    return GraphStore(database, clock, DEVICE)


def ops(database: Database) -> list[tuple[int, str, dict[str, Any]]]:
    with database.read() as connection:
        rows = connection.execute("SELECT sequence, kind, payload FROM ops ORDER BY id").fetchall()
    return [(sequence, kind, json.loads(payload)) for sequence, kind, payload in rows]


def test_creates_what_was_not_there(graph: GraphStore) -> None:
    ada = Entity("Ada", "person", ("x",))
    assert graph.create_entities([ada]) == [ada]
    assert graph.create_entities([Entity("Ada", "other", ("y",)), Entity("Bob", "person")]) == [
        Entity("Bob", "person")
    ]
    assert graph.read_graph() == Graph((ada, Entity("Bob", "person")))


def test_items_repeated_within_one_call_are_stored_and_returned_once(graph: GraphStore) -> None:
    created = graph.create_entities([Entity("a", "t", ("x", "y", "x")), Entity("a", "u")])
    assert created == [Entity("a", "t", ("x", "y"))]
    assert graph.create_relations([Relation("a", "b", "r")] * 2) == [Relation("a", "b", "r")]
    added = graph.add_observations([EntityObservations("a", ("z", "z", "x")), EntityObservations("a", ("z", "w"))])
    assert added == [AddedObservations("a", ("z",)), AddedObservations("a", ("w",))]
    assert graph.read_graph() == Graph((Entity("a", "t", ("x", "y", "z", "w")),), (Relation("a", "b", "r"),))


def test_an_addition_to_a_missing_entity_discards_the_whole_call(graph: GraphStore, database: Database) -> None:
    graph.create_entities([Entity("a", "t")])
    before = ops(database)
    with pytest.raises(NotFoundError) as caught:
        graph.add_observations([EntityObservations("a", ("x",)), EntityObservations("Nope", ())])
    assert str(caught.value) == "Entity with name Nope not found"
    assert graph.read_graph() == Graph((Entity("a", "t"),))
    assert ops(database) == before


def test_deleting_an_entity_deletes_its_relations_and_those_that_only_name_it(graph: GraphStore) -> None:
    graph.create_entities([Entity("a", "t", ("x",))])
    graph.create_relations([Relation("a", "b", "r"), Relation("c", "d", "r"), Relation("d", "ghost", "r")])
    graph.delete_entities(["a", "ghost", "never"])
    assert graph.read_graph() == Graph((), (Relation("c", "d", "r"),))


def test_what_is_created_again_comes_last(graph: GraphStore) -> None:
    graph.create_entities([Entity("a", "t", ("x", "y")), Entity("b", "t"), Entity("c", "t")])
    graph.read_graph()
    graph.delete_entities(["b", "c"])
    graph.create_entities([Entity("d", "t"), Entity("c", "t")])
    graph.delete_observations([EntityObservations("a", ("x",))])
    graph.add_observations([EntityObservations("a", ("x",))])
    assert graph.read_graph().entities == (Entity("a", "t", ("y", "x")), Entity("d", "t"), Entity("c", "t"))


def test_search_and_open_return_relations_with_one_end_among_the_found(graph: GraphStore) -> None:
    graph.create_entities([Entity("Ada", "person", ("Wrote NOTES",)), Entity("Engine", "machine")])
    graph.create_relations([Relation("x", "y", "r"), Relation("Ada", "Engine", "r"), Relation("ghost", "Ada", "r")])
    touching = (Relation("Ada", "Engine", "r"), Relation("ghost", "Ada", "r"))
    assert graph.search_nodes("notes") == graph.open_nodes(["Ada", "Ada", "ada"])
    assert graph.search_nodes("notes") == Graph((Entity("Ada", "person", ("Wrote NOTES",)),), touching)
    assert graph.search_nodes("ghost") == Graph()
    assert graph.search_nodes("") == Graph(graph.read_graph().entities, touching)
    assert graph.open_nodes([]) == Graph()


def test_opened_entities_come_in_the_order_of_their_creation(graph: GraphStore) -> None:
    graph.create_entities([Entity(name, "t") for name in "abc"])
    assert [entity.name for entity in graph.open_nodes(["c", "a"]).entities] == ["a", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "a\0b",
        "\0",
        "half \ud83d",
        "\ud800",
        "",
        " ",
        "é" * 3,
        "%_*?[",
        "'; DROP TABLE ops; --",
        "😀",
        "x" * 300_000,
    ],
)
def test_any_text_comes_back_and_is_found(graph: GraphStore, text: str) -> None:
    entity = Entity(f"name {text}", f"type {text}", (text, f"obs {text}"))
    graph.create_entities([entity])
    graph.create_relations([Relation(text, entity.name, text)])
    expected = Graph((entity,), (Relation(text, entity.name, text),))
    assert graph.read_graph() == expected
    assert graph.search_nodes(f"OBS {text}".upper() if text.isascii() else f"obs {text}") == expected
    assert graph.open_nodes([entity.name]) == expected
    assert graph.add_observations([EntityObservations(entity.name, (text,))]) == [
        AddedObservations(entity.name, ())
    ]
    graph.delete_observations([EntityObservations(entity.name, (text,))])
    assert graph.read_graph().entities == (replace(entity, observations=(f"obs {text}",)),)
    graph.delete_entities([entity.name])
    assert graph.read_graph() == Graph()


def test_a_separator_in_a_query_does_not_join_fields(graph: GraphStore) -> None:
    graph.create_entities([Entity("a", "b", ("c",)), Entity("a\0b", "t")])
    assert [entity.name for entity in graph.search_nodes("a\0b").entities] == ["a\0b"]


def test_listeners_hear_of_changes_only(graph: GraphStore) -> None:
    heard: list[int] = []
    graph.on_change(lambda: heard.append(len(graph.read_graph().entities)))
    graph.create_entities([Entity("a", "t")])
    graph.create_entities([Entity("a", "t")])
    graph.delete_entities(["never"])
    graph.delete_entities(["a"])
    graph.search_nodes("")
    assert heard == [1, 0]


def test_unchanged_items_are_the_same_objects_in_two_snapshots(graph: GraphStore) -> None:
    graph.create_entities([Entity("a", "t"), Entity("b", "t")])
    version, before = graph.snapshot()
    graph.add_observations([EntityObservations("b", ("x",))])
    later, after = graph.snapshot()
    assert later > version
    assert after.entities[0] is before.entities[0]
    assert after.entities[1] == Entity("b", "t", ("x",))
    assert graph.version() == later


def test_ops_say_what_was_done(graph: GraphStore, database: Database, clock: Clock) -> None:
    graph.create_entities([Entity("a", "t", ("x",))])
    graph.add_observations([EntityObservations("a", ("x", "y"))])
    graph.create_relations([Relation("a", "b", "r")])
    graph.delete_observations([EntityObservations("a", ("x", "z"))])
    graph.delete_entities(["a"])
    recorded = ops(database)
    # The clock stands still, so only the counter counts.
    ticks = physical_ticks(clock.now())
    created, added, related = (str(Stamp(ticks + count, DEVICE)) for count in range(3))
    assert [sequence for sequence, _, _ in recorded] == [1, 2, 3, 4, 5, 6]
    assert [(kind, payload) for _, kind, payload in recorded] == [
        ("entity.create", {"name": "a", "entityType": "t", "observations": ["x"]}),
        ("observation.add", {"name": "a", "entity": [f"{created}.0"], "observations": ["y"]}),
        ("relation.create", {"from": "a", "to": "b", "relationType": "r"}),
        ("observation.delete", {"name": "a", "observations": [{"text": "x", "tags": [f"{created}.1"]}]}),
        ("entity.delete", {"name": "a", "tags": [f"{created}.0"], "observations": [f"{added}.1"], "over": []}),
        ("relation.delete", {"from": "a", "to": "b", "relationType": "r", "tags": [f"{related}.0"], "over": []}),
    ]


names = st.sampled_from(["a", "b", "A", "ab", "\ud83d"])
types = st.sampled_from(["t", "T b"])
observations = st.lists(st.sampled_from(["x", "X y", "a", "ς\0"]), max_size=3).map(tuple)
entities = st.builds(Entity, names, types, observations)
relations = st.builds(Relation, names, names, st.sampled_from(["r", "s"]))
additions = st.builds(EntityObservations, names, observations)
queries = st.sampled_from(["", "a", "AB", "x y", "b", "Σ", "\0", "\ud83d", "t\0x", "zz"])


class ReferenceModel:
    """The reference server's rules on plain lists; repeated items of one call once."""

    def __init__(self) -> None:
        self.entities: list[Entity] = []
        self.relations: list[Relation] = []

    def create_entities(self, given: list[Entity]) -> list[Entity]:
        created = []
        for entity in given:
            if all(entity.name != other.name for other in self.entities):
                created.append(replace(entity, observations=tuple(dict.fromkeys(entity.observations))))
                self.entities.append(created[-1])
        return created

    def create_relations(self, given: list[Relation]) -> list[Relation]:
        created = []
        for relation in given:
            if relation not in self.relations:
                created.append(relation)
                self.relations.append(relation)
        return created

    def add_observations(self, given: list[EntityObservations]) -> list[AddedObservations] | str:
        entities, results = list(self.entities), []
        for addition in given:
            at = next((i for i, entity in enumerate(entities) if entity.name == addition.entity_name), None)
            if at is None:
                return f"Entity with name {addition.entity_name} not found"
            had = entities[at].observations
            added = tuple(text for text in dict.fromkeys(addition.observations) if text not in had)
            entities[at] = replace(entities[at], observations=had + added)
            results.append(AddedObservations(addition.entity_name, added))
        self.entities = entities
        return results

    def delete_entities(self, given: list[str]) -> None:
        self.entities = [entity for entity in self.entities if entity.name not in given]
        self.relations = [item for item in self.relations if item.source not in given and item.target not in given]

    def delete_observations(self, given: list[EntityObservations]) -> None:
        for deletion in given:
            self.entities = [
                replace(
                    entity,
                    observations=tuple(text for text in entity.observations if text not in deletion.observations),
                )
                if entity.name == deletion.entity_name
                else entity
                for entity in self.entities
            ]

    def delete_relations(self, given: list[Relation]) -> None:
        self.relations = [relation for relation in self.relations if relation not in given]

    def _with_relations(self, found: list[Entity]) -> Graph:
        ends = {entity.name for entity in found}
        touching = (item for item in self.relations if item.source in ends or item.target in ends)
        return Graph(tuple(found), tuple(touching))

    def search_nodes(self, query: str) -> Graph:
        def holds(text: str) -> bool:
            return query.lower() in text.lower()

        return self._with_relations(
            [
                entity
                for entity in self.entities
                if holds(entity.name) or holds(entity.entity_type) or any(map(holds, entity.observations))
            ]
        )

    def open_nodes(self, given: list[str]) -> Graph:
        return self._with_relations([entity for entity in self.entities if entity.name in given])


class GraphMachine(RuleBasedStateMachine):
    """Writes go through one store; a second one on the same file, as another process has it, must follow."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database.open(Path(self.folder.name) / "memory.db", KEY)
        self.stores = [GraphStore(self.database, SystemClock(), DEVICE) for _ in range(2)]
        self.model = ReferenceModel()
        self.turn = 0

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    @property
    def store(self) -> GraphStore:
        self.turn += 1
        return self.stores[self.turn % 2]

    @rule(given=st.lists(entities, max_size=3))
    def create_entities(self, given: list[Entity]) -> None:
        assert self.store.create_entities(given) == self.model.create_entities(given)

    @rule(given=st.lists(relations, max_size=3))
    def create_relations(self, given: list[Relation]) -> None:
        assert self.store.create_relations(given) == self.model.create_relations(given)

    @rule(given=st.lists(additions, max_size=3))
    def add_observations(self, given: list[EntityObservations]) -> None:
        expected = self.model.add_observations(given)
        if isinstance(expected, str):
            with pytest.raises(NotFoundError) as caught:
                self.store.add_observations(given)
            assert str(caught.value) == expected
        else:
            assert self.store.add_observations(given) == expected

    @rule(given=st.lists(names, max_size=2))
    def delete_entities(self, given: list[str]) -> None:
        self.store.delete_entities(given)
        self.model.delete_entities(given)

    @rule(given=st.lists(additions, max_size=2))
    def delete_observations(self, given: list[EntityObservations]) -> None:
        self.store.delete_observations(given)
        self.model.delete_observations(given)

    @rule(given=st.lists(relations, max_size=2))
    def delete_relations(self, given: list[Relation]) -> None:
        self.store.delete_relations(given)
        self.model.delete_relations(given)

    @rule(query=queries)
    def search_nodes(self, query: str) -> None:
        assert self.store.search_nodes(query) == self.model.search_nodes(query)

    @rule(given=st.lists(names, max_size=3))
    def open_nodes(self, given: list[str]) -> None:
        assert self.store.open_nodes(given) == self.model.open_nodes(given)

    @invariant()
    def the_graph_is_the_models(self) -> None:
        assert self.stores[self.turn % 2].read_graph() == Graph(
            tuple(self.model.entities), tuple(self.model.relations)
        )

    @invariant()
    def replaying_the_ops_gives_the_graph(self) -> None:
        assert replay(self.database) == {
            **{entity.name: {entity.entity_type, *entity.observations} for entity in self.model.entities},
            **{relation.triple: set() for relation in self.model.relations},
        }


def replay(database: Database) -> dict[Any, set[str]]:
    """What a device makes of the ops alone, by the rules of docs/ops.md: sets of tags, minus those deleted."""
    with database.read() as connection:
        rows = connection.execute("SELECT ticks, device_id, kind, payload FROM ops ORDER BY ticks").fetchall()
        tombstones = connection.execute("SELECT count(*) FROM tombstones").fetchone()[0]
    live: dict[str, tuple[Any, str]] = {}
    buried: set[str] = set()
    for ticks, device_id, kind, text in rows:
        payload = json.loads(text)
        stamp = f"{ticks:016x}-{device_id}"
        triple = (payload.get("from"), payload.get("to"), payload.get("relationType"))
        if kind == "entity.create":
            live[f"{stamp}.0"] = (payload["name"], payload["entityType"])
        elif kind == "relation.create":
            live[f"{stamp}.0"] = (triple, "")
        if kind in {"entity.create", "observation.add"}:
            for item, observation in enumerate(payload["observations"], start=1):
                live[f"{stamp}.{item}"] = (payload["name"], observation)
        elif kind == "observation.delete":
            buried.update(tag for item in payload["observations"] for tag in item["tags"])
        elif kind in {"entity.delete", "relation.delete"}:
            buried.update(payload["tags"])
            buried.update(payload.get("observations", []))
    assert len(buried) == tombstones
    graph: dict[Any, set[str]] = {}
    for tag, (subject, text) in live.items():
        if tag not in buried:
            graph.setdefault(subject, set())
            if isinstance(subject, str):
                graph[subject].add(text)
    return graph


TestGraphMachine = GraphMachine.TestCase
TestGraphMachine.settings = settings(settings.get_profile("ci"), max_examples=60, stateful_step_count=25)


def test_twenty_concurrent_creates_keep_all_twenty(graph: GraphStore) -> None:
    ready = threading.Barrier(20)

    def create(number: int) -> None:
        ready.wait()
        graph.create_entities([Entity(f"entity {number}", "t", ("x",))])

    threads = [threading.Thread(target=create, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entity.name for entity in graph.read_graph().entities} == {f"entity {number}" for number in range(20)}


# Prints each entity's name when its creation has been acknowledged.
WRITER = """
import sys
import tempfile
from pathlib import Path
from dualmem_mcp.model.graph import Entity, EntityObservations
from dualmem_mcp.ports import SystemClock
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore
path, prefix, count = sys.argv[1:]
with Database.open(Path(path), bytes(range(32))) as database:
    graph = GraphStore(database, SystemClock(), "ab" * 16)
    graph.create_entities([Entity("shared", "t")])
    for number in range(int(count)):
        graph.create_entities([Entity(f"{prefix}{number}", "t", ("x",))])
        graph.add_observations([EntityObservations("shared", (f"{prefix}{number}",))])
        print(f"{prefix}{number}", flush=True)
"""


def start_writer(path: Path, prefix: str, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(path), prefix, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_four_processes_keep_every_write(tmp_path: Path, database: Database, graph: GraphStore) -> None:
    writers = [start_writer(tmp_path / "memory.db", f"p{number}-", 100) for number in range(4)]
    while any(writer.poll() is None for writer in writers):
        graph.search_nodes("p1-5")  # reads from beside them, with a cache that must follow
    for writer in writers:
        assert writer.wait() == 0
        assert writer.stdout is not None
        writer.stdout.close()
    expected = {f"p{process}-{number}" for process in range(4) for number in range(100)}
    read = graph.read_graph()
    assert {entity.name for entity in read.entities} == expected | {"shared"}
    assert set(graph.open_nodes(["shared"]).entities[0].observations) == expected
    assert read == GraphStore(database, SystemClock(), DEVICE).read_graph()
    assert [sequence for sequence, _, _ in ops(database)] == list(range(1, 802))
    with database.read() as connection:
        ticks = [row[0] for row in connection.execute("SELECT ticks FROM ops ORDER BY id")]
    assert ticks == sorted(set(ticks))


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    acknowledged: set[str] = set()
    for round_number in range(5):
        writers = [start_writer(path, f"r{round_number}w{number}-", 100_000) for number in range(2)]
        for writer in writers:
            assert writer.stdout is not None
            acknowledged.add(writer.stdout.readline().strip())
        time.sleep(0.05)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for writer in writers:
            assert writer.stdout is not None
            # A last line may be torn by the kill; whole lines are acknowledgements.
            acknowledged.update(line.strip() for line in writer.stdout if line.endswith("\n"))
            writer.stdout.close()
            writer.wait()
        with Database.open(path, KEY) as database:
            assert database.damaged_pages() == []
            graph = GraphStore(database, SystemClock(), DEVICE)
            kept = {entity.name for entity in graph.read_graph().entities}
            assert acknowledged <= kept
            replay(database)
    assert len(acknowledged) > 10


def test_no_word_of_the_graph_is_in_any_file(tmp_path: Path, graph: GraphStore) -> None:
    words = ["Lovelace", "mathematician", "translated", "collaborates"]
    graph.create_entities([Entity(words[0], words[1], (f"{words[2]} {number}",)) for number in range(1)])
    graph.create_relations([Relation(words[0], "Babbage", words[3])])
    graph.search_nodes("translated")
    graph.add_observations([EntityObservations(words[0], ("later observation",))])
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) > 50_000
    for file in files:
        data = file.read_bytes().lower()
        for word in [*words, "Babbage", "observation"]:
            for encoding in ("utf-8", "utf-16-le"):
                assert word.lower().encode(encoding) not in data, file.name
