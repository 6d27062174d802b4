"""The master keys of a vault by generation: the present one, and the older ones, each sealed under the next.

Source of the layout: docs/format.md, "Rotation and revocation".
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable

from dualmem_mcp.crypto.canonical import Fields, canonical_json
from dualmem_mcp.crypto.envelope import ObjectKind, Place, SealedReader, Section, bytes_reader, seal_object
from dualmem_mcp.crypto.header import Header, newer, tampered
from dualmem_mcp.crypto.kdf import KEY_BYTES, expand
from dualmem_mcp.crypto.key_objects import known_key
from dualmem_mcp.model.ids import DeviceId, VaultId

_SECTION = "key"
_KEY_ID = re.compile(r"master\.([1-9][0-9]{0,6})")

Keep = Callable[[str, bytes], object]
"""Is given a key object that opened."""

Fetch = Callable[[str], bytes]
"""The bytes of a key object, from this device or the bucket. Raises NotFoundError, and what the bucket raises."""


def master_id(generation: int) -> str:
    """How headers name the wrapping key of a generation."""
    return f"master.{generation}"


def master_generation(key_id: str) -> int:
    """The generation whose wrapping key a header names so; 0 for another kind of key."""
    match = _KEY_ID.fullmatch(key_id)
    return int(match[1]) if match else 0


def old_master_object_key(generation: int) -> str:
    """Where the master key of a past generation lies."""
    return f"keys/g/{generation}"


def commitment(master_key: bytes) -> bytes:
    """32 bytes by which a roster entry announces a master key: they tell nothing of it, and fit no other."""
    return expand(master_key, b"dualmem/1/master/commitment")


def is_committed(master_key: bytes, announced: bytes) -> bool:
    """Whether that is the master key which was announced."""
    return hmac.compare_digest(commitment(master_key), announced)


class MasterKeys:
    """The master keys of one vault that this device has; `fetch` finds the sealed older ones, and `keep` is given
    those that opened."""

    def __init__(
        self, vault_id: VaultId, generation: int, master_key: bytes, fetch: Fetch, keep: Keep | None = None
    ) -> None:
        self._vault_id = vault_id
        self._fetch = fetch
        self._keep = keep
        self._keys = {generation: master_key}
        self.generation = generation

    def __repr__(self) -> str:
        return f"MasterKeys(generation={self.generation})"

    @property
    def present(self) -> bytes:
        """The master key of the present generation."""
        return self._keys[self.generation]

    @property
    def present_id(self) -> str:
        """How headers name its wrapping key."""
        return master_id(self.generation)

    @property
    def wrapping_key(self) -> bytes:
        """Its wrapping key, 32 bytes."""
        return _wrapping_key(self.present)

    @property
    def names_key(self) -> bytes:
        """What names in the bucket are hashed with: the first generation's, for good."""
        return expand(self.of(1), b"dualmem/1/master/names")

    def unwrap(self, header: Header) -> bytes:
        """The wrapping key that a header names, of this generation or an older one.

        Raises NewerFormatError for one of a later generation, or for another kind of key; NotFoundError.
        """
        generation = master_generation(header.key_id)
        if not 0 < generation <= self.generation:
            raise newer("is sealed under a key unknown here", header.object_id.hex())
        return _wrapping_key(self.of(generation))

    def of(self, generation: int) -> bytes:
        """The master key of that generation, through those between. Raises NotFoundError, TamperedError."""
        known = min(number for number in self._keys if number >= generation)
        while known > generation:
            key = old_master_object_key(known - 1)
            data = self._fetch(key)
            self._keys[known - 1] = open_old_master(
                data, generation=known - 1, vault_id=self._vault_id, newer_key=self._keys[known]
            )
            if self._keep is not None:
                self._keep(key, data)
            known -= 1
        return self._keys[generation]

    def advance(self, master_key: bytes) -> None:
        """Go on with the next generation's master key."""
        self.generation += 1
        self._keys[self.generation] = master_key


def seal_old_master(
    master_key: bytes, *, generation: int, vault_id: VaultId, device_id: DeviceId, newer_key: bytes
) -> bytes:
    """The master key of that generation under the one after it."""
    content = {"format": 1, "generation": generation, "key": master_key.hex()}
    return seal_object(
        [Section(_SECTION, canonical_json(content), compress=False)],
        place=Place(vault_id, ObjectKind.EPOCH, old_master_object_key(generation), device_id),
        key_id=master_id(generation + 1),
        key_epoch=0,
        wrapping_key=_wrapping_key(newer_key),
    )


def open_old_master(data: bytes, *, generation: int, vault_id: VaultId, newer_key: bytes) -> bytes:
    """The master key of that generation. Raises TamperedError, NewerFormatError."""
    key = old_master_object_key(generation)
    reader = SealedReader.open(
        bytes_reader(data),
        place_of=lambda header: Place(vault_id, ObjectKind.EPOCH, key, header.device_id),
        unwrap=known_key(master_id(generation + 1), _wrapping_key(newer_key)),
        subject=key,
    )
    if _SECTION not in reader.names:
        raise tampered(f"has no section {_SECTION!r}", key)
    fields = Fields.parse(reader.read_section(_SECTION), subject=key)
    if fields.integer("format") != 1:
        raise newer("holds a key of a newer format", key)
    if fields.integer("generation") != generation:
        raise tampered("belongs in another place", key)
    return fields.binary("key", length=KEY_BYTES)


def _wrapping_key(master_key: bytes) -> bytes:
    return expand(master_key, b"dualmem/1/master/wrap")
