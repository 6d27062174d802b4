"""Revoking a device: who stays goes on under a key that it does not have, and nobody else can bring that about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from dualmem_mcp.crypto.header import MAX_EPOCH
from dualmem_mcp.crypto.kdf import Pbkdf2
from dualmem_mcp.crypto.key_objects import (
    EpochKey,
    device_object_key,
    epoch_object_key,
    seal_epoch_key,
    seal_for_device,
)
from dualmem_mcp.crypto.keys import load_device
from dualmem_mcp.crypto.master_keys import commitment, open_old_master, seal_old_master
from dualmem_mcp.crypto.membership import open_vault
from dualmem_mcp.crypto.roster import Revocation, roster_key
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.crypto.vault_file import VAULT_KEY, parse_vault_file, with_next_master_key
from dualmem_mcp.errors import (
    ConflictError,
    DualmemError,
    LockedError,
    NotFoundError,
    StoreUnreachableError,
    TamperedError,
    UsageError,
)
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.oplog import LogHead
from tests.conftest import SteppingClock
from tests.crypto.conftest import FAST_KDF, FAST_LIMITS, PASSPHRASE, Bench, MemoryBlobCache, MemoryObjectStore

HEAD = LogHead(7, b"h" * 32, 90)
CONVERSATION = ConversationId("0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10")


@dataclass
class Trio:
    """Three devices of one vault, and what the desk was shown."""

    bench: Bench
    caches: dict[str, MemoryBlobCache]
    vaults: dict[str, Vault]
    shown: list[str] = field(default_factory=list)

    def revoke(self, name: str = "phone", passphrase: str = PASSPHRASE, by: str = "desk") -> None:
        self.vaults[by].revoke(
            self.vaults[name].device_id,
            passphrase=passphrase,
            head=HEAD,
            show=self.shown.append,
            kdf=FAST_KDF,
            limits=FAST_LIMITS,
        )

    def reopen(self, name: str) -> Vault:
        cache = self.caches[name]
        device_id, keys = load_device(cache)
        self.vaults[name] = open_vault(
            cache, device_id=device_id, device_keys=keys, objects=self.bench.objects, clock=self.bench.clock
        )
        return self.vaults[name]


@pytest.fixture
def trio(bench: Bench) -> Trio:
    return three(bench)


def three(bench: Bench) -> Trio:
    caches = {name: MemoryBlobCache() for name in ("desk", "laptop", "phone")}
    vaults = {"desk": bench.create(caches["desk"])[0]}
    vaults |= {name: bench.join(caches[name], name=name) for name in ("laptop", "phone")}
    for vault in vaults.values():
        vault.refresh()
    return Trio(bench, caches, vaults)


def test_who_stays_goes_on_under_a_new_master_key(trio: Trio) -> None:
    desk, laptop = trio.vaults["desk"], trio.vaults["laptop"]
    name = desk.object_name("conversation", "c")
    old = desk._masters.present
    trio.revoke()
    laptop.refresh()
    for vault in (desk, laptop, trio.reopen("desk"), trio.reopen("laptop")):
        assert vault._masters.generation == 2
        assert vault._masters.present == desk._masters.present != old
        assert vault._masters.of(1) == old
        assert [device.revoked_after for device in vault.devices()] == [None, None, 7]
        assert vault.object_name("conversation", "c") == name
    key, waiting = desk.create_conversation_key(CONVERSATION)
    for object_key, data in waiting:
        trio.bench.objects.put(object_key, data)
    assert laptop.conversation_key(key.key_id).key == key.key
    assert desk.is_of_present_key(key.epoch)


def test_what_was_sealed_before_still_opens(trio: Trio) -> None:
    desk, laptop = trio.vaults["desk"], trio.vaults["laptop"]
    key, waiting = desk.create_conversation_key(CONVERSATION)
    for object_key, data in waiting:
        trio.bench.objects.put(object_key, data)
    trio.revoke()
    laptop.refresh()
    assert trio.reopen("laptop").conversation_key(key.key_id).key == key.key
    assert not laptop.is_of_present_key(key.epoch)
    newcomer = trio.bench.join(name="new")
    assert newcomer.conversation_key(key.key_id).key == key.key


def test_the_revoked_device_is_told_and_reads_nothing_new(trio: Trio) -> None:
    desk, phone = trio.vaults["desk"], trio.vaults["phone"]
    trio.revoke()
    with pytest.raises(LockedError, match="revoked by 'desk' on 2026-03-01"):
        phone.refresh()
    with pytest.raises(LockedError, match="revoked"):
        phone.look(trio.bench.objects)
    key, waiting = desk.create_conversation_key(CONVERSATION)
    for object_key, data in waiting:
        trio.bench.objects.put(object_key, data)
    with pytest.raises(DualmemError):
        phone.conversation_key(key.key_id)
    # What it has it keeps.
    assert trio.reopen("phone").devices()[0].name == "desk"


def test_the_recovery_key_and_the_passphrase_open_the_new_generation(trio: Trio) -> None:
    _, former = Bench(type(trio.bench.objects)(), trio.bench.clock).create()
    trio.revoke()
    assert trio.bench.join(name="new")._masters.generation == 2
    assert trio.bench.join(name="newer", secret=trio.shown[0])._masters.generation == 2
    with pytest.raises(LockedError):
        trio.bench.join(name="other", secret=former)


def test_a_newcomer_reads_the_roster_from_its_beginning(trio: Trio) -> None:
    trio.revoke()
    newcomer = trio.bench.join(name="new")
    assert [device.name for device in newcomer.devices()] == ["desk", "laptop", "phone", "new"]
    for name in ("desk", "laptop"):
        trio.vaults[name].refresh()
        assert [device.name for device in trio.vaults[name].devices()][-1] == "new"


def test_several_generations_are_taken_one_by_one(trio: Trio) -> None:
    trio.bench.join(name="tablet")
    trio.vaults["desk"].refresh()
    trio.revoke("phone")
    tablet = next(one for one in trio.vaults["desk"].devices() if one.name == "tablet")
    trio.vaults["desk"].revoke(
        tablet.device_id, passphrase=PASSPHRASE, head=HEAD, show=trio.shown.append, kdf=FAST_KDF, limits=FAST_LIMITS
    )
    laptop = trio.vaults["laptop"]
    laptop.refresh()
    assert laptop._masters.generation == 3
    assert trio.reopen("laptop")._masters.of(1) == trio.vaults["desk"]._masters.of(1)
    assert trio.bench.join(name="new")._masters.generation == 3


class KilledError(BaseException):
    """The end of the process: nothing catches it."""


def killed(trio: Trio, step: int) -> bool:
    """Revoke the phone on the desk, which ends before its n-th write to the bucket or to its own disk; whether it
    got so far."""
    objects, cache = trio.bench.objects, trio.caches["desk"]
    left = step

    def counted(work: Callable[..., Any]) -> Callable[..., Any]:
        def step_of(*given: Any, **how: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise KilledError
            return work(*given, **how)

        return step_of

    with pytest.MonkeyPatch.context() as patch:
        for where, name in ((objects, "put"), (objects, "delete"), (cache, "put")):
            patch.setattr(where, name, counted(getattr(where, name)))
        try:
            trio.revoke()
        except KilledError:
            return True
    return False


def steps_of_a_revocation() -> int:
    """How many writes it takes, to the bucket and to the disk."""
    objects, clock = MemoryObjectStore(), SteppingClock()
    step = 1
    while killed(three(Bench(objects, clock)), step):
        objects.objects.clear()
        step += 1
    return step - 1


STEPS = range(1, 1 + steps_of_a_revocation())


def is_announced(trio: Trio) -> bool:
    """Whether the revocation stands in the roster."""
    laptop = trio.reopen("laptop")
    laptop._roster.refresh(trio.bench.objects)
    return any(device.revoked_after is not None for device in laptop.devices())


@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere_the_revoking_device_finishes_it(trio: Trio, step: int) -> None:
    assert killed(trio, step)
    trio.reopen("desk").refresh()
    trio.revoke()
    trio.vaults["laptop"].refresh()
    desk, laptop = trio.reopen("desk"), trio.reopen("laptop")
    assert desk._masters.present == laptop._masters.present
    assert (desk._masters.generation, laptop._masters.generation) == (2, 2)
    objects = trio.bench.objects.objects
    assert not [key for key in objects if key.startswith("keys/n/")]
    assert device_object_key(trio.vaults["phone"].device_id) not in objects
    assert trio.bench.join(name="new", secret=trio.shown[-1])._masters.generation == 2
    with pytest.raises(LockedError, match="revoked"):
        trio.vaults["phone"].refresh()


@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere_the_others_go_on(trio: Trio, step: int) -> None:
    """And finish it, if it counts, since nobody knows whether the revoking device comes back."""
    assert killed(trio, step)
    announced = is_announced(trio)
    laptop = trio.vaults["laptop"]
    laptop.refresh()
    assert laptop._masters.generation == trio.reopen("laptop")._masters.generation == 1 + announced
    key, waiting = laptop.create_conversation_key(CONVERSATION)
    for object_key, data in waiting:
        trio.bench.objects.put(object_key, data)
    desk = trio.reopen("desk")
    desk.refresh()
    assert desk.conversation_key(key.key_id).key == key.key
    phone = trio.vaults["phone"]
    if announced:
        with pytest.raises(LockedError, match="revoked by 'desk'"):
            phone.refresh()
        with pytest.raises(DualmemError):
            phone.conversation_key(key.key_id)
    else:
        phone.refresh()
    trio.revoke()  # what was begun is done, and its recovery key shown
    assert trio.bench.join(name="new", secret=trio.shown[-1])._masters.generation == 2


@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere_a_new_device_joins_with_the_passphrase(trio: Trio, step: int) -> None:
    assert killed(trio, step)
    announced = is_announced(trio)
    newcomer = trio.bench.join(name="new")
    assert newcomer._masters.generation == 1 + announced
    for name in ("desk", "laptop"):
        vault = trio.reopen(name)
        vault.refresh()
        assert vault._masters.present == newcomer._masters.present
        assert [device.name for device in vault.devices()] == ["desk", "laptop", "phone", "new"]
    trio.revoke()
    newcomer.refresh()
    assert newcomer._masters.generation == 2
    assert newcomer._masters.present == trio.vaults["desk"]._masters.present


def revoked_and_killed(trio: Trio) -> str:
    """A revocation that stands in the roster, and nothing after it; the folder of what lies ready."""
    assert any(killed(trio, step) and is_announced(trio) for step in STEPS)
    [prefix] = {key[: key.rindex("/") + 1] for key in trio.bench.objects.objects if key.startswith("keys/n/")}
    return prefix


@pytest.mark.parametrize("change", ["gone", "garbage", "another's", "of another key"])
def test_what_lies_ready_counts_only_with_the_announced_key(trio: Trio, change: str) -> None:
    """The revoked device can write there, too."""
    prefix = revoked_and_killed(trio)
    objects = trio.bench.objects.objects
    phone, rogue = trio.vaults["phone"], b"r" * 32
    file = parse_vault_file(objects[VAULT_KEY])
    for entry in phone.devices():
        copy = seal_for_device(
            rogue, vault_id=phone.vault_id, generation=2, device_id=entry.device_id, public_key=entry.x25519
        )
        key = prefix + entry.device_id
        objects[key] = {"gone": b"", "garbage": b"{", "another's": objects[VAULT_KEY]}.get(change, copy)
    following = with_next_master_key(file, rogue, passphrase=PASSPHRASE, recovery_key=bytes(32), kdf=FAST_KDF)
    ready = {"gone": b"", "garbage": b"\0" * 99, "another's": objects[VAULT_KEY]}.get(change, following.encode())
    objects[prefix + VAULT_KEY] = ready
    if change == "gone":
        for key in [key for key in objects if key.startswith(prefix)]:
            del objects[key]
    laptop = trio.vaults["laptop"]
    laptop.refresh()
    laptop.refresh()
    assert laptop._masters.generation == 1
    with pytest.raises(ConflictError, match="'desk' has not finished revoking 'phone'"):
        trio.bench.join(name="new")
    assert objects[VAULT_KEY] == file.encode()
    trio.reopen("desk")
    trio.revoke()
    laptop.refresh()
    assert laptop._masters.generation == trio.bench.join(name="newer")._masters.generation == 2


def test_a_recovery_key_made_meanwhile_stops_no_revocation(trio: Trio) -> None:
    revoked_and_killed(trio)
    objects = trio.bench.objects
    ready = {key: objects.objects.pop(key) for key in list(objects.objects) if key.startswith("keys/n/")}
    made: list[str] = []
    trio.vaults["laptop"].renew_recovery_key(made.append)
    objects.objects |= ready
    trio.vaults["laptop"].refresh()
    assert trio.vaults["laptop"]._masters.generation == 2
    desk = trio.reopen("desk")
    desk.refresh()
    assert desk._masters.generation == 2
    with pytest.raises(LockedError):
        trio.bench.join(name="new", secret=made[0])


def test_what_another_device_revoked_first_is_not_taken_for_ones_own(trio: Trio) -> None:
    assert killed(trio, 2)  # the next keys are kept on the desk, and nothing is in the bucket
    assert not is_announced(trio)
    trio.revoke("phone", by="laptop")
    shown = len(trio.shown)
    with pytest.raises(UsageError, match="revoked already"):
        trio.revoke()
    assert len(trio.shown) == shown
    trio.bench.join(name="tablet")
    desk = trio.vaults["desk"]
    desk.refresh()
    tablet = next(one for one in desk.devices() if one.name == "tablet")
    desk.revoke(
        tablet.device_id, passphrase=PASSPHRASE, head=HEAD, show=trio.shown.append, kdf=FAST_KDF, limits=FAST_LIMITS
    )
    assert trio.bench.join(name="new", secret=trio.shown[-1])._masters.generation == 3


@pytest.mark.parametrize("effect", range(1, 8))
def test_a_revocation_goes_on_after_the_bucket_was_away(trio: Trio, effect: int) -> None:
    """Away before the n-th write, with and without a restart of the program."""
    objects = trio.bench.objects
    count = 0

    def away(key: str) -> None:
        nonlocal count
        count += 1
        if count == effect:
            raise StoreUnreachableError("the bucket is away")

    objects.before_put = away
    try:
        trio.revoke()
    except StoreUnreachableError:
        objects.before_put = None
        desk = trio.reopen("desk")
        desk.refresh()
        trio.revoke()
    objects.before_put = None
    laptop = trio.vaults["laptop"]
    laptop.refresh()
    assert laptop._masters.generation == 2
    assert laptop._masters.present == trio.vaults["desk"]._masters.present
    assert [device.revoked_after for device in laptop.devices()] == [None, None, 7]
    assert device_object_key(trio.vaults["phone"].device_id) not in objects.objects
    assert trio.bench.join(name="new", secret=trio.shown[-1])._masters.generation == 2
    with pytest.raises(LockedError, match="revoked"):
        trio.vaults["phone"].refresh()


def test_a_wrong_passphrase_changes_nothing(trio: Trio) -> None:
    before = dict(trio.bench.objects.objects)
    with pytest.raises(LockedError):
        trio.revoke(passphrase="wrong horse")
    assert trio.bench.objects.objects == before


def test_a_device_is_revoked_once(trio: Trio) -> None:
    trio.revoke()
    before = dict(trio.bench.objects.objects)
    with pytest.raises(UsageError, match="revoked already"):
        trio.revoke()
    assert trio.bench.objects.objects == before
    assert trio.bench.join(name="new")._masters.generation == 2


def test_an_entry_that_nobody_could_follow_is_not_written(trio: Trio) -> None:
    trio.revoke()
    desk, before = trio.vaults["desk"], dict(trio.bench.objects.objects)
    revocation = Revocation(
        device_id=trio.vaults["phone"].device_id,
        by=desk.device_id,
        at=trio.bench.clock.now(),
        last_segment=0,
        last_hash=bytes(32),
        generation=3,
        commitment=bytes(32),
    )
    with pytest.raises(TamperedError, match="not in the vault"):
        desk._roster.revoke(
            trio.bench.objects, revocation=revocation, keys=desk.device_keys, before=lambda entries: None
        )
    assert trio.bench.objects.objects == before


def test_a_recovery_key_does_not_stand_for_the_passphrase(trio: Trio) -> None:
    trio.revoke()
    with pytest.raises(UsageError, match="recovery key"):
        trio.revoke("laptop", passphrase=trio.shown[0])


def test_a_device_that_is_not_there_or_this_one_cannot_be_revoked(trio: Trio) -> None:
    desk = trio.vaults["desk"]
    for device_id, error in (("0" * 32, NotFoundError), (desk.device_id, UsageError)):
        with pytest.raises(error):
            desk.revoke(
                device_id,
                passphrase=PASSPHRASE,
                head=HEAD,
                show=trio.shown.append,
                kdf=FAST_KDF,
                limits=FAST_LIMITS,
            )
    assert trio.shown == []


def test_of_two_that_revoke_at_once_one_is_told(trio: Trio) -> None:
    def other(key: str) -> None:
        trio.bench.objects.before_put = None
        trio.revoke("phone", by="laptop")

    trio.bench.objects.before_put = other
    with pytest.raises((ConflictError, TamperedError, LockedError)):
        trio.revoke("phone", by="desk")
    desk = trio.reopen("desk")
    desk.refresh()
    assert desk._masters.present == trio.vaults["laptop"]._masters.present


@pytest.mark.parametrize("at", ["keys/n/", "roster/", "keys/g/", "keys/d/", VAULT_KEY])
def test_a_device_joins_while_the_key_is_changed(trio: Trio, at: str) -> None:
    joined = []

    def join(key: str) -> None:
        if key.startswith(at):
            trio.bench.objects.before_put = None
            joined.append(trio.bench.join(name="early"))

    trio.bench.objects.before_put = join
    trio.revoke()
    joined[0].refresh()
    assert joined[0]._masters.generation == 2
    assert joined[0]._masters.present == trio.vaults["desk"]._masters.present
    assert [device.name for device in trio.bench.join(name="late").devices()][-2:] == ["early", "late"]


# What the revoked device, which knows the old master key, might try.


def rogue_key(trio: Trio) -> None:
    """Exchange vault.json for one under a master key of the revoked device's choice, wrapped to who stays."""
    phone, objects = trio.vaults["phone"], trio.bench.objects
    rogue = b"r" * 32
    file = parse_vault_file(objects.objects[VAULT_KEY])
    following = with_next_master_key(file, rogue, passphrase="mine", recovery_key=bytes(32), kdf=FAST_KDF)
    objects.objects["keys/g/1"] = seal_old_master(
        phone._masters.present, generation=1, vault_id=phone.vault_id, device_id=phone.device_id, newer_key=rogue
    )
    for entry in phone.devices():
        objects.objects[device_object_key(entry.device_id)] = seal_for_device(
            rogue, vault_id=phone.vault_id, generation=2, device_id=entry.device_id, public_key=entry.x25519
        )
    objects.objects[VAULT_KEY] = following.encode()


