"""The roster: a signed chain of the devices that joined the vault and of those that were revoked.

Source: docs/format.md, "Devices".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dualmem_mcp.crypto.canonical import MAX_JSON_BYTES, Fields, canonical_json, time_text
from dualmem_mcp.crypto.envelope import ObjectKind, Place, SealedReader, Section, bytes_reader, seal_object
from dualmem_mcp.crypto.header import Header, newer, tampered
from dualmem_mcp.crypto.keys import DeviceKeys
from dualmem_mcp.crypto.master_keys import MasterKeys, master_id
from dualmem_mcp.crypto.roster_entries import (
    Link,
    Revocation,
    RosterEntry,
    devices_of,
    generation_after,
    read_addition,
    read_revocation,
    revocations_of,
    revoked_error,
)
from dualmem_mcp.errors import ConflictError, NotFoundError, TamperedError
from dualmem_mcp.model.ids import DeviceId, VaultId
from dualmem_mcp.ports import BlobCache, ObjectInfo, ObjectStore

__all__ = ["Revocation", "Roster", "RosterEntry", "revoked_error", "roster_key"]

MAX_ENTRIES = 4096
MAX_ATTEMPTS = 64
_PREFIX = "roster/"
_SIGNED = b"dualmem/1/roster"


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
        return devices_of(self._links())

    def revocations(self) -> list[Revocation]:
        """The revocations that this device has seen, in order. Raises TamperedError if the chain is broken."""
        return revocations_of(self._links())

    def unfinished(self) -> Revocation | None:
        """The revocation, if there is one, whose master key is not the vault's yet as far as this device knows."""
        found = self.revocations()
        return found[-1] if found and found[-1].generation > self.masters.generation else None

    def length(self, objects: ObjectStore) -> int:
        """How many entries the bucket has, whatever is in them."""
        return sum(1 for _ in _bounded_list(objects, ""))

    def _links(self) -> list[Link]:
        links: list[Link] = []
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
        return devices_of(self._refreshed(objects))

    def _refreshed(self, objects: ObjectStore) -> list[Link]:
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
            if generation_after(links) > self.masters.generation:
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

        def statement(links: Sequence[Link]) -> dict[str, Any] | None:
            for entry in devices_of(links):
                if entry.device_id == device_id:
                    if entry.revoked_after is not None:
                        found = next(one for one in revocations_of(links) if one.device_id == device_id)
                        raise revoked_error(devices_of(links), found)
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

    def revoke(
        self,
        objects: ObjectStore,
        *,
        revocation: Revocation,
        keys: DeviceKeys,
        before: Callable[[Sequence[RosterEntry]], object],
    ) -> None:
        """Put a device out; nothing is added if that very revocation is there.

        `before` is given the devices of the vault each time before the entry is tried: what must be there first.
        Raises ConflictError if another device has begun a new generation meanwhile.
        """

        def statement(links: Sequence[Link]) -> dict[str, Any] | None:
            for known in revocations_of(links):
                if known.generation == revocation.generation:
                    if known.commitment == revocation.commitment:
                        return None
                    raise ConflictError(
                        "another device is revoking a device at this moment",
                        operation="revoke device",
                        subject=revocation.device_id,
                        hint="Run `dualmem sync`, then look at `dualmem devices`.",
                    )
            before(devices_of(links))
            return {
                "action": "revoke",
                "device_id": revocation.device_id,
                "last_segment": revocation.last_segment,
                "last_hash": revocation.last_hash.hex(),
                **({} if revocation.last_sequence is None else {"last_sequence": revocation.last_sequence}),
                "generation": revocation.generation,
                "commitment": revocation.commitment.hex(),
            }

        self._append(objects, statement, by=revocation.by, keys=keys, at=revocation.at)

    def _append(
        self,
        objects: ObjectStore,
        statement: Callable[[Sequence[Link]], dict[str, Any] | None],
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
            if generation_after(links) != self.masters.generation:
                raise _being_changed(links)
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

    def _open(self, data: bytes, before: Sequence[Link]) -> Link:
        """The link that follows on those before it, checked."""
        number, key = len(before) + 1, roster_key(len(before) + 1)
        previous = before[-1].object_hash if before else bytes(32)
        reader = SealedReader.open(
            bytes_reader(data),
            # The device is the writer's to state; that it signed the entry is checked below.
            place_of=lambda header: Place(
                self.vault_id, ObjectKind.ROSTER, key, header.device_id, number, previous
            ),
            unwrap=lambda header: self._unwrap(header, generation_after(before), key),
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
            content = read_addition(fields, by, number=number, object_hash=reader.object_hash)
            signed_with = content.ed25519
        else:
            content, signed_with = read_revocation(fields, by, before)
        try:
            Ed25519PublicKey.from_public_bytes(signed_with).verify(_required(reader, "signature"), _SIGNED + raw)
        except InvalidSignature:
            raise tampered("is not signed by its device", key) from None
        return Link(number, reader.object_hash, content)

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


def _being_changed(links: Sequence[Link]) -> ConflictError:
    revocation = revocations_of(links)[-1]
    names = {entry.device_id: entry.name for entry in devices_of(links)}
    revoked, by = (names.get(one, one) for one in (revocation.device_id, revocation.by))
    return ConflictError(
        f"the keys of the vault are being changed: {by!r} has not finished revoking {revoked!r}",
        operation="change roster",
        subject=revocation.device_id,
        hint=f"Run the command again in a moment, with the passphrase; or `dualmem revoke {revoked}` on {by!r}.",
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
