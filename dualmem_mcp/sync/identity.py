"""A new identity for a device whose old one another machine uses as well: a copied data home, or one set back."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from dualmem_mcp.crypto.canonical import canonical_json
from dualmem_mcp.crypto.keys import DEVICE_BLOB, DeviceKeys, parse_device
from dualmem_mcp.crypto.membership import open_vault
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.ports import BlobCache, Clock, ObjectStore

_NEXT_BLOB: Final = "local/device.next"


MAX_NAME_CHARACTERS: Final = 64
"""Of a device's name. Source: docs/format.md, "Roster"."""

_NUMBERED: Final = re.compile(r" \(\d+\)\Z")


class Identity(Protocol):
    """How a device comes by a new id. A crash between the two steps is made good by `settle` at the next sync."""

    def prepare(self, vault: Vault, objects: ObjectStore) -> DeviceId:
        """A new id with keys and a name of its own, joined to the vault and kept here; again before `settle`, the
        same."""
        ...

    def settle(self, device_id: DeviceId) -> Vault:
        """The vault, opened as that device, which this data home is from now on."""
        ...


@dataclass(frozen=True, slots=True)
class KeptIdentity:
    """An Identity in the data home's blob cache. `on_change` is told of the vault as the new device opens it."""

    blobs: BlobCache
    objects: ObjectStore
    clock: Clock
    on_change: Callable[[Vault], object] | None = None

    def prepare(self, vault: Vault, objects: ObjectStore) -> DeviceId:
        """As the Protocol says."""
        kept = self.blobs.get(_NEXT_BLOB)
        if kept is None or kept == self.blobs.get(DEVICE_BLOB):
            device_id, keys = DeviceId(os.urandom(16).hex()), DeviceKeys.generate()
            kept = canonical_json({"device_id": device_id, "keys": keys.to_bytes().hex()})
            self.blobs.put(_NEXT_BLOB, kept)
        device_id, keys = parse_device(kept)
        name = told_apart(vault.device_name, {entry.name for entry in vault.devices()})
        vault.as_device(device_id, keys, objects).admit_device(objects, name=name)
        return device_id

    def settle(self, device_id: DeviceId) -> Vault:
        """As the Protocol says."""
        kept = self.blobs.get(_NEXT_BLOB)
        if kept is not None and parse_device(kept)[0] == device_id:
            self.blobs.put(DEVICE_BLOB, kept)
        device_id, keys = parse_device(self.blobs.get(DEVICE_BLOB) or b"")
        vault = open_vault(
            self.blobs, device_id=device_id, device_keys=keys, objects=self.objects, clock=self.clock
        )
        if self.on_change is not None:
            self.on_change(vault)
        return vault


def told_apart(name: str, taken: Collection[str]) -> str:
    """The name with the first number that no other device has: "laptop (2)" beside "laptop"."""
    base, number = _NUMBERED.sub("", name) or "device", 2
    while (numbered := f"{base[: MAX_NAME_CHARACTERS - len(suffix := f' ({number})')]}{suffix}") in taken:
        number += 1
    return numbered
