"""Vaults made, joined at once, opened offline; and what a bucket that lies is told."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.crypto.canonical import canonical_json
from dualmem_mcp.crypto.envelope import ObjectKind, SealedReader, Section, bytes_reader, seal_object
from dualmem_mcp.crypto.header import Header
from dualmem_mcp.crypto.key_objects import epoch_object_key, seal_conversation_key
from dualmem_mcp.crypto.keys import ConversationKey, DeviceKeys, load_device
from dualmem_mcp.crypto.membership import create_vault, join_vault, open_vault
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.errors import (
    ConflictError,
    LockedError,
    NewerFormatError,
    NotFoundError,
    StoreUnreachableError,
    TamperedError,
    UsageError,
)
from dualmem_mcp.model.ids import ConversationId, DeviceId
from tests.conftest import SteppingClock
from tests.crypto.conftest import FAST_KDF, FAST_LIMITS, PASSPHRASE, Bench, MemoryBlobCache, MemoryObjectStore
from tests.crypto.spec import Envelope, Part, expand, hmac_sha256

CONVERSATION = ConversationId("3f0c2a4e-1111-4222-8333-444455556666")
WORDS = b"a word of the conversation "


def upload(bench: Bench, vault: Vault, objects: list[tuple[str, bytes]]) -> None:
    for key, data in objects:
        bench.objects.put(key, data, if_absent=True)
        vault.mark_uploaded(key)


def reopen(cache: MemoryBlobCache, bench: Bench, *, objects: MemoryObjectStore | None = None) -> Vault:
    device_id, keys = load_device(cache)
    return open_vault(cache, device_id=device_id, device_keys=keys, objects=objects, clock=bench.clock)


def seal_words(vault: Vault, conversation: ConversationId = CONVERSATION) -> tuple[list[tuple[str, bytes]], bytes]:
    key, objects = vault.create_conversation_key(conversation)
    sealed = seal_object(
        [Section("words", WORDS)],
        place=vault.place(ObjectKind.PACKAGE, "packages/1"),
        key_id=key.key_id,
        key_epoch=key.epoch,
        wrapping_key=key.key,
    )
    return objects, sealed


def unseal_words(vault: Vault, sealed: bytes) -> bytes:
    reader = SealedReader.open(
        bytes_reader(sealed), place_of=vault.place_of(ObjectKind.PACKAGE, "packages/1"), unwrap=vault.unwrap
    )
    return reader.read_section("words")


class TestMaking:
    def test_a_new_vault_has_what_a_second_device_needs(self, bench):
        vault, recovery = bench.create()
        assert sorted(bench.objects.objects) == [
            epoch_object_key(vault.current_epoch()),
            f"keys/d/{vault.device_id}",
            f"roster/{1:020d}",
            "vault.json",
        ]
        assert recovery.startswith("DMR1-")
        assert vault.device_name == "desk"

    def test_vaults_share_nothing(self, clock):
        one, other = Bench(MemoryObjectStore(), clock), Bench(MemoryObjectStore(), clock)
        (first, first_recovery), (second, second_recovery) = one.create(), other.create()
        assert first.vault_id != second.vault_id
        assert first_recovery != second_recovery
        assert first.object_name("a", "b") != second.object_name("a", "b")

    def test_an_existing_vault_is_not_touched(self, bench):
        bench.create()
        before = dict(bench.objects.objects)
        cache = MemoryBlobCache()
        with pytest.raises(ConflictError) as caught:
            bench.create(cache)
        assert "dualmem join" in caught.value.hint
        assert bench.objects.objects == before
        assert cache.get("vault.json") is None

    def test_a_data_home_belongs_to_one_vault(self, bench, clock):
        cache = MemoryBlobCache()
        bench.create(cache)
        other = Bench(MemoryObjectStore(), clock)
        with pytest.raises(ConflictError, match="belongs to a vault already"):
            other.create(cache)
        assert other.objects.objects == {}
        other.create()
        with pytest.raises(ConflictError, match="belongs to a vault already"):
            other.join(cache)

    @pytest.mark.parametrize("passphrase", ["", "  \n", "DMR1-" + "0" * 65])
    def test_unfit_passphrases(self, bench, passphrase):
        with pytest.raises(UsageError) as caught:
            create_vault(
                bench.objects,
                MemoryBlobCache(),
                passphrase=passphrase,
                device_id=DeviceId("00" * 16),
                device_name="desk",
                device_keys=DeviceKeys.generate(),
                clock=bench.clock,
                kdf=FAST_KDF,
            )
        assert "DUALMEM_PASSPHRASE" in caught.value.hint
        assert bench.objects.objects == {}

    @pytest.mark.parametrize("broken_at", ["keys/d/", "roster/", "keys/0"])
    def test_a_vault_half_made_is_completed_by_joining(self, bench, broken_at):
        def fail(key: str) -> None:
            if key.startswith(broken_at):
                raise StoreUnreachableError("the bucket is away")

        cache = MemoryBlobCache()
        bench.objects.before_put = fail
        with pytest.raises(StoreUnreachableError) as caught:
            bench.create(cache)
        assert "dualmem join" in caught.value.hint
        bench.objects.before_put = None
        vault = bench.join(cache, name="desk")
        assert [device.name for device in vault.devices()] == ["desk"]
        objects, sealed = seal_words(vault)
        upload(bench, vault, objects)
        assert unseal_words(bench.join(), sealed) == WORDS

    def test_a_bucket_that_is_away(self, bench):
        bench.objects.away = True
        cache = MemoryBlobCache()
        with pytest.raises(StoreUnreachableError):
            bench.create(cache)
        with pytest.raises(StoreUnreachableError):
            bench.join(cache)
        assert cache.get("vault.json") is None

    def test_nothing_secret_in_the_bucket(self, bench):
        vault, recovery = bench.create(name="Anna's desk")
        seal_words(vault)
        keys = vault.device_keys
        secrets = [
            PASSPHRASE.encode(),
            recovery.encode(),
            b"Anna",
            vault.epoch_key(vault.current_epoch()),
            vault.epoch_key(vault.current_epoch()).hex().encode(),
            vault._masters.present,
            vault._masters.present.hex().encode(),
            keys.to_bytes()[:32],
            keys.to_bytes()[32:],
            keys.x25519_public,
            keys.x25519_public.hex().encode(),
            keys.ed25519_public,
        ]
        for key, data in bench.objects.objects.items():
            for secret in secrets:
                assert secret not in data, key
        assert vault._masters.present.hex() not in repr(vault)


class TestJoining:
    def test_by_passphrase_and_by_recovery_key(self, bench):
        desk, recovery = bench.create()
        objects, sealed = seal_words(desk)
        upload(bench, desk, objects)
        for secret in (PASSPHRASE, recovery, recovery.lower().replace("-", " ")):
            device = bench.join(secret=secret)
            assert device.vault_id == desk.vault_id
            assert unseal_words(device, sealed) == WORDS
            assert device.object_name("conversation", "x") == desk.object_name("conversation", "x")

    @pytest.mark.parametrize(
        "secret", ["", "correct horse battery stapl", "Correct horse battery staple", "x" * 100_000]
    )
    def test_a_wrong_passphrase_is_locked_not_tampered(self, bench, secret):
        bench.create()
        before, cache = dict(bench.objects.objects), MemoryBlobCache()
        with pytest.raises(LockedError, match="passphrase does not open") as caught:
            bench.join(cache, secret=secret)
        assert caught.value.exit_code == 4
        assert bench.objects.objects == before
        assert cache.keys() == ["local/device"]

    def test_a_mistyped_recovery_key_is_named_and_another_vaults_is_locked(self, bench, clock):
        _, recovery = bench.create()
        wrong = recovery[:-1] + ("0" if recovery[-1] != "0" else "1")
        with pytest.raises(LockedError, match="group 13"):
            bench.join(secret=wrong)
        _, other = Bench(MemoryObjectStore(), clock).create()
        with pytest.raises(LockedError, match="recovery key does not open") as caught:
            bench.join(secret=other)
        assert "another vault's" in caught.value.hint

    def test_an_empty_bucket(self, bench):
        with pytest.raises(NotFoundError) as caught:
            bench.join()
        assert "dualmem init" in caught.value.hint

    def test_joining_again_changes_nothing(self, bench):
        bench.create()
        cache = MemoryBlobCache()
        bench.join(cache)
        vault = bench.join(cache)
        assert [device.name for device in vault.devices()] == ["desk", "phone"]

    def test_two_joins_at_once_both_survive(self, bench):
        """The phone joins in the very moment between the tablet's look at the roster and its write."""
        desk, _ = bench.create()
        started: list[str] = []
        phones: list[Vault] = []

        def intrude(key: str) -> None:
            if key.startswith("roster/") and len(started) < 3:
                started.append(f"phone {len(started) + 1}")
                phones.append(bench.join(name=started[-1]))

        bench.objects.before_put = intrude
        tablet = bench.join(name="tablet")
        assert len(phones) == 3
        names = {device.name for device in tablet.devices()}
        assert names == {"desk", "phone 1", "phone 2", "phone 3", "tablet"}
        desk.refresh()
        assert {device.name for device in desk.devices()} == names
        assert [device.number for device in desk.devices()] == [1, 2, 3, 4, 5]
        objects, sealed = seal_words(tablet)
        upload(bench, tablet, objects)
        for vault in (desk, *phones):
            assert unseal_words(vault, sealed) == WORDS

    def test_endless_conflicts_end(self, bench):
        bench.create()

        def conflict(key: str) -> None:
            if key.startswith("roster/"):
                raise ConflictError("exists")

        bench.objects.before_put = conflict
        with pytest.raises(ConflictError, match="keep changing the roster") as caught:
            bench.join()
        assert caught.value.hint

    def test_a_copied_device_id_is_refused(self, bench):
        cache = MemoryBlobCache()
        bench.create(cache)
        device_id, _ = load_device(cache)
        with pytest.raises(ConflictError, match="copy"):
            join_vault(
                bench.objects,
                MemoryBlobCache(),
                secret=PASSPHRASE,
                device_id=device_id,
                device_name="copy",
                device_keys=DeviceKeys.generate(),
                clock=bench.clock,
                limits=FAST_LIMITS,
            )

    @pytest.mark.parametrize(
        ("name", "shown"),
        [("  desk \x1b[2J\u202e\n", "desk [2J"), ("x" * 100, "x" * 64), ("", "device"), ("Büro", "Büro")],
    )
    def test_names_are_made_fit(self, bench, name, shown):
        bench.create(name=name)
        assert bench.join().devices()[0].name == shown

    def test_kdf_parameters_of_tests_are_refused_by_default(self, bench):
        """Files cannot ask for fewer rounds: only a caller that passes its own limits reads such a vault."""
        bench.create()
        with pytest.raises(TamperedError, match="rounds outside 600000"):
            join_vault(
                bench.objects,
                MemoryBlobCache(),
                secret=PASSPHRASE,
                device_id=DeviceId("00" * 16),
                device_name="phone",
                device_keys=DeviceKeys.generate(),
                clock=bench.clock,
            )


