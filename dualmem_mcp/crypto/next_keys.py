"""The master key that a revocation begins with: laid ready before the revocation counts, so that any device can
finish what the revoking one did not, and taken up.

Order and names of what is written: docs/format.md, "Rotation and revocation".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dualmem_mcp.crypto.canonical import MAX_JSON_BYTES, Fields
from dualmem_mcp.crypto.header import tampered
from dualmem_mcp.crypto.key_objects import device_object_key, open_for_device, seal_for_device
from dualmem_mcp.crypto.keys import DeviceKeys
from dualmem_mcp.crypto.master_keys import (
    MasterKeys,
    commitment,
    is_committed,
    old_master_object_key,
    seal_old_master,
)
from dualmem_mcp.crypto.roster import Revocation, Roster, RosterEntry, revoked_error
from dualmem_mcp.crypto.vault_file import VAULT_KEY, VaultFile, parse_vault_file
from dualmem_mcp.errors import ConflictError, LockedError, NotFoundError, TamperedError
from dualmem_mcp.model.ids import DeviceId, VaultId
from dualmem_mcp.ports import BlobCache, Clock, ObjectStore

_ATTEMPTS = 5
"""Times that vault.json is read anew when another device was faster."""

KeyOf = Callable[[VaultFile], bytes]
"""The master key of the vault.json that lies ready. Raises LockedError, NotFoundError, TamperedError."""


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a vault, with what it knows of it."""

    vault_id: VaultId
    device_id: DeviceId
    device_keys: DeviceKeys = field(repr=False)
    masters: MasterKeys
    roster: Roster
    cache: BlobCache
    objects: ObjectStore
    clock: Clock


def ready_prefix(announced: bytes) -> str:
    """Below which lies ready what belongs to the master key of that commitment: of two devices that revoke at once
    neither overwrites what is the other's."""
    return f"keys/n/{announced.hex()}/"


def lay_ready(
    member: Member, entries: Sequence[RosterEntry], following: VaultFile, key: bytes, *, leave_out: DeviceId
) -> None:
    """Put the next vault.json, and the next master key wrapped to each device that stays, beside what counts."""
    prefix = ready_prefix(commitment(key))
    for entry in entries:
        if entry.revoked_after is None and entry.device_id != leave_out:
            copy = _copy_for(entry, member.vault_id, key, following.generation)
            member.objects.put(prefix + entry.device_id, copy)
    member.objects.put(prefix + VAULT_KEY, following.encode())


def finish_revocation(member: Member, key_of: KeyOf | None = None) -> bool:
    """Finish the revocation that stands in the roster, as this device knows that, and of which vault.json does not
    tell yet; whether there was one, and it is finished now.

    The key is taken from this device's copy, or from `key_of`. What lies ready counts only with the announced key;
    where it is gone or another, all stays as it is, until the revoking device goes on. Raises LockedError if it is
    this device that was revoked; StoreUnreachableError.
    """
    if key_of is not None:
        member.roster.refresh(member.objects)  # one that joins has read none of it yet
    revocation = member.roster.unfinished()
    if revocation is None:
        return False
    if revocation.device_id == member.device_id:
        raise revoked_error(member.roster.entries(), revocation)
    prefix = ready_prefix(revocation.commitment)
    try:
        following = parse_vault_file(member.objects.get(prefix + VAULT_KEY, length=MAX_JSON_BYTES + 1))
        key = key_of(following) if key_of else _own_copy(member, prefix, revocation.generation)
        finish(member, revocation, following, key)
    except (NotFoundError, TamperedError, LockedError, ConflictError):
        return False
    return True


def finish(member: Member, revocation: Revocation, following: VaultFile, key: bytes) -> None:
    """Do all that follows on the entry in the roster, as far as it is not done: keys, vault.json, deletions.

    Raises TamperedError if file or key are not those of the revocation, ConflictError if other devices go on
    changing vault.json, StoreUnreachableError.
    """
    _check(member, revocation, following, key)
    objects = member.objects
    for _ in range(_ATTEMPTS):
        etag = objects.stat(VAULT_KEY).etag
        there = parse_vault_file(objects.get(VAULT_KEY, length=MAX_JSON_BYTES + 1))
        if there.generation >= revocation.generation:
            break
        # A revision of the present generation may have come: a new recovery key, which the next one replaces.
        there.check_mac(member.masters.present)
        _write_keys(member, key, revocation.generation)
        try:
            objects.put(VAULT_KEY, following.encode(), if_match=etag)
            break
        except ConflictError:
            continue
    else:
        raise ConflictError(
            "other devices change vault.json at this moment",
            operation="revoke device",
            subject=objects.location,
            hint="Run the command again: it goes on where it stopped.",
        )
    clear_away(member, revocation.device_id, revocation.commitment)


