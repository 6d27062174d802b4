"""Rows made anew from ops: plain cases, what is left alone, and stores that exchange ops in any order."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.model.graph import Entity, Graph, Relation
from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.oplog import subject_digest
from dualmem_mcp.model.search import Collection
from dualmem_mcp.model.source import IndexProgress
from dualmem_mcp.ports import Conflict
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.logical_state import logical_view
from dualmem_mcp.stores.search_feed import SearchFeed
from dualmem_mcp.stores.subject_fold import refold
from tests.stores.linked_stores import Home, additions

ADA = Entity("Ada", "person", ("née Byron",), {"mood": "glad"})


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[list[Home]]:
    made = [Home(tmp_path, number) for number in range(3)]
    yield made
    for home in made:
        home.database.close()


def exchange(homes: list[Home]) -> None:
    ops = [op for home in homes for op in home.ops()]
    for home in homes:
        home.take(ops)


def test_what_one_wrote_the_other_has(homes: list[Home]) -> None:
    desk, phone, _ = homes
    desk.graph.create_entities([ADA, Entity("half \ud83d", "t \ud83d", ("o \ud83d",), {"k \ud83d": "v \ud83d"})])
    desk.graph.create_relations([Relation("Ada", "half \ud83d", "knows", {"since": 1842})])
    desk.records.put("task", "1", {"text": "Check the crane", "status": "open"}, conversation_id="c")
    before = phone.graph.read_graph()
    phone.take(desk.ops())
    assert before == Graph()
    assert phone.graph.read_graph() == desk.graph.read_graph()
    assert phone.records.find() == desk.records.find() != []
    desk.graph.delete_entities(["Ada"])
    desk.records.delete("task", "1")
    phone.take(desk.ops())
    assert phone.graph.read_graph() == desk.graph.read_graph()
    assert phone.records.find() == []
    assert phone.rows()["tombstones"] == desk.rows()["tombstones"] != []


def test_rows_that_are_right_are_not_written(homes: list[Home]) -> None:
    desk = homes[0]
    desk.graph.create_entities([ADA, Entity("Babbage", "person")])
    desk.set_fields(Entity("Ada", "countess", (), {"mood": "calm"}))
    desk.graph.create_relations([Relation("Ada", "Babbage", "knows", {"since": 1})])
    desk.graph.delete_entities(["Babbage"])
    desk.records.put("note", "1", {"text": "x"})
    with desk.database.write() as connection:
        subjects = [row[0] for row in connection.execute("SELECT DISTINCT subject FROM ops")]
        before = connection.execute("SELECT total_changes()").fetchone()
        refold(connection, [*subjects, *subjects, b"of another time"])
        assert connection.execute("SELECT total_changes()").fetchone() == before


def test_what_stays_keeps_its_place(homes: list[Home]) -> None:
    desk, phone, _ = homes
    desk.graph.create_entities([Entity("a", "t", ("1", "2")), Entity("b", "t")])
    phone.graph.create_entities([Entity("b", "t", ("3",)), Entity("c", "t"), Entity("a", "t", ("0", "2"))])
    desk.take(phone.ops())
    read = desk.graph.read_graph().entities
    assert [(entity.name, entity.observations) for entity in read] == [
        ("a", ("1", "2", "0")),
        ("b", ("3",)),
        ("c", ()),
    ]


def test_an_observation_that_two_added_stays_until_both_are_deleted(homes: list[Home]) -> None:
    desk, phone, tablet = homes
    desk.graph.create_entities([Entity("Ada", "person")])
    phone.take(desk.ops())
    for home in (desk, phone):
        home.graph.add_observations(additions("Ada", "wrote notes"))
    tablet.take(desk.ops())
    tablet.graph.delete_observations(additions("Ada", "wrote notes"))
    exchange(homes)
    expected = Graph((Entity("Ada", "person", ("wrote notes",)),))
    assert [home.graph.read_graph() for home in homes] == [expected] * 3
    for home in homes:
        assert_rows_are_the_fold(home)
    desk.graph.delete_observations(additions("Ada", "wrote notes"))
    exchange(homes)
    assert [home.graph.read_graph() for home in homes] == [Graph((Entity("Ada", "person"),))] * 3


def test_ops_that_are_held_back_take_no_part(homes: list[Home]) -> None:
    desk, phone, _ = homes
    phone.graph.create_entities([ADA])
    phone.graph.create_relations([Relation("Ada", "Babbage", "knows")])
    phone.records.put("note", "1", {"text": "x"})
    phone.set_fields(Entity("Ada", "countess"))
    ops = phone.ops()
    desk.take(ops)
    with desk.database.write() as connection:
        connection.execute("UPDATE ops SET held = 1 WHERE kind = 'entity.set'")
        refold(connection, {op[5] for op in ops})
    # A cache reads again what new ops name; of these there are none.
    assert GraphStore(desk.database, desk.clock, desk.device_id).read_graph().entities == (ADA,)
    with desk.database.write() as connection:
        connection.execute("UPDATE ops SET held = 1")
        refold(connection, {op[5] for op in ops})
    assert GraphStore(desk.database, desk.clock, desk.device_id).read_graph() == Graph()
    assert desk.records.find() == []
    with desk.database.read() as connection:
        assert connection.execute("SELECT text FROM findings").fetchall() == [("",)]


def test_rows_whose_ops_are_gone_go_too_and_no_others(homes: list[Home]) -> None:
    desk = homes[0]
    desk.graph.create_entities([ADA, Entity("Babbage", "person"), Entity("half \ud83d", "t", ("x",))])
    desk.graph.create_relations([Relation("Ada", "Babbage", "knows"), Relation("Babbage", "Ada", "knows")])
    desk.records.put("note", "1", {"text": "x"})
    desk.records.put("note", "2", {"text": "y"})
    with desk.database.write() as connection:
        gone = [row[0] for row in connection.execute("SELECT subject FROM ops WHERE id IN (1, 3, 4, 6)")]
        connection.execute("DELETE FROM ops WHERE id IN (1, 3, 4, 6)")
        refold(connection, gone)
    assert desk.graph.read_graph() == Graph((Entity("Babbage", "person"),), (Relation("Babbage", "Ada", "knows"),))
    assert [record.id for record in desk.records.find()] == ["2"]
    assert [len(desk.rows()[table]) for table in ("observations", "conflicts")] == [0, 0]


def test_deleted_tags_count_without_the_ops_that_deleted_them(homes: list[Home]) -> None:
    desk, phone, _ = homes
    phone.graph.create_entities([ADA, Entity("Babbage", "person", ("x",))])
    created = phone.ops()
    phone.graph.delete_entities(["Ada"])
    phone.graph.delete_observations(additions("Babbage", "x"))
    with desk.database.write() as connection:
        connection.executemany("INSERT INTO tombstones VALUES (?, ?)", phone.rows()["tombstones"])
    desk.take(created)
    assert desk.graph.read_graph() == Graph((Entity("Babbage", "person"),))


def test_records_are_found_by_search(homes: list[Home]) -> None:
    desk, phone, _ = homes
    desk.records.put("task", "1", {"text": "Check the crane", "status": "open"}, conversation_id="c")
    desk.records.put("bookmark", "2", {"turn_uuid": "u", "label": "where it broke"}, conversation_id="c")
    desk.records.put("decision", "3", {"text": "Use steel", "origin": "user"})
    desk.records.put("note", "4", {"text": "x", "title": "Title"})
    desk.records.put("checkpoint", "5", {"text": "not for search"})
    phone.take(desk.ops())

    def found(home: Home) -> list[Any]:
        with home.database.read() as connection:
            return connection.execute(
                "SELECT conversation_id, kind, finding_id, text, turn_uuid, author, stamp FROM findings ORDER BY id"
            ).fetchall()

    expected = [
        ("c", "note", "record:task:1", "[open] Check the crane", "", "", b""),
        ("c", "note", "record:bookmark:2", "where it broke", "u", "", b""),
        ("", "decision", "record:decision:3", "Use steel", "", "user", b""),
        ("", "note", "record:note:4", "Title\nx", "", "", b""),
    ]
    assert found(desk) == found(phone) == expected
    phone.records.put("task", "1", {"status": "done"})
    phone.records.delete("decision", "3")
    desk.take(phone.ops())
    assert [row[3] for row in found(desk)] == ["where it broke", "Title\nx", "[done] Check the crane", ""]


def test_a_record_that_says_the_same_is_not_told_to_search_again(homes: list[Home]) -> None:
    desk, phone, _ = homes
    desk.records.put("task", "1", {"text": "x", "status": "open"})
    phone.take(desk.ops())
    for home in (desk, phone):
        home.records.put("task", "1", {"status": "done"})
    before = desk.rows()
    desk.take(phone.ops())
    assert desk.rows()["records"] != before["records"]
    assert desk.rows()["findings"] == before["findings"]


def test_a_record_moves_to_the_conversation_that_its_first_op_names(homes: list[Home]) -> None:
    desk, phone, tablet = homes
    desk.records.put("note", "1", {"text": "x"}, conversation_id="first")
    phone.records.put("note", "1", {"text": "x"}, conversation_id="second")
    tablet.take(phone.ops())
    tablet.take(desk.ops())
    assert [record.conversation_id for record in tablet.records.find()] == ["first"]
    with tablet.database.read() as connection:
        rows = connection.execute("SELECT conversation_id, text FROM findings ORDER BY id").fetchall()
    assert rows == [("second", ""), ("first", "x")]


def test_payloads_that_no_device_writes_are_kept_without_effect(homes: list[Home]) -> None:
    desk, phone, _ = homes
    phone.graph.create_entities([ADA])
    odd: list[tuple[str, dict[str, Any]]] = [
        ("record.set", {"type": "note", "id": "\ud800", "fields": {"text": "x"}, "over": {}}),
        ("record.set", {"type": "note", "id": "1", "conversation_id": "\ud800", "fields": {"text": "x"}}),
        ("record.set", {"type": "of another time", "id": "2", "fields": {"text": 3}, "over": {"text": [3]}}),
        ("entity.delete", {"name": "Ada", "tags": ["no tag", 3], "observations": {}, "over": "all"}),
        ("observation.delete", {"name": "Ada", "observations": ["née Byron"]}),
        ("entity.split", {"name": "Ada", "into": ["A", "da"]}),
    ]
    rows = [
        ("cd" * 16, at, 2**62 + at, kind, compact_json(payload), subject_digest(kind, payload))
        for at, (kind, payload) in enumerate(odd, start=1)
    ]
    desk.take([*phone.ops(), *rows])
    assert desk.graph.read_graph() == Graph((ADA,))
    assert [(record.type, record.fields) for record in desk.records.find()] == [("of another time", {"text": 3})]
    assert desk.rows()["tombstones"] == desk.rows()["findings"] == desk.rows()["conflicts"] == []
    assert len(desk.ops()) == 7


def test_a_store_that_was_read_before_sees_what_came(homes: list[Home]) -> None:
    desk, phone, _ = homes
    desk.graph.create_entities([ADA, Entity("Babbage", "person")])
    desk.graph.create_relations([Relation("Ada", "Babbage", "knows")])
    phone.take(desk.ops())
    phone.graph.read_graph()
    desk.records.put("note", "1", {"text": "no word of the graph"})
    desk.graph.delete_entities(["Babbage"])
    desk.set_fields(Entity("Ada", "countess"))
    phone.take(desk.ops())
    expected = Graph((Entity("Ada", "countess", ("née Byron",), {"mood": "glad"}),))
    assert phone.graph.read_graph() == phone.graph.search_nodes("") == expected


def test_changes_that_no_new_op_tells_of_are_seen_all_the_same(homes: list[Home]) -> None:
    desk, phone, _ = homes
    desk.graph.create_entities([ADA, Entity("Babbage", "person", ("x",)), Entity("Engine", "machine")])
    desk.graph.create_relations([Relation("Ada", "Engine", "knows")])
    assert len(desk.graph.read_graph().entities) == 3
    feed = SearchFeed(desk.database)
    seen = feed.changed_entities(0, 100)[1]
    phone.take(desk.ops())
    phone.graph.delete_entities(["Ada"])
    phone.graph.delete_observations(additions("Babbage", "x"))

    def bury(*, told: bool) -> None:
        with desk.database.write() as connection:
            connection.executemany("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", phone.rows()["tombstones"])
            refold(connection, {op[5] for op in desk.ops()}, told=told)

    bury(told=False)
    assert desk.graph.read_graph() == Graph((Entity("Babbage", "person"), Entity("Engine", "machine")))
    names, last = feed.changed_entities(seen, 100)
    assert (sorted(names), last) == (["Ada", "Babbage"], desk.graph.version())
    assert feed.changed_entities(last, 100) == ([], last)
    bury(told=False)
    assert desk.graph.version() == last
    # What every index has is not kept: one that is begun later finds the graph as it is.
    feed.save_progress("g", Collection.CONTEXT, IndexProgress(ops=last))
    phone.graph.delete_entities(["Engine"])
    bury(told=False)
    assert feed.changed_entities(last, 100) == (["Engine"], last + 1)
    assert feed.changed_entities(seen, 1) == (["Engine"], last + 1)
    # Numbers of ops go on behind.
    desk.graph.create_entities([Entity("Lovelace", "person")])
    assert feed.changed_entities(last + 1, 1) == (["Lovelace"], last + 2)


def test_more_subjects_than_are_made_anew_at_once(homes: list[Home]) -> None:
    desk, phone, _ = homes
    desk.graph.create_entities([Entity(f"e{number}", "t", ("x", "y")) for number in range(1_300)])
    desk.graph.create_relations([Relation(f"e{number}", "e0", "r") for number in range(1_300)])
    phone.take(desk.ops())
    assert phone.graph.counts() == (1_300, 1_300)
    read = phone.graph.read_graph()
    assert sorted(read.entities, key=lambda entity: entity.name) == sorted(
        desk.graph.read_graph().entities, key=lambda entity: entity.name
    )


# Laws

names = st.sampled_from(["a", "b"])
kinds = st.sampled_from(["t", "u"])
texts = st.sampled_from(["x", "y", "z"])
actions = st.tuples(
    st.integers(0, 3),
    st.sampled_from(
        [
            "create",
            "set",
            "set",
            "add",
            "remove",
            "delete",
            "relate",
            "put",
            "drop",
            "resolve",
            "send",
            "send",
            "send",
        ]
    ),
    names,
    kinds,
    texts,
    st.integers(0, 2**20),
)


def act(home: Home, homes: list[Home], action: tuple[Any, ...]) -> None:
    _, what, name, kind, text, mask = action
    match what:
        case "create":
            home.graph.create_entities([Entity(name, kind, (text,), {"k": text} if mask & 1 else {})])
        case "set":
            if mask & 1:
                home.set_fields(Entity(name, kind, (), {"k": text}))
            else:
                home.set_relation(Relation("a", "b", "r", {"since": text}))
        case "add":
            if any(entity.name == name for entity in home.graph.read_graph().entities):
                home.graph.add_observations(additions(name, text))
        case "remove":
            home.graph.delete_observations(additions(name, text))
        case "delete":
            home.graph.delete_entities([name])
        case "relate":
            home.graph.create_relations([Relation("a", "b", "r", {"since": text} if mask & 1 else {})])
        case "put":
            home.records.put("task", name, {"text": text, "status": kind}, conversation_id=kind)
        case "drop":
            home.records.delete("task", name)
        case "resolve":
            found = home.conflicts.find()
            if found:
                one: Conflict = found[mask % len(found)]
                stamp = str(one.lost[mask % len(one.lost)].stamp) if mask & 2 else None
                assert home.conflicts.resolve(one.conflict_id, keep=bool(mask & 4), stamp=stamp) == one
                assert one.conflict_id not in {other.conflict_id for other in home.conflicts.find()}
        case "send":
            chosen = [op for at, op in enumerate(home.ops()) if mask >> at % 20 & 1]
            homes[mask % len(homes)].take(random.Random(mask).sample(chosen, len(chosen)))


def assert_rows_are_the_fold(home: Home) -> None:
    assert home.as_rows_say() == home.as_ops_say()
    before = home.rows()
    home.refold_all()
    assert home.rows() == before


@given(st.lists(actions, max_size=25))
@settings(max_examples=60)
def test_after_any_own_history_rows_are_what_the_ops_add_up_to(script: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), 0)
        for action in script:
            act(home, [home], action)
        assert_rows_are_the_fold(home)
        assert home.conflicts.find() == []
        home.database.close()


@given(st.integers(2, 4), st.lists(actions, min_size=8, max_size=40))
@settings(max_examples=60)
def test_stores_that_have_the_same_ops_have_the_same_memory(count: int, script: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        homes = [Home(Path(folder), number) for number in range(count)]
        for action in script:
            act(homes[action[0] % count], homes, action)
        for home in homes:
            assert_rows_are_the_fold(home)
        exchange(homes)
        views = []
        for home in homes:
            assert_rows_are_the_fold(home)
            fresh = GraphStore(home.database, home.clock, home.device_id)
            assert home.graph.read_graph() == fresh.read_graph()
            with home.database.read() as connection:
                views.append((logical_view(connection), home.conflicts.find()))
            home.database.close()
        assert all(view == views[0] for view in views)