class TestOffline:
    def test_everything_but_fetching_works_without_the_bucket(self, bench):
        cache = MemoryBlobCache()
        vault, _ = bench.create(cache)
        bench.objects.away = True
        again = reopen(cache, bench)
        assert again.vault_id == vault.vault_id
        assert again.device_name == "desk"
        objects, sealed = seal_words(again)
        assert [key.split("/")[1] for key, _ in objects] == ["c"]
        assert unseal_words(reopen(cache, bench), sealed) == WORDS
        bench.objects.away = False
        upload(bench, again, objects)
        assert unseal_words(bench.join(), sealed) == WORDS

    def test_no_vault_yet(self, bench):
        with pytest.raises(NotFoundError) as caught:
            reopen(MemoryBlobCache(), bench)
        assert "dualmem init" in caught.value.hint
        assert "dualmem join" in caught.value.hint

    def test_keys_of_another_device(self, bench):
        cache = MemoryBlobCache()
        vault, _ = bench.create(cache)
        with pytest.raises(LockedError) as caught:
            open_vault(cache, device_id=vault.device_id, device_keys=DeviceKeys.generate())
        assert "dualmem join" in caught.value.hint
        with pytest.raises(LockedError, match="holds no key"):
            open_vault(cache, device_id=DeviceId("00" * 16), device_keys=vault.device_keys)

    def test_a_damaged_cache_is_tampered(self, bench):
        cache = MemoryBlobCache()
        vault, _ = bench.create(cache)
        copy_key = f"keys/d/{vault.device_id}"
        good = dict(cache.blobs)
        for key in ("vault.json", copy_key):
            for position in range(0, len(good[key]), 7):
                changed = bytearray(good[key])
                changed[position] ^= 1
                cache.blobs = good | {key: bytes(changed)}
                with pytest.raises((TamperedError, LockedError)):
                    reopen(cache, bench)

    def test_fetching_says_what_is_missing(self, bench):
        vault, _ = bench.create()
        _, sealed = seal_words(vault)
        other = bench.join()
        with pytest.raises(NotFoundError, match="not in the vault") as caught:
            unseal_words(other, sealed)
        assert "dualmem handoff" in caught.value.hint
        bench.objects.away = True
        with pytest.raises(StoreUnreachableError):
            unseal_words(other, sealed)

    def test_a_bucket_given_for_one_call(self, bench):
        cache = MemoryBlobCache()
        bench.create()
        bench.join(cache)
        desk = bench.join()
        key, objects = desk.create_conversation_key(CONVERSATION)
        upload(bench, desk, objects)
        offline = reopen(cache, bench)
        with pytest.raises(NotFoundError):
            offline.conversation_key(key.key_id)
        with pytest.raises(UsageError):
            offline.refresh()
        assert offline.conversation_key(key.key_id, objects=bench.objects) == key
        bench.objects.away = True
        assert reopen(cache, bench).conversation_key(key.key_id) == key


