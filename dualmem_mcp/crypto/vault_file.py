"""vault.json: the vault's id and its master key, wrapped by passphrase and by recovery key.

Source of the layout: docs/format.md, "vault.json".
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dualmem_mcp.crypto.canonical import MAX_JSON_BYTES, Fields, canonical_json, time_text
from dualmem_mcp.crypto.header import newer
from dualmem_mcp.crypto.kdf import SALT_BYTES, Kdf, KdfLimits, expand, extract_and_expand, kdf_from_json
from dualmem_mcp.crypto.recovery import is_recovery_key, parse_recovery_key
from dualmem_mcp.crypto.wraps import COMMITMENT_BYTES, WRAPPED_BYTES, Wrap, unwrap_key, wrap_key
from dualmem_mcp.errors import LockedError, NotFoundError, TamperedError
from dualmem_mcp.model.ids import VaultId
from dualmem_mcp.ports import ObjectStore

VAULT_KEY = "vault.json"
MAX_GENERATION = 1 << 20
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
    salt, recovery_salt = os.urandom(SALT_BYTES), os.urandom(SALT_BYTES)
    wraps = [
        _wrap_json(
            wrap_key(
                master_key,
                secret=kdf.derive(passphrase, salt),
                context=_context("passphrase", vault_id, generation=1),
            ),
            kind="passphrase",
            kdf={**kdf.to_json(), "salt": salt.hex()},
        ),
        _wrap_json(
            wrap_key(
                master_key,
                secret=_recovery_secret(recovery_key, recovery_salt),
                context=_context("recovery", vault_id, generation=1),
            ),
            kind="recovery",
            kdf={"name": _RECOVERY_KDF, "salt": recovery_salt.hex()},
        ),
    ]
    values: dict[str, Any] = {
        "format": 1,
        "vault_id": vault_id,
        "generation": 1,
        "revision": 1,
        "created_at": time_text(created_at),
        "wraps": wraps,
    }
    values["mac"] = _mac(values, master_key).hex()
    values["checksum"] = _checksum(values)
    return parse_vault_file(canonical_json(values))


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
    fields = _find_wrap(file, kind)
    kdf = fields.nested("kdf")
    salt = kdf.binary("salt", length=SALT_BYTES)
    wrap = Wrap(
        fields.binary("wrapped", length=WRAPPED_BYTES), fields.binary("commitment", length=COMMITMENT_BYTES)
    )
    if kind == "recovery":
        if kdf.text("name") != _RECOVERY_KDF:
            raise kdf.unfit("has a recovery wrap that this version does not know")
        wrapping_secret = _recovery_secret(recovery_key, salt)
    else:
        wrapping_secret = kdf_from_json(kdf.values, limits).derive(secret, salt)
    context = _context(kind, file.vault_id, generation=file.generation)
    try:
        master_key = unwrap_key(wrap, secret=wrapping_secret, context=context, subject=VAULT_KEY)
    except LockedError:
        raise LockedError(
            f"the {'recovery key' if kind == 'recovery' else 'passphrase'} does not open this vault",
            operation="open vault",
            subject=file.vault_id,
            hint="Type it again, or use the recovery key that `dualmem init` showed."
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
    if file.generation > known.generation:
        raise newer("is sealed under a newer master key", VAULT_KEY)
    file.check_mac(master_key)
    if (file.generation, file.revision) <= (known.generation, known.revision):
        raise TamperedError(
            "vault.json is older than the one this device saw: the bucket was set back",
            operation="check vault",
            subject=location,
            hint="Somebody restored an old copy of the bucket or changed it; an old passphrase may open it again.",
        )


def _find_wrap(file: VaultFile, kind: str) -> Fields:
    wraps = file.values.get("wraps")
    for wrap in wraps if isinstance(wraps, list) else []:
        if isinstance(wrap, dict) and wrap.get("kind") == kind:
            return Fields(wrap, subject=VAULT_KEY)
    raise Fields(file.values, subject=VAULT_KEY).unfit(f"has no wrap by {kind}")


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
