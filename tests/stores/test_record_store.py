"""Records: set field by field, deleted for good, found by conversation and type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.model.oplog import Stamp
from tests.stores.linked_stores import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path, 0)
    yield made
    made.database.close()


def payloads(home: Home) -> list[tuple[str, Any]]:
    return [(op[3], json.loads(op[4])) for op in home.ops()]


def stamps(home: Home) -> list[str]:
    return [f"{op[2]:016x}-{op[0]}" for op in home.ops()]


def test_a_record_is_what_was_put(home: Home) -> None:
    assert home.records.get("task", "1") is None
    assert home.records.put("task", "1", {"text": "x", "status": "open"}, conversation_id="c")
    found = home.records.get("task", "1")
    assert found is not None
    assert (found.type, found.id, found.conversation_id) == ("task", "1", "c")
    assert found.fields == {"text": "x", "status": "open"}
    assert found.created == found.changed == Stamp.parse(stamps(home)[0])
    assert home.records.get("note", "1") is None


def test_only_what_differs_is_written_and_it_says_what_it_replaces(home: Home) -> None:
    home.records.put("task", "1", {"text": "x", "status": "open"}, conversation_id="c")
    assert home.records.put("task", "1", {"text": "x", "status": "done"})
    assert not home.records.put("task", "1", {"text": "x", "status": "done"}, conversation_id="another")
    assert not home.records.put("task", "1", {})
    first, second = stamps(home)
    assert payloads(home)[1] == (
        "record.set",
        {
            "type": "task",
            "id": "1",
            "conversation_id": "c",
            "fields": {"status": "done"},
            "over": {"status": [first]},
        },
    )
    found = home.records.get("task", "1")
    assert found is not None
    assert (str(found.created), str(found.changed)) == (first, second)


def test_values_that_only_python_takes_for_equal_are_changes(home: Home) -> None:
    home.records.put("note", "1", {"n": 1})
    assert home.records.put("note", "1", {"n": True})
    assert home.records.put("note", "1", {"n": None})
    found = home.records.get("note", "1")
    assert found is not None
    assert found.fields == {"n": None}


def test_a_record_without_fields_is_one(home: Home) -> None:
    assert home.records.put("note", "1", {})
    assert [record.fields for record in home.records.find()] == [{}]


def test_a_deleted_record_stays_deleted(home: Home) -> None:
    assert not home.records.delete("note", "1")
    home.records.put("note", "1", {"text": "x"})
    assert home.records.delete("note", "1")
    assert not home.records.delete("note", "1")
    assert not home.records.put("note", "1", {"text": "y"})
    assert home.records.get("note", "1") is None
    assert payloads(home)[-1] == ("record.delete", {"type": "note", "id": "1", "over": [stamps(home)[0]]})


def test_records_are_found_by_conversation_and_type_the_newest_last(home: Home) -> None:
    for number, (kind, conversation) in enumerate([("note", "c"), ("task", "c"), ("note", "d"), ("note", "")]):
        home.records.put(kind, str(number), {"text": "x"}, conversation_id=conversation)  # type: ignore[arg-type]
    home.records.put("note", "0", {"text": "changed"})
    assert [record.id for record in home.records.find()] == ["0", "1", "2", "3"]
    assert [record.id for record in home.records.find(conversation_id="c")] == ["0", "1"]
    assert [record.id for record in home.records.find(conversation_id="c", types=["note", "digest"])] == ["0"]
    assert [record.id for record in home.records.find(conversation_id="")] == ["3"]
    assert [record.id for record in home.records.find(types=["note"], limit=2)] == ["2", "3"]


def test_any_text_comes_back(home: Home) -> None:
    fields = {"text": "half \ud83d and \0", "k \ud83d": ["\ud800", {"x": 1.5}]}
    home.records.put("note", "1", fields)
    found = home.records.get("note", "1")
    assert found is not None
    assert found.fields == fields


def test_listeners_hear_of_changes_alone(home: Home) -> None:
    heard: list[int] = []
    home.records.on_change(lambda: heard.append(len(home.records.find())))
    home.records.put("note", "1", {"text": "x"})
    home.records.put("note", "1", {"text": "x"})
    home.records.delete("note", "2")
    home.records.delete("note", "1")
    assert heard == [1, 0]
