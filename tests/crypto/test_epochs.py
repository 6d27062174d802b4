"""Epoch keys: begun after 30 days, offline and by two devices at once, and found by all."""

from __future__ import annotations

import pytest

from dualmem_mcp.crypto.epochs import EPOCH_LIFETIME, MOST_TRIED
from dualmem_mcp.crypto.key_objects import epoch_object_key
from dualmem_mcp.errors import NotFoundError, TamperedError
from dualmem_mcp.model.ids import ConversationId
from tests.crypto.conftest import MemoryBlobCache
from tests.crypto.spec import Envelope, Part

CONVERSATION = ConversationId("c")


def test_one_epoch_for_30_days(bench):
    vault, _ = bench.create()
    first = vault.current_epoch()
    bench.clock.advance(EPOCH_LIFETIME.total_seconds() - 1)
    assert vault.current_epoch() == first
    bench.clock.advance(1)
    second = vault.current_epoch()
    assert (first >> 32, second >> 32) == (1, 2)
    assert vault.epochs() == [first, second]
    assert vault.current_epoch() == second
    assert vault.epoch_key(first) != vault.epoch_key(second)


def test_a_new_epoch_is_uploaded_before_what_it_seals(bench):
    vault, _ = bench.create()
    bench.clock.advance(EPOCH_LIFETIME.total_seconds())
    bench.objects.away = True
    key, objects = vault.create_conversation_key(CONVERSATION)
    assert [name for name, _ in objects] == [epoch_object_key(key.epoch), key.object_key]
    bench.objects.away = False
    for name, data in objects:
        bench.objects.put(name, data, if_absent=True)
        vault.mark_uploaded(name)
    other = bench.join()
    assert other.conversation_key(key.key_id) == key
    assert other.current_epoch() == key.epoch
    _, later = vault.create_conversation_key(CONVERSATION)
    assert len(later) == 1


def test_a_key_under_an_older_epoch_stays_readable(bench):
    cache = MemoryBlobCache()
    vault, _ = bench.create(cache)
    key, objects = vault.create_conversation_key(CONVERSATION)
    for name, data in objects:
        bench.objects.put(name, data)
    bench.clock.advance(2 * EPOCH_LIFETIME.total_seconds())
    assert vault.current_epoch() != key.epoch
    assert bench.join().conversation_key(key.key_id) == key


def test_two_devices_begin_an_epoch_at_once(bench):
    desk, _ = bench.create()
    phone = bench.join()
    bench.clock.advance(EPOCH_LIFETIME.total_seconds())
    made = [vault.create_conversation_key(CONVERSATION) for vault in (desk, phone)]
    epochs = {key.epoch for key, _ in made}
    assert len(epochs) == 2
    assert {epoch >> 32 for epoch in epochs} == {2}
    for _, objects in made:
        for name, data in objects:
            bench.objects.put(name, data, if_absent=True)
    for vault in (desk, phone):
        vault.refresh()
        assert [vault.conversation_key(key.key_id) for key, _ in made] == [key for key, _ in made]
        assert vault.current_epoch() == max(epochs)


def test_an_epoch_seen_in_the_bucket_is_not_uploaded_again(bench):
    vault, _ = bench.create()
    bench.clock.advance(EPOCH_LIFETIME.total_seconds())
    key, objects = vault.create_conversation_key(CONVERSATION)
    for name, data in objects:
        bench.objects.put(name, data)
    vault.refresh()
    assert [name for name, _ in vault.pending_objects(key)] == [key.object_key]


def test_an_epoch_begun_by_another_device_is_not_uploaded_again(bench):
    desk, _ = bench.create()
    phone = bench.join()
    bench.clock.advance(EPOCH_LIFETIME.total_seconds())
    for name, data in desk.create_conversation_key(CONVERSATION)[1]:
        bench.objects.put(name, data)
    phone.refresh()
    key, objects = phone.create_conversation_key(CONVERSATION)
    assert key.epoch == desk.current_epoch()
    assert [name for name, _ in objects] == [key.object_key]


