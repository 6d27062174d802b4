"""Becoming a member of a vault: making one, joining one, and opening it again from this device's cache.

Source of all layouts: docs/format.md.
"""

from __future__ import annotations

import os

from dualmem_mcp.crypto.canonical import Fields
from dualmem_mcp.crypto.kdf import KEY_BYTES, Kdf, KdfLimits, Pbkdf2
from dualmem_mcp.crypto.key_objects import (
    device_object_key,
    open_for_device,
)
from dualmem_mcp.crypto.keys import DeviceKeys
from dualmem_mcp.crypto.recovery import format_recovery_key, is_recovery_key, new_recovery_key
from dualmem_mcp.crypto.vault import NEXT_COPY, Vault
from dualmem_mcp.crypto.vault_file import (
    VAULT_KEY,
    VaultFile,
    make_vault_file,
    parse_vault_file,
    read_vault_file,
    unlock,
)
from dualmem_mcp.errors import ConflictError, DualmemError, LockedError, NotFoundError, UsageError
from dualmem_mcp.model.ids import DeviceId, VaultId
from dualmem_mcp.ports import BlobCache, Clock, ObjectStore, SystemClock

__all__ = ["check_passphrase", "create_vault", "join_vault", "open_vault"]

_MAX_NAME_LENGTH = 64


def create_vault(
    objects: ObjectStore,
    cache: BlobCache,
    *,
    passphrase: str,
    device_id: DeviceId,
    device_name: str,
    device_keys: DeviceKeys,
    clock: Clock,
    kdf: Kdf | None = None,
) -> tuple[Vault, str]:
    """A new vault in an empty bucket, with this device in it, and its recovery key to be shown once.

    Raises UsageError for an empty passphrase, ConflictError if the bucket or the data home has a vault,
    StoreUnreachableError.
    """
    if not passphrase.strip() or is_recovery_key(passphrase):
        raise UsageError(
            "the passphrase is empty" if not passphrase.strip() else "a passphrase cannot look like a recovery key",
            operation="create vault",
            hint="Set DUALMEM_PASSPHRASE or DUALMEM_PASSPHRASE_FILE; five random words are a good one.",
        )
    if cache.get(VAULT_KEY) is not None:
        raise _joined_already("create vault")
    master_key, recovery_key = os.urandom(KEY_BYTES), new_recovery_key()
    file = make_vault_file(
        master_key,
        vault_id=VaultId(os.urandom(16).hex()),
        passphrase=passphrase,
        recovery_key=recovery_key,
        kdf=kdf or Pbkdf2(),
        created_at=clock.now(),
    )
    try:
        # First of all objects, and conditional: it decides whose vault this bucket holds.
        objects.put(VAULT_KEY, file.encode(), if_absent=True)
    except ConflictError:
        raise ConflictError(
            "there is a vault in this bucket already; nothing was changed",
            operation="create vault",
            subject=objects.location,
            hint="Run `dualmem join` with its passphrase or recovery key, or choose another bucket.",
        ) from None
    vault = Vault(
        file=file,
        master_key=master_key,
        device_id=device_id,
        device_keys=device_keys,
        cache=cache,
        objects=objects,
        clock=clock,
    )
    try:
        vault.admit_device(objects, name=_fit_name(device_name))
    except DualmemError as error:
        error.hint = (
            "The vault was made, but not completed: run `dualmem join` with the passphrase, then "
            f"`dualmem recovery-key new` for its recovery key. {error.hint}"
        )
        raise
    return vault, format_recovery_key(recovery_key)


