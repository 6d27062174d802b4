"""The epoch keys of a vault: found, begun when the newest is 30 days old. Source: docs/format.md, "Epoch keys"."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import islice

from dualmem_mcp.crypto.canonical import MAX_JSON_BYTES
from dualmem_mcp.crypto.header import HEADER_BYTES, MAX_EPOCH, Header, tampered
from dualmem_mcp.crypto.kdf import KEY_BYTES
from dualmem_mcp.crypto.key_objects import EpochKey, epoch_object_key, open_epoch_key, seal_epoch_key
from dualmem_mcp.crypto.master_keys import MasterKeys
from dualmem_mcp.errors import NotFoundError, TamperedError
from dualmem_mcp.model.ids import DeviceId, VaultId
from dualmem_mcp.ports import BlobCache, Clock, ObjectStore

EPOCH_LIFETIME = timedelta(days=30)
"""New writes use a new epoch key after this: what one leaked epoch key opens is a month's conversations."""

MOST_LISTED = 4096
"""Of names that a refresh looks at; a vault begins thirteen epochs a year, and one more at each revocation."""

MOST_TRIED = 64
"""Of objects unknown here that a refresh fetches: whoever can write to the bucket can put any number there."""

_PREFIX = "keys/0"
"""Epochs are below 2^52, so their 16 digits begin with 0; conversation keys lie under `keys/c/`."""

_OBJECT_KEY = re.compile(r"keys/(000[0-9a-f]{13})")
_UPLOADED = "local/uploaded/"


@dataclass(frozen=True, slots=True)
class Epochs:
    """The epoch keys of one vault; `masters` seal them."""

    vault_id: VaultId
    device_id: DeviceId
    masters: MasterKeys
    cache: BlobCache
    clock: Clock
    opened: dict[int, EpochKey] = field(default_factory=dict, repr=False)
    left_alone: set[tuple[str, str]] = field(default_factory=set, repr=False)
    """Objects that hold no epoch key under a master key, with its name: not to be fetched at each refresh."""

    def current(self) -> int:
        """The epoch of new writes; begun now, offline if need be, if there is none younger than 30 days under the
        present master key: older ones may be known to a device that was revoked."""
        present = [epoch for epoch in self.known() if self.is_present(epoch)]
        if present and self.clock.now() - self.key(max(present), objects=None).created_at < EPOCH_LIFETIME:
            return max(present)
        # Not above those under older master keys: a revoked device may have put one there that leaves no numbers.
        newest = max(present, default=0)
        # Two devices may begin an epoch at once, offline: the random half keeps their names apart.
        number = ((newest >> 32) + 1) << 32 | int.from_bytes(os.urandom(4))
        if number > MAX_EPOCH:
            raise tampered("has an impossible number", epoch_object_key(newest))
        epoch = EpochKey(number, self.clock.now(), os.urandom(KEY_BYTES))
        sealed = seal_epoch_key(
            epoch,
            vault_id=self.vault_id,
            device_id=self.device_id,
            key_id=self.masters.present_id,
            wrapping_key=self.masters.wrapping_key,
        )
        self.cache.put(epoch_object_key(number), sealed)
        self.opened[number] = replace(epoch, key_id=self.masters.present_id)
        return number

    def known(self) -> list[int]:
        """The epochs whose objects this device has, ascending."""
        keys = (_OBJECT_KEY.fullmatch(key) for key in self.cache.keys(_PREFIX))
        return sorted(int(match[1], 16) for match in keys if match)

    def is_present(self, epoch: int) -> bool:
        """Whether this device has that epoch's key, sealed under the present master key."""
        try:
            return self.key(epoch, objects=None).key_id == self.masters.present_id
        except NotFoundError:
            return False

    def key(self, epoch: int, *, objects: ObjectStore | None) -> EpochKey:
        """The key of an epoch: from memory, the cache, or the bucket if one is given.

        Raises NotFoundError if it is nowhere, TamperedError, and what the bucket raises.
        """
        if epoch in self.opened:
            return self.opened[epoch]
        object_key = epoch_object_key(epoch)
        data = self.cache.get(object_key)
        fetched = data is None
        if data is None:
            data = fetch_key(object_key, objects, missing="an epoch key is not in the vault")
        opened = open_epoch_key(data, epoch=epoch, vault_id=self.vault_id, unwrap=self.masters.unwrap)
        if fetched:
            self.cache.put(object_key, data)
            mark_uploaded(self.cache, object_key)
        self.opened[epoch] = opened
        return opened

    def refresh(self, objects: ObjectStore) -> None:
        """Fetch epoch keys that are new in the bucket, to write under the newest: those under the present master
        key, some at a time. Others are fetched when something is sealed under them; what is none is left alone.
        """
        known = set(self.cache.keys(_PREFIX))
        left = MOST_TRIED
        for info in islice(objects.list(_PREFIX), MOST_LISTED):
            match = _OBJECT_KEY.fullmatch(info.key)
            if match and info.key in known:
                mark_uploaded(self.cache, info.key)
            elif match and left and (info.key, self.masters.present_id) not in self.left_alone:
                left -= 1
                self._try(int(match[1], 16), objects)

    def _try(self, epoch: int, objects: ObjectStore) -> None:
        object_key = epoch_object_key(epoch)
        try:
            header = Header.decode(objects.get(object_key, length=HEADER_BYTES), subject=object_key)
            if header.key_id == self.masters.present_id:
                self.key(epoch, objects=objects)
                return
        except (NotFoundError, TamperedError):
            pass  # damaged, or made by somebody who is not of the vault
        self.left_alone.add((object_key, self.masters.present_id))


def fetch_key(object_key: str, objects: ObjectStore | None, *, missing: str) -> bytes:
    """A key object from the bucket. Raises NotFoundError with the text `missing`, and what the bucket raises."""
    try:
        if objects is not None:
            return objects.get(object_key, length=MAX_JSON_BYTES + 1)
    except NotFoundError:
        pass
    raise NotFoundError(
        missing,
        operation="open key",
        subject=object_key,
        hint="The conversation may have been erased, or the device that made the key has not uploaded it yet: "
        "run `dualmem handoff` there again.",
    )


def mark_uploaded(cache: BlobCache, object_key: str) -> None:
    """Remember that a key object is in the bucket."""
    if not is_uploaded(cache, object_key):
        cache.put(_UPLOADED + object_key, b"1")


def is_uploaded(cache: BlobCache, object_key: str) -> bool:
    """Whether a key object is known to be in the bucket."""
    return bool(cache.get(_UPLOADED + object_key))
