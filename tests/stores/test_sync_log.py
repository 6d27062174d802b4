"""The log in memory.db: what is sealed, taken in, held back, and given other names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dualmem_mcp.errors import ConflictError
from dualmem_mcp.model.graph import Entity, EntityObservations
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import COUNTER_BITS, NO_HEAD, LogHead, Op, OpKind, Stamp, physical_ticks
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.log_rewrite import rename
from dualmem_mcp.stores.outbox import FileOutbox
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.stores.sync_log import SyncLog
from tests.conftest import SteppingClock

OWN, OTHER, NEW = (DeviceId(digits * 16) for digits in ("0a", "0b", "0c"))


class Home:
    """One data home with a log; `other` makes ops as another device's log has them."""

    def __init__(self, folder: Path, clock: SteppingClock) -> None:
        (folder / "queue").mkdir(parents=True)
        self.clock = clock
        self.database = Database.open(folder / "memory.db", bytes(32))
        self.outbox = FileOutbox(self.database, folder / "queue")
        self.log = SyncLog(self.database, clock, OWN, self.outbox, name_of=lambda text: f"{text:0>32}")
        self.graph = GraphStore(self.database, clock, OWN)
        self.records = RecordStore(self.database, clock, OWN)
        self.made = 0

    def other(self, kind: str, payload: dict, *, ahead: timedelta = timedelta(0)) -> Op:
        self.made += 1
        ticks = physical_ticks(self.clock.now() + ahead) + self.made
        return Op(Stamp(ticks, OTHER), self.made, kind, json.dumps(payload))

    def take_in(self, *ops: Op):
        before = self.log.heads().get(OTHER, NO_HEAD)
        head = LogHead(before.segment + 1, bytes([before.segment + 1]) * 32, ops[-1].sequence)
        return self.log.take_in(OTHER, ops, head)

    def seal(self, upto: int) -> LogHead:
        before = self.log.heads().get(self.log.device_id(), NO_HEAD)
        head = LogHead(before.segment + 1, bytes([before.segment + 1]) * 32, upto)
        self.log.add_segment(f"log/{self.log.device_id()}/{head.segment:020d}", b"sealed%d" % upto, head)
        return head

    def rows(self, sql: str) -> list[tuple]:
        with self.database.read() as connection:
            return connection.execute(sql).fetchall()

    def names(self) -> set[str]:
        return {entity.name for entity in self.graph.read_graph().entities}

    def add_turns(self, *uuids: str) -> None:
        with self.database.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO conversations (id, title, cwd, updated_at, message_count, device_name)"
                " VALUES ('c1', 'title', '/w', '2026-03-01T10:00:00.000000+00:00', 1, 'desk')"
            )
            connection.executemany(
                "INSERT INTO turns (conversation_id, uuid, role, text, visible_tokens, is_meta, is_compact_summary)"
                " VALUES ('c1', ?, 'user', ?, 3, 0, 0)",
                [(uuid, f"text of {uuid}") for uuid in uuids],
            )


@pytest.fixture
def home(tmp_path: Path, clock: SteppingClock) -> Iterator[Home]:
    home = Home(tmp_path, clock)
    yield home
    home.database.close()


def entity(name: str, *observations: str) -> dict:
    return {"name": name, "entityType": "thing", "observations": list(observations)}


def add(home: Home, *names: str) -> None:
    home.graph.create_entities([Entity(name, "thing", (f"{name} is here",)) for name in names])


# The own log


def test_what_is_sealed_does_not_wait_any_more(home: Home) -> None:
    assert (home.log.waiting(), home.log.unsealed(10, 1000)) == (0, [])
    add(home, "a", "b", "c")
    assert home.log.waiting() == 3
    assert [op.sequence for op in home.log.unsealed(2, 10**6)] == [1, 2]
    assert [op.sequence for op in home.log.unsealed(10, 1)] == [1]
    head = home.seal(2)
    assert (home.log.waiting(), home.log.heads()) == (1, {OWN: head})
    assert [op.sequence for op in home.log.unsealed(10, 10**6)] == [3]
    assert [op.sequence for op in home.log.own_ops(1, 3)] == [2, 3]


def test_rows_get_ops_before_they_are_sealed(home: Home) -> None:
    add(home, "a")
    home.add_turns("u1", "u2")
    assert home.log.waiting() == 4
    kinds = [op.kind for op in home.log.unsealed(10, 10**6)]
    assert kinds == [OpKind.ENTITY_CREATE, OpKind.CONVERSATION_SET, OpKind.TURN_ADD]
    assert home.log.waiting() == 3


