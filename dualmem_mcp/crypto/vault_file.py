"""vault.json: the vault's id and its master key, wrapped by passphrase and by recovery key.

Source of the layout: docs/format.md, "vault.json".
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dualmem_mcp.crypto.canonical import MAX_JSON_BYTES, Fields, canonical_json, time_text
from dualmem_mcp.crypto.header import newer
from dualmem_mcp.crypto.kdf import SALT_BYTES, Kdf, KdfLimits, expand, extract_and_expand, kdf_from_json
from dualmem_mcp.crypto.recovery import is_recovery_key, parse_recovery_key
from dualmem_mcp.crypto.wraps import COMMITMENT_BYTES, WRAPPED_BYTES, Wrap, unwrap_key, wrap_key
from dualmem_mcp.errors import ConflictError, LockedError, NotFoundError, TamperedError
from dualmem_mcp.model.ids import VaultId
from dualmem_mcp.ports import ObjectStore

VAULT_KEY = "vault.json"
MAX_GENERATION = 1 << 20
_REWRITES = 5
"""Times that vault.json is changed anew when another device was faster."""

_RECOVERY_KDF = "hkdf-sha256"


@dataclass(frozen=True, slots=True)
class VaultFile:
    """What vault.json states, read but for the MAC, which needs the master key (`check_mac`)."""

    vault_id: VaultId
    generation: int
    revision: int
    created_at: datetime
    values: dict[str, Any] = field(repr=False)

    def encode(self) -> bytes:
        """The file's bytes."""
        return canonical_json(self.values)

    def check_mac(self, master_key: bytes) -> None:
        """Raises TamperedError unless a holder of this master key wrote the file."""
        stated = Fields(self.values, subject=VAULT_KEY).binary("mac", length=32)
        if not hmac.compare_digest(_mac(self.values, master_key), stated):
            raise TamperedError(
                "vault.json was changed",
                operation="open vault",
                subject=VAULT_KEY,
                hint="Restore vault.json from a backup of the bucket; devices that have joined go on offline.",
            )


def make_vault_file(
    master_key: bytes, *, vault_id: VaultId, passphrase: str, recovery_key: bytes, kdf: Kdf, created_at: datetime
) -> VaultFile:
    """The first vault.json of a vault: generation 1, revision 1. Takes the KDF's time."""
    values: dict[str, Any] = {
        "format": 1,
        "vault_id": vault_id,
        "generation": 1,
        "revision": 1,
        "created_at": time_text(created_at),
        "wraps": [
            _passphrase_wrap(master_key, passphrase, kdf, vault_id=vault_id, generation=1),
            _recovery_wrap(master_key, recovery_key, vault_id=vault_id, generation=1),
        ],
    }
    return _sealed(values, master_key)


def with_next_master_key(
    file: VaultFile, master_key: bytes, *, passphrase: str, recovery_key: bytes, kdf: Kdf
) -> VaultFile:
    """The vault.json of the next generation, which none of the present one's wraps opens. Takes the KDF's time."""
    generation, vault_id = file.generation + 1, file.vault_id
    wraps = [
        _passphrase_wrap(master_key, passphrase, kdf, vault_id=vault_id, generation=generation),
        _recovery_wrap(master_key, recovery_key, vault_id=vault_id, generation=generation),
    ]
    revision = file.revision + 1
    return _sealed({**file.values, "generation": generation, "revision": revision, "wraps": wraps}, master_key)


def with_recovery_key(file: VaultFile, master_key: bytes, recovery_key: bytes) -> VaultFile:
    """The next revision, which one more recovery key opens."""
    added = _recovery_wrap(master_key, recovery_key, vault_id=file.vault_id, generation=file.generation)
    return _revised(file, master_key, [*_wraps(file), added])


def without_older_recovery_keys(file: VaultFile, master_key: bytes, recovery_key: bytes) -> VaultFile:
    """The next revision, which no recovery key opens that was there before this one.

    Raises ConflictError if this one is not there any more.
    """
    wraps = _wraps(file)
    places = [at for at, wrap in enumerate(wraps) if _opens(wrap, file, recovery_key)]
    if not places:
        raise ConflictError(
            "another device has made a newer recovery key meanwhile; this one opens the vault no more",
            operation="make recovery key",
            subject=file.vault_id,
            hint="Use the key that was shown on the other device, or run `dualmem recovery-key new` again.",
        )
    # Twice it stands there after a write whose answer was lost.
    kept = [wrap for at, wrap in enumerate(wraps) if at >= places[-1] or not _is_of_kind(wrap, "recovery")]
    return _revised(file, master_key, kept)


