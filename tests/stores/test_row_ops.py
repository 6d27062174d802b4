"""Ops of rows: made here, merged there, in any order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.model.conversation import Block, Session, Turn
from dualmem_mcp.model.handoff import HandoffRecord
from dualmem_mcp.model.ids import ConversationId, DeviceId, HandoffId
from dualmem_mcp.model.oplog import Op, OpKind, Stamp
from dualmem_mcp.model.source import Finding, ImportedTurn
from dualmem_mcp.ports import Clock
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.op_log import OpWriter
from dualmem_mcp.stores.row_ops import apply_row_op, log_rows, unlogged
from dualmem_mcp.stores.source_progress import SourceProgress

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHAT = ConversationId("c0ffee")
DESK = DeviceId("aa" * 16)
PHONE = DeviceId("bb" * 16)
TABLES = {
    "conversations": "id, title, cwd, updated_at, message_count, device_name, listed, stamp",
    "turns": "conversation_id, uuid, parent_uuid, role, timestamp, text, visible_tokens, is_meta,"
    " is_compact_summary, author, device_name, origin, message_id, stamp",
    "findings": "conversation_id, kind, finding_id, turn_uuid, text, author, timestamp, device_name, stamp",
    "handoffs": "handoff_id, conversation_id, title, cwd, created_at, device_id, device_name, base, package_key,"
    " package_bytes, manifest_key, message_count, visible_tokens, digest_tokens, last_turn_uuid, stamp",
}


class Home:
    """A database of one device, with what it does by itself and what it hears of others."""

    def __init__(self, database: Database, device_id: DeviceId, name: str, clock: Clock) -> None:
        self.database = database
        self.device_id = device_id
        self.clock = clock
        self.catalogue = ConversationStore(database, clock, name)
        self.sources = SourceProgress(database, clock, name)

    def log(self, **options: Any) -> list[Op]:
        """The ops that `log_rows` made."""
        with self.database.write() as connection:
            (before,) = connection.execute("SELECT coalesce(max(id), 0) FROM ops").fetchone()
            writer = OpWriter(connection, self.device_id, self.clock.now())
            made = log_rows(connection, writer, **options)
            writer.finish()
            rows = connection.execute(
                "SELECT ticks, device_id, sequence, kind, payload FROM ops WHERE id > ? ORDER BY id", (before,)
            ).fetchall()
            assert made == len(rows)
            return [Op(Stamp(row[0], DeviceId(row[1])), *row[2:]) for row in rows]

    def hear(self, ops: Sequence[Op], **options: Any) -> list[str | None]:
        """Merge ops, and move the clock past them, as taking in a segment does."""
        with self.database.write() as connection:
            ticks = max((op.stamp.ticks for op in ops), default=0)
            connection.execute("UPDATE hybrid_clock SET ticks = max(ticks, ?)", (ticks,))
            return [apply_row_op(connection, op, json.loads(op.payload), **options) for op in ops]

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        with self.database.read() as connection:
            return connection.execute(f"SELECT {TABLES[table]} FROM {table} ORDER BY 1, 2, 3").fetchall()

    def state(self) -> dict[str, list[tuple[Any, ...]]]:
        return {table: self.rows(table) for table in TABLES}

    def waiting(self) -> int:
        with self.database.read() as connection:
            return unlogged(connection)


@contextmanager
def empty(database: Database) -> Iterator[Connection]:
    with database.write() as connection:
        for table in ("turns", "findings", "handoffs", "conversations", "ops", "op_sequences"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("UPDATE hybrid_clock SET ticks = 0")
        yield connection


@pytest.fixture
def desk(tmp_path: Path, clock: Clock) -> Iterator[Home]:
    with Database.open(tmp_path / "desk.db", bytes(32)) as database:
        yield Home(database, DESK, "desk", clock)


@pytest.fixture
def phone(tmp_path: Path, clock: Clock) -> Iterator[Home]:
    with Database.open(tmp_path / "phone.db", bytes(32)) as database:
        yield Home(database, PHONE, "phone", clock)


def turn(number: int, text: str = "", **fields: Any) -> Turn:
    whole = Turn(
        uuid=f"u{number}",
        parent_uuid=f"u{number - 1}" if number else None,
        role="assistant" if number % 2 else "user",
        timestamp=NOON + timedelta(seconds=number),
        blocks=(Block("text", text or f"text {number}"),),
    )
    return replace(whole, **fields)


def session(turns: Sequence[Turn], **fields: Any) -> Session:
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
        ended_at=NOON + timedelta(seconds=len(turns)),
        turns=tuple(turns),
        earlier=(),
        agents=(),
        files=(),
    )
    return replace(whole, **fields)


def handoff(device_name: str = "desk", **fields: Any) -> HandoffRecord:
    made = HandoffRecord(
        handoff_id=HandoffId("0b" * 16),
        conversation_id=CHAT,
        title="handed over",
        cwd="/home/ada/Engine",
        created_at=NOON + timedelta(hours=1),
        device_id=DESK,
        device_name=device_name,
        base=None,
        package_key="packages/1",
        package_bytes=4096,
        manifest_key="manifests/1",
        message_count=7,
        visible_tokens=1000,
        digest_tokens=40,
        last_turn_uuid="u6",
    )
    return replace(made, **fields)


def fill(home: Home) -> None:
    odd = turn(
        2, "half \ud83d", parent_uuid="half \ud83d", timestamp=None, is_meta=True, message_id="m", origin="x"
    )
    home.catalogue.save_session(session([turn(0), turn(1), odd], title="half \ud83d"))
    home.catalogue.save_handoff(handoff())
    home.sources.put_findings(CHAT, [Finding("decision", "session/1", "Use brass", turn_uuid="u1", timestamp=NOON)])
    home.sources.add_imported([ImportedTurn(ConversationId("chat-1"), "1", "narrator", "It rained.", "Ada", NOON)])


def test_rows_come_to_another_device_as_they_are(desk: Home, phone: Home) -> None:
    fill(desk)
    assert desk.waiting() == 2 + 4 + 1 + 1
    ops = desk.log()
    assert [op.kind for op in ops] == [
        OpKind.CONVERSATION_SET,
        OpKind.CONVERSATION_SET,
        OpKind.TURN_ADD,
        OpKind.TURN_ADD,
        OpKind.FINDING_PUT,
        OpKind.HANDOFF_ADD,
    ]
    assert set(phone.hear(ops)) == {CHAT, "chat-1"}
    assert phone.state() == desk.state()
    assert all(row[-1] for rows in desk.state().values() for row in rows)
    # Neither has anything more to say, and again changes nothing.
    assert (desk.waiting(), phone.waiting(), phone.log()) == (0, 0, [])
    assert phone.hear(ops) == [None] * len(ops)
    assert phone.state() == desk.state()
    assert phone.catalogue.handoffs(CHAT) == [handoff()]


def test_a_session_that_grows_tells_only_what_is_new(desk: Home, phone: Home) -> None:
    desk.catalogue.save_session(session([turn(0), turn(1)]))
    phone.hear(desk.log())
    assert desk.catalogue.save_session(session([turn(0), turn(1)])) == 0
    assert desk.log() == []
    desk.catalogue.save_session(session([turn(0), turn(1), turn(2)]))
    told, added = desk.log()
    assert [one["uuid"] for one in json.loads(added.payload)["turns"]] == ["u2"]
    phone.hear([told, added])
    assert phone.state() == desk.state()


def test_batches_are_bounded_in_turns_and_bytes(desk: Home, phone: Home) -> None:
    long = [turn(n, "x" * 100_000) for n in range(5)]
    huge = turn(5, "y" * 1_000_000)
    desk.catalogue.save_session(session([*long, huge, *(turn(n) for n in range(6, 140))]))
    ops = [op for op in desk.log() if op.kind == OpKind.TURN_ADD]
    sizes = [(len(json.loads(op.payload)["turns"]), len(op.payload.encode())) for op in ops]
    assert [count for count, _ in sizes] == [2, 2, 1, 1, 64, 64, 6]
    assert all(size <= 256 * 1024 for count, size in sizes if count > 1)
    uuids = [one["uuid"] for op in ops for one in json.loads(op.payload)["turns"]]
    assert uuids == [f"u{n}" for n in range(140)]
    phone.hear(ops)
    assert phone.rows("turns") == desk.rows("turns")


def test_turns_are_logged_so_many_at_once(desk: Home) -> None:
    desk.catalogue.save_session(session([turn(n) for n in range(100)]))
    counts = []
    while desk.waiting():
        counts += [len(json.loads(op.payload)["turns"]) for op in desk.log(most_turns=40) if "turns" in op.payload]
    assert counts == [40, 40, 20]
