"""The clear header of a sealed object, and the place that the object is bound to."""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import struct
from dataclasses import dataclass, replace

from dualmem_mcp.errors import NewerFormatError, TamperedError, UsageError
from dualmem_mcp.model.ids import DeviceId, VaultId

MAGIC = b"DUALMEM\x1a"
VERSION = 1
SUITE = 1
HEADER_BYTES = 256
IDENTITY_BYTES = 136
"""The part that never changes; what follows is replaced when the data key is wrapped anew."""
WRAP_AAD_BYTES = 200
"""All before the wrapped data key."""
OBJECT_ID_BYTES = 16
WRAP_SALT_BYTES = 24
WRAPPED_KEY_BYTES = 48
MIN_INDEX_BYTES = 17
MAX_INDEX_BYTES = 1 << 20
MAX_KEY_BYTES = 1024
MAX_EPOCH = (1 << 52) - 1

# Source: docs/format.md, "Header".
_LAYOUT = struct.Struct(">8sBBBB16s16s16sQ32sI32sQ32s24s48s8s")
_KEY_ID = re.compile(rb"[a-z0-9.-]{1,32}")
_CHECKSUM_AT = 248


class ObjectKind(enum.IntEnum):
    """What a sealed object is. Source: docs/format.md, "Header"."""

    PACKAGE = 1
    MANIFEST = 2
    KEY = 3
    EPOCH = 4
    ROSTER = 5
    SEGMENT = 6
    SNAPSHOT = 7
    POINTER = 8
    TOMBSTONE = 9
    BACKUP = 10
    ACK = 11
    MOVER = 12


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed object belongs; it opens nowhere else.

    `key` is the full object key, `sequence` and `previous_hash` its position in a chain (0 and zeros for
    objects in none).
    """

    vault_id: VaultId
    kind: ObjectKind
    key: str
    device_id: DeviceId
    sequence: int = 0
    previous_hash: bytes = bytes(32)

    def encoded_key(self) -> bytes:
        """The object key with its length in front, as the AAD carries it. Raises UsageError if it is too long."""
        data = self.key.encode("utf-8", "surrogatepass")
        if not 0 < len(data) <= MAX_KEY_BYTES:
            raise UsageError(
                f"an object key has 1 to {MAX_KEY_BYTES} bytes", operation="seal object", subject=self.key[:60]
            )
        return struct.pack(">H", len(data)) + data


@dataclass(frozen=True, slots=True)
class Header:
    """The clear 256 bytes in front of a sealed object. Source: docs/format.md, "Header"."""

    kind: ObjectKind
    vault_id: VaultId
    object_id: bytes
    device_id: DeviceId
    sequence: int
    previous_hash: bytes
    index_bytes: int
    commitment: bytes
    key_epoch: int
    key_id: str
    wrap_salt: bytes
    wrapped_key: bytes = bytes(WRAPPED_KEY_BYTES)
    version: int = VERSION
    suite: int = SUITE

    def encode(self) -> bytes:
        """The 256 bytes, checksum included."""
        body = _LAYOUT.pack(
            MAGIC,
            self.version,
            self.suite,
            self.kind,
            0,
            bytes.fromhex(self.vault_id),
            self.object_id,
            bytes.fromhex(self.device_id),
            self.sequence,
            self.previous_hash,
            self.index_bytes,
            self.commitment,
            self.key_epoch,
            self.key_id.encode("ascii"),
            self.wrap_salt,
            self.wrapped_key,
            bytes(8),
        )[:_CHECKSUM_AT]
        return body + hashlib.sha256(body).digest()[: HEADER_BYTES - _CHECKSUM_AT]

    def with_wrapped_key(self, wrapped_key: bytes) -> Header:
        """The same header around a wrapped data key."""
        return replace(self, wrapped_key=wrapped_key)

    @classmethod
    def decode(cls, data: bytes, *, subject: str) -> Header:
        """The header that the first 256 bytes state, its lengths and numbers within bounds.

        Raises TamperedError if they are not a header, NewerFormatError if its version, suite or kind is
        unknown here. Nothing is authenticated yet.
        """
        if data[: len(MAGIC)] != MAGIC[: len(data)]:
            raise tampered("is no sealed object of dualmem", subject)
        if len(data) < HEADER_BYTES:
            raise tampered("was cut short", subject)
        # The version before the checksum: another version may have its checksum elsewhere.
        if data[8] != VERSION or data[9] != SUITE:
            raise newer(f"has format version {data[8]}, suite {data[9]}", subject)
        checksum = hashlib.sha256(data[:_CHECKSUM_AT]).digest()[: HEADER_BYTES - _CHECKSUM_AT]
        if not hmac.compare_digest(checksum, data[_CHECKSUM_AT:HEADER_BYTES]):
            raise tampered("has a damaged header", subject)
        (
            _magic,
            version,
            suite,
            kind,
            reserved,
            vault_id,
            object_id,
            device_id,
            sequence,
            previous_hash,
            index_bytes,
            commitment,
            key_epoch,
            key_id,
            wrap_salt,
            wrapped_key,
            _checksum,
        ) = _LAYOUT.unpack(data[:HEADER_BYTES])
        if kind not in ObjectKind._value2member_map_:
            raise newer(f"is of kind {kind}", subject)
        name = key_id.rstrip(b"\0")
        if (
            reserved
            or not MIN_INDEX_BYTES <= index_bytes <= MAX_INDEX_BYTES
            or key_epoch > MAX_EPOCH
            or not _KEY_ID.fullmatch(name)
        ):
            raise tampered("has a header with impossible values", subject)
        return cls(
            kind=ObjectKind(kind),
            vault_id=VaultId(vault_id.hex()),
            object_id=object_id,
            device_id=DeviceId(device_id.hex()),
            sequence=sequence,
            previous_hash=previous_hash,
            index_bytes=index_bytes,
            commitment=commitment,
            key_epoch=key_epoch,
            key_id=name.decode("ascii"),
            wrap_salt=wrap_salt,
            wrapped_key=wrapped_key,
            version=version,
            suite=suite,
        )

    def check_place(self, place: Place) -> None:
        """Raises TamperedError unless the header states that place.

        A clear answer for what the AAD refuses anyway; the key is bound by the AAD alone.
        """
        stated = (self.vault_id, self.kind, self.device_id, self.sequence, self.previous_hash)
        if stated != (place.vault_id, place.kind, place.device_id, place.sequence, place.previous_hash):
            raise tampered("belongs in another place", place.key)


def check_key_id(key_id: str) -> str:
    """The key id itself if a header can carry it; raises UsageError."""
    if not _KEY_ID.fullmatch(key_id.encode("utf-8", "surrogatepass")):
        raise UsageError("a key id is 1 to 32 of a-z, 0-9, `.` and `-`", operation="seal object")
    return key_id


def tampered(what: str, subject: str) -> TamperedError:
    """The one error for sealed data that is not as it was sealed."""
    return TamperedError(
        f"a sealed object {what}",
        operation="open sealed object",
        subject=subject,
        hint="It was changed, damaged or put in another's place. Nothing of it was used; "
        "fetch or hand it over again from the device that made it.",
    )


def newer(what: str, subject: str) -> NewerFormatError:
    """The one error for sealed data that this version cannot judge."""
    return NewerFormatError(
        f"an object of the vault {what}: it was written by a newer version, or changed",
        operation="open sealed object",
        subject=subject,
        hint="Update dualmem-mcp. If it is up to date, the object is damaged: "
        "fetch or hand it over again from the device that made it.",
    )