def test_a_master_key_that_nobody_announced_is_refused(trio: Trio) -> None:
    rogue_key(trio)
    for name in ("desk", "laptop"):
        with pytest.raises(TamperedError, match="no device of the vault announced"):
            trio.vaults[name].refresh()
        assert trio.reopen(name)._masters.generation == 1


def test_a_revocation_that_was_signed_by_nobody_of_the_vault_is_refused(trio: Trio) -> None:
    desk = trio.vaults["desk"]

    phone = trio.vaults["phone"]
    links = phone._roster._links()
    members = {
        "action": "revoke",
        "device_id": trio.vaults["laptop"].device_id,
        "last_segment": 0,
        "last_hash": "00" * 32,
        "generation": 2,
        "commitment": commitment(b"r" * 32).hex(),
        "by": desk.device_id,
        "at": "2026-03-01T12:00:00Z",
    }
    key = roster_key(len(links) + 1)
    trio.bench.objects.objects[key] = phone._roster._seal(
        len(links) + 1, links[-1].object_hash, members, phone.device_keys
    )
    for name in ("desk", "laptop"):
        with pytest.raises(TamperedError, match="not signed"):
            trio.vaults[name].refresh()


def test_after_its_revocation_a_device_cannot_add_to_the_roster(trio: Trio) -> None:
    phone, objects = trio.vaults["phone"], trio.bench.objects
    trio.revoke()
    number = len(trio.vaults["desk"].devices()) + 2
    links = trio.vaults["desk"]._roster._links()
    entry = phone._roster._seal(
        number,
        links[-1].object_hash,
        {
            "action": "revoke",
            "device_id": trio.vaults["laptop"].device_id,
            "last_segment": 0,
            "last_hash": "00" * 32,
            "generation": 3,
            "commitment": "00" * 32,
            "by": phone.device_id,
            "at": "2026-03-01T12:00:00Z",
        },
        phone.device_keys,
    )
    objects.objects[roster_key(number)] = entry
    for name in ("desk", "laptop"):
        with pytest.raises(TamperedError, match="not sealed under the master key of its place"):
            trio.vaults[name].refresh()


