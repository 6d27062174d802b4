"""The roster: a signed chain of the devices that joined the vault and of those that were revoked.

Source: docs/format.md, "Devices".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dualmem_mcp.crypto.canonical import MAX_JSON_BYTES, Fields, canonical_json, time_text
from dualmem_mcp.crypto.envelope import ObjectKind, Place, SealedReader, Section, bytes_reader, seal_object
from dualmem_mcp.crypto.header import Header, newer, tampered
from dualmem_mcp.crypto.keys import DeviceKeys
from dualmem_mcp.crypto.master_keys import MasterKeys, master_id
from dualmem_mcp.errors import ConflictError, LockedError, NotFoundError, TamperedError
from dualmem_mcp.model.ids import DeviceId, VaultId
from dualmem_mcp.ports import BlobCache, ObjectInfo, ObjectStore

MAX_ENTRIES = 4096
MAX_ATTEMPTS = 64
_PREFIX = "roster/"
_SIGNED = b"dualmem/1/roster"


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """A device that joined: its id and name, its public keys (32 bytes each), and its place in the chain.

    `revoked_after` is the last segment of its log that counts, `revoked_hash` that segment's object hash; None and
    empty for a device that was not revoked.
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


@dataclass(frozen=True, slots=True)
class Revocation:
    """A device that a remaining one put out of the vault: the last segment of its log that counts, with its object
    hash, and the commitment to the master key of the generation that begins with it."""

    device_id: DeviceId
    by: DeviceId
    at: datetime
    last_segment: int
    last_hash: bytes
    generation: int
    commitment: bytes


@dataclass(frozen=True, slots=True)
class _Link:
    """A link of the chain: what it says, its number, its object hash."""

    number: int
    object_hash: bytes
    content: RosterEntry | Revocation