class TestConversationKeys:
    def test_two_devices_offline_make_their_own(self, bench):
        caches = MemoryBlobCache(), MemoryBlobCache()
        bench.create(caches[0])
        bench.join(caches[1])
        bench.objects.away = True
        made = [seal_words(reopen(cache, bench)) for cache in caches]
        bench.objects.away = False
        for (objects, _), cache in zip(made, caches, strict=True):
            upload(bench, reopen(cache, bench), objects)
        for cache in caches:
            for _, sealed in made:
                assert unseal_words(reopen(cache, bench, objects=bench.objects), sealed) == WORDS

    def test_pending_until_marked(self, bench):
        cache = MemoryBlobCache()
        bench.create(cache)
        vault = reopen(cache, bench)
        key, objects = vault.create_conversation_key(CONVERSATION)
        assert [name for name, _ in objects] == [key.object_key]
        # Another process, after a crash: the key is known, and still has to be uploaded.
        again = reopen(cache, bench)
        assert again.conversation_key(key.key_id) == key
        assert again.pending_objects(key) == objects
        again.mark_uploaded(key.object_key)
        assert vault.pending_objects(key) == []
        before = dict(cache.blobs)
        again.mark_uploaded("packages/x")
        assert cache.blobs == before

    def test_what_was_fetched_is_not_uploaded_again(self, bench):
        vault, _ = bench.create()
        key, objects = vault.create_conversation_key(CONVERSATION)
        upload(bench, vault, objects)
        other = bench.join()
        assert other.pending_objects(other.conversation_key(key.key_id)) == []

    def test_the_key_is_not_shown(self, bench):
        key, _ = bench.create()[0].create_conversation_key(CONVERSATION)
        assert key.key.hex() not in repr(key)
        assert repr(key.key) not in repr(key)

    def test_an_erased_conversation_says_so(self, bench):
        """Erasure comes with sync; what it leaves is understood already."""
        vault, _ = bench.create()
        objects, sealed = seal_words(vault)
        upload(bench, vault, objects)
        name = objects[-1][0]
        bench.objects.objects[name] = seal_object(
            [Section("erased", canonical_json({"format": 1}))],
            place=vault.place(ObjectKind.TOMBSTONE, name),
            key_id="epoch",
            key_epoch=vault.current_epoch(),
            wrapping_key=vault.epoch_key(vault.current_epoch()),
        )
        with pytest.raises(NotFoundError, match="erased"):
            unseal_words(bench.join(), sealed)

    @pytest.mark.parametrize("key_id", ["../../x", "", "A" * 32, "0" * 31, "0" * 33])
    def test_unfit_key_ids_reach_no_store(self, bench, key_id):
        vault, _ = bench.create()
        bench.objects.reads.clear()
        with pytest.raises(TamperedError):
            vault.conversation_key(key_id)
        assert bench.objects.reads == []

    def test_key_objects_do_not_change_places(self, bench):
        vault, _ = bench.create()
        (first, first_objects), (second, second_objects) = (
            vault.create_conversation_key(CONVERSATION),
            vault.create_conversation_key(ConversationId("other")),
        )
        upload(bench, vault, first_objects + second_objects)
        objects = bench.objects.objects
        objects[first.object_key], objects[second.object_key] = (
            objects[second.object_key],
            objects[first.object_key],
        )
        with pytest.raises(TamperedError):
            bench.join().conversation_key(first.key_id)

    @pytest.mark.parametrize("conversation_id", ["../../x", "", "a/b", "x" * 129, ".hidden"])
    def test_hostile_conversation_ids(self, bench, conversation_id):
        vault, _ = bench.create()
        with pytest.raises(UsageError):
            vault.create_conversation_key(ConversationId(conversation_id))
        key = ConversationKey("0a" * 16, ConversationId(conversation_id), vault.current_epoch(), bytes(32))
        bench.objects.objects[key.object_key] = seal_conversation_key(
            key,
            created_at=bench.clock.now(),
            vault_id=vault.vault_id,
            device_id=vault.device_id,
            epoch_key=vault.epoch_key(key.epoch),
        )
        with pytest.raises(TamperedError, match="conversation_id"):
            vault.conversation_key(key.key_id)

    def test_keys_of_a_later_generation_ask_to_update(self, bench):
        vault, _ = bench.create()
        epoch = 9 << 32
        for name, kind, key_id in (
            (epoch_object_key(epoch), ObjectKind.EPOCH, "master.2"),
            ("keys/c/" + "0b" * 16, ObjectKind.KEY, "other"),
        ):
            bench.objects.objects[name] = seal_object(
                [],
                place=vault.place(kind, name),
                key_id=key_id,
                key_epoch=vault.current_epoch(),
                wrapping_key=bytes(32),
            )
        with pytest.raises(NewerFormatError):
            vault.epoch_key(epoch)
        with pytest.raises(NewerFormatError):
            vault.conversation_key("0b" * 16)

    def test_header_names_the_key(self, bench):
        vault, _ = bench.create()
        epoch = vault.current_epoch()
        for key_id, expected in (("epoch", vault.epoch_key(epoch)), ("master.1", vault._masters.wrapping_key)):
            sealed = seal_object(
                [],
                place=vault.place(ObjectKind.SNAPSHOT, "x"),
                key_id=key_id,
                key_epoch=epoch,
                wrapping_key=expected,
            )
            assert vault.unwrap(Header.decode(sealed, subject="x")) == expected
        sealed = seal_object(
            [], place=vault.place(ObjectKind.BACKUP, "x"), key_id="backup", key_epoch=0, wrapping_key=bytes(32)
        )
        with pytest.raises(NewerFormatError):
            vault.unwrap(Header.decode(sealed, subject="x"))


