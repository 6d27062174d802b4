"""What was read of a revoked device before one heard of that: nothing is lost of it, and all devices agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import permutations

import pytest

from dualmem_mcp.model.adoption import adoption
from dualmem_mcp.model.conversation import Block, Session, Turn
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.oplog import NO_HEAD, Op, OpKind, Stamp
from dualmem_mcp.model.source import Finding
from dualmem_mcp.ports import ObjectInfo
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.op_log import OpWriter
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.stores.source_progress import SourceProgress
from tests.sync.compacting import compact, erased_of, hash_of, view_of
from tests.sync.conftest import Bench, Device, revoke

CHAT = ConversationId("chat-1")


@dataclass
class Four:
    """A device that will be revoked, one that revokes it, one that has read more of it then, and one nothing."""

    bench: Bench
    lost: Device
    desk: Device
    laptop: Device
    phone: Device

    @property
    def staying(self) -> list[Device]:
        return [self.desk, self.laptop, self.phone]


@pytest.fixture
def four(bench: Bench) -> Four:
    lost, desk, laptop, phone = (bench.device(name) for name in ("lost", "desk", "laptop", "phone"))
    for device in (desk, laptop, phone):
        device.sync()
    lost.add("Ada", "Loom")
    lost.sync()
    desk.sync()
    return Four(bench, lost, desk, laptop, phone)


def say(device: Device, *uuids: str, chat: ConversationId = CHAT, title: str = "a talk") -> None:
    ConversationStore(device.database, device.clock, lambda: device.home.name).save_session(
        Session(
            conversation_id=chat,
            project="p",
            title=title,
            cwd="/c",
            git_branch="",
            version="",
            model="",
            permission_mode="",
            started_at=None,
            ended_at=device.clock.time + timedelta(seconds=len(uuids)),
            turns=tuple(Turn(uuid, None, "user", None, (Block("text", f"words of {uuid}"),)) for uuid in uuids),
            earlier=(),
            agents=(),
            files=(),
        )
    )


def records(device: Device) -> RecordStore:
    return RecordStore(device.database, device.clock, device.first_id)


def late_changes(four: Four) -> None:
    """What the lost device sends after the desk has read it for the last time, and the laptop reads."""
    lost = four.lost
    lost.add("Engine")
    lost.observe("Ada", "née Byron")
    lost.graph.delete_entities(["Loom"])
    records(lost).put("note", "1", {"text": "of the road"})
    records(lost).put("note", "2", {"text": "of the chat"}, conversation_id=CHAT)
    say(lost, "t1", "t2")
    SourceProgress(lost.database, lost.clock, lost.home.name).put_findings(
        CHAT, [Finding("decision", "d1", "to weave")]
    )
    lost.sync()
    say(lost, "t1", "t2", "t3", title="a longer talk")
    records(lost).put("note", "1", {"text": "of the long road"})
    lost.sync()
    four.laptop.sync()


def agree(devices: list[Device]) -> None:
    views = [view_of(device) for device in devices]
    for view in views[1:]:
        for section, items in view.items():
            assert items == views[0][section], section
    assert len({hash_of(device) for device in devices}) == 1


def turns_of(device: Device) -> list[str]:
    return [text for row in view_of(device)["turns"] for text in row if str(text).startswith("words of")]


ORDERS = [(*first, *second) for first in permutations((0, 1, 2)) for second in ((0, 1, 2), (2, 1, 0))]


@pytest.mark.parametrize("order", ORDERS)
def test_what_one_device_read_before_it_heard_all_have_in_the_end(four: Four, order: tuple[int, ...]) -> None:
    late_changes(four)
    revoke(four.lost, by=four.desk)
    warnings = [warning for at in order for warning in four.staying[at].sync().warnings]
    agree(four.staying)
    desk = four.desk
    assert desk.names() == {"Ada", "Engine"}
    assert desk.content()["Ada"][1] == {"Ada is here", "née Byron"}
    assert turns_of(desk) == [f"words of t{n}" for n in (1, 2, 3)]
    [note] = [record for record in view_of(desk)["records"] if record[1] == "1"]
    assert "of the long road" in str(note)
    assert view_of(desk)["conversations"][0][1] == "a longer talk"
    assert "to weave" in str(view_of(desk)["findings"])
    [told] = warnings
    assert "changes of lost" in told
    assert "hands them on" in told
    newcomer = four.bench.device("new")
    newcomer.sync()
    agree([*four.staying, newcomer])


def test_what_two_read_to_different_ends_counts_to_the_further(four: Four) -> None:
    four.lost.add("Engine")
    four.lost.sync()
    four.phone.sync()
    late_changes(four)
    revoke(four.lost, by=four.desk)
    for device in (four.phone, four.laptop, four.desk, four.phone):
        device.sync()
    agree(four.staying)
    assert four.desk.names() == {"Ada", "Engine"}


def test_what_nobody_read_counts_for_nobody(four: Four) -> None:
    before = dict(four.bench.objects.objects)
    revoke(four.lost, by=four.desk)
    after, four.bench.objects.objects = four.bench.objects.objects, before
    four.lost.add("Engine")
    four.lost.sync()  # it has not heard of that, nor would it have to care
    late = {key: data for key, data in before.items() if key.startswith("log/")}
    assert set(late) - set(after)
    four.bench.objects.objects = after | late
    for device in (*four.staying, *four.staying):
        assert device.sync().warnings == []
    agree(four.staying)
    assert four.desk.names() == {"Ada", "Loom"}


def test_changes_that_others_made_to_it_still_fit(four: Four) -> None:
    """Who read it named its tags and stamps: they stay what they are."""
    late_changes(four)
    four.laptop.graph.delete_entities(["Engine"])
    records(four.laptop).put("note", "1", {"text": "of the road home"})
    four.laptop.sync()
    revoke(four.lost, by=four.desk)
    for device in (four.phone, four.desk, four.laptop, four.phone, four.desk):
        device.sync()
    agree(four.staying)
    assert four.phone.names() == {"Ada"}
    assert view_of(four.phone)["conflicts"] == []
    assert "of the road home" in str(view_of(four.phone)["records"])


def test_it_is_handed_on_once(four: Four) -> None:
    late_changes(four)
    revoke(four.lost, by=four.desk)
    four.laptop.sync()
    segments = four.laptop.log.heads()[four.laptop.id].segment
    for device in (*four.staying, *four.staying):
        device.sync()
    assert four.laptop.log.heads()[four.laptop.id].segment == segments
    assert four.laptop.log.waiting() == 0


def test_many_changes_are_handed_on_in_parts(four: Four) -> None:
    for number in range(260):
        four.lost.add(f"n{number:03}")
    say(four.lost, *(f"t{number}" for number in range(150)))
    four.lost.sync()
    four.laptop.sync()
    revoke(four.lost, by=four.desk)
    for device in (four.laptop, four.phone, four.desk):
        device.sync()
    agree(four.staying)
    assert len(four.phone.names()) == 262
    assert len(turns_of(four.phone)) == 150
    with four.laptop.database.read() as connection:
        sizes = connection.execute("SELECT length(payload) FROM ops WHERE kind = 'log.adopt'").fetchall()
    assert len(sizes) > 2
    assert max(sizes)[0] < 400_000


def test_a_conversation_erased_later_leaves_nothing_of_it(four: Four) -> None:
    late_changes(four)
    revoke(four.lost, by=four.desk)
    for device in (four.laptop, four.desk, four.phone):
        device.sync()
    erased_of(four.phone).erase(CHAT)
    for device in (four.phone, four.laptop, four.desk):
        device.sync()
    agree(four.staying)
    for device in four.staying:
        with device.database.read() as connection:
            texts = [row[0] for row in connection.execute("SELECT payload FROM ops")]
        assert not [text for text in texts if "words of" in text or "of the chat" in text or "weave" in text]
        assert [text for text in texts if "Ada" in text]


def test_an_erasure_that_came_first_holds(four: Four) -> None:
    late_changes(four)
    erased_of(four.phone).erase(CHAT)
    four.phone.sync()
    revoke(four.lost, by=four.desk)
    for device in (four.laptop, four.desk, four.phone, four.laptop, four.desk):
        device.sync()
    agree(four.staying)
    assert turns_of(four.desk) == []


def test_an_erasure_of_the_lost_device_is_handed_on(four: Four) -> None:
    say(four.desk, "t1")
    four.desk.sync()
    four.phone.sync()
    four.lost.sync()
    erased_of(four.lost).erase(CHAT)
    four.lost.sync()
    four.laptop.sync()
    revoke(four.lost, by=four.desk)
    for device in (four.laptop, four.desk, four.phone):
        device.sync()
    agree(four.staying)
    assert turns_of(four.desk) == []
    assert len(view_of(four.desk)["bans"]) == 1


@pytest.mark.parametrize("thin", [False, True])
def test_it_is_handed_on_from_a_snapshot_too(four: Four, thin: bool) -> None:
    """Whoever began with a snapshot of one that had read further has rows and deleted tags, and no ops of these."""
    late_changes(four)
    snapshots = four.laptop.snapshots()
    written = snapshots.write(snapshots.latest())
    if thin:
        snapshots.state.thin(written.manifest.vector)
    newcomer = four.bench.device("new")
    newcomer.sync()
    assert newcomer.log.heads()[four.lost.id].segment == 3
    revoke(four.lost, by=four.desk)
    newcomer.sync()
    for key in [key for key in four.bench.objects.objects if key.startswith("snapshots/")]:
        del four.bench.objects.objects[key]
    for device in (four.desk, four.phone):
        device.sync()
    agree([four.desk, four.phone, newcomer])
    assert four.desk.names() == {"Ada", "Engine"}
    assert len(turns_of(four.desk)) == 3


def test_compaction_after_it_keeps_it(four: Four) -> None:
    late_changes(four)
    revoke(four.lost, by=four.desk)
    for device in (four.laptop, four.desk, four.phone):
        device.sync()
    compact(four.laptop, grace_days=0, force=True)
    with four.laptop.database.read() as connection:
        assert connection.execute("SELECT count(*) FROM ops WHERE kind = 'log.adopt'").fetchone() == (0,)
    compact(four.desk, grace_days=0)
    compact(four.phone, grace_days=0)
    compact(four.laptop, grace_days=0)
    newcomer = four.bench.device("new")
    assert newcomer.sync().warnings == []
    agree([*four.staying, newcomer])
    assert four.desk.names() == {"Ada", "Engine"}


def test_changes_that_are_held_back_are_handed_on(four: Four) -> None:
    late_changes(four)
    four.lost.clock.advance(90 * 86_400)
    four.lost.add("Tomorrow")
    four.lost.sync()
    four.laptop.sync()
    assert sum(four.laptop.log.held().values())
    revoke(four.lost, by=four.desk)
    for device in (four.laptop, four.desk, four.phone):
        device.sync()
    assert "Tomorrow" not in four.desk.names()
    for device in four.staying:
        device.clock.advance(90 * 86_400)
        device.sync()
    agree(four.staying)
    assert "Tomorrow" in four.desk.names()


def test_a_device_that_forked_after_it_handed_on(four: Four) -> None:
    """The copy of a data home hands on what it has, whichever of the two the log is left to."""
    late_changes(four)
    copy = four.bench.clone(four.laptop, "copy")
    revoke(four.lost, by=four.desk)
    for device in (four.laptop, copy, four.laptop, copy, four.desk, four.phone, four.laptop, copy):
        device.sync()
    agree([*four.staying, copy])
    assert four.desk.names() == {"Ada", "Engine"}


# What a hostile member might hand on.


def hand_on(device: Device, payload: dict[str, object]) -> None:
    with device.database.write() as connection:
        writer = OpWriter(connection, device.first_id, device.clock.now())
        writer.record(OpKind.LOG_ADOPT, payload)
        writer.finish()
    device.sync()


def an_op(of: Device, sequence: int, kind: str = "entity.create") -> Op:
    payload = json.dumps({"name": "Mallory", "entityType": "x", "observations": []})
    return Op(Stamp(1 << 40, of.id), sequence, kind, payload)


@pytest.mark.parametrize(
    ("payload_of", "said"),
    [
        (lambda four: adoption(four.desk.id, [an_op(four.desk, 99)], ""), "was not revoked"),
        (lambda four: adoption("0" * 32, [an_op(four.desk, 99)], ""), "was not revoked"),
        (lambda four: adoption(four.lost.id, [an_op(four.lost, 1)], ""), "stand in the log"),
        (lambda four: adoption(four.lost.id, [an_op(four.lost, 99, "log.adopt")], ""), "form that is none"),
        (lambda four: {"device_id": four.lost.id, "ops": [1]}, "form that is none"),
        (lambda four: {"device_id": "x", "ops": []}, "form that is none"),
    ],
)
def test_what_nobody_has_to_hand_on_stops_that_log_alone(
    four: Four, payload_of: Callable[[Four], dict[str, object]], said: str
) -> None:
    revoke(four.lost, by=four.desk)
    four.phone.sync()
    four.laptop.sync()
    hand_on(four.phone, payload_of(four))
    four.laptop.add("Slate")
    four.laptop.sync()
    report = four.desk.sync()
    assert any("the log of phone" in warning and said in warning for warning in report.warnings)
    assert four.desk.names() == {"Ada", "Loom", "Slate"}


def test_what_is_handed_on_before_one_hears_of_the_revocation_waits(four: Four) -> None:
    late_changes(four)
    before = dict(four.bench.objects.objects)
    revoke(four.lost, by=four.desk)
    four.laptop.sync()
    after = dict(four.bench.objects.objects)
    # A bucket that shows the log of the laptop already, and the roster not yet.
    four.bench.objects.objects = before | {
        key: data for key, data in after.items() if key.startswith(("log/", "keys/0"))
    }
    assert any("the log of laptop" in warning for warning in four.phone.sync().warnings)
    assert four.phone.log.heads().get(four.laptop.id, NO_HEAD) == NO_HEAD
    four.bench.objects.objects = after
    assert not [warning for warning in four.phone.sync().warnings if "the log of" in warning]
    for device in (*four.staying, *four.staying):
        device.sync()
    agree(four.staying)


def test_the_copies_of_an_op_are_one(four: Four) -> None:
    """Two devices hand on the same: each op of it is here once."""
    late_changes(four)
    four.phone.sync()
    revoke(four.lost, by=four.desk)
    for device in (four.laptop, four.phone, four.desk):
        device.sync()
    agree(four.staying)
    with four.desk.database.read() as connection:
        rows = connection.execute("SELECT sequence FROM ops WHERE device_id = ?", (four.lost.id,)).fetchall()
    assert len(rows) == len(set(rows)) > 5


def test_a_flood_in_the_log_of_a_revoked_device_costs_nothing(four: Four) -> None:
    """It may have credentials still."""
    revoke(four.lost, by=four.desk)
    for device in four.staying:
        device.sync()
    objects = four.bench.objects
    for number in range(3, 3000):
        objects.objects[f"log/{four.lost.id}/{number:020d}"] = b"x"
    four.laptop.add("Slate")
    four.laptop.sync()
    seen: list[str] = []
    listed = objects.list

    def watched(prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        for info in listed(prefix, start_after=start_after):
            seen.append(info.key)
            yield info

    objects.list = watched
    report = four.desk.sync()
    objects.list = listed
    assert report.warnings == []
    assert four.desk.names() == {"Ada", "Loom", "Slate"}
    assert len([key for key in seen if key.startswith("log/")]) < 10
    assert not compact(four.desk).written
