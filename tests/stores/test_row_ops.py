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
from hypothesis import given
from hypothesis import strategies as st

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
        self.catalogue = ConversationStore(database, clock, lambda: name)
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


def test_a_batch_is_of_one_conversation_and_device(desk: Home, phone: Home) -> None:
    other = ConversationId("other")
    for n in range(3):
        desk.sources.add_imported(
            [ImportedTurn(CHAT, f"a{n}", "user", "x"), ImportedTurn(other, f"b{n}", "user", "y")]
        )
    batches = [json.loads(op.payload) for op in desk.log() if op.kind == OpKind.TURN_ADD]
    assert [(batch["conversation_id"], [one["uuid"] for one in batch["turns"]]) for batch in batches] == [
        (CHAT, ["a0", "a1", "a2"]),
        (other, ["b0", "b1", "b2"]),
    ]


def test_what_another_devices_package_told_is_left_to_that_device(desk: Home, phone: Home) -> None:
    fill(desk)
    phone.catalogue.save_handoff(handoff(), told_elsewhere=True)
    phone.sources.add_session("packages/1", CHAT, session([turn(0), turn(1)]), "desk")
    phone.sources.put_findings(CHAT, [Finding("decision", "session/1", "Use brass", device="desk")])
    assert (phone.waiting(), phone.log()) == (0, [])
    phone.hear(desk.log())
    assert phone.state() == desk.state()
    assert phone.waiting() == 0


def test_a_package_sets_nothing_back_that_an_op_told_of(desk: Home, phone: Home) -> None:
    fill(desk)
    phone.hear(desk.log())
    before = phone.state()
    phone.catalogue.save_handoff(handoff(), told_elsewhere=True)
    other = handoff(handoff_id=HandoffId("0c" * 16), title="another title of the same moment")
    phone.catalogue.save_handoff(other, told_elsewhere=True)
    phone.sources.add_session("packages/1", CHAT, session([turn(0), turn(1)]), "desk")
    assert {**phone.state(), "handoffs": before["handoffs"]} == before


def test_what_another_device_found_is_not_taken_away_by_reading_less(desk: Home, phone: Home) -> None:
    desk.sources.put_findings(CHAT, [Finding("decision", "s/1", "brass")], replacing="s/")
    phone.hear(desk.log())
    phone.sources.put_findings(CHAT, [Finding("decision", "s/2", "steel")], replacing="s/")
    phone.sources.put_findings(CHAT, [], replacing="s/")
    ops = phone.log()
    assert [(op.kind, json.loads(op.payload)["text"]) for op in ops] == [(OpKind.FINDING_PUT, "")]
    desk.hear(ops)
    assert [(row[2], row[4]) for row in desk.rows("findings")] == [("s/1", "brass"), ("s/2", "")]


def test_findings_of_a_project_stay_on_their_device(desk: Home, phone: Home) -> None:
    desk.sources.put_findings("", [Finding("note", "user/1", "Prefers brass")], replacing="user/")
    assert (desk.waiting(), desk.log()) == (0, [])
    desk.sources.put_findings("", [], replacing="user/")
    assert [row[4] for row in desk.rows("findings")] == [""]


def test_rows_of_a_banned_conversation_are_not_told(desk: Home, phone: Home) -> None:
    fill(desk)
    ops = desk.log(banned=lambda conversation_id: conversation_id == CHAT)
    assert [op.kind for op in ops] == [OpKind.CONVERSATION_SET, OpKind.TURN_ADD]
    assert desk.waiting() == 0
    fill(phone)
    assert phone.hear(ops, banned=lambda conversation_id: conversation_id != CHAT) == [None, None]