class TestNames:
    @given(st.text(), st.text())
    def test_a_name_says_nothing_and_stands_for_one_text(self, one, other):
        vault = self.vault()
        name = vault.object_name("conversation", one)
        assert len(name) == 32
        assert set(name) <= set("0123456789abcdef")
        assert (name == vault.object_name("conversation", other)) == (one == other)
        assert name != vault.object_name("manifest", one)

    def vault(self, kept: list[Vault] = []) -> Vault:  # noqa: B006 - one vault for all examples
        if not kept:
            kept.append(Bench(MemoryObjectStore(), SteppingClock()).create()[0])
        return kept[0]


class TestLyingBuckets:
    def test_every_changed_byte_of_every_object_is_found_by_a_joining_device(self, bench):
        bench.create()
        bench.join()
        good = dict(bench.objects.objects)
        for key, data in good.items():
            if key.startswith("keys/d/"):
                continue  # another device's; nobody else reads it
            for position in range(0, len(data), 1 if key == "vault.json" else 101):
                changed = bytearray(data)
                changed[position] ^= 0x20
                bench.objects.objects = good | {key: bytes(changed)}
                # Nobody is kept from joining by an epoch key, but what is sealed under it does not open.
                with pytest.raises(TamperedError):
                    bench.join().epoch_key(int(key[5:], 16) if key.startswith("keys/0") else 0)

    @pytest.mark.parametrize("length", [0, 1, 100, -1])
    def test_a_vault_file_cut_short(self, bench, length):
        bench.create()
        bench.objects.objects["vault.json"] = bench.objects.objects["vault.json"][:length]
        with pytest.raises(TamperedError):
            bench.join()

    def test_a_huge_vault_file_is_not_read_whole(self, bench):
        bench.objects.objects["vault.json"] = b"[" * (10 << 20)
        with pytest.raises(TamperedError, match="too long"):
            bench.join()
        assert bench.objects.reads == [("vault.json", 0, 65537)]

    def test_another_vault_in_its_place(self, bench, clock):
        cache = MemoryBlobCache()
        vault, _ = bench.create(cache)
        other = Bench(MemoryObjectStore(), clock)
        other.create()
        for key in ("vault.json", *[key for key in other.objects.objects if key.startswith("roster")]):
            bench.objects.objects[key] = other.objects.objects[key]
        with pytest.raises(TamperedError, match="another vault"):
            vault.refresh()
        with pytest.raises(ConflictError):
            bench.join(cache)

    def test_an_empty_bucket(self, bench):
        vault, _ = bench.create()
        bench.objects.objects.clear()
        with pytest.raises(NotFoundError) as caught:
            vault.refresh()
        assert "DUALMEM_BUCKET" in caught.value.hint

    def test_a_roster_set_back(self, bench):
        vault, _ = bench.create()
        bench.join()
        vault.refresh()
        del bench.objects.objects[f"roster/{2:020d}"]
        with pytest.raises(TamperedError, match="no longer has roster entry 2"):
            vault.refresh()

    def test_a_roster_that_forks(self, bench):
        cache = MemoryBlobCache()
        bench.create()
        before = dict(bench.objects.objects)
        bench.join(cache)
        phone = reopen(cache, bench, objects=bench.objects)
        bench.objects.objects = before
        bench.join(name="tablet")
        with pytest.raises(TamperedError, match="set back or exchanged"):
            phone.refresh()

    def test_a_roster_with_a_gap_or_of_another_order(self, bench):
        bench.create()
        bench.join()
        bench.join()
        good = dict(bench.objects.objects)
        first, second, third = (f"roster/{number:020d}" for number in (1, 2, 3))
        for changes in (
            {second: good[third]},
            {second: good[third], third: good[second]},
            {first: good[second]},
            {f"roster/{5:020d}": good[third]},
            {"roster/00": good[first]},
        ):
            bench.objects.objects = good | changes
            with pytest.raises(TamperedError):
                bench.join()
        bench.objects.objects = {key: data for key, data in good.items() if key != second}
        with pytest.raises(TamperedError):
            bench.join()

    def test_too_many_entries_are_not_listed_for_ever(self, bench):
        bench.create()
        good = bench.objects.objects[f"roster/{1:020d}"]
        bench.objects.objects |= {f"roster/{number:020d}": good for number in range(2, 5000)}
        with pytest.raises(TamperedError):
            bench.join()
        bench.objects.objects = {
            key: data
            for key, data in bench.objects.objects.items()
            if not key.startswith("roster/") or key.endswith("01")
        }
        bench.objects.objects |= {f"keys/{number:016x}": b"" for number in range(5000)}
        with pytest.raises(TamperedError):
            bench.join()

    def test_an_entry_not_signed_by_its_device(self, bench):
        """A device of the vault cannot speak for another: it has the master key, but not the other's signature."""
        vault, _ = bench.create()
        entry = {
            "format": 1,
            "vault_id": vault.vault_id,
            "n": 2,
            "previous": vault.devices()[0].object_hash.hex(),
            "action": "add",
            "device_id": "00" * 16,
            "name": "not me",
            "x25519": "11" * 32,
            "ed25519": DeviceKeys.generate().ed25519_public.hex(),
            "by": "00" * 16,
            "at": "2026-03-01T12:00:00Z",
        }
        signature = vault.device_keys.ed25519.sign(b"dualmem/1/roster" + canonical_json(entry))
        self.put_entry(bench, vault, entry, signature)
        with pytest.raises(TamperedError, match="not signed"):
            vault.refresh()

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"action": "promote"}, NewerFormatError),
            ({"format": 2}, NewerFormatError),
            ({"by": "11" * 16}, TamperedError),
            ({"n": 3}, TamperedError),
            ({"previous": "11" * 32}, TamperedError),
            ({"vault_id": "11" * 16}, TamperedError),
            ({"x25519": "11"}, TamperedError),
            ({"name": 5}, TamperedError),
            ({"at": "yesterday"}, TamperedError),
            ({"n": True}, TamperedError),
        ],
        ids=str,
    )
    def test_entries_that_are_not_understood_are_not_passed_over(self, bench, change, error):
        vault, _ = bench.create()
        keys = DeviceKeys.generate()
        entry = {
            "format": 1,
            "vault_id": vault.vault_id,
            "n": 2,
            "previous": vault.devices()[0].object_hash.hex(),
            "action": "add",
            "device_id": "00" * 16,
            "name": "new",
            "x25519": keys.x25519_public.hex(),
            "ed25519": keys.ed25519_public.hex(),
            "by": "00" * 16,
            "at": "2026-03-01T12:00:00Z",
        } | change
        self.put_entry(bench, vault, entry, keys.ed25519.sign(b"dualmem/1/roster" + canonical_json(entry)))
        with pytest.raises(error) as caught:
            vault.refresh()
        assert type(caught.value) is error

    @staticmethod
    def put_entry(bench: Bench, vault: Vault, entry: dict[str, object], signature: bytes) -> None:
        [first] = vault.devices()
        bench.objects.objects[f"roster/{2:020d}"] = Envelope(
            kind=5,
            vault_id=bytes.fromhex(vault.vault_id),
            device_id=bytes(16),
            key=f"roster/{2:020d}",
            key_id=b"master.1",
            key_epoch=0,
            wrapping_key=vault._masters.wrapping_key,
            parts=[Part(b"entry", canonical_json(entry)), Part(b"signature", signature)],
            random=lambda length: bytes(range(length)),
            sequence=2,
            previous=first.object_hash,
        ).seal()

    def test_an_old_vault_file_put_back(self, bench):
        """A passphrase changed because it leaked must not come back with an old copy of the file."""
        vault, _ = bench.create()
        old = bench.objects.objects["vault.json"]
        bench.objects.objects["vault.json"] = rewritten(old, vault, revision=2)
        other_process = reopen(vault._cache, bench, objects=bench.objects)
        vault.refresh()
        vault.refresh()
        bench.objects.objects["vault.json"] = old
        for process in (vault, other_process):
            with pytest.raises(TamperedError, match="older than"):
                process.refresh()
        bench.objects.objects["vault.json"] = rewritten(old, vault, revision=2, created_at="2020-01-01T00:00:00Z")
        with pytest.raises(TamperedError, match="older than"):
            vault.refresh()

    def test_a_vault_file_written_without_the_master_key(self, bench):
        vault, _ = bench.create()
        stranger, _ = Bench(MemoryObjectStore(), bench.clock).create()
        old = bench.objects.objects["vault.json"]
        bench.objects.objects["vault.json"] = rewritten(old, stranger, revision=2)
        with pytest.raises(TamperedError, match=r"vault\.json was changed"):
            vault.refresh()
        with pytest.raises(TamperedError, match=r"vault\.json was changed"):
            bench.join()

    def test_a_newer_generation_without_a_copy_of_its_key_asks_to_join_again(self, bench):
        vault, _ = bench.create()
        old = bench.objects.objects["vault.json"]
        bench.objects.objects["vault.json"] = rewritten(old, vault, generation=2, revision=2)
        with pytest.raises(LockedError, match="no copy of the new ones"):
            vault.refresh()

    def test_a_newer_vault_file_asks_to_update(self, bench):
        vault, _ = bench.create()
        bench.objects.objects["vault.json"] = rewritten(bench.objects.objects["vault.json"], vault, format=2)
        with pytest.raises(NewerFormatError, match="newer version"):
            bench.join()

    def test_fields_of_a_later_version_are_let_be(self, bench):
        vault, _ = bench.create()
        old = json.loads(bench.objects.objects["vault.json"])
        wraps = [*old["wraps"], {"kind": "hardware token", "what": "ever"}]
        bench.objects.objects["vault.json"] = rewritten(
            canonical_json(old), vault, revision=2, wraps=wraps, colour="blue"
        )
        vault.refresh()
        assert bench.join().vault_id == vault.vault_id


