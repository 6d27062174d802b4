"""The sealed payload of a point in a search service: the item and its exact vector, opened at that point alone.

Each key is used once: it is derived with a salt that is a keyed hash of what is sealed. So the nonce is fixed, and
the same payload is sealed to the same bytes. Source: docs/format.md, "Vectors in a service".
"""

from __future__ import annotations

import hmac
import struct
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from dualmem_mcp.crypto.canonical import Fields, canonical_json
from dualmem_mcp.crypto.padding import padded_length
from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.errors import NewerFormatError, TamperedError, UsageError
from dualmem_mcp.model.search import COLLECTION_OF, ItemKind, SearchItem

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION: Final = 1
MAX_SEALED_BYTES: Final = 1 << 20
MAX_DIMENSIONS: Final = 4096
MAX_PASSAGE: Final = (1 << 32) - 1

FLOOR_BYTES: Final = 2048
"""Beside a vector of 384 dimensions texts of up to about a thousand characters look alike; from there on the steps
of Padmé are 128 bytes."""

_USE: Final = b"dualmem/1/vectors/payload"
_NONCE: Final = bytes(12)
_SALT_BYTES: Final = 16
_TAG_BYTES: Final = 16
_LEAST_BYTES: Final = 1 + _SALT_BYTES + FLOOR_BYTES + _TAG_BYTES
_LENGTH: Final = struct.Struct(">I")
_EXACT: Final = np.dtype("<f2")
_MOST_NAME: Final = 65536
_MOST_MODEL: Final = 256
_KINDS: Final[dict[str, ItemKind]] = {kind: kind for kind in COLLECTION_OF}
_NAMES: Final = ("key", "conversation_id", "turn_id", "author", "device")


@dataclass(frozen=True, slots=True, eq=False)
class VectorPayload:
    """What a point stands for: an item, which of its passages, and that passage's vector, float32 (d,).

    `previous` is the key of the turn before it in its conversation, empty for none.
    """

    item: SearchItem = field(repr=False)
    passage: int
    model_id: str
    vector: NDArray[np.float32] = field(repr=False)
    previous: str = field(default="", repr=False)


def seal_payload(keys: VectorKeys, payload: VectorPayload) -> bytes:
    """The payload sealed for its point, `keys.point_id(item.key, passage)`; the same bytes for the same payload.

    The vector is kept as float16. Raises UsageError if it is too long, or the vector is not finite in float16.
    """
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        exact = payload.vector.astype(_EXACT)
    item = canonical_json(_fields_of(payload))
    plain = _LENGTH.pack(len(item)) + item + _LENGTH.pack(exact.size) + exact.tobytes()
    length = padded_length(len(plain), floor=FLOOR_BYTES)
    fits = (
        1 + _SALT_BYTES + length + _TAG_BYTES <= MAX_SEALED_BYTES
        and all(len(getattr(payload.item, name)) <= _MOST_NAME for name in _NAMES)
        and len(payload.previous) <= _MOST_NAME
        and len(payload.model_id) <= _MOST_MODEL
    )
    if not fits or not 0 < exact.size <= MAX_DIMENSIONS or not np.isfinite(exact).all():
        raise UsageError(
            "an item cannot be sealed for a search service: its text or a name is too long, or its vector is none",
            operation="seal payload",
        )
    aad = _aad(keys, keys.point_uuid(payload.item.key, payload.passage))
    salt = hmac.digest(keys.salt_key, aad + plain, "sha256")[:_SALT_BYTES]
    sealed = _aead(keys, salt).encrypt(_NONCE, plain.ljust(length, b"\0"), aad)
    return bytes([VERSION]) + salt + sealed


