"""From one master key to the next: a device is revoked, and those that stay go on under a key that it lacks.

Order and names of what is written: docs/format.md, "Rotation and revocation".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dualmem_mcp.crypto.canonical import MAX_JSON_BYTES, Fields, canonical_json
from dualmem_mcp.crypto.header import tampered
from dualmem_mcp.crypto.kdf import KEY_BYTES, Kdf, KdfLimits
from dualmem_mcp.crypto.key_objects import device_object_key, open_for_device, seal_for_device
from dualmem_mcp.crypto.keys import DeviceKeys
from dualmem_mcp.crypto.master_keys import (
    MasterKeys,
    commitment,
    is_committed,
    old_master_object_key,
    seal_old_master,
)
from dualmem_mcp.crypto.recovery import format_recovery_key, is_recovery_key, new_recovery_key
from dualmem_mcp.crypto.roster import Revocation, Roster, RosterEntry, revoked_error
from dualmem_mcp.crypto.vault_file import VAULT_KEY, VaultFile, parse_vault_file, unlock, with_next_master_key
from dualmem_mcp.errors import ConflictError, LockedError, NotFoundError, UsageError
from dualmem_mcp.model.ids import DeviceId, VaultId
from dualmem_mcp.model.oplog import LogHead
from dualmem_mcp.ports import BlobCache, Clock, ObjectStore

_PENDING = "local/rotation"


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


@dataclass(frozen=True, slots=True)
class Succession:
    """A revocation on its way. The next keys are kept on this device until all of it is done, so that a run that
    was killed is gone on with."""

    member: Member
    kdf: Kdf
    limits: KdfLimits

    def run(
        self,
        file: VaultFile,
        device_id: DeviceId,
        passphrase: str,
        head: LogHead,
        take_over: Callable[[], None],
    ) -> str:
        """Revoke the device and give the vault its next master key; returns the new recovery key as text.

        `file` is the vault.json that this device knows, just refreshed; `take_over` makes it know the next. Raises
        LockedError for a wrong passphrase, NotFoundError, UsageError, ConflictError, StoreUnreachableError.
        """
        member, masters = self.member, self.member.masters
        if is_recovery_key(passphrase):
            raise UsageError(
                "a recovery key cannot stand for the passphrase here: the new master key is wrapped by that, too",
                operation="revoke device",
                subject=device_id,
                hint="Give the vault's passphrase.",
            )
        pending = self._pending(device_id)
        if pending is not None and pending.generation == masters.generation:
            unlock(file, passphrase, limits=self.limits)
            return self._finish(pending)  # killed after vault.json was written
        begun = pending is not None and pending.generation == masters.generation + 1
        target = _revocable(member.roster.entries(), device_id, member.device_id, begun=begun)
        if unlock(file, passphrase, limits=self.limits) != masters.present:
            raise tampered("opens another master key than this device has", VAULT_KEY)
        if pending is None or not begun:
            pending = _Next(device_id, masters.generation + 1, os.urandom(KEY_BYTES), new_recovery_key())
            member.cache.put(_PENDING, pending.encode())
        member.roster.revoke(
            member.objects,
            revocation=Revocation(
                device_id=target.device_id,
                by=member.device_id,
                at=member.clock.now(),
                last_segment=head.segment,
                last_hash=head.object_hash,
                generation=pending.generation,
                commitment=commitment(pending.master_key),
            ),
            keys=member.device_keys,
        )
        self._write_keys(pending)
        self._write_file(file, pending, passphrase)
        take_over()
        return self._finish(pending)

    def _pending(self, device_id: DeviceId) -> _Next | None:
        kept = self.member.cache.get(_PENDING)
        if not kept:
            return None
        pending = _Next.parse(kept)
        if pending.device_id != device_id and pending.generation >= self.member.masters.generation:
            raise ConflictError(
                "the revocation of another device has not been finished on this one",
                operation="revoke device",
                subject=pending.device_id,
                hint=f"Run `dualmem revoke {pending.device_id}` first: it goes on where it stopped.",
            )
        return pending

    def _write_keys(self, pending: _Next) -> None:
        """The old master key under the new one, and the new one for each device that stays."""
        member, masters = self.member, self.member.masters
        old = seal_old_master(
            masters.present,
            generation=masters.generation,
            vault_id=member.vault_id,
            device_id=member.device_id,
            newer_key=pending.master_key,
        )
        member.objects.put(old_master_object_key(masters.generation), old)
        for entry in member.roster.entries():
            if entry.revoked_after is None:
                copy = seal_for_device(
                    pending.master_key,
                    vault_id=member.vault_id,
                    generation=pending.generation,
                    device_id=entry.device_id,
                    public_key=entry.x25519,
                )
                member.objects.put(device_object_key(entry.device_id), copy)

    def _write_file(self, file: VaultFile, pending: _Next, passphrase: str) -> None:
        following = with_next_master_key(
            file, pending.master_key, passphrase=passphrase, recovery_key=pending.recovery_key, kdf=self.kdf
        )
        objects = self.member.objects
        etag = objects.stat(VAULT_KEY).etag
        there = parse_vault_file(objects.get(VAULT_KEY, length=MAX_JSON_BYTES + 1))
        if there.generation == pending.generation:
            return  # an earlier try, whose answer was lost
        if there.encode() != file.encode():
            raise _changed_meanwhile(objects)
        try:
            objects.put(VAULT_KEY, following.encode(), if_match=etag)
        except ConflictError:
            raise _changed_meanwhile(objects) from None

    def _finish(self, pending: _Next) -> str:
        member = self.member
        member.objects.delete(device_object_key(pending.device_id))
        return format_recovery_key(pending.recovery_key)

    def settled(self) -> None:
        """All is done, and the recovery key was shown: forget what was kept to go on with."""
        self.member.cache.put(_PENDING, b"")


@dataclass(frozen=True, slots=True)
class _Next:
    """What the next generation begins with."""

    device_id: DeviceId
    generation: int
    master_key: bytes = field(repr=False)
    recovery_key: bytes = field(repr=False)

    def encode(self) -> bytes:
        return canonical_json(
            {
                "device_id": self.device_id,
                "generation": self.generation,
                "master_key": self.master_key.hex(),
                "recovery_key": self.recovery_key.hex(),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> _Next:
        fields = Fields.parse(data, subject=_PENDING)
        return cls(
            DeviceId(fields.binary("device_id", length=16).hex()),
            fields.integer("generation"),
            fields.binary("master_key", length=KEY_BYTES),
            fields.binary("recovery_key", length=KEY_BYTES),
        )


def _revocable(entries: Sequence[RosterEntry], device_id: DeviceId, own: DeviceId, *, begun: bool) -> RosterEntry:
    entry = next((one for one in entries if one.device_id == device_id), None)
    if entry is None:
        raise NotFoundError(
            f"there is no device {device_id} in this vault",
            operation="revoke device",
            subject=device_id,
            hint="`dualmem devices` lists them.",
        )
    if entry.revoked_after is not None and not begun:
        raise UsageError(
            f"{entry.name!r} has been revoked already",
            operation="revoke device",
            subject=device_id,
            hint="`dualmem devices` lists the others.",
        )
    if device_id == own:
        raise UsageError(
            "a device cannot revoke itself",
            operation="revoke device",
            subject=device_id,
            hint="Revoke it from another device, or delete its data home.",
        )
    return entry


def _changed_meanwhile(objects: ObjectStore) -> ConflictError:
    return ConflictError(
        "vault.json was changed by another device meanwhile",
        operation="revoke device",
        subject=objects.location,
        hint="Run the command again: it goes on where it stopped.",
    )