def rewritten(data: bytes, vault: Vault, **changes: object) -> bytes:
    """vault.json with other fields, its MAC and checksum made anew with that vault's master key."""
    values = json.loads(data) | changes
    del values["mac"], values["checksum"]
    mac_key = expand(vault._masters.present, b"dualmem/1/master/vault")
    values["mac"] = hmac_sha256(mac_key, canonical_json(values)).hex()
    values["checksum"] = hashlib.sha256(canonical_json(values)).hexdigest()
    return canonical_json(values)


def opens(bench: Bench, secret: str) -> bool:
    try:
        return bench.join(secret=secret).vault_id != ""
    except LockedError:
        return False


def test_a_new_recovery_key_takes_the_old_ones_place(bench):
    vault, old = bench.create()
    phone = bench.join()
    shown: list[tuple[str, bool, bool]] = []
    vault.renew_recovery_key(lambda key: shown.append((key, opens(bench, key), opens(bench, old))))
    ((new, new_opened, old_opened),) = shown
    assert new != old
    assert (new_opened, old_opened) == (True, True)  # at every moment one that was shown opens the vault
    assert (opens(bench, new), opens(bench, old), opens(bench, PASSPHRASE)) == (True, False, True)
    wraps = json.loads(bench.objects.objects["vault.json"])["wraps"]
    assert [wrap["kind"] for wrap in wraps] == ["passphrase", "recovery"]
    phone.refresh(bench.objects)  # another device takes it for the vault.json that follows
    vault.refresh(bench.objects)