def test_a_text_too_long_for_an_op_stays_here(desk: Home) -> None:
    # Quotes become four characters each in the line of a segment.
    desk.catalogue.save_session(session([turn(0, '"' * 4_200_000), turn(1, '"' * 4_100_000)]))
    (op,) = (op for op in desk.log() if op.kind == OpKind.TURN_ADD)
    assert [one["uuid"] for one in json.loads(op.payload)["turns"]] == ["u1"]
    assert len(json.dumps(op.payload)) < 16 * 2**20
    assert desk.waiting() == 0


def changed(payload: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {name: value for name, value in {**payload, **members}.items() if value is not ...}


TURN = {"uuid": "u", "parent": None, "role": "user", "timestamp": None, "text": "t", "tokens": 1}
BATCH = {"conversation_id": "c", "device_name": "d", "turns": [TURN]}
CONVERSATION = {
    "conversation_id": "c",
    "title": "",
    "cwd": "",
    "updated_at": "2026-03-01T10:00:00.000000+00:00",
    "message_count": 0,
    "device_name": "",
    "listed": True,
}
FINDING = {
    "conversation_id": "c",
    "kind": "note",
    "finding_id": "f",
    "turn_uuid": "",
    "text": "",
    "author": "",
    "timestamp": None,
    "device_name": "",
}
HANDOFF = {
    "handoff_id": "0" * 32,
    "conversation_id": "c",
    "title": "",
    "cwd": "",
    "created_at": "2026-03-01T10:00:00.000000+00:00",
    "device_id": "0" * 32,
    "device_name": "",
    "base": None,
    "package_key": "p",
    "package_bytes": 1,
    "manifest_key": "m",
    "message_count": 1,
    "visible_tokens": 1,
    "digest_tokens": 1,
    "last_turn_uuid": "",
}
FIT = {
    OpKind.TURN_ADD: BATCH,
    OpKind.CONVERSATION_SET: CONVERSATION,
    OpKind.FINDING_PUT: FINDING,
    OpKind.HANDOFF_ADD: HANDOFF,
}
UNFIT: list[tuple[OpKind, dict[str, Any]]] = [
    *(
        (kind, changed(payload, **{name: value}))
        for kind, payload in FIT.items()
        for name in payload
        for value in (..., 5.5, [], {}, True)
        if (name, value)
        not in [("listed", True), ("listed", ...), ("base", ...), ("timestamp", ...), ("turns", [])]
        and (name, value, kind) != ("device_name", ..., OpKind.TURN_ADD)
    ),
    *((kind, changed(FIT[kind], conversation_id=value)) for kind in FIT for value in ("../x", "", "a" * 129, "ü")),
    *((OpKind.TURN_ADD, changed(BATCH, turns=[turn])) for turn in (None, "x", [], 1)),
    *(
        (OpKind.TURN_ADD, changed(BATCH, turns=[changed(TURN, **{name: value})]))
        for name, value in [
            ("uuid", None),
            ("uuid", "x" * 4097),
            ("parent", 1),
            ("role", "half \ud83d"),
            ("role", ...),
            ("timestamp", "yesterday"),
            ("timestamp", "2026-02-30T10:00:00.000000+00:00"),
            ("timestamp", "2026-03-01T10:00:00+00:00"),
            ("timestamp", "2026-03-01T10:00:00.000000+02:00"),
            ("timestamp", "0000-03-01T10:00:00.000000+00:00"),
            ("text", None),
            ("tokens", -1),
            ("tokens", 2**63),
            ("tokens", True),
            ("meta", 1),
            ("compact", "no"),
            ("author", None),
            ("message_id", 5),
        ]
    ),
    (OpKind.CONVERSATION_SET, changed(CONVERSATION, updated_at="")),
    (OpKind.CONVERSATION_SET, changed(CONVERSATION, message_count=2**60)),
    (OpKind.CONVERSATION_SET, changed(CONVERSATION, device_name="x" * 5000)),
    (OpKind.FINDING_PUT, changed(FINDING, kind="rumour")),
    (OpKind.FINDING_PUT, changed(FINDING, conversation_id="")),
    (OpKind.HANDOFF_ADD, changed(HANDOFF, handoff_id="0" * 31)),
    (OpKind.HANDOFF_ADD, changed(HANDOFF, device_id="A" * 32)),
    (OpKind.HANDOFF_ADD, changed(HANDOFF, base="../../x")),
    (OpKind.HANDOFF_ADD, changed(HANDOFF, package_key="../x")),
    (OpKind.HANDOFF_ADD, changed(HANDOFF, manifest_key="/etc/x")),
]


def test_payloads_that_do_not_fit_have_no_effect(desk: Home) -> None:
    before = desk.state()
    for number, (kind, payload) in enumerate(UNFIT):
        op = Op(Stamp(number + 1, PHONE), number + 1, kind, json.dumps(payload))
        assert desk.hear([op]) == [None], (kind, payload)
        assert desk.state() == before, (kind, payload)
    for number, (kind, payload) in enumerate(FIT.items()):
        assert desk.hear([Op(Stamp(number + 1, PHONE), 1, kind, json.dumps(payload))]) == ["c"]
    for kind in ("turn.drop", "entity.create", ""):
        assert desk.hear([Op(Stamp(9, PHONE), 9, kind, json.dumps(BATCH))]) == [None]


def test_one_turn_that_does_not_fit_harms_no_other(desk: Home) -> None:
    turns = [TURN, changed(TURN, uuid="bad", tokens=None), "x", changed(TURN, uuid="v", new_member={"a": 1})]
    desk.hear([Op(Stamp(1, PHONE), 1, OpKind.TURN_ADD, json.dumps(changed(BATCH, turns=turns)))])
    assert [row[1] for row in desk.rows("turns")] == ["u", "v"]


def test_turns_may_come_before_their_conversation(desk: Home, phone: Home) -> None:
    fill(desk)
    conversations, others = desk.log(), []
    while conversations[-1].kind != OpKind.CONVERSATION_SET:
        others.append(conversations.pop())
    phone.hear(others)
    assert phone.catalogue.conversations() == ([], "")
    assert len(phone.rows("turns")) == 4
    # A conversation of which nothing is known is not told on.
    assert phone.log() == []
    phone.hear(conversations)
    assert phone.state() == desk.state()


def told(kind: OpKind, ticks: int, device: DeviceId, /, **members: Any) -> Op:
    return Op(Stamp(ticks, device), 1, kind, json.dumps(changed(FIT[kind], **members)))


def test_of_two_turns_of_one_id_the_smaller_stamp_counts(desk: Home) -> None:
    for ticks, text in ((5, "middle"), (7, "last"), (3, "first"), (4, "second")):
        desk.hear([told(OpKind.TURN_ADD, ticks, PHONE, turns=[changed(TURN, text=text)])])
    assert [(row[5], row[-1][:8]) for row in desk.rows("turns")] == [("first", (3).to_bytes(8, "big"))]


def test_a_turn_that_was_not_told_yet_takes_the_one_that_was(desk: Home) -> None:
    desk.catalogue.save_session(session([turn(0, "here")]))
    op = told(OpKind.TURN_ADD, 5, PHONE, conversation_id=CHAT, turns=[changed(TURN, uuid="u0", text="there")])
    assert desk.hear([op]) == [CHAT]
    assert [row[5] for row in desk.rows("turns")] == ["there"]
    assert [made.kind for made in desk.log()] == [OpKind.CONVERSATION_SET]


def test_what_was_not_told_yet_is_the_later_of_one_moment(desk: Home) -> None:
    desk.catalogue.save_session(session([turn(0)], title="here", ended_at=NOON))
    desk.sources.put_findings(CHAT, [Finding("decision", "f", "here")])
    at = "2026-03-01T12:00:00.000000+00:00"
    desk.hear(
        [
            told(OpKind.CONVERSATION_SET, 5, PHONE, conversation_id=CHAT, title="there", updated_at=at),
            told(OpKind.FINDING_PUT, 6, PHONE, conversation_id=CHAT, kind="decision", finding_id="f", text="there"),
        ]
    )
    assert [row[1] for row in desk.rows("conversations")] == ["here"]
    assert [row[4] for row in desk.rows("findings")] == ["here"]
    assert [op.kind for op in desk.log()] == [OpKind.CONVERSATION_SET, OpKind.TURN_ADD, OpKind.FINDING_PUT]


def test_what_came_does_not_stand_for_what_is_not_told_yet_though_it_says_the_same(desk: Home, phone: Home) -> None:
    at = "2026-03-01T12:00:00.000000+00:00"
    desk.hear([told(OpKind.CONVERSATION_SET, 1, PHONE, conversation_id=CHAT, updated_at=at)])
    for text in ("first", "then", "first"):
        desk.catalogue.save_session(session([], title=text, ended_at=NOON, cwd=""))
        desk.sources.put_findings(CHAT, [Finding("decision", "f", text)])
        if text == "first":
            ops = desk.log()
            phone.hear(ops)
    desk.catalogue.save_session(session([], title="then", ended_at=NOON, cwd=""))
    desk.sources.put_findings(CHAT, [Finding("decision", "f", "then")])
    # They were made before the ops that the desk told of, and so lose against these.
    same = {"conversation_id": CHAT, "device_name": "desk"}
    early = [
        told(OpKind.CONVERSATION_SET, 2, PHONE, title="then", updated_at=at, **same),
        told(OpKind.FINDING_PUT, 3, PHONE, kind="decision", finding_id="f", text="then", **same),
    ]
    desk.hear(early)
    phone.hear([*early, *desk.log()])
    assert phone.state() == desk.state()
    assert [row[4] for row in phone.rows("findings")] == ["then"]


def test_that_a_conversation_is_listed_is_told_also_where_its_title_lost(desk: Home, phone: Home) -> None:
    desk.catalogue.save_session(session([], title="handed over", ended_at=NOON))
    later = "2026-03-02T12:00:00.000000+00:00"
    read = told(
        OpKind.CONVERSATION_SET, 5, PHONE, conversation_id=CHAT, title="read", updated_at=later, listed=False
    )
    desk.hear([read])
    ops = desk.log()
    phone.hear([read, *ops])
    assert phone.state() == desk.state()
    assert [(row[1], row[6]) for row in phone.rows("conversations")] == [("read", 1)]


NAMES = st.sampled_from(["a", "b", "half \ud83d"])
TIMES = st.sampled_from([f"2026-03-0{day}T10:00:00.000000+00:00" for day in (1, 2, 3)])
CONVERSATIONS = st.sampled_from(["c1", "c2"])
TURN_MEMBERS = st.builds(lambda uuid, text: changed(TURN, uuid=uuid, text=text), NAMES, NAMES)
PAYLOADS = st.one_of(
    st.builds(
        lambda conversation, name, turns: (
            OpKind.TURN_ADD,
            changed(BATCH, conversation_id=conversation, device_name=name, turns=turns),
        ),
        CONVERSATIONS,
        NAMES,
        st.lists(TURN_MEMBERS, max_size=3),
    ),
    st.builds(
        lambda conversation, title, at, listed: (
            OpKind.CONVERSATION_SET,
            changed(CONVERSATION, conversation_id=conversation, title=title, updated_at=at, listed=listed),
        ),
        CONVERSATIONS,
        NAMES,
        TIMES,
        st.booleans(),
    ),
    st.builds(
        lambda conversation, finding, text: (
            OpKind.FINDING_PUT,
            changed(FINDING, conversation_id=conversation, finding_id=finding, text=text),
        ),
        CONVERSATIONS,
        NAMES,
        st.sampled_from(["", "x", "y"]),
    ),
    st.builds(
        lambda conversation, number, title: (
            OpKind.HANDOFF_ADD,
            changed(HANDOFF, conversation_id=conversation, handoff_id=number * 32, title=title),
        ),
        CONVERSATIONS,
        st.sampled_from("ab"),
        NAMES,
    ),
)


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Database]]:
    folder = tmp_path_factory.mktemp("homes")
    homes = [Database.open(folder / f"{number}.db", bytes(32)) for number in range(3)]
    yield homes
    for home in homes:
        home.close()