def test_an_old_vault_file_put_back_is_told(trio: Trio) -> None:
    old = trio.bench.objects.objects[VAULT_KEY]
    trio.revoke()
    trio.vaults["laptop"].refresh()
    trio.bench.objects.objects[VAULT_KEY] = old
    for name in ("desk", "laptop"):
        with pytest.raises(TamperedError):
            trio.vaults[name].refresh()
        with pytest.raises(TamperedError):
            trio.reopen(name).refresh()


def test_an_epoch_of_the_old_generation_is_not_written_under_any_more(trio: Trio) -> None:
    desk, phone, objects = trio.vaults["desk"], trio.vaults["phone"], trio.bench.objects
    trio.revoke()
    # The revoked device begins an epoch with a number higher than all.
    late = phone._epochs
    phone._cache.blobs = {key: data for key, data in phone._cache.blobs.items() if not key.startswith("keys/0")}
    late.opened.clear()
    epoch = late.current()
    objects.objects[f"keys/{epoch:016x}"] = phone._cache.blobs[f"keys/{epoch:016x}"]
    desk.refresh()
    assert desk.is_of_present_key(desk.current_epoch())


def test_old_master_keys_belong_in_their_place(trio: Trio) -> None:
    desk = trio.vaults["desk"]
    old, new = b"o" * 32, b"n" * 32
    sealed = seal_old_master(old, generation=1, vault_id=desk.vault_id, device_id=desk.device_id, newer_key=new)
    assert open_old_master(sealed, generation=1, vault_id=desk.vault_id, newer_key=new) == old
    for changes in ({"generation": 2}, {"newer_key": old}, {"vault_id": "1" * 32}):
        given = {"generation": 1, "vault_id": desk.vault_id, "newer_key": new} | changes
        with pytest.raises(TamperedError):
            open_old_master(sealed, **given)  # type: ignore[arg-type]
    for position in range(0, len(sealed), 61):
        damaged = sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :]
        with pytest.raises(TamperedError):
            open_old_master(damaged, generation=1, vault_id=desk.vault_id, newer_key=new)