def test_texts_of_turns_go_with_the_segment_that_has_them(home: Home) -> None:
    home.add_turns("u1")
    [_, turns] = home.log.unsealed(10, 10**6)
    assert "text of u1" in turns.payload
    home.seal(2)
    [_, kept] = home.log.own_ops(0, 2)
    assert json.loads(kept.payload) == {"conversation_id": "c1", "uuids": ["u1"]}
    assert kept.stamp == turns.stamp


def test_a_segment_is_added_whole_or_not_at_all(home: Home) -> None:
    add(home, "a", "b")
    head = home.seal(1)
    for other in (head, LogHead(3, bytes(32), 2), LogHead(1, b"x" * 32, 2)):
        with pytest.raises(ConflictError):
            home.log.add_segment(f"log/{OWN}/{9:020d}", b"other", other)
    with pytest.raises(ConflictError):
        home.log.add_segment(f"log/{OTHER}/{2:020d}", b"other", LogHead(2, bytes(32), 2))
    assert home.outbox.pending() == [f"log/{OWN}/{1:020d}"]
    assert home.log.heads() == {OWN: head}
    assert len(list((home.database.path.parent / "queue").iterdir())) == 1


def test_going_back_seals_again_what_was_behind(home: Home) -> None:
    add(home, "a")
    home.add_turns("u1")
    home.log.unsealed(10, 10**6)
    first = home.seal(1)
    home.seal(3)
    add(home, "b")
    stamps = {op.payload: op.stamp for op in home.log.own_ops(0, 9) if op.kind == OpKind.ENTITY_CREATE}
    home.log.go_back(first)
    assert home.outbox.pending() == [f"log/{OWN}/{1:020d}"]
    ops = home.log.unsealed(10, 10**6)
    assert [op.sequence for op in ops] == [2, 3, 4]
    assert [op.kind for op in ops] == [OpKind.ENTITY_CREATE, OpKind.CONVERSATION_SET, OpKind.TURN_ADD]
    assert "text of u1" in ops[-1].payload
    assert all(stamps[op.payload] == op.stamp for op in ops[:1])
    assert home.names() == {"a", "b"}


# Other logs


def test_what_comes_in_counts_once(home: Home) -> None:
    op = home.other("entity.create", entity("Ada", "one"))
    applied = home.take_in(op)
    assert (applied.ops, applied.held, len(applied.subjects)) == (1, 0, 1)
    assert home.names() == {"Ada"}
    head = home.log.heads()[OTHER]
    assert home.log.take_in(OTHER, [op], head).ops == 0
    with pytest.raises(ConflictError):
        home.log.take_in(OTHER, [op], LogHead(3, bytes(32), 5))
    with pytest.raises(ConflictError):
        home.log.take_in(OTHER, [op], LogHead(1, b"y" * 32, 1))
    with pytest.raises(ConflictError):
        home.log.take_in(OWN, [op], LogHead(1, bytes(32), 1))
    assert home.rows("SELECT count(*) FROM ops") == [(1,)]
    assert home.log.waiting() == 0


def test_ops_that_are_here_already_are_not_taken_again(home: Home) -> None:
    first, second = home.other("entity.create", entity("a")), home.other("entity.create", entity("b"))
    home.take_in(first)
    assert home.take_in(first, second).ops == 1
    assert home.names() == {"a", "b"}


def test_own_ops_come_after_what_was_taken_in(home: Home) -> None:
    op = home.other("entity.create", entity("Ada"), ahead=timedelta(hours=3))
    home.take_in(op)
    add(home, "later")
    assert home.log.unsealed(1, 1)[0].stamp.ticks == op.stamp.ticks + 1


def test_unknown_kinds_and_odd_payloads_are_kept_without_effect(home: Home) -> None:
    ops = [
        home.other("future.kind", {"x": 1}),
        home.other("entity.create", {"name": 7}),
        home.other("turn.add", {"turns": "none"}),
        home.other("turn.add", {"conversation_id": "c", "turns": [1, {"uuid": 5}, None]}),
        home.other("conversation.erase", {"name": None}),
        home.other("observation.delete", {"name": "Ada", "observations": [1, {"tags": ["x"]}]}),
        home.other("entity.create", entity("Ada")),
    ]
    assert home.take_in(*ops).ops == 7
    assert home.names() == {"Ada"}
    assert home.rows("SELECT count(*) FROM ops WHERE kind = 'future.kind'") == [(1,)]


def test_texts_of_turns_that_came_in_are_kept_once(home: Home) -> None:
    turn = {"uuid": "u1", "role": "user", "text": "hello", "tokens": 2}
    applied = home.take_in(home.other("turn.add", {"conversation_id": "c1", "device_name": "d", "turns": [turn]}))
    assert applied.conversations == {"c1"}
    assert home.rows("SELECT text FROM turns") == [("hello",)]
    [(payload,)] = home.rows("SELECT payload FROM ops")
    assert json.loads(payload) == {"conversation_id": "c1", "uuids": ["u1"]}


