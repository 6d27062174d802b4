"""What the ops of own changes say of those that they replace and delete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.model.graph import Entity, Graph, Relation
from tests.stores.linked_stores import Home, additions


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[list[Home]]:
    made = [Home(tmp_path, number) for number in range(2)]
    yield made
    for home in made:
        home.database.close()


def exchange(homes: list[Home]) -> None:
    ops = [op for home in homes for op in home.ops()]
    for home in homes:
        home.take(ops)


def last(home: Home) -> tuple[str, Any]:
    """Stamp and payload of the newest own op."""
    device, _, ticks, _, payload, _ = next(op for op in reversed(home.ops()) if op[0] == home.device_id)
    return f"{ticks:016x}-{device}", json.loads(payload)


def test_each_change_of_a_field_replaces_the_one_before(homes: list[Home]) -> None:
    desk, _ = homes
    desk.graph.create_entities([Entity("Ada", "person", (), {"mood": "glad"})])
    created, _ = last(desk)
    desk.set_fields(Entity("Ada", "countess", (), {"height": 1}))
    changed, payload = last(desk)
    assert payload["entity"] == [f"{created}.0"]
    assert payload["over"] == {"entityType": [created]}
    desk.set_fields(Entity("Ada", "person", (), {"height": 2, "mood": "calm"}))
    third, payload = last(desk)
    assert payload["over"] == {"entityType": [changed], "extra.height": [changed], "extra.mood": [created]}
    desk.graph.delete_entities(["Ada"])
    assert last(desk)[1]["over"] == [third]


def test_each_change_of_a_relation_replaces_the_one_before(homes: list[Home]) -> None:
    desk, _ = homes
    desk.graph.create_relations([Relation("a", "b", "r", {"since": 1})])
    created, _ = last(desk)
    desk.set_relation(Relation("a", "b", "r", {"since": 2, "until": 3}))
    changed, payload = last(desk)
    assert (payload["relation"], payload["over"]) == ([f"{created}.0"], {"extra.since": [created]})
    desk.graph.delete_relations([Relation("a", "b", "r")])
    assert last(desk)[1]["over"] == [changed]


def test_equal_values_of_two_devices_are_replaced_together(homes: list[Home]) -> None:
    desk, phone = homes
    for home in homes:
        home.graph.create_entities([Entity("Ada", "person")])
    created = [last(home)[0] for home in homes]
    exchange(homes)
    assert desk.conflicts.count() == 0
    desk.set_fields(Entity("Ada", "countess"))
    assert last(desk)[1]["entity"] == [f"{stamp}.0" for stamp in created]
    assert last(desk)[1]["over"] == {"entityType": created[::-1]}
    exchange(homes)
    assert [home.conflicts.count() for home in homes] == [0, 0]
    assert phone.graph.read_graph() == Graph((Entity("Ada", "countess"),))


def test_a_deletion_names_what_lost_as_well(homes: list[Home]) -> None:
    desk, phone = homes
    desk.graph.create_entities([Entity("Ada", "person")])
    phone.take(desk.ops())
    for home in homes:
        home.set_fields(Entity("Ada", f"type of {home.device_id}"))
    stamps = sorted(last(home)[0] for home in homes)
    exchange(homes)
    desk.graph.delete_entities(["Ada"])
    assert last(desk)[1]["over"] == stamps


def test_within_one_call_a_new_entity_has_what_was_hidden(homes: list[Home]) -> None:
    desk, phone = homes
    desk.graph.create_entities([Entity("Ada", "person"), Entity("Babbage", "person")])
    phone.take(desk.ops())
    phone.graph.add_observations(additions("Ada", "wrote notes"))
    desk.graph.delete_entities(["Ada"])
    exchange(homes)
    counts = desk.graph.import_graph(
        Graph((Entity("Ada", "person", ("x",)), Entity("Ada", "person", ("wrote notes", "y"))))
    )
    assert (counts.entities, counts.observations) == (1, 3)
    assert [set(entity.observations) for entity in desk.graph.read_graph().entities] == [
        set(),
        {"wrote notes", "x", "y"},
    ]
    assert desk.as_rows_say() == desk.as_ops_say()
    # Ops that had to be written in the middle of the call are written once.
    assert [op[1] for op in desk.ops() if op[0] == desk.device_id] == [1, 2, 3, 4, 5]