@pytest.mark.parametrize(
    "change",
    [{"generation": 3}, {"last_segment": -1}, {"last_hash": "00"}, {"commitment": 1}, {"device_id": "0" * 32}],
)
def test_revocations_that_are_not_understood_are_not_passed_over(trio: Trio, change: dict[str, object]) -> None:
    desk, objects = trio.vaults["desk"], trio.bench.objects
    links = desk._roster._links()
    members = {
        "action": "revoke",
        "device_id": trio.vaults["phone"].device_id,
        "last_segment": 0,
        "last_hash": "00" * 32,
        "generation": 2,
        "commitment": "00" * 32,
        "by": desk.device_id,
        "at": "2026-03-01T12:00:00Z",
    } | change
    sealed = desk._roster._seal(len(links) + 1, links[-1].object_hash, members, desk.device_keys)
    objects.objects[roster_key(len(links) + 1)] = sealed
    with pytest.raises(TamperedError):
        trio.vaults["laptop"].refresh()


def test_a_device_that_used_up_the_numbers_of_epochs_can_be_revoked(trio: Trio) -> None:
    phone = trio.vaults["phone"]
    last = EpochKey(MAX_EPOCH, trio.bench.clock.now(), bytes(32))
    sealed = seal_epoch_key(
        last,
        vault_id=phone.vault_id,
        device_id=phone.device_id,
        key_id=phone._masters.present_id,
        wrapping_key=phone._masters.wrapping_key,
    )
    trio.bench.objects.put(epoch_object_key(MAX_EPOCH), sealed)
    trio.revoke()
    assert len(trio.shown) == 1
    desk = trio.vaults["desk"]
    assert desk.is_of_present_key(desk.current_epoch())
    laptop = trio.vaults["laptop"]
    laptop.refresh()
    assert laptop.current_epoch() == desk.current_epoch()


