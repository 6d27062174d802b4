"""Sealing and uploading: the same bytes on every try; a log that another machine writes as well is left to it."""

from __future__ import annotations

import json

import pytest

from dualmem_mcp.errors import StoreUnreachableError, TamperedError
from dualmem_mcp.handoff.delivery import deliver
from dualmem_mcp.model.oplog import NO_HEAD
from dualmem_mcp.stores.logical_state import logical_hash
from dualmem_mcp.sync.own_log import OwnLog
from dualmem_mcp.sync.segments import MOST_BYTES, MOST_OPS, segment_key
from tests.sync.conftest import Bench, Device


def state(device: Device) -> str:
    with device.database.read() as connection:
        return logical_hash(connection)


def converge(bench: Bench) -> set[str]:
    bench.settle()
    assert len({state(device) for device in bench.devices}) == 1
    return bench.devices[0].names()


def queue_files(device: Device) -> list:
    return sorted((device.home / "sync_queue").iterdir())


# Sealing


def test_a_segment_takes_so_many_ops_and_bytes(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add(*(str(number) for number in range(MOST_OPS + 1)))
    assert desk.sync().pushed.segments == 2
    for number in range(5):
        desk.observe("0", f"{number}" + "x" * (MOST_BYTES * 2 // 5))
    report = desk.sync()
    assert (report.pushed.segments, report.pushed.ops) == (3, 5)


def test_an_op_longer_than_a_segment_stands_alone(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("before")
    desk.observe("before", "é" * MOST_BYTES)
    desk.add("after")
    assert desk.sync().pushed.segments == 3
    phone.sync()
    assert state(phone) == state(desk)


def test_an_op_that_no_segment_takes_stays_and_the_log_goes_on(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("before")
    desk.observe("before", "é" * (3 << 20))
    desk.add("after")
    report = desk.sync()
    assert (report.pushed.ops, report.queued) == (3, 0)
    assert "too large" in report.warnings[0]
    assert phone.sync().pulled.ops == 3
    assert phone.names() == {"before", "after"}
    assert len(desk.content()["before"][1]) == 2


def test_texts_of_turns_are_kept_once(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    add_turns(desk, "c1", "u1", "u2")
    desk.sync()
    phone.sync()
    for device in (desk, phone):
        with device.database.read() as connection:
            [payload] = connection.execute("SELECT payload FROM ops WHERE kind = 'turn.add'").fetchone()
            texts = connection.execute("SELECT text FROM turns ORDER BY id").fetchall()
        assert json.loads(payload) == {"conversation_id": "c1", "uuids": ["u1", "u2"]}
        assert texts == [("text of u1",), ("text of u2",)]


def add_turns(device: Device, conversation: str, *uuids: str) -> None:
    with device.database.write() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO conversations (id, title, cwd, updated_at, message_count, device_name)"
            " VALUES (?, 'a title', '/w', '2026-03-01T10:00:00.000000+00:00', 2, 'desk')",
            (conversation,),
        )
        connection.executemany(
            "INSERT INTO turns (conversation_id, uuid, role, text, visible_tokens, is_meta, is_compact_summary)"
            " VALUES (?, ?, 'user', ?, 3, 0, 0)",
            [(conversation, uuid, f"text of {uuid}") for uuid in uuids],
        )


def turns(device: Device) -> set[str]:
    with device.database.read() as connection:
        return {row[0] for row in connection.execute("SELECT text FROM turns")}


# Uploading again


def test_an_upload_whose_answer_was_lost_is_a_success(bench: Bench) -> None:
    desk, _ = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    put = bench.objects.put

    def lost(key: str, data: bytes, **how) -> str:
        put(key, data, **how)
        raise StoreUnreachableError("the answer did not come")

    bench.objects.put = lost
    assert desk.sync().queued == 1
    bench.objects.put = put
    before = dict(bench.objects.objects)
    desk.add("Engine")
    assert desk.sync().queued == 0
    assert before.items() <= bench.objects.objects.items()
    assert desk.id == desk.first_id
    assert converge(bench) == {"Ada", "Engine"}


def test_a_torn_upload_is_written_again(bench: Bench) -> None:
    desk, _ = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    put = bench.objects.put

    def torn(key: str, data: bytes, **how) -> str:
        put(key, data[: len(data) // 2], **how)
        raise StoreUnreachableError("the line is cut")

    bench.objects.put = torn
    desk.sync()
    bench.objects.put = put
    report = desk.sync()
    assert "damaged" in report.warnings[0]
    assert (desk.id, report.queued) == (desk.first_id, 0)
    assert converge(bench) == {"Ada"}


@pytest.mark.parametrize("damage", ["change", "delete"])
def test_a_segment_damaged_in_the_queue_is_sealed_anew(bench: Bench, damage: str) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    desk.sync()
    desk.add("Engine")
    add_turns(desk, "c1", "u1")
    seal_only(desk, bench)
    desk.add("Wheel")
    seal_only(desk, bench)
    [first, _second] = desk.outbox.pending()
    spoil(desk, first, damage)
    report = desk.sync()
    assert report.queued == 0
    assert desk.id == desk.first_id
    assert converge(bench) == {"Ada", "Engine", "Wheel"}
    assert turns(phone) == {"text of u1"}


def test_a_damaged_segment_that_had_arrived_is_taken_from_the_bucket(bench: Bench) -> None:
    desk, _ = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    put = bench.objects.put

    def lost(key: str, data: bytes, **how) -> str:
        put(key, data, **how)
        raise StoreUnreachableError("the answer did not come")

    bench.objects.put = lost
    desk.sync()
    bench.objects.put = put
    spoil(desk, desk.outbox.pending()[0], "change")
    desk.add("Engine")
    report = desk.sync()
    assert (desk.id, report.queued, report.warnings) == (desk.first_id, 0, [])
    assert converge(bench) == {"Ada", "Engine"}


def test_a_segment_damaged_in_queue_and_bucket(bench: Bench) -> None:
    desk, _ = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    seal_only(desk, bench)
    [key] = desk.outbox.pending()
    bench.objects.objects[key] = b"torn"
    spoil(desk, key, "change")
    assert desk.sync().queued == 0
    assert converge(bench) == {"Ada"}


def test_a_handoff_delivers_segments_and_leaves_what_is_wrong_to_a_sync(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    seal_only(desk, bench)
    desk.add("Engine")
    seal_only(desk, bench)
    desk.outbox.add("packages/aa", b"package")
    first, second, _ = desk.outbox.pending()
    bench.objects.objects[second] = b"something else"
    delivery = deliver(desk.outbox, bench.objects, on_delivered=lambda key: None, mend=lambda key: None)
    assert (delivery.uploaded, delivery.waiting, delivery.segment, delivery.segments) == (2, 0, second, 1)
    assert {first, "packages/aa"} <= set(bench.objects.objects)
    assert desk.outbox.pending() == [second]


def seal_only(device: Device, bench: Bench) -> None:
    """Let the device seal what it has, without a bucket to take it."""
    put = bench.objects.put

    def refuse(key: str, data: bytes, **how) -> str:
        raise StoreUnreachableError("no upload now")

    bench.objects.put = refuse
    device.sync()
    bench.objects.put = put


def spoil(device: Device, key: str, damage: str) -> None:
    with device.database.read() as connection:
        (name,) = connection.execute("SELECT file_name FROM outbox WHERE key = ?", (key,)).fetchone()
    path = device.home / "sync_queue" / name
    path.unlink() if damage == "delete" else path.write_bytes(b"x" + path.read_bytes()[1:])


# Two machines with one id


def test_a_copied_data_home_takes_a_new_id(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    bench.settle()
    copy = bench.clone(desk, "copy")
    desk.add("from the desk")
    copy.add("from the copy")
    copy.observe("Ada", "said on the copy")
    desk.sync()
    report = copy.sync()
    assert "new device" in report.warnings[0]
    assert "2 of its changes" in report.warnings[0]
    assert copy.id != copy.first_id == desk.id
    assert copy.vault.device_id == copy.id
    assert converge(bench) == {"Ada", "from the desk", "from the copy"}
    assert phone.content()["Ada"][1] == {"Ada is here", "said on the copy"}
    assert [entry.name for entry in phone.vault.devices()] == ["desk", "phone", "desk (2)"]
    assert "'desk (2)'" in report.warnings[0]


def test_a_copy_with_the_same_changes_waiting(bench: Bench) -> None:
    """Both have them; who seals second takes the first's segment for its own, and goes on."""
    desk, _ = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    desk.sync()
    desk.add("waiting", "also waiting")
    copy = bench.clone(desk, "copy")
    desk.sync()
    report = copy.sync()
    assert (report.warnings, copy.id) == ([], copy.first_id)
    copy.add("from the copy")
    copy.sync()
    assert copy.id == desk.id
    desk.add("from the desk")
    desk.sync()
    assert desk.id != copy.id
    assert converge(bench) == {"Ada", "waiting", "also waiting", "from the copy", "from the desk"}


def test_changes_that_both_have_keep_their_names(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("shared")
    copy = bench.clone(desk, "copy")
    desk.add("from the desk")
    copy.add("from the copy")
    desk.sync()
    copy.sync()
    converge(bench)
    with phone.database.read() as connection:
        rows = connection.execute("SELECT tags FROM entities ORDER BY name").fetchall()
    assert all(len(tags) == 28 for (tags,) in rows)  # `shared` was added once
    assert set(phone.log.heads()) >= {desk.id, copy.id}


def test_deletions_follow_what_they_delete_to_the_new_id(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("old")
    bench.settle()
    copy = bench.clone(desk, "copy")
    desk.add("from the desk")
    desk.sync()
    copy.add("made and deleted", "made and kept")
    copy.observe("made and kept", "first", "second")
    copy.graph.delete_entities(["made and deleted", "old"])
    copy.graph.delete_observations([deletion("made and kept", "first")])
    copy.sync()
    assert converge(bench) == {"from the desk", "made and kept"}
    assert phone.content()["made and kept"][1] == {"made and kept is here", "second"}
    assert state(copy) == state(phone)


def deletion(name: str, *texts: str):
    from dualmem_mcp.model.graph import EntityObservations

    return EntityObservations(name, texts)


def test_turns_of_a_copy_are_told_of_again(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    add_turns(desk, "c1", "u1")
    bench.settle()
    copy = bench.clone(desk, "copy")
    add_turns(desk, "c1", "desk-1")
    add_turns(copy, "c1", "copy-1")
    desk.sync()
    seal_only(copy, bench)
    copy.sync()
    assert copy.id != desk.id
    bench.settle()
    assert turns(phone) == turns(desk) == turns(copy) == {"text of u1", "text of desk-1", "text of copy-1"}


def test_a_copy_that_writes_nothing_finds_out_by_a_listing(bench: Bench) -> None:
    desk, _ = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    bench.settle()
    copy = bench.clone(desk, "copy")
    desk.add("from the desk")
    desk.sync()
    report = copy.sync()
    assert "0 of its changes" in report.warnings[0]
    assert copy.names() == {"Ada", "from the desk"}
    assert converge(bench) == {"Ada", "from the desk"}


def test_a_data_home_set_back_gets_its_own_changes_again(bench: Bench) -> None:
    desk, _ = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    bench.settle()
    backup = bench.clone(desk, "backup")
    desk.add("after the backup")
    desk.graph.delete_entities(["Ada"])
    desk.sync()
    bench.devices.remove(desk)
    desk.database.close()
    backup.add("new")
    backup.sync()
    assert converge(bench) == {"after the backup", "new"}


@pytest.mark.parametrize("backed_up", ["before the first sync", "after it"])
@pytest.mark.parametrize("later", [True, False])
def test_a_data_home_set_back_further_than_the_logs_go(bench: Bench, backed_up: str, later: bool) -> None:
    """What it uploaded since lies in a snapshot: its next number is free in the bucket, but not its own."""
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    if backed_up == "after it":
        desk.sync()
    backup = bench.clone(desk, "backup")
    for name in ("one", "two"):
        desk.add(name)
        desk.sync()
    phone.sync()
    phone.compact()
    if later:
        desk.add("three")
        desk.sync()
    bench.devices.remove(desk)
    desk.database.close()
    backup.add("new")
    assert "new device" in backup.sync().warnings[0]
    assert backup.id != phone.vault.devices()[0].device_id
    assert converge(bench) == {"Ada", "one", "two", "new"} | ({"three"} if later else set())


def test_a_compacted_log_goes_on(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    bench.settle()
    desk.compact()
    pad = bench.device("pad")
    desk.add("Engine")
    assert desk.sync().warnings == []
    assert (desk.id, phone.sync().warnings, pad.sync().warnings) == (desk.first_id, [], [])
    assert converge(bench) == {"Ada", "Engine"}


@pytest.mark.parametrize("after", ["prepare", "fork"])
def test_a_fork_that_a_crash_cut_short_is_finished(bench: Bench, after: str) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    bench.settle()
    copy = bench.clone(desk, "copy")
    desk.add("from the desk")
    desk.sync()
    copy.add("from the copy")
    exchange = copy.exchange()
    device_id = exchange.identity.prepare(copy.vault, bench.objects)
    if after == "fork":
        head = copy.log.heads()[copy.id]
        assert copy.log.fork(device_id, head.sequence, head) == 1
    copy.reopen()
    copy.sync()
    assert copy.id == copy.vault.device_id == device_id
    assert converge(bench) == {"Ada", "from the desk", "from the copy"}
    assert len(phone.vault.devices()) == 3


def test_a_segment_that_a_handoff_uploaded_meanwhile_is_left_alone(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    desk.sync()
    desk.add("Engine")
    seal_only(desk, bench)
    heads = desk.log.heads()
    own = OwnLog(desk.vault, bench.objects, desk.outbox, desk.log, desk.exchange().identity)
    own.settle(segment_key(desk.id, 1))
    assert (desk.log.heads(), desk.outbox.pending()) == (heads, [segment_key(desk.id, 2)])


def test_a_segment_of_a_newer_version_at_the_own_key(bench: Bench) -> None:
    desk, phone = bench.device("desk"), bench.device("phone")
    desk.add("Ada")
    bench.settle()
    newer = bytearray(bench.objects.objects[segment_key(desk.id, 1)])
    newer[8] = 2
    bench.objects.objects[segment_key(desk.id, 2)] = bytes(newer)
    desk.add("Engine")
    desk.sync()
    assert desk.id != desk.first_id
    phone.sync()
    assert phone.names() == {"Ada", "Engine"}


def test_a_log_of_which_nothing_is_left_is_not_guessed_at(bench: Bench) -> None:
    desk = bench.device("desk")
    desk.add("Ada")
    desk.sync()
    desk.add("Engine")
    seal_only(desk, bench)
    spoil(desk, desk.outbox.pending()[0], "delete")
    kept = bench.objects.objects.pop(segment_key(desk.id, 1))
    with pytest.raises(TamperedError):
        desk.sync()
    bench.objects.objects[segment_key(desk.id, 1)] = kept
    desk.sync()
    assert desk.log.heads()[desk.id].segment == 2
    assert desk.log.heads()[desk.id] != NO_HEAD