def clear_away(member: Member, revoked: DeviceId, announced: bytes) -> None:
    """Delete the revoked device's copy of the old master key, and what lay ready."""
    member.objects.delete(device_object_key(revoked))
    prefix = ready_prefix(announced)
    ready = {VAULT_KEY, *(entry.device_id for entry in member.roster.entries())}
    for name in sorted(ready - {revoked}):
        member.objects.delete(prefix + name)


def take_newer_master_key(member: Member, file: VaultFile) -> bytes:
    """This device's sealed copy of the file's master key, which the member's keys have advanced to.

    Anybody who knows a device's public key can wrap some key to it; so what counts is what a device of the vault
    announced in the roster, under the key before. Raises LockedError if this device has no copy: it was revoked, or
    joined while the key was changed; TamperedError if the key is not the announced one.
    """
    copy = _newer_copy(member, file)
    key = open_for_device(
        copy,
        vault_id=member.vault_id,
        generation=file.generation,
        device_id=member.device_id,
        keys=member.device_keys,
    )
    past: dict[str, bytes] = {}

    def fetch(object_key: str) -> bytes:
        past[object_key] = member.objects.get(object_key, length=MAX_JSON_BYTES + 1)
        return past[object_key]

    if file.generation - member.masters.generation > member.roster.length(member.objects):
        raise tampered("is of a generation that the roster has no revocations for", VAULT_KEY)
    newer = MasterKeys(member.vault_id, file.generation, key, fetch)
    if newer.of(member.masters.generation) != member.masters.present:
        raise tampered("does not lead to the master key that this device knows", VAULT_KEY)
    for generation in range(member.masters.generation + 1, file.generation + 1):
        member.roster.refresh(member.objects)
        announced = [one for one in member.roster.revocations() if one.generation == generation]
        if not announced or not is_committed(newer.of(generation), announced[0].commitment):
            raise tampered("has a master key that no device of the vault announced", VAULT_KEY)
        object_key = old_master_object_key(generation - 1)
        member.cache.put(object_key, past[object_key])
        member.masters.advance(newer.of(generation))
    file.check_mac(member.masters.present)
    return copy


def _check(member: Member, revocation: Revocation, following: VaultFile, key: bytes) -> None:
    stated = (following.vault_id, following.generation)
    if stated != (member.vault_id, revocation.generation) or not is_committed(key, revocation.commitment):
        raise tampered("is not what the roster announced", VAULT_KEY)
    following.check_mac(key)


def _own_copy(member: Member, prefix: str, generation: int) -> bytes:
    return open_for_device(
        member.objects.get(prefix + member.device_id, length=MAX_JSON_BYTES + 1),
        vault_id=member.vault_id,
        generation=generation,
        device_id=member.device_id,
        keys=member.device_keys,
    )


def _write_keys(member: Member, key: bytes, generation: int) -> None:
    """The old master key under the new one, and the new one for each device that stays."""
    masters = member.masters
    old = seal_old_master(
        masters.present,
        generation=masters.generation,
        vault_id=member.vault_id,
        device_id=member.device_id,
        newer_key=key,
    )
    member.objects.put(old_master_object_key(masters.generation), old)
    for entry in member.roster.entries():
        if entry.revoked_after is None:
            copy = _copy_for(entry, member.vault_id, key, generation)
            member.objects.put(device_object_key(entry.device_id), copy)


def _copy_for(entry: RosterEntry, vault_id: VaultId, key: bytes, generation: int) -> bytes:
    return seal_for_device(
        key, vault_id=vault_id, generation=generation, device_id=entry.device_id, public_key=entry.x25519
    )


def _newer_copy(member: Member, file: VaultFile) -> bytes:
    member.roster.refresh(member.objects)
    found = next((one for one in member.roster.revocations() if one.device_id == member.device_id), None)
    if found is not None:
        raise revoked_error(member.roster.entries(), found)
    object_key = device_object_key(member.device_id)
    try:
        copy = member.objects.get(object_key, length=MAX_JSON_BYTES + 1)
    except NotFoundError:
        copy = b""
    if copy and Fields.parse(copy, subject=object_key).integer("generation") == file.generation:
        return copy
    raise LockedError(
        "the vault's keys were changed, and this device has no copy of the new ones",
        operation="open vault",
        subject=member.device_id,
        hint="Run `dualmem join` with the passphrase or the new recovery key. What is on this device stays.",
    )
