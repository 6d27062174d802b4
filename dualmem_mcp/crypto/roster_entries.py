"""What the roster says: devices that joined, devices that were revoked. Source: docs/format.md, "Devices"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dualmem_mcp.crypto.canonical import Fields
from dualmem_mcp.errors import LockedError
from dualmem_mcp.model.ids import DeviceId


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """A device that joined: its id and name, its public keys (32 bytes each), and its place in the chain.

    `revoked_after` is the last segment of its log that counts, `revoked_hash` that segment's object hash, and
    `revoked_sequence` the number of its last op (None where the entry does not tell); None and empty for a device
    that was not revoked.
    """

    number: int
    device_id: DeviceId
    name: str
    x25519: bytes
    ed25519: bytes
    joined_at: datetime
    object_hash: bytes
    revoked_after: int | None = None
    revoked_hash: bytes = b""
    revoked_sequence: int | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """A device that a remaining one put out of the vault: the last segment of its log that counts, with its object
    hash and the number of its last op, and the commitment to the master key of the generation that begins then."""

    device_id: DeviceId
    by: DeviceId
    at: datetime
    last_segment: int
    last_hash: bytes
    generation: int
    commitment: bytes
    last_sequence: int | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A link of the chain: what it says, its number, its object hash."""

    number: int
    object_hash: bytes
    content: RosterEntry | Revocation


def devices_of(links: Sequence[Link]) -> list[RosterEntry]:
    """The devices that joined, in order, with how far the logs of the revoked ones count."""
    revocations = {one.device_id: one for one in revocations_of(links)}
    return [
        replace(
            link.content,
            revoked_after=revoked.last_segment,
            revoked_hash=revoked.last_hash,
            revoked_sequence=revoked.last_sequence,
        )
        if (revoked := revocations.get(link.content.device_id)) is not None
        else link.content
        for link in links
        if isinstance(link.content, RosterEntry)
    ]


def revocations_of(links: Sequence[Link]) -> list[Revocation]:
    """The revocations, in order."""
    return [link.content for link in links if isinstance(link.content, Revocation)]


def generation_after(links: Sequence[Link]) -> int:
    """The generation of the master key under which what follows on these links is sealed."""
    return 1 + len(revocations_of(links))


def read_addition(fields: Fields, by: DeviceId, *, number: int, object_hash: bytes) -> RosterEntry:
    """The device that an entry of `by` adds: itself. Raises TamperedError."""
    device_id = DeviceId(fields.binary("device_id", length=16).hex())
    if by != device_id:
        raise fields.unfit("is not signed by the device that it adds")
    return RosterEntry(
        number=number,
        device_id=device_id,
        name=fields.text("name"),
        x25519=fields.binary("x25519", length=32),
        ed25519=fields.binary("ed25519", length=32),
        joined_at=fields.time("at"),
        object_hash=object_hash,
    )


def read_revocation(fields: Fields, by: DeviceId, before: Sequence[Link]) -> tuple[Revocation, bytes]:
    """The revocation, and the public key that it has to be signed with. Raises TamperedError."""
    live = {entry.device_id: entry for entry in devices_of(before) if entry.revoked_after is None}
    device_id = DeviceId(fields.binary("device_id", length=16).hex())
    if by not in live or device_id not in live or by == device_id:
        raise fields.unfit("is a revocation by or of a device that is not in the vault")
    generation = fields.integer("generation")
    if generation != generation_after(before) + 1:
        raise fields.unfit("is a revocation of another generation")
    revocation = Revocation(
        device_id=device_id,
        by=by,
        at=fields.time("at"),
        last_segment=fields.integer("last_segment"),
        last_hash=fields.binary("last_hash", length=32),
        generation=generation,
        commitment=fields.binary("commitment", length=32),
        last_sequence=fields.integer("last_sequence") if "last_sequence" in fields.values else None,
    )
    return revocation, live[by].ed25519


def revoked_error(entries: Sequence[RosterEntry], revocation: Revocation) -> LockedError:
    """The error for a device that was put out of the vault."""
    by = next((entry.name for entry in entries if entry.device_id == revocation.by), revocation.by)
    return LockedError(
        f"this device was revoked by {by!r} on {revocation.at:%Y-%m-%d}: it belongs to the vault no more",
        operation="open vault",
        subject=revocation.device_id,
        hint="What is kept on this device stays here. To belong to the vault again, start with an empty data home "
        "(DUALMEM_HOME) and `dualmem join`.",
    )
