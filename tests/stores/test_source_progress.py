"""Turns and the marks of their files, written together."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dualmem_mcp.model.conversation import Block, Session, Turn
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.source import Finding, ImportedTurn, ReadMark, SessionChunk
from dualmem_mcp.ports import Clock
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.search_feed import SearchFeed
from dualmem_mcp.stores.source_progress import SourceProgress
from dualmem_mcp.transcripts.tail import read_tail
from tests.transcripts.conftest import SessionWriter

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHAT = ConversationId("c0ffee")
MARK = ReadMark("/p/c0ffee.jsonl", CHAT, offset=100, lines=2, fingerprint=b"\x01\xff", title="Engines", messages=2)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "memory.db", bytes(32)) as opened:
        yield opened


@pytest.fixture
def log(database: Database, clock: Clock) -> SourceProgress:
    return SourceProgress(database, clock, "desk")


def turn(number: int, text: str = "", **fields: object) -> Turn:
    whole = Turn(
        uuid=f"u{number}",
        parent_uuid=None,
        role="assistant" if number % 2 else "user",
        timestamp=NOON + timedelta(seconds=number),
        blocks=(Block("text", text or f"text {number}"),),
    )
    return replace(whole, **fields)  # type: ignore[arg-type]


def stored(database: Database) -> list[str]:
    return [one.text for one in SearchFeed(database).turns(0, 1000)]


def test_a_chunk_is_kept_with_its_mark(log: SourceProgress, database: Database) -> None:
    assert log.mark(MARK.path) is None
    assert log.add_chunk(SessionChunk(MARK, (turn(0), turn(1)), NOON), None) == 2
    assert log.mark(MARK.path) == MARK
    found = SearchFeed(database).turns(0, 10)
    assert [(one.uuid, one.text, one.role, one.device) for one in found] == [
        ("u0", "text 0", "user", "desk"),
        ("u1", "text 1", "assistant", "desk"),
    ]


def test_what_another_process_has_read_on_from_is_not_kept_again(log: SourceProgress, database: Database) -> None:
    log.add_chunk(SessionChunk(MARK, (turn(0),), NOON), None)
    later = replace(MARK, offset=200)
    assert log.add_chunk(SessionChunk(later, (turn(1),), NOON), MARK) == 1
    assert log.add_chunk(SessionChunk(later, (turn(2),), NOON), MARK) is None
    assert log.add_chunk(SessionChunk(later, (turn(2),), NOON), None) is None
    assert stored(database) == ["text 0", "text 1"]


def test_a_turn_is_kept_once_in_its_conversation(log: SourceProgress, database: Database) -> None:
    log.add_chunk(SessionChunk(MARK, (turn(0), turn(1)), NOON), None)
    again = replace(MARK, offset=0)
    assert log.add_chunk(SessionChunk(again, (turn(0), turn(1), turn(2)), NOON), MARK) == 1
    fork = ReadMark("/p/fork.jsonl", ConversationId("fork"), offset=5)
    assert log.add_chunk(SessionChunk(fork, (turn(0),), NOON), None) == 1
    assert stored(database) == ["text 0", "text 1", "text 2", "text 0"]


def test_one_message_of_the_api_says_a_thing_once(log: SourceProgress, database: Database) -> None:
    turns = (
        turn(1, "I look.", message_id="m1"),
        turn(3, "I look.", message_id="m1"),
        turn(5, "I have looked.", message_id="m1"),
        turn(7, "I look.", message_id="m2"),
    )
    assert log.add_chunk(SessionChunk(MARK, turns, NOON), None) == 3
    assert stored(database) == ["I look.", "I have looked.", "I look."]


def test_a_session_kept_by_a_handoff_is_not_doubled(
    log: SourceProgress, database: Database, clock: Clock, tmp_path: Path
) -> None:
    session = _session((turn(0), turn(1)))
    ConversationStore(database, clock, lambda: "desk").save_session(session)
    assert log.add_chunk(SessionChunk(MARK, (turn(0), turn(1), turn(2)), NOON), None) == 1


def test_what_search_alone_knows_of_is_not_listed(log: SourceProgress, database: Database, clock: Clock) -> None:
    store = ConversationStore(database, clock, lambda: "desk")
    log.add_chunk(SessionChunk(MARK, (turn(0),), NOON), None)
    assert store.conversations()[0] == []
    store.save_session(_session((turn(0),), ended_at=NOON - timedelta(days=1)))
    (listed,) = store.conversations()[0]
    assert (listed.title, listed.updated_at) == ("Engines", NOON)  # as the newer event left it
    log.add_chunk(SessionChunk(replace(MARK, title="Later"), (), NOON + timedelta(days=1)), MARK)
    assert [one.title for one in store.conversations()[0]] == ["Later"]


def test_lines_without_a_time_do_not_make_a_conversation_newer(
    log: SourceProgress, database: Database, clock: Clock
) -> None:
    store = ConversationStore(database, clock, lambda: "desk")
    store.save_session(_session((turn(0),), ended_at=NOON))
    log.add_chunk(SessionChunk(MARK, (turn(1, timestamp=None),), None), None)
    assert [(one.title, one.updated_at) for one in store.conversations()[0]] == [("A session", NOON)]


def test_findings_are_new_changed_removed_or_left(log: SourceProgress, database: Database) -> None:
    feed = SearchFeed(database)

    def findings(after: int = 0) -> list[tuple[int, str, str]]:
        return [(number, one.finding_id, one.text) for number, one in feed.findings(after, ("decision",), 10)]

    first = [Finding("decision", "session/a", "A"), Finding("decision", "session/b", "B")]
    assert log.put_findings(CHAT, first, replacing="session/") == 2
    assert log.put_findings(CHAT, [Finding("decision", "given/c", "C")]) == 1
    before = findings()
    assert log.put_findings(CHAT, first, replacing="session/") == 0
    assert findings() == before
    changed = [Finding("decision", "session/a", "other")]
    assert log.put_findings(CHAT, changed, replacing="session/") == 2
    newest = before[-1][0]
    assert [(name, text) for _, name, text in findings(newest)] == [("session/a", "other"), ("session/b", "")]
    assert log.put_findings(CHAT, first) == 2  # what was removed can come back
    assert log.put_findings("another", [], replacing="session/") == 0


def test_findings_are_due_until_the_file_has_been_looked_at(log: SourceProgress) -> None:
    log.add_chunk(SessionChunk(MARK, (turn(0),), NOON, findings_due=True), None)
    log.add_chunk(SessionChunk(MARK, (), NOON), MARK)
    assert log.findings_due() == [(MARK.path, CHAT)]
    log.put_findings(CHAT, [], path=MARK.path)
    assert log.findings_due() == []


def test_a_session_of_another_device_is_kept_with_its_name(log: SourceProgress, database: Database) -> None:
    turns = tuple(turn(number) for number in range(450))
    assert log.add_session("package/1", CHAT, _session(turns), "phone") == 450
    assert log.add_session("package/1", CHAT, _session(turns), "phone") == 0
    assert {one.device for one in SearchFeed(database).turns(0, 1000)} == {"phone"}
    assert log.mark("package/1") is not None
    assert log.add_session("package/2", "unknown", None, "phone") == 0
    assert log.mark("package/2") is not None


def test_imported_turns_keep_their_order_and_their_names(log: SourceProgress, database: Database) -> None:
    turns = [
        ImportedTurn(CHAT, "D1:2", "user", "second", "Ann", NOON),
        ImportedTurn(CHAT, "D1:1", "assistant", "first", "Bob"),
        ImportedTurn(ConversationId("other"), "D1:1", "user", "elsewhere"),
    ]
    assert log.add_imported(turns) == (3, [])
    assert log.add_imported(turns) == (0, [])
    edited = replace(turns[0], text="edited")
    assert log.add_imported([edited]) == (0, [edited])
    found = SearchFeed(database).turns(0, 10)
    assert [(one.uuid, one.text, one.author, one.role, one.origin) for one in found] == [
        ("D1:2", "second", "Ann", "user", "import"),
        ("D1:1", "first", "Bob", "assistant", "import"),
        ("D1:1", "elsewhere", "", "user", "import"),
    ]


def test_texts_of_any_kind_come_back_as_they_were(log: SourceProgress, database: Database) -> None:
    texts = ["half \ud83d", "nul \0 inside", "\N{GRINNING FACE} עברית", "x" * 300_000]
    log.add_imported([ImportedTurn(CHAT, f"id {text[:9]}", "user", text) for text in texts])
    assert stored(database) == texts


READ = """
import sys
from pathlib import Path
from dualmem_mcp.ports import SystemClock
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.source_progress import SourceProgress
from dualmem_mcp.transcripts.tail import read_tail
with Database.open(Path(sys.argv[1]), bytes(32)) as database:
    log = SourceProgress(database, SystemClock(), "desk")
    print("reading", flush=True)
    mark = log.mark(sys.argv[2])
    for chunk in read_tail(Path(sys.argv[2]), mark):
        log.add_chunk(chunk, mark)
        mark = chunk.mark
    print("done", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_reader_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    writer = SessionWriter(tmp_path / "project")
    expected = [f"turn {number} {'word ' * 400}" for number in range(3000)]
    for text in expected:
        writer.user(text)
    path, memory = writer.write(), tmp_path / "memory.db"
    Database.open(memory, bytes(32)).close()
    chance = random.Random(5)
    kills = 0
    for _ in range(60):
        with subprocess.Popen(
            [sys.executable, "-c", READ, str(memory), str(path)], stdout=subprocess.PIPE
        ) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"reading\n"
            if kills < 12:
                time.sleep(chance.uniform(0, 0.03))
                os.kill(reader.pid, signal.SIGKILL)
            ended = reader.stdout.read()
        with Database.open(memory, bytes(32)) as database:
            found = _all_texts(database)
        assert found == expected[: len(found)]
        if ended:
            break
        kills += 1
    assert kills
    assert found == expected


def _all_texts(database: Database) -> list[str]:
    feed, found, after = SearchFeed(database), [], 0
    while turns := feed.turns(after, 500):
        found += [one.text for one in turns]
        after = turns[-1].id
    return found


def test_a_real_reading_is_kept_whole(log: SourceProgress, database: Database, shared_transcripts: Path) -> None:
    for path in sorted((shared_transcripts / "claude").glob("projects/*/*.jsonl")):
        mark = None
        for chunk in read_tail(path, None):
            log.add_chunk(chunk, mark)
            mark = chunk.mark
        assert log.mark(str(path)) == mark
    assert len(_all_texts(database)) > 500


def _session(turns: tuple[Turn, ...], **fields: object) -> Session:
    whole = Session(
        conversation_id=CHAT,
        project="-p",
        title="A session",
        cwd="/p",
        git_branch="",
        version="2.1",
        model="m",
        permission_mode="default",
        started_at=NOON,
        ended_at=NOON,
        turns=turns,
        earlier=(),
        agents=(),
        files=(),
    )
    return replace(whole, **fields)  # type: ignore[arg-type]
