"""Conversations, turns and handoffs as this device knows them."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.conversation import Block, Session, Turn
from dualmem_mcp.model.handoff import HandoffRecord
from dualmem_mcp.model.ids import ConversationId, DeviceId, HandoffId
from dualmem_mcp.ports import Clock
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.database import Database

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHAT = ConversationId("c0ffee")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "memory.db", bytes(32)) as opened:
        yield opened


@pytest.fixture
def store(database: Database, clock: Clock) -> ConversationStore:
    return ConversationStore(database, clock, lambda: "desk")


def turn(number: int, text: str = "") -> Turn:
    return Turn(
        uuid=f"u{number}",
        parent_uuid=f"u{number - 1}" if number else None,
        role="user" if number % 2 == 0 else "assistant",
        timestamp=NOON + timedelta(seconds=number),
        blocks=(Block("text", text or f"text {number}"), Block("thinking", "not visible"), Block("tool_use", "{}")),
    )


def session(count: int, *, earlier: int = 0, **fields: object) -> Session:
    turns = tuple(turn(number) for number in range(count))
    whole = Session(
        conversation_id=CHAT,
        project="-home-ada",
        title="Engine notes",
        cwd="/home/ada/Engine",
        git_branch="main",
        version="2.1",
        model="m",
        permission_mode="default",
        started_at=NOON,
        ended_at=NOON + timedelta(seconds=count),
        turns=turns[earlier:],
        earlier=turns[:earlier],
        agents=(),
        files=(),
    )
    return replace(whole, **fields)  # type: ignore[arg-type]


def record(number: int, conversation_id: str = CHAT, **fields: object) -> HandoffRecord:
    made = HandoffRecord(
        handoff_id=HandoffId(f"{number:032x}"),
        conversation_id=ConversationId(conversation_id),
        title=f"handed over {number}",
        cwd="/srv/phone",
        created_at=NOON + timedelta(minutes=number, microseconds=5),
        device_id=DeviceId("cd" * 16),
        device_name="phone",
        base=None,
        package_key=f"packages/{number}",
        package_bytes=4096,
        manifest_key=f"manifests/{number}",
        message_count=7,
        visible_tokens=1000,
        digest_tokens=40,
        last_turn_uuid="u6",
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def rows(database: Database) -> list[tuple[object, ...]]:
    with database.read() as connection:
        return connection.execute(
            "SELECT uuid, parent_uuid, role, timestamp, text, visible_tokens FROM turns ORDER BY id"
        ).fetchall()


def test_turns_are_added_once_and_in_order(store: ConversationStore, database: Database) -> None:
    assert store.save_session(session(3)) == 3
    assert store.save_session(session(3)) == 0
    # A compaction moves turns to `earlier`; they are the same turns.
    assert store.save_session(session(5, earlier=4)) == 2
    assert [row[0] for row in rows(database)] == ["u0", "u1", "u2", "u3", "u4"]
    assert rows(database)[1] == ("u1", "u0", "assistant", "2026-03-01T12:00:01.000000+00:00", "text 1", 3)


def test_a_turn_of_any_text_is_kept(store: ConversationStore, database: Database) -> None:
    odd = replace(turn(0, "half \ud83d and \0"), timestamp=None, parent_uuid="half \ud83d")
    store.save_session(session(0, turns=(odd,), title="half \ud83d", ended_at=None))
    assert rows(database)[0][4] == b"half \xed\xa0\xbd and \0"
    assert store.conversations()[0][0].title == "half \ud83d"


def test_a_conversation_is_listed_as_its_newest_event_left_it(store: ConversationStore) -> None:
    store.save_session(session(3))
    (summary,) = store.conversations()[0]
    assert (summary.title, summary.cwd, summary.message_count) == ("Engine notes", "/home/ada/Engine", 3)
    assert (summary.device_name, summary.updated_at, summary.handoff_id) == (
        "desk",
        NOON + timedelta(seconds=3),
        None,
    )
    store.save_handoff(record(5))
    (summary,) = store.conversations()[0]
    assert (summary.title, summary.device_name, summary.handoff_id) == (
        "handed over 5",
        "phone",
        record(5).handoff_id,
    )
    store.save_handoff(record(1, title="older"))
    assert store.conversations()[0] == [summary]
    store.save_session(session(4, ended_at=NOON + timedelta(hours=1)))
    (summary,) = store.conversations()[0]
    assert (summary.title, summary.device_name, summary.handoff_id) == (
        "Engine notes",
        "desk",
        record(5).handoff_id,
    )


def test_handoffs_come_back_newest_first(store: ConversationStore) -> None:
    records = [record(1), record(3, base=record(1).handoff_id), record(2, "other")]
    for item in [*records, replace(records[0], title="again")]:
        store.save_handoff(item)
    assert store.handoffs(CHAT) == [records[1], records[0]]
    assert store.handoffs(ConversationId("none")) == []
    assert store.newest_handoff() == records[1]
    assert store.handoff(records[2].handoff_id) == records[2]
    assert store.handoff(HandoffId("0" * 32)) is None
    assert store.manifest_keys() == {"manifests/1", "manifests/2", "manifests/3"}


def test_no_handoffs_at_first(store: ConversationStore) -> None:
    assert store.newest_handoff() is None
    assert store.manifest_keys() == frozenset()
    assert store.conversations() == ([], "")


def test_pages_hold_every_conversation_once(store: ConversationStore) -> None:
    for number in range(7):
        store.save_handoff(record(number, f"chat{number}", created_at=NOON if number < 4 else NOON + timedelta(1)))
    seen: list[str] = []
    cursor = ""
    while True:
        page, cursor = store.conversations(limit=2, cursor=cursor)
        seen += [summary.conversation_id for summary in page]
        if not cursor:
            break
    assert seen == [f"chat{number}" for number in (6, 5, 4, 3, 2, 1, 0)]


@pytest.mark.parametrize("query", ["ENGINE", "c0FF", "/home/ada", "notes", "STRASSE"])
def test_conversations_are_found_by_title_folder_or_id(store: ConversationStore, query: str) -> None:
    store.save_session(session(1, title="Engine notes, Straße"))
    store.save_handoff(record(1, "other"))
    assert [item.conversation_id for item in store.conversations(query=query)[0]] == [CHAT]


def cursor_of(updated_at: object, conversation_id: object) -> str:
    return base64.urlsafe_b64encode(json.dumps([updated_at, conversation_id]).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        *("x", "!!!", "WzEsMl0", "bnVsbA", "W10", "ey", "A" * 5000, "é"),
        cursor_of("0001-01-01T00:00:00+23:00", CHAT),
        cursor_of("2026-01-01T00:00:00+00:00", "\ud800"),
        cursor_of("2026-01-01T00:00:00+00:00", 7),
    ],
)
def test_a_cursor_from_elsewhere_is_refused(store: ConversationStore, cursor: str) -> None:
    with pytest.raises(UsageError, match="cursor"):
        store.conversations(cursor=cursor)


def test_a_limit_below_one_is_refused(store: ConversationStore) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        store.conversations(limit=0)


def test_conversations_of_a_folder_are_known_by_it(store: ConversationStore) -> None:
    store.save_session(session(1))
    store.save_handoff(record(1, "other"))
    (here,) = {summary.cwd for summary in store.conversations()[0] if summary.conversation_id == CHAT}
    assert CHAT in store.conversations_in(here)
    assert store.conversations_in(f"{here}/below") == frozenset()
    assert store.conversations_in("\ud800") == frozenset()


def test_a_conversation_is_known_by_its_whole_id(store: ConversationStore) -> None:
    store.save_session(session(1))
    store.save_handoff(record(1, "other"))
    assert store.knows(CHAT)
    assert store.knows("other")
    assert not store.knows(CHAT[:-1])
    assert not store.knows("")
