"""An open vault: its keys, made and found, its devices, and whether the bucket is still its own.

Everything but fetching works from the cache alone. Source of all layouts: docs/format.md.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable

from dualmem_mcp.crypto.conversation_keys import ConversationKeys, is_key_id
from dualmem_mcp.crypto.epochs import Epochs, fetch_key, is_uploaded, mark_uploaded
from dualmem_mcp.crypto.header import Header, ObjectKind, Place, newer
from dualmem_mcp.crypto.kdf import KEY_BYTES, Kdf, KdfLimits, Pbkdf2
from dualmem_mcp.crypto.key_objects import (
    device_object_key,
    epoch_object_key,
    seal_conversation_key,
    seal_for_device,
    seal_tombstone,
)
from dualmem_mcp.crypto.keys import ConversationKey, DeviceKeys
from dualmem_mcp.crypto.master_keys import MasterKeys, master_generation
from dualmem_mcp.crypto.next_keys import KeyOf, Member, finish_revocation, take_newer_master_key
from dualmem_mcp.crypto.recovery import format_recovery_key, new_recovery_key
from dualmem_mcp.crypto.roster import Roster, RosterEntry, roster_key
from dualmem_mcp.crypto.roster_entries import revoked_error
from dualmem_mcp.crypto.succession import Succession
from dualmem_mcp.crypto.vault_file import (
    VAULT_KEY,
    VaultFile,
    check_successor,
    parse_vault_file,
    read_vault_file,
    rewrite_vault_file,
    with_recovery_key,
    without_older_recovery_keys,
)
from dualmem_mcp.errors import NotFoundError, StoreUnreachableError, UsageError
from dualmem_mcp.model.ids import ConversationId, DeviceId, VaultId, parse_conversation_id
from dualmem_mcp.model.oplog import LogHead
from dualmem_mcp.ports import BlobCache, Clock, ObjectStore

__all__ = ["ConversationKey", "DeviceKeys", "Vault"]

NEXT_COPY = "local/next-copy"
"""A copy of the master key that is being taken in the place of `keys/d/…`."""


class Vault:
    """An open vault on one device. Made by the functions of `crypto.membership`.

    Reads from the cache first; `objects`, if given at opening, is asked only for keys that the cache lacks
    and by `refresh`. What is made here lands in the cache at once and is handed to the caller for upload.
    """

    def __init__(
        self,
        *,
        file: VaultFile,
        master_key: bytes,
        device_id: DeviceId,
        device_keys: DeviceKeys,
        cache: BlobCache,
        objects: ObjectStore | None,
        clock: Clock,
    ) -> None:
        self.vault_id: VaultId = file.vault_id
        self.device_id = device_id
        self.device_keys = device_keys
        self._file = file
        self._cache = cache
        self._objects = objects
        self._clock = clock
        keys = (file.generation, master_key)
        self._masters = MasterKeys(file.vault_id, *keys, self._fetch_old_master, self._keep_old_master)
        self._names_key = b""
        self._roster = Roster(file.vault_id, self._masters, cache)
        self._epochs = Epochs(file.vault_id, device_id, self._masters, cache, clock)
        self._conversation_keys = ConversationKeys(file.vault_id, self._epochs, cache)

    def __repr__(self) -> str:
        return f"Vault({self.vault_id!r}, device_id={self.device_id!r})"

    @property
    def device_name(self) -> str:
        """The name under which this device joined."""
        return next((device.name for device in self.devices() if device.device_id == self.device_id), "")

    def devices(self) -> list[RosterEntry]:
        """The devices of the vault that this one knows of, in the order they joined, revoked ones included."""
        return self._roster.entries()

    def check_member(self) -> None:
        """Raises LockedError if this device was revoked, as far as it knows; nothing is asked of the bucket."""
        found = next((one for one in self._roster.revocations() if one.device_id == self.device_id), None)
        if found is not None:
            raise revoked_error(self.devices(), found)

    def object_name(self, domain: str, text: str) -> str:
        """32 hexadecimal digits that stand for a text in the bucket: a keyed hash, so that whoever does not
        have the vault's keys cannot tell or test what it stands for.

        Source: docs/format.md, "Objects in the bucket".
        """
        message = domain.encode("ascii") + b"\0" + text.encode("utf-8", "surrogatepass")
        if not self._names_key:
            self._names_key = self._masters.names_key
        return hmac.digest(self._names_key, message, "sha256")[:16].hex()

    def place(self, kind: ObjectKind, key: str, *, sequence: int = 0, previous_hash: bytes = bytes(32)) -> Place:
        """The place of an object that this device writes."""
        return Place(self.vault_id, kind, key, self.device_id, sequence, previous_hash)

    def place_of(self, kind: ObjectKind, key: str) -> Callable[[Header], Place]:
        """For `SealedReader.open`: the place of an object in no chain that was found at `key`, whichever
        device of the vault wrote it."""
        return lambda header: Place(self.vault_id, kind, key, header.device_id)

    def unwrap(self, header: Header) -> bytes:
        """The wrapping key (32 bytes) that a header names.

        Raises NotFoundError if it is not in the cache nor the bucket (its conversation was erased),
        TamperedError for one that this vault never names, and what the bucket raises.
        """
        if header.key_id.startswith("master."):
            return self._masters.unwrap(header)
        if header.key_id == "epoch":
            return self.epoch_key(header.key_epoch)
        if is_key_id(header.key_id):
            return self.conversation_key(header.key_id).key
        raise newer("names a key of a kind unknown here", header.object_id.hex())

    def current_epoch(self) -> int:
        """The epoch that new conversation keys are sealed under; begun now if the newest is 30 days old."""
        return self._epochs.current()

    def epochs(self) -> list[int]:
        """The epochs whose keys this device has, ascending."""
        return self._epochs.known()

    def epoch_key(self, epoch: int) -> bytes:
        """The key (32 bytes) of an epoch. Raises NotFoundError if neither cache nor bucket has it."""
        return self._epochs.key(epoch, objects=self._objects).key

    def create_conversation_key(
        self, conversation_id: ConversationId
    ) -> tuple[ConversationKey, list[tuple[str, bytes]]]:
        """A new key for a conversation, and `pending_objects` of it.

        Works offline. A conversation may have several keys, of several devices; each object names its own.
        Raises UsageError if the id is none.
        """
        epoch = self.current_epoch()
        key = ConversationKey(
            os.urandom(16).hex(), parse_conversation_id(conversation_id), epoch, os.urandom(KEY_BYTES)
        )
        sealed = seal_conversation_key(
            key,
            created_at=self._clock.now(),
            vault_id=self.vault_id,
            device_id=self.device_id,
            epoch_key=self.epoch_key(epoch),
        )
        self._conversation_keys.keep(key, sealed)
        return key, self.pending_objects(key)

    def pending_objects(self, key: ConversationKey) -> list[tuple[str, bytes]]:
        """The key objects, in order of upload, without which other devices cannot open what `key` seals, and
        which are not marked as uploaded. Queue them before the objects sealed with it, each time: so a crash
        between making a key and queueing it loses nothing."""
        return self._pending(epoch_object_key(key.epoch), key.object_key)

    def _pending(self, *names: str) -> list[tuple[str, bytes]]:
        waiting = [name for name in names if not is_uploaded(self._cache, name)]
        return [(name, data) for name in waiting if (data := self._cache.get(name))]

    def mark_uploaded(self, object_key: str) -> None:
        """Remember that a key object is in the bucket; for any other object this does nothing."""
        if object_key.startswith("keys/"):
            mark_uploaded(self._cache, object_key)

    def conversation_key(self, key_id: str, *, objects: ObjectStore | None = None) -> ConversationKey:
        """The conversation key of that id: from memory, the cache, or the bucket, and cached then.

        Raises NotFoundError if it is nowhere or the conversation was erased, TamperedError, and what the
        bucket raises.
        """
        return self._conversation_keys.find(key_id, objects or self._objects)

    def pending_epoch(self) -> list[tuple[str, bytes]]:
        """The object of the current epoch's key, unless it is known to be in the bucket: queue it before what is
        sealed under it."""
        return self._pending(epoch_object_key(self.current_epoch()))

    def look(self, objects: ObjectStore) -> None:
        """Refresh only if vault.json or the roster have changed: two small requests where they have not.

        Raises as `refresh` does.
        """
        entries = len(self._cache.keys("roster/"))
        if read_vault_file(objects) == (self._cache.get(VAULT_KEY) or self._file.encode()):
            try:
                objects.get(roster_key(entries + 1), length=1)
            except NotFoundError:
                return
        self.refresh(objects)

    def as_device(self, device_id: DeviceId, keys: DeviceKeys, objects: ObjectStore) -> Vault:
        """The same vault for another device id, which has to be admitted before it counts."""
        return Vault(
            file=self._file,
            master_key=self._masters.present,
            device_id=device_id,
            device_keys=keys,
            cache=self._cache,
            objects=objects,
            clock=self._clock,
        )

    def cached_conversation_keys(self, conversation_id: ConversationId) -> list[ConversationKey]:
        """The keys of a conversation that this device has copies of."""
        return self._conversation_keys.cached(conversation_id, self._objects)

    def seal_tombstone(self, key: ConversationKey) -> bytes:
        """What has to be written over the key's object in the bucket when its conversation is erased."""
        epoch = self.current_epoch()
        return seal_tombstone(
            key,
            name=self.object_name("conversation", key.conversation_id),
            erased_at=self._clock.now(),
            vault_id=self.vault_id,
            device_id=self.device_id,
            epoch=epoch,
            epoch_key=self.epoch_key(epoch),
        )

    def forget_conversation_key(self, key: ConversationKey, tombstone: bytes) -> None:
        """Overwrite this device's copy of the key."""
        self._conversation_keys.forget(key, tombstone)

    def refresh(self, objects: ObjectStore | None = None) -> None:
        """Bring roster and epoch keys up to date with the bucket, and check that it is this vault's still.

        Four requests and one more for each new object. Raises TamperedError if vault.json or the roster
        were exchanged or set back, NotFoundError if there is no vault, StoreUnreachableError.
        """
        objects = objects or self._objects
        if objects is None:
            raise UsageError("there is no bucket to refresh from", operation="refresh vault")
        self._refresh_file(objects)
        self._roster.refresh(objects)
        if self.finish_revocation(objects):
            self._refresh_file(objects)
            self._roster.refresh(objects)
        self._epochs.refresh(objects)

    def finish_revocation(self, objects: ObjectStore, key_of: KeyOf | None = None) -> bool:
        """Finish a revocation that the revoking device has not, as far as the roster is known here; whether it
        did. `key_of` gives the next master key where this device has no copy of it."""
        return finish_revocation(self._member(objects), key_of)

    def _refresh_file(self, objects: ObjectStore) -> None:
        data = read_vault_file(objects)
        # The cache before this object's own: another process of this device may have seen a newer one.
        known = self._cache.get(VAULT_KEY) or self._file.encode()
        file, before = parse_vault_file(data), parse_vault_file(known)
        if file.vault_id == before.vault_id and file.generation > self._file.generation:
            self._keep_file(file, take_newer_master_key(self._member(objects), file))
            known, before = data, file
        if data != known:
            check_successor(file, before, master_key=self._masters.present, location=objects.location)
            self._keep_file(file)
        elif data != self._file.encode():
            self._file = file

    def _keep_file(self, file: VaultFile, copy: bytes | None = None) -> None:
        """Remember the file, and with it this device's copy of its master key where that is another one."""
        if copy is not None:
            # Until the last step both are there, and one of them fits the file, whenever a kill comes.
            self._cache.put(NEXT_COPY, copy)
        self._cache.put(VAULT_KEY, file.encode())
        if copy is not None:
            self._cache.put(device_object_key(self.device_id), copy)
        self._file = file

    def _fetch_old_master(self, object_key: str) -> bytes:
        data = self._cache.get(object_key)
        if data is None:
            data = fetch_key(object_key, self._objects, missing="an older master key is not in the vault")
        return data

    def _keep_old_master(self, object_key: str, data: bytes) -> None:
        if self._cache.get(object_key) != data:
            self._cache.put(object_key, data)

    def generation_of(self, epoch: int) -> int:
        """The generation of the master key that an epoch is sealed under: a device that was revoked knows no later
        ones. Raises NotFoundError, TamperedError, and what the bucket raises."""
        return master_generation(self._epochs.key(epoch, objects=self._objects).key_id)

    def is_of_present_key(self, epoch: int) -> bool:
        """Whether that epoch is sealed under the present master key: what is new is sealed under no other."""
        return self._epochs.is_present(epoch)

    def revoke(
        self,
        device_id: DeviceId,
        *,
        passphrase: str,
        head: LogHead,
        show: Callable[[str], None],
        kdf: Kdf | None = None,
        limits: KdfLimits | None = None,
    ) -> None:
        """Put a device out of the vault and go on under a new master key; `show` is given the new recovery key.

        `head` is where the device's log ends for the others. A kill at any moment leaves a vault that opens; again,
        it goes on where it stopped. Raises LockedError for a wrong passphrase, NotFoundError for a device that is
        not in the vault, UsageError for this one, ConflictError, StoreUnreachableError.
        """
        objects = self._objects
        if objects is None:
            raise UsageError("there is no bucket to write to", operation="revoke device")
        self.refresh(objects)
        succession = Succession(self._member(objects), kdf or Pbkdf2(), limits or KdfLimits())
        recovery_key = succession.run(self._file, device_id, passphrase, head, lambda: self.refresh(objects))
        for key, data in self.pending_epoch():
            objects.put(key, data)
            self.mark_uploaded(key)
        show(recovery_key)
        succession.settled()

    def _member(self, objects: ObjectStore) -> Member:
        own = (self.vault_id, self.device_id, self.device_keys)
        return Member(*own, self._masters, self._roster, self._cache, objects, self._clock)

    def renew_recovery_key(self, show: Callable[[str], None]) -> None:
        """A new recovery key for the vault, given to `show` as text once it opens the vault in the bucket.

        When that returns the older ones are taken out: whatever happens between, one opens it that was shown.

        Raises ConflictError if other devices go on changing vault.json, TamperedError, NotFoundError,
        StoreUnreachableError; after `show` the hint says which keys open the vault.
        """
        key = new_recovery_key()
        self._rewrite(lambda file: with_recovery_key(file, self._masters.present, key))
        show(format_recovery_key(key))
        try:
            self._rewrite(lambda file: without_older_recovery_keys(file, self._masters.present, key))
        except StoreUnreachableError as error:
            error.hint = (
                "The new key opens the vault, and the older one still does: run `dualmem recovery-key new` again "
                f"to end that. {error.hint}"
            )
            raise

    def _rewrite(self, change: Callable[[VaultFile], VaultFile]) -> None:
        """Put the changed vault.json in the place of the one that it was made from."""
        objects = self._objects
        if objects is None:
            raise UsageError("there is no bucket to write to", operation="change vault")

        def refreshed() -> VaultFile:
            self._refresh_file(objects)
            return self._file

        self._keep_file(rewrite_vault_file(objects, refreshed, change))

    def admit_device(self, objects: ObjectStore, *, name: str) -> None:
        """Put this device into the bucket: its copy of the master key, its roster entry, an epoch if there is none.

        Used by `create_vault` and `join_vault`; again after a crash it changes nothing that is there.
        """
        copy = seal_for_device(
            self._masters.present,
            vault_id=self.vault_id,
            generation=self._file.generation,
            device_id=self.device_id,
            public_key=self.device_keys.x25519_public,
        )
        objects.put(device_object_key(self.device_id), copy)
        self._roster.join(objects, device_id=self.device_id, name=name, keys=self.device_keys, at=self._clock.now())
        self._epochs.refresh(objects)
        for epoch_key, sealed in self._pending(epoch_object_key(self.current_epoch())):
            objects.put(epoch_key, sealed)
            self.mark_uploaded(epoch_key)
        self._masters.of(1)  # through all between, which are here from now on
        # vault.json last: with it in the cache the device counts as joined.
        self._cache.put(device_object_key(self.device_id), copy)
        self._cache.put(VAULT_KEY, self._file.encode())