# What whoever can write to the bucket might try to stop devices that are up to date.


def test_epochs_of_a_revoked_device_are_not_taken(trio: Trio) -> None:
    """It knows the old master key, under which it makes any number."""
    phone, objects = trio.vaults["phone"], trio.bench.objects
    trio.revoke()
    trio.vaults["laptop"].refresh()
    names = [epoch_object_key((99 << 32) + number) for number in range(200)]
    for name in names:
        epoch = EpochKey(int(name.removeprefix("keys/"), 16), trio.bench.clock.now(), bytes(32))
        objects.objects[name] = seal_epoch_key(
            epoch,
            vault_id=phone.vault_id,
            device_id=phone.device_id,
            key_id=phone._masters.present_id,
            wrapping_key=phone._masters.wrapping_key,
        )
    for _ in range(4):
        trio.vaults["laptop"].refresh()
    assert not set(names) & set(trio.caches["laptop"].blobs)
    assert trio.vaults["laptop"].is_of_present_key(trio.vaults["laptop"].current_epoch())


def test_an_epoch_under_the_next_master_key_is_no_fault(trio: Trio) -> None:
    """The keys of the vault change between two requests of a refresh."""
    objects = trio.bench.objects
    before = dict(objects.objects)
    trio.revoke()
    after = dict(objects.objects)
    objects.objects = before | {key: data for key, data in after.items() if key.startswith("keys/0")}
    laptop = trio.vaults["laptop"]
    laptop.refresh()
    assert laptop._masters.generation == 1
    objects.objects = after
    laptop.refresh()
    assert laptop.current_epoch() == trio.vaults["desk"].current_epoch()