def read_vault_file(objects: ObjectStore) -> bytes:
    """The bytes of the bucket's vault.json, not checked. Raises NotFoundError, and what the bucket raises."""
    try:
        return objects.get(VAULT_KEY, length=MAX_JSON_BYTES + 1)
    except NotFoundError:
        raise NotFoundError(
            "there is no vault in this bucket",
            operation="open vault",
            subject=objects.location,
            hint="Check DUALMEM_BUCKET, or make a vault with `dualmem init`.",
        ) from None


def rewrite_vault_file(
    objects: ObjectStore, refreshed: Callable[[], VaultFile], change: Callable[[VaultFile], VaultFile]
) -> VaultFile:
    """The changed file, written over the one that it was made from; `refreshed` gives the bucket's, checked.

    Raises ConflictError if other devices go on changing it, and what `refreshed` and `change` raise.
    """
    for _ in range(_REWRITES):
        etag = objects.stat(VAULT_KEY).etag
        file = change(refreshed())
        try:
            objects.put(VAULT_KEY, file.encode(), if_match=etag)
        except ConflictError:
            continue  # another device was faster: again, from what it wrote
        return file
    raise ConflictError(
        "other devices change vault.json at this moment",
        operation="change vault",
        subject=objects.location,
        hint="Run the command again.",
    )


def parse_vault_file(data: bytes) -> VaultFile:
    """The file, checked for damage. Raises TamperedError, or NewerFormatError if its format is unknown here."""
    fields = Fields.parse(data, subject=VAULT_KEY)
    if fields.text("checksum") != _checksum(fields.values):
        raise fields.unfit("is damaged")
    if fields.integer("format") != 1:
        raise newer("is of another format", VAULT_KEY)
    return VaultFile(
        vault_id=VaultId(fields.binary("vault_id", length=16).hex()),
        generation=fields.integer("generation", low=1, high=MAX_GENERATION),
        revision=fields.integer("revision", low=1),
        created_at=fields.time("created_at"),
        values=fields.values,
    )


def unlock(file: VaultFile, secret: str, *, limits: KdfLimits) -> bytes:
    """The master key, by passphrase or recovery key, with the file's MAC checked. Takes the KDF's time.

    Raises LockedError if the secret is wrong or mistyped, TamperedError if the file was changed or its
    parameters are out of bounds.
    """
    kind = "recovery" if is_recovery_key(secret) else "passphrase"
    recovery_key = parse_recovery_key(secret) if kind == "recovery" else b""
    try:
        if kind == "recovery":
            master_key = _unlock_by_recovery_key(file, recovery_key)
        else:
            master_key = _unlock_by_passphrase(file, secret, limits)
    except LockedError:
        raise LockedError(
            f"the {'recovery key' if kind == 'recovery' else 'passphrase'} does not open this vault",
            operation="open vault",
            subject=file.vault_id,
            hint="Type it again, or use the recovery key."
            if kind == "passphrase"
            else "It is well formed, but another vault's; check DUALMEM_BUCKET, or use the passphrase.",
        ) from None
    file.check_mac(master_key)
    return master_key


def check_successor(file: VaultFile, known: VaultFile, *, master_key: bytes, location: str) -> None:
    """Raises TamperedError unless `file` may follow the vault.json that this device saw last."""
    if file.vault_id != known.vault_id:
        raise TamperedError(
            "the bucket holds another vault than the one this device joined",
            operation="check vault",
            subject=location,
            hint="Check DUALMEM_BUCKET; if it is the right one, vault.json was exchanged.",
        )
    file.check_mac(master_key)
    if (file.generation, file.revision) <= (known.generation, known.revision):
        raise TamperedError(
            "vault.json is older than the one this device saw: the bucket was set back",
            operation="check vault",
            subject=location,
            hint="Somebody restored an old copy of the bucket or changed it; an old passphrase may open it again.",
        )


def _unlock_by_passphrase(file: VaultFile, passphrase: str, limits: KdfLimits) -> bytes:
    # Only one: deriving takes its time, and anybody may have written the file.
    fields = _find_wraps(file, "passphrase")[0]
    kdf, wrap = fields.nested("kdf"), _read_wrap(fields)
    salt = kdf.binary("salt", length=SALT_BYTES)
    secret = kdf_from_json(kdf.values, limits).derive(passphrase, salt)
    return _unwrap(wrap, file, "passphrase", secret)


def _unlock_by_recovery_key(file: VaultFile, recovery_key: bytes) -> bytes:
    """The master key, by any of the recovery wraps: while a key takes another's place there are two."""
    *others, last = _find_wraps(file, "recovery")
    for fields in others:
        try:
            return _open_recovery_wrap(fields, file, recovery_key)
        except LockedError:
            continue
    return _open_recovery_wrap(last, file, recovery_key)


