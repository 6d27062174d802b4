"""What came since a handoff: bounded, redacted, in the order of worth."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dualmem_mcp.handoff.since import (
    MAX_CHARACTERS,
    MAX_RECORD_CHARACTERS,
    MAX_RECORDS,
    MAX_TURNS,
    Newer,
    NewTurn,
    branches_to_json,
    is_new,
    since_news,
    since_to_json,
)
from dualmem_mcp.model.branches import Branch, branches_text
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import Stamp, physical_ticks
from dualmem_mcp.model.record import RecordType
from dualmem_mcp.ports import Record

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEVICE = DeviceId("ab" * 16)


def record(kind: RecordType, minute: int = 0, **fields: Any) -> Record:
    stamp = Stamp(physical_ticks(NOON + timedelta(minutes=minute)), DEVICE)
    return Record(kind, f"{kind}-{minute}", "talk", fields, stamp, stamp)


def turn(number: int, text: str = "") -> NewTurn:
    return NewTurn(f"t{number}", "user", text or f"words {number}", "pocket", NOON + timedelta(minutes=number))


def branch(device: str, turns: int, *, newest: bool = False) -> Branch:
    return Branch(tuple(f"{device}{index}" for index in range(turns)), (device,), turns, NOON, NOON, newest)


@pytest.mark.parametrize(
    ("one", "new"),
    [
        (record("decision", -1), False),
        (record("decision", 0), True),
        (record("summary", 1), True),
        (record("next_step", -1), False),
        (record("note", -60), True),
        (record("task", -60, status="open"), True),
        (record("task", -60, status="done"), False),
        (record("task", 5, status="done"), True),
    ],
)
def test_what_a_handoff_cannot_have_is_new(one: Record, new: bool) -> None:
    assert is_new(one, NOON) is new


def test_of_many_turns_the_last_are_listed_and_all_are_counted() -> None:
    newer = Newer([turn(number) for number in range(300)], count=300)
    told = since_to_json(newer)
    assert told["count"] == 300
    assert [one["uuid"] for one in told["turns"]] == [f"t{number}" for number in range(300 - MAX_TURNS, 300)]
    assert len(since_news(newer)) == MAX_TURNS


def test_what_is_listed_has_a_size() -> None:
    long = "many words " * 2_000
    records = [record("decision", number, text=long) for number in range(200)]
    told = since_to_json(Newer([turn(number, long) for number in range(90)], count=90, records=records))
    assert sum(len(one["text"]) for one in told["turns"]) <= MAX_CHARACTERS
    assert told["turns"][-1]["uuid"] == "t89"
    assert 0 < sum(len(one["text"]) for one in told["decisions"]) <= MAX_RECORD_CHARACTERS
    assert told["decisions"][-1]["id"] == "decision-199"
    short = since_to_json(Newer(records=[record("note", number, text="x") for number in range(200)]))
    assert len(short["notes"]) == MAX_RECORDS


def test_of_several_summaries_the_newest_is_told() -> None:
    newer = Newer(records=[record("summary", 5, text="newer"), record("summary", 1, text="older")])
    assert since_to_json(newer)["summary"] == "newer"
    assert [one.text for one in since_news(newer)] == ["newer"]


def test_secrets_are_told_nowhere() -> None:
    key = "AKIA" + "IOSFODNN7EXAMPLQ"
    kinds: tuple[RecordType, ...] = ("summary", "decision", "next_step", "task", "note")
    records = [record(kind, 1, text=f"use {key}", title=f"of {key}", status="open") for kind in kinds]
    newer = Newer([turn(1, f"the key is {key}")], count=1, records=records)
    assert key not in json.dumps(since_to_json(newer))
    assert not any(key in one.text for one in since_news(newer))


def test_branches_and_what_is_to_be_done_are_given_up_last() -> None:
    records = [
        record("note", 1, text="n"),
        record("task", 2, text="t", status="open"),
        record("decision", 3, text="d"),
    ]
    newer = Newer([turn(1), turn(2)], 2, records, (branch("pocket", 2, newest=True), branch("desk", 1)))
    by_worth = sorted(since_news(newer), key=lambda one: one.worth)
    assert [one.text or one.label.split(",")[0] for one in by_worth] == [
        "2 branches",
        "d",
        "t",
        "n",
        "words 2",
        "words 1",
    ]


def test_branches_are_told_in_one_line_whatever_devices_are_called() -> None:
    told = branches_text(branches_to_json((branch("poc\nket\x1b[2J", 2, newest=True), branch("", 1))))
    assert told == (
        "2 branches, each with turns that the others lack: poc ket, 2 turns to 2026-03-01 12:00 (newest); "
        "a device without a name, 1 turn to 2026-03-01 12:00"
    )


def test_nothing_new_is_told_as_nothing() -> None:
    assert since_news(Newer()) == []
    told = since_to_json(Newer(last_turn="d"))
    assert (told["count"], told["turns"], told["summary"], told["last_turn"]) == (0, [], "", "d")
