"""Turns of conversations by way of the store: links without texts, texts when asked for, own turns added once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from dualmem_mcp.model.conversation import Block, Turn
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.source import PROGRESS
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.thread_store import ThreadStore
from dualmem_mcp.stores.turn_rows import add_turns

ID = ConversationId("talk-1")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def turn(uuid: str, parent: str | None = None, text: str = "words", **more) -> Turn:
    return Turn(uuid, parent, "user", NOON, (Block("text", text),), **{"origin": PROGRESS, **more})


@pytest.fixture
def database(tmp_path) -> Iterator[Database]:
    with Database.open(tmp_path / "memory.db", bytes(32)) as opened:
        yield opened


@pytest.fixture
def threads(database, clock) -> ThreadStore:
    return ThreadStore(database, clock)


def test_a_new_conversation_is_listed_under_its_title(threads, database, clock) -> None:
    assert threads.conversation(ID) is None
    assert threads.add(ID, [turn("a"), turn("b", "a")], title="On the road", device_name="pocket") == (2, True)
    known = threads.conversation(ID)
    assert known is not None
    assert (known.title, known.message_count, known.device_name, known.handoff_id) == (
        "On the road",
        2,
        "pocket",
        None,
    )


def test_turns_are_added_once(threads) -> None:
    threads.add(ID, [turn("a")], title="t", device_name="pocket")
    assert threads.add(ID, [turn("a"), turn("b", "a")], title="other", device_name="pocket") == (1, True)
    assert threads.add(ID, [turn("a")], title="other", device_name="pocket") == (0, False)
    known = threads.conversation(ID)
    assert known is not None
    assert (known.title, known.message_count) == ("t", 2)
    assert [link.uuid for link in threads.links(ID)] == ["a", "b"]


def test_new_rows_wait_for_an_op_and_so_does_the_conversation(threads, database) -> None:
    threads.add(ID, [turn("a")], title="t", device_name="pocket")
    with database.write() as connection:
        connection.execute("UPDATE turns SET stamp = x'00'")
        connection.execute("UPDATE conversations SET stamp = x'00'")
    threads.add(ID, [turn("a")], title="t", device_name="pocket")
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM conversations WHERE stamp IS NULL").fetchone() == (0,)
    threads.add(ID, [turn("b", "a")], title="t", device_name="pocket")
    with database.read() as connection:
        assert connection.execute("SELECT uuid FROM turns WHERE stamp IS NULL").fetchall() == [("b",)]
        assert connection.execute("SELECT count(*) FROM conversations WHERE stamp IS NULL").fetchone() == (1,)


def test_links_tell_who_spoke_where(threads, database) -> None:
    threads.add(ID, [turn("a")], title="t", device_name="pocket")
    silent = [turn("b", "a", ""), turn("c", "b", is_meta=True), turn("d", "c", is_compact_summary=True, origin="")]
    with database.write() as connection:
        add_turns(connection, ID, silent, device_name="desk")
    links = threads.links(ID)
    assert [(link.parent_uuid, link.device, link.origin, link.spoken) for link in links] == [
        (None, "pocket", PROGRESS, True),
        ("a", "desk", PROGRESS, False),
        ("b", "desk", PROGRESS, False),
        ("c", "desk", "", False),
    ]
    assert links[0].timestamp == NOON


def test_texts_are_given_as_they_were_said(threads) -> None:
    odd = "half \ud83d pair"
    threads.add(ID, [turn("a", text=odd), turn("b\udc00", "a", "x" * 100_000)], title=odd, device_name="pocket")
    assert threads.texts(ID, ["a", "b\udc00", "nobody"]) == {"a": odd, "b\udc00": "x" * 100_000}
    assert threads.texts(ID, []) == {}
    assert threads.texts(ConversationId("other"), ["a"]) == {}
    assert threads.links(ID)[1].parent_uuid == "a"


def test_more_texts_than_one_statement_takes(threads) -> None:
    turns = [turn(f"t{number}", text=str(number)) for number in range(1203)]
    threads.add(ID, turns, title="t", device_name="pocket")
    assert threads.texts(ID, [one.uuid for one in turns]) == {f"t{number}": str(number) for number in range(1203)}


def test_conversations_of_one_device_are_not_shared(threads, database) -> None:
    alone, two, saved = ConversationId("alone"), ConversationId("two"), ConversationId("saved")
    for name in (alone, two, saved):
        threads.add(name, [], title="t", device_name="desk")
    with database.write() as connection:
        add_turns(connection, alone, [turn("a", origin=""), turn("b", origin="")], device_name="desk")
        add_turns(connection, two, [turn("a", origin="")], device_name="desk")
        add_turns(connection, two, [turn("b", origin="")], device_name="lap")
        add_turns(connection, saved, [turn("a")], device_name="desk")
    assert threads.shared([alone, two, saved, ConversationId("unknown")]) == [two, saved]


def test_whether_it_is_shared_is_asked_of_indexes_alone(threads, database) -> None:
    with database.read() as connection:
        for statement in (
            "SELECT min(device_name) FROM turns WHERE conversation_id = 'x'",
            "SELECT 1 FROM turns WHERE conversation_id = 'x' AND origin = 'progress' LIMIT 1",
        ):
            plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
            assert "INDEX turns_by_device" in plan or "INDEX turns_saved" in plan
