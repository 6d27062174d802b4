"""Wraps of a 32-byte key under a secret, with a commitment to that secret. Source: docs/format.md, "Keys"."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dualmem_mcp.crypto.kdf import expand, extract_and_expand
from dualmem_mcp.errors import LockedError, TamperedError

WRAPPED_BYTES = 48
COMMITMENT_BYTES = 32
_NONCE = bytes(12)


@dataclass(frozen=True, slots=True)
class Wrap:
    """A wrapped 32-byte key and the commitment to the secret that it is wrapped under."""

    wrapped: bytes
    commitment: bytes


def wrap_key(key: bytes, *, secret: bytes, context: bytes) -> Wrap:
    """The key wrapped under a 32-byte secret that wraps nothing else, so the nonce is fixed to zeros.

    The caller makes the secret unique by a fresh salt or a fresh ephemeral key.
    """
    wrapped = AESGCM(expand(secret, b"dualmem/1/wrap/key")).encrypt(_NONCE, key, context)
    return Wrap(wrapped, _commitment(secret, context))


def unwrap_key(wrap: Wrap, *, secret: bytes, context: bytes, subject: str) -> bytes:
    """The wrapped key. Raises LockedError if the secret is another one, TamperedError if the wrap was changed."""
    # AES-GCM alone would let whoever writes the wrap test many passphrases with one answer of ours: a
    # ciphertext can be made that opens under all of them.
    # Source: Len, Grubbs, Ristenpart, "Partitioning Oracle Attacks", USENIX Security 2021.
    if not hmac.compare_digest(_commitment(secret, context), wrap.commitment):
        raise LockedError("the secret does not open this key", operation="unwrap key", subject=subject)
    try:
        return AESGCM(expand(secret, b"dualmem/1/wrap/key")).decrypt(_NONCE, wrap.wrapped, context)
    except InvalidTag:
        raise TamperedError(
            "a wrapped key was changed",
            operation="unwrap key",
            subject=subject,
            hint="Restore the object from a backup of the bucket.",
        ) from None


def wrap_for_device(key: bytes, *, device: bytes, context: bytes) -> tuple[Wrap, bytes]:
    """The key wrapped to a device's public X25519 key (32 bytes), and the ephemeral public key."""
    ephemeral = X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(device))
    return wrap_key(key, secret=_device_secret(shared, public, device), context=context), public


def unwrap_for_device(
    wrap: Wrap, *, ephemeral: bytes, device: X25519PrivateKey, context: bytes, subject: str
) -> bytes:
    """The key that was wrapped to a device. Raises LockedError if it was to another, TamperedError if changed."""
    public = device.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    try:
        shared = device.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    except ValueError:
        # `cryptography` refuses a shared secret of zeros, which low-order points give (RFC 7748, section 6.1).
        raise TamperedError("a wrapped key was changed", operation="unwrap key", subject=subject) from None
    secret = _device_secret(shared, ephemeral, public)
    return unwrap_key(wrap, secret=secret, context=context, subject=subject)


def _device_secret(shared: bytes, ephemeral: bytes, device: bytes) -> bytes:
    # Both public keys go in: the shared secret alone does not determine them.
    return extract_and_expand(shared, salt=ephemeral + device, info=b"dualmem/1/device")


def _commitment(secret: bytes, context: bytes) -> bytes:
    return hmac.digest(expand(secret, b"dualmem/1/wrap/commitment"), context, "sha256")