@dataclass(frozen=True, slots=True)
class Roster:
    """The roster of one vault, as this device's cache holds it; `masters` seal it.

    Each revocation begins a new generation of the master key, and all that follows on it is sealed under that: the
    revoked device cannot add anything.
    """

    vault_id: VaultId
    masters: MasterKeys
    cache: BlobCache

    def entries(self) -> list[RosterEntry]:
        """The devices that this device has seen join, in order, revoked ones included.

        Raises TamperedError if the chain is broken.
        """
        return _devices(self._links())

    def revocations(self) -> list[Revocation]:
        """The revocations that this device has seen, in order. Raises TamperedError if the chain is broken."""
        return [link.content for link in self._links() if isinstance(link.content, Revocation)]

    def _links(self) -> list[_Link]:
        links: list[_Link] = []
        for number, key in enumerate(self.cache.keys(_PREFIX), start=1):
            if key != roster_key(number):
                raise tampered("is missing from the roster", roster_key(number))
            links.append(self._open(self.cache.get(key) or b"", links))
        return links

    def refresh(self, objects: ObjectStore) -> list[RosterEntry]:
        """All devices, with the entries fetched that are new in the bucket, as far as the master keys go that this
        device has.

        Raises TamperedError if the bucket lacks an entry that this device has seen, holds another in its
        place, or a new one is not signed or not chained.
        """
        return _devices(self._refreshed(objects))

    def _refreshed(self, objects: ObjectStore) -> list[_Link]:
        links = self._links()
        last = links[-1] if links else None
        start_after = roster_key(last.number - 1) if last else ""
        listed = [info.key for info in _bounded_list(objects, start_after)]
        if last is not None:
            # One entry seen before is fetched again: a bucket set back or forked after it would differ.
            kept = self.cache.get(roster_key(last.number))
            if not listed or listed[0] != roster_key(last.number) or self._fetch(objects, last.number) != kept:
                raise _rolled_back(last.number)
            listed = listed[1:]
        for key in listed:
            number = len(links) + 1
            if key != roster_key(number):
                raise tampered("is missing from the roster", roster_key(number))
            if _generation(links) > self.masters.generation:
                break
            data = self._fetch(objects, number)
            links.append(self._open(data, links))
            self.cache.put(key, data)
        return links

    def join(self, objects: ObjectStore, *, device_id: DeviceId, name: str, keys: DeviceKeys, at: datetime) -> None:
        """Add this device; nothing is added if it is there with these keys.

        Raises ConflictError if the id is another device's, or while the master key changes; LockedError if this
        device was revoked.
        """

        def statement(links: Sequence[_Link]) -> dict[str, Any] | None:
            for entry in _devices(links):
                if entry.device_id == device_id:
                    if entry.revoked_after is not None:
                        found = next(one for one in _revocations(links) if one.device_id == device_id)
                        raise revoked_error(_devices(links), found)
                    if (entry.x25519, entry.ed25519) == (keys.x25519_public, keys.ed25519_public):
                        return None
                    raise ConflictError(
                        "another device has this device's id: its data home is a copy",
                        operation="join vault",
                        subject=device_id,
                        hint="Start with an empty data home (DUALMEM_HOME) on one of the two.",
                    )
            return {
                "action": "add",
                "device_id": device_id,
                "name": name,
                "x25519": keys.x25519_public.hex(),
                "ed25519": keys.ed25519_public.hex(),
            }

        self._append(objects, statement, by=device_id, keys=keys, at=at)

    def revoke(self, objects: ObjectStore, *, revocation: Revocation, keys: DeviceKeys) -> None:
        """Put a device out; nothing is added if that very revocation is there.

        Raises ConflictError if another device has begun a new generation meanwhile.
        """

        def statement(links: Sequence[_Link]) -> dict[str, Any] | None:
            for known in _revocations(links):
                if known.generation == revocation.generation:
                    if known.commitment == revocation.commitment:
                        return None
                    raise ConflictError(
                        "another device is revoking a device at this moment",
                        operation="revoke device",
                        subject=revocation.device_id,
                        hint="Run `dualmem sync`, then look at `dualmem devices`.",
                    )
            return {
                "action": "revoke",
                "device_id": revocation.device_id,
                "last_segment": revocation.last_segment,
                "last_hash": revocation.last_hash.hex(),
                "generation": revocation.generation,
                "commitment": revocation.commitment.hex(),
            }

        self._append(objects, statement, by=revocation.by, keys=keys, at=revocation.at)

    def _append(
        self,
        objects: ObjectStore,
        statement: Callable[[Sequence[_Link]], dict[str, Any] | None],
        *,
        by: DeviceId,
        keys: DeviceKeys,
        at: datetime,
    ) -> None:
        """Add what the statement says, None for nothing.

        The next number is claimed with a conditional write; whoever comes second reads the winner's entry and takes
        the next.
        """
        for _ in range(MAX_ATTEMPTS):
            links = self._refreshed(objects)
            members = statement(links)
            if members is None:
                return
            if _generation(links) != self.masters.generation:
                raise ConflictError(
                    "the keys of the vault are being changed by another device",
                    operation="change roster",
                    subject=objects.location,
                    hint="Run the command again in a moment.",
                )
            number = len(links) + 1
            previous = links[-1].object_hash if links else bytes(32)
            data = self._seal(number, previous, {**members, "by": by, "at": time_text(at)}, keys)
            # An entry that no device could follow would close the roster for all of them, for good.
            self._open(data, links)
            try:
                objects.put(roster_key(number), data, if_absent=True)
            except ConflictError:
                continue
            self.cache.put(roster_key(number), data)
            return
        raise ConflictError(
            "other devices keep changing the roster at the same time",
            operation="change roster",
            subject=objects.location,
            hint="Run the command again.",
        )

    def _seal(self, number: int, previous: bytes, members: dict[str, Any], keys: DeviceKeys) -> bytes:
        entry = canonical_json(
            {"format": 1, "vault_id": self.vault_id, "n": number, "previous": previous.hex(), **members}
        )
        sections = [
            Section("entry", entry),
            Section("signature", keys.ed25519.sign(_SIGNED + entry), compress=False),
        ]
        place = Place(
            self.vault_id, ObjectKind.ROSTER, roster_key(number), DeviceId(members["by"]), number, previous
        )
        return seal_object(
            sections,
            place=place,
            key_id=self.masters.present_id,
            key_epoch=0,
            wrapping_key=self.masters.wrapping_key,
        )

    def _open(self, data: bytes, before: Sequence[_Link]) -> _Link:
        """The link that follows on those before it, checked."""
        number, key = len(before) + 1, roster_key(len(before) + 1)
        previous = before[-1].object_hash if before else bytes(32)
        reader = SealedReader.open(
            bytes_reader(data),
            # The device is the writer's to state; that it signed the entry is checked below.
            place_of=lambda header: Place(
                self.vault_id, ObjectKind.ROSTER, key, header.device_id, number, previous
            ),
            unwrap=lambda header: self._unwrap(header, _generation(before), key),
            subject=key,
        )
        raw = _required(reader, "entry")
        fields = Fields.parse(raw, subject=key)
        action = fields.text("action")
        if fields.integer("format") != 1 or action not in {"add", "revoke"}:
            # An entry that is not understood may be a revocation: going on without it would be worse.
            raise newer("is a roster entry unknown here", key)
        stated = (fields.text("vault_id"), fields.integer("n"), fields.binary("previous", length=32))
        by = DeviceId(fields.binary("by", length=16).hex())
        if stated != (self.vault_id, number, previous) or reader.header.device_id != by:
            raise tampered("belongs in another place", key)
        content: RosterEntry | Revocation
        if action == "add":
            content = _read_addition(fields, by, number=number, object_hash=reader.object_hash)
            signed_with = content.ed25519
        else:
            content, signed_with = _read_revocation(fields, by, before)
        try:
            Ed25519PublicKey.from_public_bytes(signed_with).verify(_required(reader, "signature"), _SIGNED + raw)
        except InvalidSignature:
            raise tampered("is not signed by its device", key) from None
        return _Link(number, reader.object_hash, content)

    def _unwrap(self, header: Header, generation: int, key: str) -> bytes:
        if header.key_id != master_id(generation):
            if generation > 1:
                raise tampered("is not sealed under the master key of its place in the roster", key)
            raise newer("is sealed under a key unknown here", key)
        return self.masters.unwrap(header)

    @staticmethod
    def _fetch(objects: ObjectStore, number: int) -> bytes:
        try:
            return objects.get(roster_key(number), length=MAX_JSON_BYTES + 1)
        except NotFoundError:
            raise _rolled_back(number) from None