@given(history=st.lists(PAYLOADS, max_size=12), data=st.data())
def test_the_order_of_ops_and_how_often_they_come_do_not_matter(
    databases: list[Database], history: list[tuple[OpKind, dict[str, Any]]], data: st.DataObject
) -> None:
    ops = [
        Op(Stamp(n + 1, (DESK, PHONE)[n % 2]), n + 1, kind, json.dumps(payload))
        for n, (kind, payload) in enumerate(history)
    ]
    states = []
    for database in databases:
        with empty(database):
            pass
        home = Home(database, DESK, "desk", FixedClock())
        order = data.draw(st.permutations(ops)) if states else ops
        home.hear([*order, *order[: len(order) // 2]])
        states.append(home.state())
    assert states[0] == states[1] == states[2]


class FixedClock:
    def now(self) -> datetime:
        return NOON


def _put_turns(home: Home, numbers: list[int], text: str) -> None:
    home.catalogue.save_session(session([turn(n, text) for n in numbers]))


ACTIONS = st.one_of(
    st.tuples(st.just("session"), st.lists(st.integers(0, 4), unique=True, max_size=3), st.sampled_from("xy")),
    st.tuples(st.just("finding"), st.sampled_from("ab"), st.sampled_from(["", "x", "y"])),
    st.tuples(st.just("import"), st.integers(0, 3), st.sampled_from("xy")),
    st.tuples(st.just("handoff"), st.integers(0, 3), st.sampled_from("xy")),
    st.tuples(st.just("log"), st.integers(1, 3), st.none()),
    st.tuples(st.just("hear"), st.integers(0, 2), st.none()),
)


@given(history=st.lists(st.tuples(st.integers(0, 2), ACTIONS), max_size=25))
def test_devices_that_exchanged_everything_agree(
    databases: list[Database], history: list[tuple[int, tuple[str, Any, Any]]]
) -> None:
    homes = [Home(database, DeviceId(f"{n:032x}"), f"d{n}", FixedClock()) for n, database in enumerate(databases)]
    logs: list[list[Op]] = [[], [], []]
    heard = [[0, 0, 0] for _ in homes]

    def hear(me: int, other: int) -> None:
        homes[me].hear(logs[other][heard[me][other] :])
        heard[me][other] = len(logs[other])

    for home in homes:
        with empty(home.database):
            pass
    for me, (action, first, second) in history:
        home = homes[me]
        if action == "session":
            _put_turns(home, first, second)
        elif action == "finding":
            home.sources.put_findings(CHAT, [Finding("decision", first, second)] if second else [], replacing=first)
        elif action == "import":
            home.sources.add_imported([ImportedTurn(CHAT, f"u{first}", "user", second)])
        elif action == "handoff":
            home.catalogue.save_handoff(
                handoff(f"d{me}", handoff_id=HandoffId(f"{first:x}" * 32), device_id=home.device_id, title=second)
            )
        elif action == "log":
            logs[me] += home.log(most_turns=first)
        elif first != me:
            hear(me, first)
    rounds = 0
    while any(home.waiting() for home in homes) or any(
        heard[me][other] < len(logs[other]) for me in range(3) for other in range(3) if other != me
    ):
        for me, home in enumerate(homes):
            logs[me] += home.log()
            for other in range(3):
                if other != me:
                    hear(me, other)
        rounds += 1
        assert rounds < 5, "they never come to an end"
    assert homes[0].state() == homes[1].state() == homes[2].state()