@pytest.mark.parametrize("change", ["gone", "garbage", "another's"])
def test_older_master_keys_are_on_each_device(trio: Trio, change: str) -> None:
    """So that whoever changes them in the bucket stops nobody who has joined."""
    trio.revoke()
    newcomer_cache = MemoryBlobCache()
    trio.caches["new"] = newcomer_cache
    trio.vaults["new"] = trio.bench.join(newcomer_cache, name="new")
    trio.vaults["laptop"].refresh()
    name = trio.vaults["desk"].object_name("conversation", "c")
    objects = trio.bench.objects.objects
    if change == "gone":
        del objects["keys/g/1"]
    else:
        objects["keys/g/1"] = b"\0" * 300 if change == "garbage" else objects[roster_key(1)]
    for device in ("laptop", "new", "desk"):
        vault = trio.reopen(device)
        vault.refresh()
        assert vault.object_name("conversation", "c") == name


def test_an_older_master_key_that_was_damaged_is_asked_for_again(trio: Trio) -> None:
    trio.revoke()
    objects, desk = trio.bench.objects.objects, trio.vaults["desk"]
    cache = trio.caches["desk"]
    cache.blobs.pop("keys/g/1", None)
    whole = objects["keys/g/1"]
    objects["keys/g/1"] = b"\0" * 300
    with pytest.raises(TamperedError):
        trio.reopen("desk").object_name("conversation", "c")
    objects["keys/g/1"] = whole
    assert trio.reopen("desk").object_name("conversation", "c") == desk.object_name("conversation", "c")


