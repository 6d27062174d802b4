"""The log as a whole: written out, taken in and shortened, over real databases and histories of several devices."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from dualmem_mcp.errors import TamperedError
from dualmem_mcp.model.conversation import Block, Session, Turn
from dualmem_mcp.model.graph import Entity, EntityObservations, Graph, Relation
from dualmem_mcp.model.ids import ConversationId, DeviceId
from dualmem_mcp.model.oplog import LogHead, Op, OpKind, Stamp
from dualmem_mcp.model.whole_log import TOMBSTONES
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.stores.search_feed import SearchFeed
from tests.conftest import SteppingClock
from tests.crypto.conftest import MemoryObjectStore
from tests.sync.compacting import erased_of, hash_of, joined, snapshots_of, state_of, view_of
from tests.sync.conftest import Bench, Device

NAMES = ("Ada", "Engine", "Crane", "Dock", "Rust", "half \ud800 pair")
TEXTS = ("red", "blue", "old", "new")


@pytest.fixture
def bench(tmp_path: Path):  # type: ignore[no-untyped-def]
    bench = Bench(tmp_path, MemoryObjectStore())
    yield bench
    bench.close()


def transfer(source: Device, target: Device, *, at_once: int = 7) -> int:
    """Take all that one device has in on another, some ops at a time; returns how many ops there were."""
    count = 0
    with state_of(source).exported() as whole:
        merging = state_of(target).merging(whole.vector)
        batch: list[Op] = []
        for op in whole.ops:
            batch.append(op)
            count += 1
            if len(batch) == at_once:
                merging.merge(batch)
                batch = []
        merging.merge(batch)
    merging.finish()
    return count


def act(device: Device, chance: random.Random) -> None:
    """Some change of the memory, as a person or a model makes it."""
    graph, name = device.graph, chance.choice(NAMES)
    records = RecordStore(device.database, device.clock, device.first_id)
    device.clock.advance(chance.choice([0, 0, 1, 60]))
    match chance.randrange(12):
        case 0 | 1:
            graph.create_entities(
                [Entity(name, chance.choice(TEXTS), (chance.choice(TEXTS),), {"k": chance.randrange(3)})]
            )
        case 2:
            graph.delete_entities([name])
        case 3 | 4 if name in device.names():
            graph.add_observations([EntityObservations(name, (chance.choice(TEXTS),))])
        case 5:
            graph.delete_observations([EntityObservations(name, (chance.choice(TEXTS),))])
        case 6:
            graph.create_relations([Relation(name, chance.choice(NAMES), "near", {"w": chance.randrange(3)})])
        case 7:
            graph.delete_relations([Relation(name, chance.choice(NAMES), "near")])
        case 8:
            version = graph.version()
            found = [one for one in graph.read_graph().entities if one.name == name]
            changed = tuple(
                Entity(one.name, chance.choice(TEXTS), one.observations, {"k": chance.randrange(3)})
                for one in found
            )
            graph.import_graph(Graph(changed, ()), edited_since=version)
        case 9 | 10:
            records.put(
                "task", f"{chance.randrange(4)}", {"text": chance.choice(TEXTS), "status": chance.choice(TEXTS)}
            )
        case 11:
            records.delete("task", f"{chance.randrange(4)}")
        case _:
            talk(device, f"c{chance.randrange(2)}", chance.randrange(1, 4))


def talk(device: Device, conversation_id: str, turns: int) -> None:
    """A conversation that grew to so many turns."""
    at = device.clock.now()
    said = tuple(
        Turn(
            uuid=f"{conversation_id}-{device.home.name}-{number}",
            parent_uuid=None,
            role="user",
            timestamp=at,
            blocks=(Block("text", f"turn {number} of {conversation_id} at {device.home.name}"),),
        )
        for number in range(turns)
    )
    ConversationStore(device.database, device.clock, lambda: device.home.name).save_session(
        Session(
            conversation_id=ConversationId(conversation_id),
            project="p",
            title=f"{turns} turns",
            cwd="/home/ada",
            git_branch="",
            version="",
            model="",
            permission_mode="",
            started_at=at,
            ended_at=at,
            turns=said,
            earlier=(),
            agents=(),
            files=(),
        )
    )


def drop_covered_segments(bench: Bench, device: Device) -> None:
    """What a compaction leaves of the log when everything is past grace: of each the last segment."""
    heads = device.log.heads()
    for key in list(bench.objects.objects):
        if key.startswith("log/"):
            _, owner, number = key.split("/")
            if DeviceId(owner) in heads and int(number) < heads[DeviceId(owner)].segment:
                del bench.objects.objects[key]


def test_what_one_device_has_another_gets(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    chance = random.Random(1)
    for _ in range(80):
        act(desk, chance)
    talk(desk, "c0", 3)
    desk.sync()
    assert transfer(desk, phone) > 10
    assert view_of(phone) == view_of(desk)
    assert transfer(desk, phone) > 10
    assert hash_of(phone) == hash_of(desk)
    assert phone.log.heads() == desk.log.heads()
    assert list(phone.graph.read_graph().entities) == list(desk.graph.read_graph().entities)


@pytest.mark.parametrize("seed", range(6))
def test_with_and_without_snapshots_devices_come_to_the_same(bench: Bench, seed: int) -> None:
    chance = random.Random(seed)
    # One reads every segment; one writes snapshots and shortens its log; one was away; one joins at the end.
    reader, writer, away = bench.device("reader"), joined(bench, "writer"), joined(bench, "away")
    for turn in range(6):
        for _ in range(12):
            act(chance.choice([reader, writer, away]), chance)
        for device in chance.sample([reader, writer], 2):
            device.sync()
        if turn == 1:
            away.sync()
        if turn in {2, 4}:
            reader.sync()
            writer.sync()
            snapshots = snapshots_of(writer)
            snapshots.write(snapshots.latest())
            state_of(writer).thin(writer.log.heads())
            drop_covered_segments(bench, writer)
    away.catch_up = snapshots_of(away).catch_up
    bench.settle()
    assert view_of(reader) == view_of(writer) == view_of(away)
    tablet = joined(bench, "tablet")
    bench.settle()
    assert view_of(tablet) == view_of(reader)
    last = snapshots_of(tablet)
    last.write(last.latest())
    for _ in range(20):
        act(chance.choice([reader, writer, away, tablet]), chance)
    bench.settle()
    assert len({hash_of(device) for device in bench.devices}) == 1


def test_a_snapshot_that_was_taken_in_by_half_does_no_harm(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    chance = random.Random(5)
    for _ in range(60):
        act(desk, chance)
    desk.sync()
    with state_of(desk).exported() as whole:
        ops = list(whole.ops)
        vector = whole.vector
    for upto in (3, len(ops) // 2, len(ops)):
        state_of(phone).merging(vector).merge(ops[:upto])
        assert phone.log.heads() == {}
    # Instead of going on with it the device reads the segments themselves.
    phone.sync()
    assert view_of(phone) == view_of(desk)


def test_what_nobody_was_told_of_yet_is_in_no_snapshot(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    desk.sync()
    desk.add("Engine")
    talk(desk, "c0", 2)
    desk.log.unsealed(10, 10_000)  # makes ops of rows that no segment holds yet
    with state_of(desk).exported() as whole:
        kinds = [(op.kind, op.sequence) for op in whole.ops]
        assert whole.vector[desk.id].sequence == 1
    assert kinds == [("entity.create", 1)]


def test_bans_and_deleted_tags_come_first_and_held_ops_as_they_are(bench: Bench) -> None:
    desk, phone = (
        bench.device("desk"),
        bench.device("phone", SteppingClock(SteppingClock().time + timedelta(days=3))),
    )
    talk(desk, "c0", 2)
    desk.add("Ada")
    desk.observe("Ada", "x")
    desk.graph.delete_observations([EntityObservations("Ada", ("x",))])
    erased_of(desk).erase(ConversationId("c0"))
    phone.add("from the future")
    phone.sync()
    desk.sync()
    assert desk.log.held() == {phone.id: 1}
    with state_of(desk).exported() as whole:
        ops = list(whole.ops)
    assert [op.kind for op in ops] == ["conversation.erase", TOMBSTONES, "entity.create", "entity.create"]
    assert [op.sequence > 0 for op in ops] == [False, False, True, True]
    tablet = bench.device("tablet")
    transfer(desk, tablet)
    assert tablet.log.held() == {phone.id: 1}
    assert view_of(tablet) == view_of(desk)
    assert erased_of(tablet).is_erased(ConversationId("c0"))


def test_heads_that_contradict_each_other_move_none(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    desk.sync()
    phone.sync()
    forged = {desk.id: LogHead(1, bytes(32), 1), DeviceId("ab" * 16): LogHead(5, bytes(32), 5)}
    before = phone.log.heads()
    with pytest.raises(TamperedError, match="another segment 1"):
        state_of(phone).merging(forged).finish()
    assert phone.log.heads() == before


def test_ops_of_kinds_that_are_unknown_are_handed_on(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    stranger = DeviceId("cd" * 16)
    op = Op(Stamp(5, stranger), 1, "weather.note", '{"sky":"grey"}')
    desk.log.take_in(stranger, [op], LogHead(1, bytes(range(32)), 1))
    with state_of(desk).exported() as whole:
        assert list(whole.ops) == [op]
    transfer(desk, phone)
    with state_of(phone).exported() as whole:
        assert list(whole.ops) == [op]


def test_a_shortened_log_still_fills_an_index_that_is_begun_anew(bench: Bench) -> None:
    desk = bench.device("desk")
    chance = random.Random(3)
    for _ in range(100):
        act(desk, chance)
    desk.sync()
    before = desk.graph.read_graph()
    state_of(desk).thin(desk.log.heads())
    feed = SearchFeed(desk.database)
    names: set[str] = set()
    after = 0
    while True:
        found, last = feed.changed_entities(after, 5)
        if last == after:
            break
        names.update(found)
        after = last
    assert {entity.name for entity in before.entities} <= names
    desk.reopen()
    assert desk.graph.read_graph() == before


def test_deleted_text_is_not_even_in_free_pages(bench: Bench) -> None:
    desk = bench.device("desk")
    secret = "the combination is 7 4 1 1"
    desk.add("Ada")
    for number in range(300):
        desk.observe("Ada", f"{secret}, said {number} times, {'and more ' * 20}")
    desk.graph.delete_entities(["Ada"])
    desk.sync()
    assert secret.encode() in pages(desk)
    state_of(desk).thin(desk.log.heads())
    assert secret.encode() not in pages(desk)
    with desk.database.read() as connection:
        assert connection.execute("PRAGMA freelist_count").fetchone()[0] > 0


def pages(device: Device) -> bytes:
    """All pages of memory.db and of its log in clear, whatever is free or in use. Source: SQLCipher 4 design."""
    size, reserve, key = 4096, 80, bytes(32)
    found = []
    for name, header, frame in (("memory.db", 0, 0), ("memory.db-wal", 32, 24)):
        path = device.home / name
        data = path.read_bytes()[header:] if path.exists() else b""
        for at in range(0, len(data) - size - frame + 1, size + frame):
            page = data[at + frame : at + frame + size]
            vector = page[size - reserve : size - reserve + 16]
            start = 16 if name == "memory.db" and at == 0 else 0
            decryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).decryptor()
            found.append(decryptor.update(page[start : size - reserve]) + decryptor.finalize())
    return b"".join(found)


def test_kinds_of_rows_are_made_from_the_rows(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    talk(desk, "c0", 130)
    desk.sync()
    with state_of(desk).exported() as whole:
        kinds = [op.kind for op in whole.ops]
    assert kinds == [OpKind.CONVERSATION_SET, OpKind.TURN_ADD, OpKind.TURN_ADD, OpKind.TURN_ADD]
    transfer(desk, phone)
    assert view_of(phone)["turns"] == view_of(desk)["turns"]
    assert len(view_of(phone)["turns"]) == 130
