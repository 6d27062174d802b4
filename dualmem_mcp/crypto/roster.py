"""The roster: a signed chain of the devices that joined the vault. Source: docs/format.md, "Devices"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dualmem_mcp.crypto.canonical import MAX_JSON_BYTES, Fields, canonical_json, time_text
from dualmem_mcp.crypto.envelope import ObjectKind, Place, SealedReader, Section, bytes_reader, seal_object
from dualmem_mcp.crypto.header import newer, tampered
from dualmem_mcp.crypto.key_objects import known_key
from dualmem_mcp.crypto.keys import DeviceKeys
from dualmem_mcp.errors import ConflictError, NotFoundError, TamperedError
from dualmem_mcp.model.ids import DeviceId, VaultId
from dualmem_mcp.ports import BlobCache, ObjectInfo, ObjectStore

MAX_ENTRIES = 4096
MAX_ATTEMPTS = 64
_PREFIX = "roster/"
_SIGNED = b"dualmem/1/roster"


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """A device that joined: its id and name, its public keys (32 bytes each), and its place in the chain.

    `revoked_after` is the last segment of its log that counts, None for a device that was not revoked.
    """

    number: int
    device_id: DeviceId
    name: str
    x25519: bytes
    ed25519: bytes
    joined_at: datetime
    object_hash: bytes
    revoked_after: int | None = None


@dataclass(frozen=True, slots=True)
class Roster:
    """The roster of one vault, as this device's cache holds it; `wrapping_key` is the master key's."""

    vault_id: VaultId
    wrapping_key: bytes = field(repr=False)
    key_id: str
    cache: BlobCache

    def entries(self) -> Iterator[RosterEntry]:
        """The entries that this device has seen, in order. Raises TamperedError if the chain is broken."""
        previous = bytes(32)
        for number, key in enumerate(self.cache.keys(_PREFIX), start=1):
            if key != roster_key(number):
                raise tampered("is missing from the roster", roster_key(number))
            entry = self._open(self.cache.get(key) or b"", number, previous)
            previous = entry.object_hash
            yield entry

    def refresh(self, objects: ObjectStore) -> list[RosterEntry]:
        """All entries, with those fetched that are new in the bucket.

        Raises TamperedError if the bucket lacks an entry that this device has seen, holds another in its
        place, or a new one is not signed or not chained.
        """
        entries = list(self.entries())
        last = entries[-1] if entries else None
        start_after = roster_key(last.number - 1) if last else ""
        listed = [info.key for info in _bounded_list(objects, start_after)]
        if last is not None:
            # One entry seen before is fetched again: a bucket set back or forked after it would differ.
            kept = self.cache.get(roster_key(last.number))
            if not listed or listed[0] != roster_key(last.number) or self._fetch(objects, last.number) != kept:
                raise _rolled_back(last.number)
            listed = listed[1:]
        for key in listed:
            number = len(entries) + 1
            if key != roster_key(number):
                raise tampered("is missing from the roster", roster_key(number))
            data = self._fetch(objects, number)
            entries.append(self._open(data, number, entries[-1].object_hash if entries else bytes(32)))
            self.cache.put(key, data)
        return entries

    def join(self, objects: ObjectStore, *, device_id: DeviceId, name: str, keys: DeviceKeys, at: datetime) -> None:
        """Add this device; nothing is added if it is there with these keys.

        The next number is claimed with a conditional write; whoever comes second reads the winner's entry
        and takes the next. Raises ConflictError if the id is another device's.
        """
        for _ in range(MAX_ATTEMPTS):
            entries = self.refresh(objects)
            for entry in entries:
                if entry.device_id == device_id:
                    if (entry.x25519, entry.ed25519) == (keys.x25519_public, keys.ed25519_public):
                        return
                    raise ConflictError(
                        "another device has this device's id: its data home is a copy",
                        operation="join vault",
                        subject=device_id,
                        hint="Start with an empty data home (DUALMEM_HOME) on one of the two.",
                    )
            number = len(entries) + 1
            previous = entries[-1].object_hash if entries else bytes(32)
            data = self._seal(number, previous, device_id=device_id, name=name, keys=keys, at=at)
            try:
                objects.put(roster_key(number), data, if_absent=True)
            except ConflictError:
                continue
            self.cache.put(roster_key(number), data)
            return
        raise ConflictError(
            "other devices keep joining at the same time",
            operation="join vault",
            subject=objects.location,
            hint="Run the command again.",
        )

    def _seal(
        self, number: int, previous: bytes, *, device_id: DeviceId, name: str, keys: DeviceKeys, at: datetime
    ) -> bytes:
        entry = canonical_json(
            {
                "format": 1,
                "vault_id": self.vault_id,
                "n": number,
                "previous": previous.hex(),
                "action": "add",
                "device_id": device_id,
                "name": name,
                "x25519": keys.x25519_public.hex(),
                "ed25519": keys.ed25519_public.hex(),
                "by": device_id,
                "at": time_text(at),
            }
        )
        sections = [
            Section("entry", entry),
            Section("signature", keys.ed25519.sign(_SIGNED + entry), compress=False),
        ]
        place = Place(self.vault_id, ObjectKind.ROSTER, roster_key(number), device_id, number, previous)
        return seal_object(sections, place=place, key_id=self.key_id, key_epoch=0, wrapping_key=self.wrapping_key)

    def _open(self, data: bytes, number: int, previous: bytes) -> RosterEntry:
        key = roster_key(number)
        reader = SealedReader.open(
            bytes_reader(data),
            # The device is the writer's to state; that it signed the entry is checked below.
            place_of=lambda header: Place(
                self.vault_id, ObjectKind.ROSTER, key, header.device_id, number, previous
            ),
            unwrap=known_key(self.key_id, self.wrapping_key),
            subject=key,
        )
        raw = _required(reader, "entry")
        fields = Fields.parse(raw, subject=key)
        if fields.integer("format") != 1 or fields.text("action") != "add":
            # An entry that is not understood may be a revocation: going on without it would be worse.
            raise newer("is a roster entry unknown here", key)
        device_id = DeviceId(fields.binary("device_id", length=16).hex())
        stated = (fields.text("vault_id"), fields.integer("n"), fields.binary("previous", length=32))
        if stated != (self.vault_id, number, previous) or {fields.text("by"), reader.header.device_id} != {
            device_id
        }:
            raise tampered("belongs in another place", key)
        ed25519 = fields.binary("ed25519", length=32)
        try:
            Ed25519PublicKey.from_public_bytes(ed25519).verify(_required(reader, "signature"), _SIGNED + raw)
        except InvalidSignature:
            raise tampered("is not signed by its device", key) from None
        return RosterEntry(
            number=number,
            device_id=device_id,
            name=fields.text("name"),
            x25519=fields.binary("x25519", length=32),
            ed25519=ed25519,
            joined_at=fields.time("at"),
            object_hash=reader.object_hash,
        )

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