def test_a_generation_far_ahead_costs_a_few_requests(trio: Trio) -> None:
    """A chain of keys that the revoked device made: it is not followed further than the roster goes."""
    phone, objects = trio.vaults["phone"], trio.bench.objects
    file, key = parse_vault_file(objects.objects[VAULT_KEY]), phone._masters.present
    for generation in range(1, 300):
        following = bytes([generation % 256]) * 32
        objects.objects[f"keys/g/{generation}"] = seal_old_master(
            key, generation=generation, vault_id=phone.vault_id, device_id=phone.device_id, newer_key=following
        )
        file = with_next_master_key(
            file, following, passphrase="mine", recovery_key=bytes(32), kdf=Pbkdf2(rounds=1)
        )
        key = following
    before, objects.objects[VAULT_KEY] = objects.objects[VAULT_KEY], file.encode()
    laptop = trio.vaults["laptop"]
    objects.objects[device_object_key(laptop.device_id)] = seal_for_device(
        key,
        vault_id=phone.vault_id,
        generation=file.generation,
        device_id=laptop.device_id,
        public_key=laptop.device_keys.x25519_public,
    )
    objects.reads.clear()
    with pytest.raises(TamperedError, match="no revocations for"):
        laptop.refresh()
    assert len(objects.reads) < 10
    objects.objects[VAULT_KEY] = before
    laptop.refresh()
    trio.revoke()
    laptop.refresh()
    assert laptop._masters.generation == 2


def test_a_data_home_that_became_another_device_opens_after_a_revocation(trio: Trio) -> None:
    """The copy of the master key that it had as the former device lies there still."""
    trio.revoke()
    laptop, cache = trio.vaults["laptop"], trio.caches["laptop"]
    laptop.refresh()
    device_id, keys = load_device(MemoryBlobCache())
    laptop.as_device(device_id, keys, trio.bench.objects).admit_device(trio.bench.objects, name="laptop")
    vault = open_vault(cache, device_id=device_id, device_keys=keys, clock=trio.bench.clock)
    assert vault._masters.present == laptop._masters.present
