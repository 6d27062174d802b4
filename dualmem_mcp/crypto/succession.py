"""From one master key to the next: a device is revoked, and those that stay go on under a key that it lacks.

Order and names of what is written: docs/format.md, "Rotation and revocation".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dualmem_mcp.crypto.canonical import Fields, canonical_json
from dualmem_mcp.crypto.header import tampered
from dualmem_mcp.crypto.kdf import KEY_BYTES, Kdf, KdfLimits
from dualmem_mcp.crypto.master_keys import commitment
from dualmem_mcp.crypto.next_keys import Member, clear_away, finish, lay_ready
from dualmem_mcp.crypto.recovery import format_recovery_key, is_recovery_key, new_recovery_key
from dualmem_mcp.crypto.roster import Revocation, RosterEntry
from dualmem_mcp.crypto.vault_file import VAULT_KEY, VaultFile, unlock, with_next_master_key
from dualmem_mcp.errors import ConflictError, NotFoundError, UsageError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import LogHead

_PENDING = "local/rotation"


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
            return self._finished(pending)  # killed, or finished by another device, after vault.json was written
        target = _revocable(member.roster.entries(), device_id, member.device_id, begun=pending is not None)
        if unlock(file, passphrase, limits=self.limits) != masters.present:
            raise tampered("opens another master key than this device has", VAULT_KEY)
        if pending is None:
            pending = _Next(device_id, masters.generation + 1, os.urandom(KEY_BYTES), new_recovery_key())
            member.cache.put(_PENDING, pending.encode())
        revocation = Revocation(
            device_id=target.device_id,
            by=member.device_id,
            at=member.clock.now(),
            last_segment=head.segment,
            last_hash=head.object_hash,
            last_sequence=head.sequence,
            generation=pending.generation,
            commitment=commitment(pending.master_key),
        )
        key, following = pending.master_key, self._following(file, pending, passphrase)
        member.roster.revoke(
            member.objects,
            revocation=revocation,
            keys=member.device_keys,
            before=lambda entries: lay_ready(member, entries, following, key, leave_out=device_id),
        )
        finish(member, revocation, following, key)
        take_over()
        return self._finished(pending)

    def _pending(self, device_id: DeviceId) -> _Next | None:
        """What is kept of a revocation that was begun here and is not done; None if another device's came first."""
        kept = self.member.cache.get(_PENDING)
        if not kept:
            return None
        pending, masters = _Next.parse(kept), self.member.masters
        if pending.generation < masters.generation or (
            pending.generation == masters.generation and pending.master_key != masters.present
        ):
            return None
        if pending.device_id != device_id:
            raise ConflictError(
                "the revocation of another device has not been finished on this one",
                operation="revoke device",
                subject=pending.device_id,
                hint=f"Run `dualmem revoke {pending.device_id}` first: it goes on where it stopped.",
            )
        return pending

    def _following(self, file: VaultFile, pending: _Next, passphrase: str) -> VaultFile:
        return with_next_master_key(
            file, pending.master_key, passphrase=passphrase, recovery_key=pending.recovery_key, kdf=self.kdf
        )

    def _finished(self, pending: _Next) -> str:
        clear_away(self.member, pending.device_id, commitment(pending.master_key))
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