def test_whatever_ends_the_renewal_a_key_that_was_shown_opens_the_vault(bench):
    cache = MemoryBlobCache()
    vault, old = bench.create(cache)

    class Killed(BaseException):
        pass

    for write in (1, 2):
        left = write

        def put(key: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        shown: list[str] = []
        bench.objects.before_put = put
        with pytest.raises(Killed):
            reopen(cache, bench, objects=bench.objects).renew_recovery_key(shown.append)
        bench.objects.before_put = None
        assert all(opens(bench, key) for key in (old, *shown))
        assert len(shown) == write - 1

    def show(_: str) -> None:
        raise Killed

    with pytest.raises(Killed):  # the terminal has gone
        vault.renew_recovery_key(show)
    assert opens(bench, old)
    shown = []
    vault.renew_recovery_key(shown.append)
    assert opens(bench, shown[0])
    assert not opens(bench, old)
    assert len(json.loads(bench.objects.objects["vault.json"])["wraps"]) == 2


def test_a_bucket_that_goes_away_leaves_both_keys_and_says_so(bench):
    vault, old = bench.create()
    shown: list[str] = []

    def show(key: str) -> None:
        shown.append(key)
        bench.objects.away = True

    with pytest.raises(StoreUnreachableError) as failure:
        vault.renew_recovery_key(show)
    assert "the older one still does" in failure.value.hint
    bench.objects.away = False
    assert opens(bench, old)
    assert opens(bench, shown[0])


def test_two_devices_that_renew_the_key_at_once(bench):
    desk, old = bench.create()
    phone = bench.join()
    shown: dict[str, str] = {}

    def in_between(key: str) -> None:
        shown["desk"] = key
        phone.renew_recovery_key(lambda other: shown.update(phone=other))

    with pytest.raises(ConflictError, match="newer recovery key"):
        desk.renew_recovery_key(in_between)
    assert [opens(bench, key) for key in (shown["phone"], shown["desk"], old)] == [True, False, False]


def test_a_vault_json_that_changes_meanwhile_is_read_again(bench):
    desk, _ = bench.create()
    phone = bench.join()
    keys: list[str] = []
    changes = 0

    def change(key: str) -> None:
        nonlocal changes
        if key == "vault.json" and changes < 3:
            changes += 1
            bench.objects.before_put = None
            phone.renew_recovery_key(keys.append)
            bench.objects.before_put = change

    bench.objects.before_put = change
    desk.renew_recovery_key(keys.append)
    assert changes == 3
    assert sorted(opens(bench, key) for key in keys) == [False, False, False, True]
    assert opens(bench, keys[-1])


def test_a_vault_json_that_was_set_back_is_not_written_on(bench):
    vault, old = bench.create()
    first = bench.objects.objects["vault.json"]
    vault.renew_recovery_key(lambda _: None)
    bench.objects.objects["vault.json"] = first
    with pytest.raises(TamperedError, match="older than"):
        vault.renew_recovery_key(lambda _: pytest.fail("nothing may be shown"))
    assert bench.objects.objects["vault.json"] == first
    assert opens(bench, old)
