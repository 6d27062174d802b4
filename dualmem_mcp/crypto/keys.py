"""Keys of a device and of a conversation, and how a device keeps its own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dualmem_mcp.crypto.canonical import Fields, canonical_json
from dualmem_mcp.crypto.kdf import KEY_BYTES, extract_and_expand
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.model.ids import ConversationId, DeviceId
from dualmem_mcp.ports import BlobCache

DEVICE_BLOB = "local/device"


def derive_database_key(device_secret: bytes) -> bytes:
    """The raw key (32 bytes) of memory.db, from the 32 bytes that the keystore holds."""
    return extract_and_expand(device_secret, salt=None, info=b"dualmem/1/device/database")


def derive_index_key(device_secret: bytes) -> bytes:
    """The raw key (32 bytes) of the search indexes, from the same secret: neither key tells of the other."""
    return extract_and_expand(device_secret, salt=None, info=b"dualmem/1/device/index")


def secret_check(device_secret: bytes) -> bytes:
    """32 bytes by which another secret is told from this one; being of 256 random bits, it is not found by them."""
    return extract_and_expand(device_secret, salt=None, info=b"dualmem/1/device/check")


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """A device's private keys: X25519, to which the master key is wrapped, and Ed25519, which signs."""

    x25519: X25519PrivateKey = field(repr=False)
    ed25519: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> DeviceKeys:
        """New random keys."""
        return cls(X25519PrivateKey.generate(), Ed25519PrivateKey.generate())

    def to_bytes(self) -> bytes:
        """64 secret bytes: X25519, then Ed25519, each as RFC 7748 and RFC 8032 write private keys."""
        raw = (Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return self.x25519.private_bytes(*raw) + self.ed25519.private_bytes(*raw)

    @classmethod
    def from_bytes(cls, data: bytes) -> DeviceKeys:
        """The keys that `to_bytes` wrote. Raises TamperedError if it is not 64 bytes."""
        if len(data) != 2 * KEY_BYTES:
            raise TamperedError("the device's keys are damaged", operation="read device keys")
        return cls(
            X25519PrivateKey.from_private_bytes(data[:KEY_BYTES]),
            Ed25519PrivateKey.from_private_bytes(data[KEY_BYTES:]),
        )

    @property
    def x25519_public(self) -> bytes:
        """The public X25519 key, 32 bytes."""
        return self.x25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def ed25519_public(self) -> bytes:
        """The public Ed25519 key, 32 bytes."""
        return self.ed25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """A key that wraps the data keys of one conversation's objects; `epoch` is the one it is kept under."""

    key_id: str
    conversation_id: ConversationId
    epoch: int
    key: bytes = field(repr=False)

    @property
    def object_key(self) -> str:
        """Where its sealed form lies in the bucket."""
        return f"keys/c/{self.key_id}"


def load_device(cache: BlobCache) -> tuple[DeviceId, DeviceKeys]:
    """This device's id and keys, made at the first call and kept in the cache, which is encrypted.

    Not for two processes at once on a new data home: the caller sees to that.
    """
    kept = cache.get(DEVICE_BLOB)
    if kept is None:
        device_id, keys = DeviceId(os.urandom(16).hex()), DeviceKeys.generate()
        cache.put(DEVICE_BLOB, canonical_json({"device_id": device_id, "keys": keys.to_bytes().hex()}))
        return device_id, keys
    return parse_device(kept)


def parse_device(data: bytes) -> tuple[DeviceId, DeviceKeys]:
    """Id and keys as `load_device` keeps them. Raises TamperedError."""
    fields = Fields.parse(data, subject=DEVICE_BLOB)
    device_id = DeviceId(fields.binary("device_id", length=16).hex())
    return device_id, DeviceKeys.from_bytes(fields.binary("keys", length=2 * KEY_BYTES))
