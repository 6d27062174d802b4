"""Conflicts: both sides shown, decided on one device, and so on all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.model.graph import Entity, Graph, Relation
from dualmem_mcp.ports import Conflict
from tests.stores.linked_stores import Home, additions

ADA = Entity("Ada", "person", ("née Byron",))


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[list[Home]]:
    made = [Home(tmp_path, number) for number in range(2)]
    made[0].graph.create_entities([ADA])
    made[0].graph.create_relations([Relation("Ada", "Engine", "studies")])
    made[0].records.put("task", "1", {"text": "Check the crane", "status": "open"}, conversation_id="c")
    made[1].take(made[0].ops())
    yield made
    for home in made:
        home.database.close()


def exchange(homes: list[Home]) -> None:
    ops = [op for home in homes for op in home.ops()]
    for home in homes:
        home.take(ops)


def the_one(homes: list[Home]) -> Conflict:
    found = [list(home.conflicts.find()) for home in homes]
    assert all(one == found[0] for one in found)
    assert [home.conflicts.count() for home in homes] == [1] * len(homes)
    (conflict,) = found[0]
    return conflict


def types(homes: list[Home]) -> list[str]:
    return [home.graph.open_nodes(["Ada"]).entities[0].entity_type for home in homes]


@pytest.mark.parametrize("keep", [True, False])
def test_a_field_that_both_set(homes: list[Home], keep: bool) -> None:
    desk, phone = homes
    desk.set_fields(Entity("Ada", "countess"))
    phone.set_fields(Entity("Ada", "mathematician"))
    exchange(homes)
    conflict = the_one(homes)
    assert (conflict.kind, conflict.name, conflict.field) == ("entity", "Ada", "entityType")
    assert conflict.kept is not None
    assert conflict.kept.value == "mathematician"  # the phone's clock is ahead
    assert [version.value for version in conflict.lost] == ["countess"]
    assert conflict.lost[0].stamp.device_id == desk.device_id
    heard: list[int] = []
    phone.conflicts.on_change(lambda: heard.append(phone.conflicts.count()))
    assert phone.conflicts.resolve(conflict.conflict_id, keep=keep) == conflict
    assert heard == [0]
    exchange(homes)
    assert types(homes) == ["mathematician" if keep else "countess"] * 2
    assert [home.conflicts.find() for home in homes] == [[], []]


def test_going_on_from_what_counts_decides_nothing(homes: list[Home]) -> None:
    desk, phone = homes
    desk.set_fields(Entity("Ada", "countess"))
    phone.set_fields(Entity("Ada", "mathematician"))
    exchange(homes)
    before = the_one(homes)
    phone.set_fields(Entity("Ada", "programmer"))
    exchange(homes)
    after = the_one(homes)
    assert after.conflict_id == before.conflict_id
    assert after.lost == before.lost
    assert after.kept is not None
    assert after.kept.value == "programmer"


def test_one_of_several_that_lost_is_taken(tmp_path: Path, homes: list[Home]) -> None:
    tablet = Home(tmp_path, 2)
    tablet.take(homes[0].ops())
    everyone = [*homes, tablet]
    for home, kind in zip(everyone, ("countess", "mathematician", "programmer"), strict=True):
        home.set_fields(Entity("Ada", kind))
    exchange(everyone)
    conflict = the_one(everyone)
    assert [version.value for version in conflict.lost] == ["mathematician", "countess"]
    oldest = conflict.lost[1]
    with pytest.raises(UsageError):
        tablet.conflicts.resolve(conflict.conflict_id, keep=False, stamp="of another time")
    tablet.conflicts.resolve(conflict.conflict_id, keep=False, stamp=str(oldest.stamp))
    exchange(everyone)
    assert types(everyone) == ["countess"] * 3
    assert all(home.conflicts.count() == 0 for home in everyone)
    tablet.database.close()


def test_two_who_decide_differently_conflict_again(homes: list[Home]) -> None:
    desk, phone = homes
    desk.set_fields(Entity("Ada", "countess"))
    phone.set_fields(Entity("Ada", "mathematician"))
    exchange(homes)
    conflict = the_one(homes)
    desk.conflicts.resolve(conflict.conflict_id, keep=False)
    phone.conflicts.resolve(conflict.conflict_id, keep=True)
    exchange(homes)
    again = the_one(homes)
    assert again.conflict_id == conflict.conflict_id
    assert again.kept is not None
    assert {again.kept.value, again.lost[0].value} == {"countess", "mathematician"}
    desk.conflicts.resolve(conflict.conflict_id, keep=True)
    exchange(homes)
    assert [home.conflicts.count() for home in homes] == [0, 0]


@pytest.mark.parametrize("keep", [True, False])
def test_what_was_added_to_an_entity_that_was_deleted(homes: list[Home], keep: bool) -> None:
    desk, phone = homes
    phone.graph.add_observations(additions("Ada", "wrote notes"))
    phone.set_fields(Entity("Ada", "countess", (), {"mood": "glad"}))
    desk.graph.delete_entities(["Ada"])
    exchange(homes)
    assert all(home.graph.read_graph() == Graph() for home in homes)
    conflict = the_one(homes)
    assert (conflict.name, conflict.field, conflict.kept) == ("Ada", "", None)
    assert [version.value for version in conflict.lost] == [
        {"fields": {"entityType": "countess", "extra.mood": "glad"}},
        {"observations": ["wrote notes"]},
    ]
    desk.conflicts.resolve(conflict.conflict_id, keep=keep)
    exchange(homes)
    back = Graph((Entity("Ada", "countess", ("wrote notes",), {"mood": "glad"}),))
    for home in homes:
        assert home.graph.read_graph() == (Graph() if keep else back)
        assert home.conflicts.count() == 0


def test_bringing_back_what_two_had_changed_decides_between_them(tmp_path: Path, homes: list[Home]) -> None:
    tablet = Home(tmp_path, 2)
    tablet.take(homes[0].ops())
    everyone = [*homes, tablet]
    homes[1].set_fields(Entity("Ada", "mathematician"))
    tablet.set_fields(Entity("Ada", "programmer"))
    homes[0].graph.delete_entities(["Ada"])
    exchange(everyone)
    conflict = the_one(everyone)
    assert len(conflict.lost) == 2
    homes[0].conflicts.resolve(conflict.conflict_id, keep=False)
    exchange(everyone)
    assert types(everyone) == ["programmer"] * 3
    assert [home.conflicts.count() for home in everyone] == [0, 0, 0]
    tablet.database.close()


def test_creating_the_entity_again_brings_back_what_was_hidden(homes: list[Home]) -> None:
    desk, phone = homes
    phone.graph.add_observations(additions("Ada", "wrote notes"))
    desk.graph.delete_entities(["Ada"])
    exchange(homes)
    the_one(homes)
    again = Entity("Ada", "person", ("new", "wrote notes"))
    (created,) = desk.graph.create_entities([again])
    assert (created.name, set(created.observations)) == ("Ada", {"wrote notes", "new"})
    assert desk.graph.read_graph().entities == (created,)
    assert desk.graph.add_observations(additions("Ada", "wrote notes"))[0].added_observations == ()
    exchange(homes)
    assert [set(home.graph.read_graph().entities[0].observations) for home in homes] == [{"wrote notes", "new"}] * 2
    assert [home.conflicts.count() for home in homes] == [0, 0]
    # Deleting it names all that is known, so that nothing is hidden again.
    phone.graph.delete_entities(["Ada"])
    exchange(homes)
    assert [home.conflicts.count() for home in homes] == [0, 0]


def test_deleting_an_entity_that_has_a_conflict_ends_it(homes: list[Home]) -> None:
    desk, phone = homes
    desk.set_fields(Entity("Ada", "countess"))
    phone.set_fields(Entity("Ada", "mathematician"))
    exchange(homes)
    the_one(homes)
    phone.graph.delete_entities(["Ada"])
    assert phone.conflicts.count() == 0
    exchange(homes)
    assert [home.conflicts.count() for home in homes] == [0, 0]


def test_deleting_a_record_that_has_a_conflict_ends_it(homes: list[Home]) -> None:
    desk, phone = homes
    desk.records.put("task", "1", {"status": "done"})
    phone.records.put("task", "1", {"status": "dropped"})
    exchange(homes)
    the_one(homes)
    phone.records.delete("task", "1")
    exchange(homes)
    assert [home.conflicts.count() for home in homes] == [0, 0]


@pytest.mark.parametrize("keep", [True, False])
def test_a_relation_changed_while_it_was_deleted(homes: list[Home], keep: bool) -> None:
    desk, phone = homes
    phone.set_relation(Relation("Ada", "Engine", "studies", {"since": 1842}))
    desk.graph.delete_relations([Relation("Ada", "Engine", "studies")])
    exchange(homes)
    conflict = the_one(homes)
    assert (conflict.kind, conflict.name) == ("relation", "Ada studies Engine")
    phone.conflicts.resolve(conflict.conflict_id, keep=keep)
    exchange(homes)
    back = (Relation("Ada", "Engine", "studies", {"since": 1842}),)
    for home in homes:
        assert home.graph.read_graph().relations == (() if keep else back)
        assert home.conflicts.count() == 0


@pytest.mark.parametrize("keep", [True, False])
def test_a_record_changed_while_it_was_deleted(homes: list[Home], keep: bool) -> None:
    desk, phone = homes
    phone.records.put("task", "1", {"status": "done"})
    desk.records.delete("task", "1")
    exchange(homes)
    conflict = the_one(homes)
    assert (conflict.kind, conflict.name, conflict.field) == ("record", "task: Check the crane", "")
    assert conflict.lost[0].value == {"fields": {"status": "done"}}
    desk.conflicts.resolve(conflict.conflict_id, keep=keep)
    exchange(homes)
    for home in homes:
        assert home.conflicts.count() == 0
        assert home.records.get("task", "1") is None
        assert [(record.conversation_id, record.fields) for record in home.records.find()] == (
            [] if keep else [("c", {"text": "Check the crane", "status": "done"})]
        )
    assert desk.records.find() == phone.records.find()


def test_a_value_hidden_by_a_deletion_and_a_new_entity_without_that_field(homes: list[Home]) -> None:
    desk, phone = homes
    phone.set_fields(Entity("Ada", "person", (), {"mood": "glad"}))
    desk.graph.delete_entities(["Ada"])
    desk.graph.create_entities([Entity("Ada", "person")])
    exchange(homes)
    conflict = the_one(homes)
    assert (conflict.field, conflict.kept) == ("extra.mood", None)
    desk.conflicts.resolve(conflict.conflict_id, keep=True)
    exchange(homes)
    assert [home.graph.read_graph().entities for home in homes] == [(Entity("Ada", "person"),)] * 2
    assert [home.conflicts.count() for home in homes] == [0, 0]


def test_fields_of_any_name(homes: list[Home]) -> None:
    desk, phone = homes
    name = 'half \ud83d "quoted" \\'
    desk.set_fields(Entity("Ada", "person", (), {name: "\ud800"}))
    phone.set_fields(Entity("Ada", "person", (), {name: 1}))
    exchange(homes)
    conflict = the_one(homes)
    assert conflict.field == f"extra.{name}"
    assert [version.value for version in conflict.lost] == ["\ud800"]
    desk.conflicts.resolve(conflict.conflict_id, keep=False)
    assert desk.graph.read_graph().entities[0].extra == {name: "\ud800"}


def test_the_newest_losers_come_first_and_a_limit_holds(homes: list[Home]) -> None:
    desk, phone = homes
    phone.records.put("task", "1", {"status": "done"})
    phone.set_fields(Entity("Ada", "countess"))
    desk.records.put("task", "1", {"status": "dropped"})
    desk.set_fields(Entity("Ada", "mathematician"))
    exchange(homes)
    assert [conflict.kind for conflict in desk.conflicts.find()] == ["entity", "record"]
    assert [conflict.kind for conflict in desk.conflicts.find(limit=1)] == ["entity"]
    assert desk.conflicts.count() == 2


def test_the_beginning_of_an_id_will_do_where_no_other_begins_so(
    homes: list[Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, phone = homes
    desk.set_fields(Entity("Ada", "countess"))
    phone.set_fields(Entity("Ada", "mathematician"))
    for home, text in ((desk, "Check the winch"), (phone, "Check the hoist")):
        home.records.put("task", "1", {"text": text})
    exchange(homes)
    one, other = (conflict.conflict_id for conflict in desk.conflicts.find())
    for wrong in ("", one[:3], "zzzz", f"{one}0"):
        with pytest.raises(NotFoundError, match="there is no conflict"):
            desk.conflicts.resolve(wrong, keep=True)
    names = iter(["abcd0123", "abcd4567"] * 2)
    with monkeypatch.context() as patch:
        patch.setattr("dualmem_mcp.stores.conflict_store._conflict_id", lambda *_: next(names))
        with pytest.raises(UsageError, match="2 conflicts have an id that begins with abcd"):
            desk.conflicts.resolve("abcd", keep=True)
    assert desk.conflicts.resolve(one[:6].upper(), keep=True).conflict_id == one
    assert [conflict.conflict_id for conflict in desk.conflicts.find()] == [other]


def test_a_conflict_that_is_none_is_not_found(homes: list[Home]) -> None:
    with pytest.raises(NotFoundError) as caught:
        homes[0].conflicts.resolve("0123456789abcdef", keep=True)
    assert caught.value.hint
    assert homes[0].conflicts.find() == []