def roster_key(number: int) -> str:
    """Where the entry of that number lies."""
    return f"{_PREFIX}{number:020d}"


def _bounded_list(objects: ObjectStore, start_after: str) -> Iterator[ObjectInfo]:
    for count, info in enumerate(objects.list(_PREFIX, start_after=start_after)):
        if count > MAX_ENTRIES:
            raise tampered("is one of too many in the roster", _PREFIX)
        yield info


def _devices(links: Sequence[_Link]) -> list[RosterEntry]:
    revocations = {one.device_id: one for one in _revocations(links)}
    return [
        replace(link.content, revoked_after=revoked.last_segment, revoked_hash=revoked.last_hash)
        if (revoked := revocations.get(link.content.device_id)) is not None
        else link.content
        for link in links
        if isinstance(link.content, RosterEntry)
    ]


def _revocations(links: Sequence[_Link]) -> list[Revocation]:
    return [link.content for link in links if isinstance(link.content, Revocation)]


def _generation(links: Sequence[_Link]) -> int:
    """The generation of the master key under which what follows on these links is sealed."""
    return 1 + len(_revocations(links))


def _read_addition(fields: Fields, by: DeviceId, *, number: int, object_hash: bytes) -> RosterEntry:
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


def _read_revocation(fields: Fields, by: DeviceId, before: Sequence[_Link]) -> tuple[Revocation, bytes]:
    """The revocation, and the public key that it has to be signed with."""
    live = {entry.device_id: entry for entry in _devices(before) if entry.revoked_after is None}
    device_id = DeviceId(fields.binary("device_id", length=16).hex())
    if by not in live or device_id not in live or by == device_id:
        raise fields.unfit("is a revocation by or of a device that is not in the vault")
    generation = fields.integer("generation")
    if generation != _generation(before) + 1:
        raise fields.unfit("is a revocation of another generation")
    revocation = Revocation(
        device_id=device_id,
        by=by,
        at=fields.time("at"),
        last_segment=fields.integer("last_segment"),
        last_hash=fields.binary("last_hash", length=32),
        generation=generation,
        commitment=fields.binary("commitment", length=32),
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


def _required(reader: SealedReader, name: str) -> bytes:
    if name not in reader.names:
        raise tampered(f"has no section {name!r}", reader.place.key)
    return reader.read_section(name)


def _rolled_back(number: int) -> TamperedError:
    return TamperedError(
        f"the bucket no longer has roster entry {number} as this device saw it: it was set back or exchanged",
        operation="check roster",
        subject=roster_key(number),
        hint="Check DUALMEM_BUCKET. If it is right, somebody restored an old copy of the bucket or changed it.",
    )