def test_a_clock_set_back_begins_none(bench):
    vault, _ = bench.create()
    first = vault.current_epoch()
    bench.clock.advance(-365 * 86400)
    assert vault.current_epoch() == first


def test_an_epoch_that_is_nowhere(bench):
    vault, _ = bench.create()
    with pytest.raises(NotFoundError, match="epoch key"):
        vault.epoch_key(5 << 32)


def test_epoch_keys_do_not_change_places(bench):
    vault, _ = bench.create()
    epoch = vault.current_epoch()
    bench.objects.objects[epoch_object_key(epoch + 1)] = bench.objects.objects[epoch_object_key(epoch)]
    vault.refresh()
    assert vault.current_epoch() == epoch
    with pytest.raises(TamperedError):
        vault.epoch_key(epoch + 1)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [Part(b"other", b"{}")],
        [Part(b"key", b"{}")],
        [Part(b"key", b'{"created_at":"2026-03-01T12:00:00Z","epoch":8589934592,"format":1,"key":"00"}')],
        [Part(b"key", b'{"created_at":"2026-03-01T12:00:00Z","epoch":9,"format":1,"key":"' + b"0" * 64 + b'"}')],
        [Part(b"key", b'{"created_at":"x","epoch":8589934592,"format":1,"key":"' + b"0" * 64 + b'"}')],
        [Part(b"key", bytes(70_000))],
    ],
    ids=range(7),
)
def test_an_epoch_key_of_another_form_is_refused(bench, parts):
    """Sealed by a holder of the master key whose program is wrong."""
    vault, _ = bench.create()
    present, epoch = vault.current_epoch(), 2 << 32
    bench.objects.objects[epoch_object_key(epoch)] = Envelope(
        kind=4,
        vault_id=bytes.fromhex(vault.vault_id),
        device_id=bytes(16),
        key=epoch_object_key(epoch),
        key_id=b"master.1",
        key_epoch=epoch,
        wrapping_key=vault._masters.wrapping_key,
        parts=parts,
        random=lambda length: bytes(range(length)),
    ).seal()
    vault.refresh()
    assert vault.current_epoch() == present
    with pytest.raises(TamperedError):
        vault.epoch_key(epoch)


def test_other_names_beside_epochs_are_let_be(bench):
    vault, _ = bench.create()
    for name in ("keys/0", "keys/0-notes.txt", "keys/0000000000000000ff"):
        bench.objects.objects[name] = b"somebody's"
    epoch = vault.current_epoch()
    vault.refresh()
    assert vault.current_epoch() == epoch


def test_a_flood_of_objects_stops_nobody(bench):
    """Whoever can write to the bucket puts thousands under names that epochs have, sorted before all others."""
    desk, _ = bench.create()
    phone = bench.join()
    for number in range(6000):
        bench.objects.objects[f"keys/{number:016x}"] = b"\0" * 40
    bench.clock.advance(EPOCH_LIFETIME.total_seconds())
    key, objects = desk.create_conversation_key(CONVERSATION)
    for name, data in objects:
        bench.objects.put(name, data)
    bench.objects.reads.clear()
    for vault in (desk, phone):
        vault.refresh()
    assert len(bench.objects.reads) < 2 * (MOST_TRIED + 10)
    assert phone.conversation_key(key.key_id) == key
    assert bench.join(name="new").conversation_key(key.key_id) == key
    later, _ = phone.create_conversation_key(CONVERSATION)
    assert desk.epoch_key(desk.current_epoch())
    assert later.epoch >> 32 == 2


def test_what_is_no_epoch_key_is_fetched_once(bench):
    vault, _ = bench.create()
    for number in range(10):
        bench.objects.objects[f"keys/{number:016x}"] = b"DUALMEM\x1a" + bytes(400)
    vault.refresh()
    bench.objects.reads.clear()
    vault.refresh()
    assert [key for key, _, _ in bench.objects.reads if key.startswith("keys/0")] == []