def open_payload(keys: VectorKeys, point_id: str, sealed: bytes) -> VectorPayload:
    """What was sealed for that point.

    Raises TamperedError if it is changed, cut, too long, or of another point, epoch or vault, and NewerFormatError
    if it states a version that is unknown here.
    """
    if sealed[:1] and sealed[0] != VERSION:
        raise NewerFormatError(
            "a payload in the search service was written by a newer version, or changed",
            operation="open payload",
            subject=point_id,
            hint="Update dualmem-mcp. If it is up to date, `dualmem tiers check` writes the point again.",
        )
    if not _LEAST_BYTES <= len(sealed) <= MAX_SEALED_BYTES:
        raise _tampered("has an impossible length", point_id)
    salt = sealed[1 : 1 + _SALT_BYTES]
    try:
        point = uuid.UUID(point_id)
        plain = _aead(keys, salt).decrypt(_NONCE, sealed[1 + _SALT_BYTES :], _aad(keys, point))
    except InvalidTag:
        raise _tampered("does not authenticate", point_id) from None
    except ValueError:
        raise _tampered("lies at a point whose id is none", point_id) from None
    # From here on only a member of the vault can have made it; a wrong program of theirs must not stop ours.
    payload = _parsed(plain, point_id)
    if keys.point_uuid(payload.item.key, payload.passage) != point:
        raise _tampered("holds another item than its point stands for", point_id)
    return payload


def _aead(keys: VectorKeys, salt: bytes) -> ChaCha20Poly1305:
    # HKDF for one block of output, in a fifth of the time that the general one takes: a search opens a thousand.
    # Source: RFC 5869, 2.2 and 2.3.
    extracted = hmac.digest(salt, keys.payload_key, "sha256")
    return ChaCha20Poly1305(hmac.digest(extracted, _USE + b"\x01", "sha256"))


def _aad(keys: VectorKeys, point: uuid.UUID) -> bytes:
    place = bytes.fromhex(keys.vault_id) + keys.epoch.to_bytes(8) + point.bytes
    return _USE + place + bytes([VERSION])


def _fields_of(payload: VectorPayload) -> dict[str, object]:
    item = payload.item
    return {name: getattr(item, name) for name in _NAMES} | {
        "kind": item.kind,
        "text": item.text,
        "timestamp": None if item.timestamp is None else _time_text(item.timestamp),
        "passage": payload.passage,
        "model": payload.model_id,
        "previous": payload.previous,
    }


def _parsed(plain: bytes, point_id: str) -> VectorPayload:
    item, rest = _cut(plain, point_id, unit=1)
    exact, padding = _cut(rest, point_id, unit=_EXACT.itemsize)
    vector = np.frombuffer(exact, _EXACT).astype(np.float32)
    if padding.strip(b"\0") or not 0 < vector.size <= MAX_DIMENSIONS or not np.isfinite(vector).all():
        raise _tampered("is not as it was written", point_id)
    fields = Fields.parse(item, subject="a point in the search service", most_bytes=MAX_SEALED_BYTES)
    kind = _KINDS.get(fields.text("kind"))
    if kind is None:
        raise _tampered("is of a kind that is unknown", point_id)
    return VectorPayload(
        item=SearchItem(
            kind=kind,
            text=fields.text("text", longest=MAX_SEALED_BYTES),
            timestamp=None if fields.values.get("timestamp") is None else _time(fields),
            **{name: fields.text(name, longest=_MOST_NAME) for name in _NAMES},
        ),
        passage=fields.integer("passage", high=MAX_PASSAGE),
        model_id=fields.text("model", longest=_MOST_MODEL),
        vector=vector,
        previous=fields.text("previous", longest=_MOST_NAME),
    )


def _cut(data: bytes, point_id: str, *, unit: int) -> tuple[bytes, bytes]:
    """What a length stands before, and what follows it."""
    start = _LENGTH.size
    end = start + (_LENGTH.unpack_from(data)[0] * unit if len(data) >= start else 0)
    if not start <= end <= len(data):
        raise _tampered("is not as it was written", point_id)
    return data[start:end], data[end:]


def _time_text(time: datetime) -> str:
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _time(fields: Fields) -> datetime:
    text = fields.text("timestamp")
    try:
        time = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise fields.unfit("has no fit field 'timestamp'") from None
    if _time_text(time) != text:
        raise fields.unfit("has no fit field 'timestamp'")
    return time


def _tampered(what: str, point_id: str) -> TamperedError:
    return TamperedError(
        f"a payload in the search service {what}",
        operation="open payload",
        subject=point_id,
        hint="It was changed, damaged or moved to another point. Nothing of it was used; `dualmem tiers check` "
        "writes it again.",
    )
