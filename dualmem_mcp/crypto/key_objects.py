"""Keys as sealed objects of the bucket: epoch keys, conversation keys, and a device's copy of the master key.

Source of the layouts: docs/format.md, "Devices", "Epoch keys", "Conversation keys".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from dualmem_mcp.crypto.canonical import Fields, canonical_json, time_text
from dualmem_mcp.crypto.envelope import ObjectKind, Place, SealedReader, Section, bytes_reader, seal_object
from dualmem_mcp.crypto.header import Header, newer, tampered
from dualmem_mcp.crypto.kdf import KEY_BYTES
from dualmem_mcp.crypto.keys import ConversationKey, DeviceKeys
from dualmem_mcp.crypto.wraps import COMMITMENT_BYTES, WRAPPED_BYTES, Wrap, unwrap_for_device, wrap_for_device
from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.model.ids import ConversationId, DeviceId, VaultId, parse_conversation_id

_SECTION = "key"


@dataclass(frozen=True, slots=True)
class EpochKey:
    """A key that conversation keys are sealed under for 30 days of new writes; `key_id` names the master key's
    wrapping key that it is itself sealed under."""

    epoch: int
    created_at: datetime
    key: bytes = field(repr=False)
    key_id: str = ""


def epoch_object_key(epoch: int) -> str:
    """Where an epoch key lies: sorted by its ordinal."""
    return f"keys/{epoch:016x}"


def device_object_key(device_id: DeviceId) -> str:
    """Where a device's copy of the master key lies."""
    return f"keys/d/{device_id}"


def known_key(key_id: str, wrapping_key: bytes) -> Callable[[Header], bytes]:
    """For `SealedReader.open`: that key if the header names it; raises NewerFormatError if it names another."""

    def unwrap(header: Header) -> bytes:
        if header.key_id != key_id:
            raise newer("is sealed under a key unknown here", header.object_id.hex())
        return wrapping_key

    return unwrap


def seal_epoch_key(
    epoch: EpochKey, *, vault_id: VaultId, device_id: DeviceId, key_id: str, wrapping_key: bytes
) -> bytes:
    """The epoch key sealed under the master key's wrapping key, which `key_id` names."""
    content = {
        "format": 1,
        "epoch": epoch.epoch,
        "created_at": time_text(epoch.created_at),
        "key": epoch.key.hex(),
    }
    return seal_object(
        [Section(_SECTION, canonical_json(content), compress=False)],
        place=Place(vault_id, ObjectKind.EPOCH, epoch_object_key(epoch.epoch), device_id),
        key_id=key_id,
        key_epoch=epoch.epoch,
        wrapping_key=wrapping_key,
    )


def open_epoch_key(data: bytes, *, epoch: int, vault_id: VaultId, unwrap: Callable[[Header], bytes]) -> EpochKey:
    """The epoch key of that number. Raises TamperedError, and what `unwrap` raises for what it names."""
    key = epoch_object_key(epoch)
    reader = SealedReader.open(
        bytes_reader(data),
        place_of=lambda header: Place(vault_id, ObjectKind.EPOCH, key, header.device_id),
        unwrap=unwrap,
        subject=key,
    )
    fields = _content(reader)
    if fields.integer("epoch") != epoch:
        raise tampered("belongs in another place", key)
    key_bytes = fields.binary("key", length=KEY_BYTES)
    return EpochKey(epoch, fields.time("created_at"), key_bytes, reader.header.key_id)


def seal_conversation_key(
    key: ConversationKey, *, created_at: datetime, vault_id: VaultId, device_id: DeviceId, epoch_key: bytes
) -> bytes:
    """The conversation key sealed under the key of its epoch."""
    content = {
        "format": 1,
        "key_id": key.key_id,
        "conversation_id": key.conversation_id,
        "created_at": time_text(created_at),
        "key": key.key.hex(),
    }
    return seal_object(
        [Section(_SECTION, canonical_json(content), compress=False)],
        place=Place(vault_id, ObjectKind.KEY, key.object_key, device_id),
        key_id="epoch",
        key_epoch=key.epoch,
        wrapping_key=epoch_key,
    )


