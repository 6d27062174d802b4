"""This device's way to the vault: make one, join one, open the one it belongs to, each with its bucket."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Sequence
from typing import Any

from dualmem_mcp.config_file import save_config
from dualmem_mcp.crypto.keys import DeviceKeys
from dualmem_mcp.crypto.membership import check_passphrase, create_vault, join_vault, open_vault
from dualmem_mcp.crypto.roster import RosterEntry
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.errors import DualmemError, NotFoundError, UsageError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import LogHead
from dualmem_mcp.ports import BlobCache, Clock, ObjectStore
from dualmem_mcp.settings import Settings
from dualmem_mcp.stores.bucket_access import kept_bucket_access
from dualmem_mcp.stores.objects import open_object_store
from dualmem_mcp.stores.probe import check_conditional_writes

HeadOf = Callable[[DeviceId], LogHead]
"""Where a device's log ends as it has been taken in here."""


class VaultAccess:
    """The vault and its bucket, opened when they are first needed. Safe to call from several threads."""

    def __init__(
        self,
        settings: Settings,
        blobs: BlobCache,
        device_id: DeviceId,
        device_keys: DeviceKeys,
        clock: Clock,
        *,
        metered: Callable[[ObjectStore], ObjectStore] = lambda objects: objects,
    ) -> None:
        """`metered` wraps the bucket in what counts its use, and refuses what is above the budget."""
        self._settings = settings
        self._blobs = blobs
        self._device_id = device_id
        self._device_keys = device_keys
        self._clock = clock
        self._metered = metered
        self._lock = threading.Lock()
        self._vault: Vault | None = None
        self._objects: ObjectStore | None = None

    def init(self, passphrase: str, *, device_name: str = "") -> dict[str, Any]:
        """A new vault in the bucket: vault_id, device_id, bucket, recovery_key (shown this once), warnings.

        Raises ConflictError if the bucket or this data home has one, StoreRefusedError for a bucket that
        cannot keep what two devices write at once.
        """
        bucket = self._settings.bucket
        objects = self._open_bucket(create=True)
        check_conditional_writes(objects)
        vault, recovery_key = create_vault(
            objects,
            self._blobs,
            passphrase=passphrase,
            device_id=self._device_id,
            device_name=self._named(device_name),
            device_keys=self._device_keys,
            clock=self._clock,
        )
        warnings = []
        try:
            self._remember(objects, vault)
        except DualmemError as error:
            # The vault stands, and this is the only time that its recovery key can be shown.
            warnings = [f"{error.message}; until it can be written, set DUALMEM_BUCKET={bucket}"]
        return {
            "vault_id": vault.vault_id,
            "device_id": vault.device_id,
            "bucket": bucket,
            "recovery_key": recovery_key,
            "warnings": warnings,
        }

    def join(self, secret: str, *, device_name: str = "") -> dict[str, Any]:
        """Make this device one of the vault's in the bucket: vault_id, device_id.

        `secret` is the passphrase or the recovery key. Raises LockedError if it is wrong, NotFoundError if
        there is no vault.
        """
        objects = self._open_bucket()
        vault = join_vault(
            objects,
            self._blobs,
            secret=secret,
            device_id=self._device_id,
            device_name=self._named(device_name),
            device_keys=self._device_keys,
            clock=self._clock,
        )
        self._remember(objects, vault)
        return {"vault_id": vault.vault_id, "device_id": vault.device_id}

    def renew_recovery_key(self, show: Callable[[dict[str, Any]], None]) -> None:
        """A new recovery key in the place of the old one; `show` is given vault_id and recovery_key.

        Raises NotFoundError if this device belongs to no vault, and what `Vault.renew_recovery_key` raises.
        """
        vault, _ = self.opened()
        vault.renew_recovery_key(lambda key: show({"vault_id": vault.vault_id, "recovery_key": key}))

    def revoke(self, device: str, passphrase: str, head_of: HeadOf, show: Callable[[dict[str, Any]], None]) -> None:
        """Put a device, named by its name, its id or the beginning of one, out of the vault; `show` is given
        vault_id, device_id, name and the new recovery_key.

        Raises NotFoundError, UsageError for a name that several have, and what `Vault.revoke` raises.
        """
        vault, objects = self.opened()
        vault.refresh(objects)
        entry = _named_device(vault.devices(), device)
        vault.revoke(
            entry.device_id,
            passphrase=passphrase,
            head=head_of(entry.device_id),
            show=lambda key: show(
                {
                    "vault_id": vault.vault_id,
                    "device_id": entry.device_id,
                    "name": entry.name,
                    "recovery_key": key,
                }
            ),
        )

    def check_passphrase(self, passphrase: str) -> None:
        """Raises LockedError unless it is the vault's passphrase, NotFoundError if this device belongs to no vault.

        By what this device keeps of the vault, as its last sync found it: guesses cost no requests to the bucket,
        and one that is away keeps nobody waiting.
        """
        check_passphrase(self._blobs, passphrase)

    def opened(self) -> tuple[Vault, ObjectStore]:
        """The vault and its bucket. Raises NotFoundError if this device belongs to no vault."""
        with self._lock:
            if self._objects is None:
                self._objects = self._open_bucket()
            if self._vault is None:
                self._vault = open_vault(
                    self._blobs,
                    device_id=self._device_id,
                    device_keys=self._device_keys,
                    objects=self._objects,
                    clock=self._clock,
                )
            return self._vault, self._objects

    def adopt(self, vault: Vault) -> None:
        """Go on as the device that the vault was opened as: this data home took a new id."""
        with self._lock:
            self._device_id, self._device_keys = vault.device_id, vault.device_keys
            self._vault = vault

    def _open_bucket(self, *, create: bool = False) -> ObjectStore:
        access = kept_bucket_access(self._blobs)
        return self._metered(open_object_store(self._settings.bucket, create=create, access=access))

    def _named(self, given: str) -> str:
        return given or self._settings.device_name or platform.node() or "device"

    def _remember(self, objects: ObjectStore, vault: Vault) -> None:
        with self._lock:
            self._objects, self._vault = objects, vault
        save_config(self._settings.home, {"bucket": self._settings.bucket, "device_name": vault.device_name})


def _named_device(entries: Sequence[RosterEntry], name: str) -> RosterEntry:
    """The device of that name or id, or whose id begins so, revoked ones last."""
    live = [entry for entry in entries if entry.revoked_after is None]
    for among in (live, entries):
        found = [entry for entry in among if name in (entry.name, entry.device_id)]
        found = found or [entry for entry in among if len(name) >= 4 and entry.device_id.startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"{len(found)} devices are called {name!r}",
                operation="find device",
                subject=name,
                hint="Give the beginning of its id; `dualmem devices` lists them.",
            )
    raise NotFoundError(
        f"there is no device {name!r} in this vault",
        operation="find device",
        subject=name,
        hint="`dualmem devices` lists them.",
    )