def join_vault(
    objects: ObjectStore,
    cache: BlobCache,
    *,
    secret: str,
    device_id: DeviceId,
    device_name: str,
    device_keys: DeviceKeys,
    clock: Clock,
    limits: KdfLimits | None = None,
) -> Vault:
    """The vault of a bucket, opened by passphrase or recovery key, with this device in it from now on.

    Again with the same device it changes nothing. Raises NotFoundError if the bucket has no vault,
    LockedError if the secret is wrong or mistyped, TamperedError, ConflictError if the data home belongs to
    another vault or is a copy of another device's, StoreUnreachableError.
    """
    file = parse_vault_file(read_vault_file(objects))
    kept = cache.get(VAULT_KEY)
    if kept is not None and parse_vault_file(kept).vault_id != file.vault_id:
        raise _joined_already("join vault")

    def unlocked(file: VaultFile) -> bytes:
        return unlock(file, secret, limits=limits or KdfLimits())

    def opened(file: VaultFile) -> Vault:
        return Vault(
            file=file,
            master_key=unlocked(file),
            device_id=device_id,
            device_keys=device_keys,
            cache=cache,
            objects=objects,
            clock=clock,
        )

    vault = opened(file)
    if kept is not None:
        vault.refresh(objects)
    if vault.finish_revocation(objects, unlocked):
        vault = opened(parse_vault_file(read_vault_file(objects)))
    vault.admit_device(objects, name=_fit_name(device_name))
    return vault


def open_vault(
    cache: BlobCache,
    *,
    device_id: DeviceId,
    device_keys: DeviceKeys,
    objects: ObjectStore | None = None,
    clock: Clock | None = None,
) -> Vault:
    """The vault that this device joined, from its cache: no passphrase, and the bucket is not contacted.

    Raises NotFoundError if it joined none, LockedError if the keys are another device's, TamperedError.
    """
    data = cache.get(VAULT_KEY)
    if data is None:
        raise _no_vault()
    file = parse_vault_file(data)
    copy = _copy_for(file.generation, cache, device_id)
    if copy is None:
        raise LockedError(
            "this data home holds no key to its vault",
            operation="open vault",
            subject=device_id,
            hint="Run `dualmem join` with the passphrase or the recovery key.",
        )
    try:
        master_key = open_for_device(
            copy, vault_id=file.vault_id, generation=file.generation, device_id=device_id, keys=device_keys
        )
    except LockedError:
        raise LockedError(
            "the device's keys do not open its vault",
            operation="open vault",
            subject=device_id,
            hint="Run `dualmem join` with the passphrase or the recovery key.",
        ) from None
    file.check_mac(master_key)
    return Vault(
        file=file,
        master_key=master_key,
        device_id=device_id,
        device_keys=device_keys,
        cache=cache,
        objects=objects,
        clock=clock or SystemClock(),
    )


def check_passphrase(cache: BlobCache, passphrase: str, *, limits: KdfLimits | None = None) -> None:
    """Raises LockedError unless the passphrase opens the vault, as this device knows it. Takes the KDF's time.

    By the copy of vault.json that this device has checked and kept, never by the bucket's: whoever can write there
    could put a vault of their own in its place. A recovery key is no passphrase.

    Raises NotFoundError if this device belongs to no vault.
    """
    data = cache.get(VAULT_KEY)
    if data is None:
        raise _no_vault()
    if is_recovery_key(passphrase):
        raise LockedError("a recovery key is no passphrase", operation="check passphrase")
    unlock(parse_vault_file(data), passphrase, limits=limits or KdfLimits())


def _no_vault() -> NotFoundError:
    return NotFoundError(
        "this device has no vault yet",
        operation="open vault",
        hint="Run `dualmem init` for a new vault, or `dualmem join BUCKET` for one that exists.",
    )


def _copy_for(generation: int, cache: BlobCache, device_id: DeviceId) -> bytes | None:
    """This device's copy of the master key; while another takes its place, the one of that generation."""
    copy, following = cache.get(device_object_key(device_id)), cache.get(NEXT_COPY)
    if following:
        fields = Fields.parse(following, subject=NEXT_COPY)
        # It stays there when it is done with, also after this data home became another device.
        if (fields.integer("generation"), fields.text("device_id")) == (generation, device_id):
            return following
    return copy


def _joined_already(operation: str) -> ConflictError:
    return ConflictError(
        "this data home belongs to a vault already; nothing was changed",
        operation=operation,
        hint="Use another data home (DUALMEM_HOME) for another vault.",
    )


def _fit_name(name: str) -> str:
    """A device's name for lists: printable, at most 64 characters."""
    return (
        "".join(character for character in name if character.isprintable()).strip()[:_MAX_NAME_LENGTH] or "device"
    )
