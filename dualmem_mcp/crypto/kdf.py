"""Key derivation: HKDF for what is random already, PBKDF2 or Argon2id for passphrases, within bounds."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id as _Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from dualmem_mcp.errors import TamperedError, UsageError

KEY_BYTES = 32
SALT_BYTES = 32


def expand(key: bytes, info: bytes) -> bytes:
    """A 32-byte subkey of a uniformly random key. Source: RFC 5869, section 2.3 (3.3: Extract may be skipped)."""
    return HKDFExpand(algorithm=hashes.SHA256(), length=KEY_BYTES, info=info).derive(key)


def extract_and_expand(key: bytes, *, salt: bytes | None, info: bytes) -> bytes:
    """A 32-byte key from input that is not uniform, or from one that is with a fresh salt. Source: RFC 5869."""
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(key)


@dataclass(frozen=True, slots=True)
class Pbkdf2:
    """PBKDF2-HMAC-SHA256.

    Source: RFC 8018; rounds: OWASP Password Storage Cheat Sheet (600,000 for HMAC-SHA256).
    """

    rounds: int = 600_000

    def derive(self, passphrase: str, salt: bytes) -> bytes:
        """32 bytes from a passphrase and a salt."""
        kdf = PBKDF2HMAC(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, iterations=self.rounds)
        return kdf.derive(passphrase_bytes(passphrase))

    def to_json(self) -> dict[str, Any]:
        """The parameters as vault.json states them, without the salt."""
        return {"name": "pbkdf2-hmac-sha256", "rounds": self.rounds}


@dataclass(frozen=True, slots=True)
class Argon2id:
    """Argon2id, which also costs an attacker memory.

    Source: RFC 9106, section 4, second recommended option (64 MiB, 3 iterations, 4 lanes).
    """

    iterations: int = 3
    lanes: int = 4
    memory_kib: int = 65_536

    def derive(self, passphrase: str, salt: bytes) -> bytes:
        """32 bytes from a passphrase and a salt. Raises UsageError where this Python's OpenSSL has no Argon2id."""
        try:
            kdf = _Argon2id(
                salt=salt,
                length=KEY_BYTES,
                iterations=self.iterations,
                lanes=self.lanes,
                memory_cost=self.memory_kib,
            )
        except UnsupportedAlgorithm:
            raise UsageError(
                "Argon2id is not available here",
                operation="derive key",
                hint="Install a `cryptography` wheel with OpenSSL 3.2 or later.",
            ) from None
        return kdf.derive(passphrase_bytes(passphrase))

    def to_json(self) -> dict[str, Any]:
        """The parameters as vault.json states them, without the salt."""
        return {
            "name": "argon2id",
            "iterations": self.iterations,
            "lanes": self.lanes,
            "memory_kib": self.memory_kib,
        }


Kdf = Pbkdf2 | Argon2id


@dataclass(frozen=True, slots=True)
class KdfLimits:
    """Bounds on parameters read from a bucket, inclusive.

    Whoever can write to the bucket chooses them: fewer rounds would make the next wrap cheap to guess,
    more memory or time would stop the device. The lower bounds are the defaults of this version.
    """

    min_rounds: int = 600_000
    max_rounds: int = 10_000_000
    min_memory_kib: int = 65_536
    max_memory_kib: int = 1_048_576
    min_iterations: int = 3
    max_iterations: int = 16
    max_lanes: int = 16


def kdf_from_json(fields: dict[str, Any], limits: KdfLimits) -> Kdf:
    """The passphrase KDF that vault.json names. Raises TamperedError if it is unknown or out of bounds."""
    match fields.get("name"):
        case "pbkdf2-hmac-sha256":
            return Pbkdf2(_bounded(fields, "rounds", limits.min_rounds, limits.max_rounds))
        case "argon2id":
            return Argon2id(
                iterations=_bounded(fields, "iterations", limits.min_iterations, limits.max_iterations),
                lanes=_bounded(fields, "lanes", 1, limits.max_lanes),
                memory_kib=_bounded(fields, "memory_kib", limits.min_memory_kib, limits.max_memory_kib),
            )
        case _:
            raise TamperedError(
                "vault.json names a key derivation that this version does not know",
                operation="derive key",
                subject="vault.json",
                hint="Update dualmem-mcp. If it is up to date, vault.json was changed: restore it from a backup.",
            )


def passphrase_bytes(passphrase: str) -> bytes:
    """UTF-8 of the NFC form: macOS types é as two characters, Windows as one. Source: RFC 8265, section 4.2.2."""
    return unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass")


def _bounded(fields: dict[str, Any], name: str, low: int, high: int) -> int:
    value = fields.get(name)
    # bool is an int in Python; `true` is no number of rounds.
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise TamperedError(
        f"vault.json asks for {name} outside {low} to {high}",
        operation="derive key",
        subject="vault.json",
        hint="Somebody may have changed vault.json to make the passphrase easy to guess; restore it from a backup.",
    )