def test_erased_conversations_stay_erased(home: Home) -> None:
    turn = {"uuid": "u1", "role": "user", "text": "hello", "tokens": 2}
    note = {"type": "note", "id": "n1", "conversation_id": "c1", "fields": {"text": "private"}}
    home.take_in(home.other("turn.add", {"conversation_id": "c1", "device_name": "d", "turns": [turn]}))
    home.take_in(home.other("record.set", note))
    applied = home.take_in(
        home.other("conversation.erase", {"name": f"{'c1':0>32}"}),
        home.other("turn.add", {"conversation_id": "c1", "device_name": "d", "turns": [{**turn, "uuid": "u2"}]}),
    )
    assert applied.conversations >= {"c1"}
    late = home.take_in(home.other("record.set", {**note, "id": "n2"}), home.other("entity.create", entity("Ada")))
    assert late.ops == 1
    assert home.rows("SELECT * FROM turns") == home.rows("SELECT * FROM records") == []
    assert not [row for row in home.rows("SELECT payload FROM ops") if "private" in row[0] or "hello" in row[0]]
    assert home.names() == {"Ada"}


# Time


def test_the_future_is_held_back_until_its_time_has_come(home: Home) -> None:
    near = home.other("entity.create", entity("near"), ahead=timedelta(hours=23))
    far = home.other("entity.create", entity("far"), ahead=timedelta(days=400))
    turns = home.other(
        "turn.add",
        {"conversation_id": "c1", "turns": [{"uuid": "u", "role": "user", "text": "t", "tokens": 1}]},
        ahead=timedelta(days=400),
    )
    applied = home.take_in(near, far, turns)
    assert (applied.ops, applied.held) == (3, 2)
    assert home.names() == {"near"}
    assert home.log.held() == {OTHER: 2}
    assert home.log.release().ops == 0
    add(home, "own")
    assert home.log.unsealed(1, 1)[0].stamp.ticks < far.stamp.ticks
    home.clock.advance(timedelta(days=399, minutes=1).total_seconds())
    released = home.log.release()
    assert (released.ops, released.held, released.conversations) == (2, 0, {"c1"})
    assert home.names() == {"near", "far", "own"}
    assert home.rows("SELECT text FROM turns") == [("t",)]
    assert home.log.held() == {}


def test_all_that_is_held_back_can_be_let_go(home: Home) -> None:
    home.take_in(home.other("entity.create", entity("far"), ahead=timedelta(days=4000)))
    assert home.log.release(all_of_them=True).ops == 1
    assert home.names() == {"far"}
    add(home, "own")  # stamped behind it, as all that is made from now on


def test_a_clock_years_behind_does_not_hold_everything(home: Home) -> None:
    op = home.other("entity.create", entity("now"))
    home.clock.advance(-5 * 365 * 86_400)
    home.log.set_ahead(-5 * 365 * 86_400_000)
    assert home.take_in(op).held == 0


def test_a_clock_years_ahead_is_corrected_before_anything_is_sealed(home: Home) -> None:
    years = 5 * 365 * 86_400
    add(home, "good")
    home.seal(1)
    now = home.clock.now()
    home.clock.advance(years)
    add(home, "Ada")
    home.graph.add_observations([EntityObservations("Ada", ("said",))])
    home.graph.delete_observations([EntityObservations("Ada", ("said",))])
    home.records.put("note", "n1", {"text": "a note"})
    home.add_turns("u1")
    home.log.unsealed(10, 10**6)
    assert home.log.set_ahead(years * 1000) == 6
    ops = home.log.unsealed(10, 10**6)
    assert [op.sequence for op in ops] == [2, 3, 4, 5, 6, 7]
    limit = physical_ticks(now + timedelta(minutes=5))
    assert all(op.stamp.ticks <= limit for op in ops)
    assert sorted(op.stamp for op in ops) == [op.stamp for op in ops]
    added, deleted = (json.loads(op.payload) for op in ops[1:3])
    assert added["entity"] == [f"{ops[0].stamp}.0"]
    assert deleted["observations"][0]["tags"] == [f"{ops[1].stamp}.1"]
    [(tags,)] = home.rows("SELECT tags FROM entities WHERE name = 'Ada'")
    assert tags[:24] == ops[0].stamp.to_bytes()
    assert {row[0][:24] for row in home.rows("SELECT tag FROM tombstones")} == {ops[1].stamp.to_bytes()}
    [(changed,)] = home.rows("SELECT changed FROM records")
    assert changed == ops[3].stamp.to_bytes()
    assert home.rows("SELECT stamp FROM turns") == [(ops[-1].stamp.to_bytes(),)]
    add(home, "next")
    assert home.log.unsealed(10, 10**6)[-1].stamp.ticks <= limit
    assert home.log.set_ahead(years * 1000 + 1) == 0