def _opens(wrap: Any, file: VaultFile, recovery_key: bytes) -> bool:
    try:
        return _is_of_kind(wrap, "recovery") and bool(
            _open_recovery_wrap(Fields(wrap, subject=VAULT_KEY), file, recovery_key)
        )
    except LockedError:
        return False


def _open_recovery_wrap(fields: Fields, file: VaultFile, recovery_key: bytes) -> bytes:
    kdf, wrap = fields.nested("kdf"), _read_wrap(fields)
    if kdf.text("name") != _RECOVERY_KDF:
        raise kdf.unfit("has a recovery wrap that this version does not know")
    secret = _recovery_secret(recovery_key, kdf.binary("salt", length=SALT_BYTES))
    return _unwrap(wrap, file, "recovery", secret)


def _read_wrap(fields: Fields) -> Wrap:
    return Wrap(
        fields.binary("wrapped", length=WRAPPED_BYTES), fields.binary("commitment", length=COMMITMENT_BYTES)
    )


def _unwrap(wrap: Wrap, file: VaultFile, kind: str, secret: bytes) -> bytes:
    context = _context(kind, file.vault_id, generation=file.generation)
    return unwrap_key(wrap, secret=secret, context=context, subject=VAULT_KEY)


def _wraps(file: VaultFile) -> list[Any]:
    wraps = file.values.get("wraps")
    return wraps if isinstance(wraps, list) else []


def _is_of_kind(wrap: Any, kind: str) -> bool:
    return isinstance(wrap, dict) and wrap.get("kind") == kind


def _find_wraps(file: VaultFile, kind: str) -> list[Fields]:
    """The wraps of that kind, at least one."""
    found = [Fields(wrap, subject=VAULT_KEY) for wrap in _wraps(file) if _is_of_kind(wrap, kind)]
    if not found:
        raise Fields(file.values, subject=VAULT_KEY).unfit(f"has no wrap by {kind}")
    return found


def _revised(file: VaultFile, master_key: bytes, wraps: list[Any]) -> VaultFile:
    return _sealed({**file.values, "revision": file.revision + 1, "wraps": wraps}, master_key)


def _sealed(values: dict[str, Any], master_key: bytes) -> VaultFile:
    values["mac"] = _mac(values, master_key).hex()
    values["checksum"] = _checksum(values)
    return parse_vault_file(canonical_json(values))


def _passphrase_wrap(
    master_key: bytes, passphrase: str, kdf: Kdf, *, vault_id: VaultId, generation: int
) -> dict[str, Any]:
    salt = os.urandom(SALT_BYTES)
    wrap = wrap_key(
        master_key,
        secret=kdf.derive(passphrase, salt),
        context=_context("passphrase", vault_id, generation=generation),
    )
    return _wrap_json(wrap, kind="passphrase", kdf={**kdf.to_json(), "salt": salt.hex()})


def _recovery_wrap(master_key: bytes, recovery_key: bytes, *, vault_id: VaultId, generation: int) -> dict[str, Any]:
    salt = os.urandom(SALT_BYTES)
    wrap = wrap_key(
        master_key,
        secret=_recovery_secret(recovery_key, salt),
        context=_context("recovery", vault_id, generation=generation),
    )
    return _wrap_json(wrap, kind="recovery", kdf={"name": _RECOVERY_KDF, "salt": salt.hex()})


def _wrap_json(wrap: Wrap, *, kind: str, kdf: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "kdf": kdf, "wrapped": wrap.wrapped.hex(), "commitment": wrap.commitment.hex()}


def _recovery_secret(recovery_key: bytes, salt: bytes) -> bytes:
    # 256 random bits cannot be guessed, so no slow derivation; the salt makes the secret unique to the wrap.
    return extract_and_expand(recovery_key, salt=salt, info=b"dualmem/1/recovery")


def _context(kind: str, vault_id: VaultId, *, generation: int) -> bytes:
    return b"dualmem/1/vault/" + kind.encode() + b"\0" + bytes.fromhex(vault_id) + struct.pack(">I", generation)


def _mac(values: dict[str, Any], master_key: bytes) -> bytes:
    covered = {name: value for name, value in values.items() if name not in {"mac", "checksum"}}
    return hmac.digest(expand(master_key, b"dualmem/1/master/vault"), canonical_json(covered), "sha256")


def _checksum(values: dict[str, Any]) -> str:
    covered = {name: value for name, value in values.items() if name != "checksum"}
    return hashlib.sha256(canonical_json(covered)).hexdigest()