def open_conversation_key(
    data: bytes, *, key_id: str, vault_id: VaultId, unwrap: Callable[[Header], bytes]
) -> ConversationKey:
    """The conversation key of that id; `unwrap` finds the epoch key by the header.

    Raises NotFoundError if a tombstone says that the conversation was erased, TamperedError.
    """
    object_key = f"keys/c/{key_id}"

    def place_of(header: Header) -> Place:
        kind = ObjectKind.TOMBSTONE if header.kind is ObjectKind.TOMBSTONE else ObjectKind.KEY
        return Place(vault_id, kind, object_key, header.device_id)

    reader = SealedReader.open(bytes_reader(data), place_of=place_of, unwrap=unwrap, subject=object_key)
    if reader.header.kind is ObjectKind.TOMBSTONE:
        raise NotFoundError("this conversation was erased", operation="open conversation", subject=object_key)
    fields = _content(reader)
    if fields.text("key_id") != key_id:
        raise tampered("belongs in another place", object_key)
    return ConversationKey(
        key_id=key_id,
        conversation_id=_conversation_id(fields),
        epoch=reader.header.key_epoch,
        key=fields.binary("key", length=KEY_BYTES),
    )


def seal_tombstone(
    key: ConversationKey,
    *,
    name: str,
    erased_at: datetime,
    vault_id: VaultId,
    device_id: DeviceId,
    epoch: int,
    epoch_key: bytes,
) -> bytes:
    """What takes the key's place for good; `name` is the keyed hash of the conversation's id.

    Source: docs/format.md, "Erasure".
    """
    content = {
        "format": 1,
        "key_id": key.key_id,
        "conversation": name,
        "erased_at": time_text(erased_at),
        "by": device_id,
    }
    return seal_object(
        [Section("erased", canonical_json(content), compress=False)],
        place=Place(vault_id, ObjectKind.TOMBSTONE, key.object_key, device_id),
        key_id="epoch",
        key_epoch=epoch,
        wrapping_key=epoch_key,
    )


def seal_for_device(
    master_key: bytes, *, vault_id: VaultId, generation: int, device_id: DeviceId, public_key: bytes
) -> bytes:
    """The master key wrapped to a device's X25519 key, as canonical JSON."""
    wrap, ephemeral = wrap_for_device(
        master_key, device=public_key, context=_device_context(vault_id, device_id, generation)
    )
    return canonical_json(
        {
            "format": 1,
            "vault_id": vault_id,
            "device_id": device_id,
            "generation": generation,
            "ephemeral": ephemeral.hex(),
            "wrapped": wrap.wrapped.hex(),
            "commitment": wrap.commitment.hex(),
        }
    )


def open_for_device(
    data: bytes, *, vault_id: VaultId, generation: int, device_id: DeviceId, keys: DeviceKeys
) -> bytes:
    """The master key from a device's copy. Raises LockedError for another device's keys, TamperedError."""
    subject = device_object_key(device_id)
    fields = Fields.parse(data, subject=subject)
    if fields.integer("format") != 1:
        raise newer("is of a newer format", subject)
    stated = (fields.text("vault_id"), fields.text("device_id"), fields.integer("generation"))
    if stated != (vault_id, device_id, generation):
        raise tampered("belongs in another place", subject)
    return unwrap_for_device(
        Wrap(fields.binary("wrapped", length=WRAPPED_BYTES), fields.binary("commitment", length=COMMITMENT_BYTES)),
        ephemeral=fields.binary("ephemeral", length=KEY_BYTES),
        device=keys.x25519,
        context=_device_context(vault_id, device_id, generation),
        subject=subject,
    )


def _device_context(vault_id: VaultId, device_id: DeviceId, generation: int) -> bytes:
    ids = bytes.fromhex(vault_id) + bytes.fromhex(device_id)
    return b"dualmem/1/device/" + ids + struct.pack(">I", generation)


def _conversation_id(fields: Fields) -> ConversationId:
    try:
        return parse_conversation_id(fields.text("conversation_id"))
    except UsageError:
        # Ids become names of files and objects; a hostile member of the vault may have written this one.
        raise fields.unfit("has no fit field 'conversation_id'") from None


def _content(reader: SealedReader) -> Fields:
    if _SECTION not in reader.names:
        raise tampered(f"has no section {_SECTION!r}", reader.place.key)
    fields = Fields.parse(reader.read_section(_SECTION), subject=reader.place.key)
    if fields.integer("format") != 1:
        raise newer("holds a key of a newer format", reader.place.key)
    return fields