def test_what_follows_on_a_merged_future_keeps_its_stamps(home: Home) -> None:
    op = home.other("entity.create", entity("Ada"), ahead=timedelta(hours=20))
    home.take_in(op)
    add(home, "own")
    assert home.log.set_ahead(60_000) == 0
    assert home.log.unsealed(1, 1)[0].stamp.ticks == op.stamp.ticks + 1


# A new id


def test_a_fork_keeps_what_the_other_machine_has(home: Home) -> None:
    add(home, "sealed")
    first = home.seal(1)
    add(home, "common", "mine")
    home.graph.add_observations([EntityObservations("sealed", ("mine",)), EntityObservations("mine", ("more",))])
    home.add_turns("u1")
    home.log.unsealed(10, 10**6)
    home.seal(7)
    assert home.log.fork(NEW, 2, first) == 5
    assert home.log.device_id() == NEW
    assert home.log.heads() == {OWN: first}
    assert home.outbox.pending() == [f"log/{OWN}/{1:020d}"]
    ops = home.log.unsealed(10, 10**6)
    assert [(op.sequence, op.stamp.device_id) for op in ops] == [(number, NEW) for number in range(1, 6)]
    [mine, to_sealed, to_mine, _, turns] = ops
    assert json.loads(mine.payload)["name"] == "mine"
    assert json.loads(to_sealed.payload)["entity"][0].startswith(
        f"{home.rows('SELECT ticks FROM ops')[0][0]:016x}-{OWN}"
    )
    assert json.loads(to_mine.payload)["entity"] == [f"{mine.stamp}.0"]
    assert "text of u1" in turns.payload
    assert home.names() == {"sealed", "common", "mine"}
    assert home.log.fork(NEW, 0, NO_HEAD) == 0
    # The other machine's next segment has the common op and goes on.
    other = Op(Stamp(physical_ticks(home.clock.now()) + 50, OWN), 3, "entity.create", json.dumps(entity("theirs")))
    common = home.rows(f"SELECT ticks, payload FROM ops WHERE device_id = '{OWN}' AND sequence = 2")[0]
    applied = home.log.take_in(
        OWN, [Op(Stamp(common[0], OWN), 2, "entity.create", common[1]), other], LogHead(2, b"z" * 32, 3)
    )
    assert applied.ops == 1
    assert home.names() == {"sealed", "common", "mine", "theirs"}
    assert home.rows("SELECT device_id, last_sequence FROM op_sequences ORDER BY 1") == [(OWN, 3), (NEW, 5)]


def test_writers_that_were_opened_before_a_fork_write_under_the_new_id(home: Home) -> None:
    add(home, "before")
    home.log.fork(NEW, 0, NO_HEAD)
    add(home, "after")
    assert [op.stamp.device_id for op in home.log.unsealed(10, 10**6)] == [NEW, NEW]


def test_only_stamps_are_renamed_not_texts_that_look_like_them() -> None:
    old, new = Stamp(7 << COUNTER_BITS, OWN), Stamp(8 << COUNTER_BITS, NEW)
    names = {str(old): new}

    def renamed(kind: str, payload: dict) -> dict:
        return json.loads(rename(kind, json.dumps(payload), names))

    text = f"{old}.1"
    assert renamed("entity.create", entity(text, text)) == entity(text, text)
    assert renamed("observation.add", {"name": text, "entity": [text], "observations": [text]}) == {
        "name": text,
        "entity": [f"{new}.1"],
        "observations": [text],
    }
    assert renamed("observation.delete", {"name": "a", "observations": [{"text": text, "tags": [text]}]}) == {
        "name": "a",
        "observations": [{"text": text, "tags": [f"{new}.1"]}],
    }
    assert renamed("entity.delete", {"name": "a", "tags": [text], "observations": [text]}) == {
        "name": "a",
        "tags": [f"{new}.1"],
        "observations": [f"{new}.1"],
    }
    assert renamed("entity.set", {"fields": {"x": text}, "over": {"x": [str(old)]}}) == {
        "fields": {"x": text},
        "over": {"x": [str(new)]},
    }
    assert renamed("record.delete", {"over": [str(old), "other"]}) == {"over": [str(new), "other"]}
    assert renamed("relation.set", {"relation": [text], "extra": {"tags": [text]}}) == {
        "relation": [f"{new}.1"],
        "extra": {"tags": [text]},
    }
