"""Acknowledgements: how far each device has taken in the logs. Source: docs/format.md, "Acknowledgements"."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dualmem_mcp.crypto.canonical import Fields, canonical_json, time_text
from dualmem_mcp.crypto.envelope import ObjectKind, Place, SealedReader, Section, bytes_reader, seal_object
from dualmem_mcp.crypto.header import newer, tampered
from dualmem_mcp.crypto.roster import RosterEntry
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import LogHead
from dualmem_mcp.ports import BlobCache, ObjectStore

PREFIX: Final = "acks/"
ACK_EVERY: Final = timedelta(hours=24)
"""Between two acks of a device that takes something in now and then."""
ACK_SEGMENTS: Final = 50
"""Of other devices' logs, after which an ack is written in any case."""

_MOST_BYTES: Final = 2**20
_MOST_DEVICES: Final = 4096
_SIGNATURE_BYTES: Final = 64
_SIGNED: Final = b"dualmem/1/ack"
_DEVICE: Final = re.compile(r"[0-9a-f]{32}")
_SNAPSHOT: Final = re.compile(r"(?:[0-9a-f]{32})?")
_LAST: Final = "local/ack"


@dataclass(frozen=True, slots=True)
class Ack:
    """What a device has said: how many segments of each log it has taken in, its own included, and when.

    `snapshot` is the id of the snapshot last taken in or made there, empty for none.
    """

    device_id: DeviceId
    at: datetime
    vector: Mapping[DeviceId, int]
    snapshot: str


def ack_key(device_id: DeviceId) -> str:
    """Where a device's acknowledgement lies."""
    return f"{PREFIX}{device_id}"


def is_due(blobs: BlobCache, others: Mapping[DeviceId, LogHead], now: datetime) -> bool:
    """Whether this device has taken in enough of the others' logs since it last acknowledged, or anything, and
    enough time has passed."""
    kept = blobs.get(_LAST)
    if kept is None:
        return bool(others)
    last = json.loads(kept)
    news = sum(max(0, head.segment - last["vector"].get(device, 0)) for device, head in others.items())
    waited = now - datetime.fromisoformat(last["at"])
    # A clock that was set back must not keep a device from acknowledging for years.
    return news >= ACK_SEGMENTS or (news > 0 and not timedelta() <= waited < ACK_EVERY)


def write_ack(
    vault: Vault,
    objects: ObjectStore,
    blobs: BlobCache,
    *,
    heads: Mapping[DeviceId, LogHead],
    snapshot: str,
    now: datetime,
) -> Ack:
    """Say how far this device has taken in the logs, over what it said before. Raises what the bucket raises."""
    for key, data in vault.pending_epoch():
        objects.put(key, data)
        vault.mark_uploaded(key)
    ack = Ack(vault.device_id, now, {device: head.segment for device, head in heads.items()}, snapshot)
    objects.put(ack_key(vault.device_id), seal_ack(vault, ack))
    blobs.put(_LAST, canonical_json({"at": time_text(now), "vector": dict(ack.vector)}))
    return ack


def seal_ack(vault: Vault, ack: Ack) -> bytes:
    """The acknowledgement of this device as a sealed object, signed."""
    content = canonical_json(
        {
            "format": 1,
            "device_id": ack.device_id,
            "at": time_text(ack.at),
            "vector": dict(ack.vector),
            "snapshot": ack.snapshot,
        }
    )
    signature = vault.device_keys.ed25519.sign(_signed(vault, ack.device_id, content))
    epoch = vault.current_epoch()
    return seal_object(
        [Section("ack", signature + content)],
        place=vault.place(ObjectKind.ACK, ack_key(ack.device_id)),
        key_id="epoch",
        key_epoch=epoch,
        wrapping_key=vault.epoch_key(epoch),
    )


def open_ack(vault: Vault, device: RosterEntry, data: bytes) -> Ack:
    """What a device has acknowledged. Raises TamperedError if it did not sign it."""
    key = ack_key(device.device_id)
    place = Place(vault.vault_id, ObjectKind.ACK, key, device.device_id)
    reader = SealedReader.open(bytes_reader(data), place_of=place, unwrap=vault.unwrap)
    if "ack" not in reader.names or reader.entry("ack").size > _MOST_BYTES:
        raise tampered("is no acknowledgement", key)
    section = reader.read_section("ack")
    signature, content = section[:_SIGNATURE_BYTES], section[_SIGNATURE_BYTES:]
    try:
        signed = _signed(vault, device.device_id, content)
        Ed25519PublicKey.from_public_bytes(device.ed25519).verify(signature, signed)
    except InvalidSignature:
        raise tampered("is not signed by its device", key) from None
    fields = Fields.parse(content, subject=key, most_bytes=_MOST_BYTES)
    if fields.integer("format") != 1:
        raise newer("is of a newer format", key)
    vector = fields.nested("vector")
    if (
        fields.text("device_id") != device.device_id
        or len(vector.values) > _MOST_DEVICES
        or not all(map(_DEVICE.fullmatch, vector.values))
        or not _SNAPSHOT.fullmatch(fields.text("snapshot"))
    ):
        raise tampered("belongs in another place", key)
    return Ack(
        device.device_id,
        fields.time("at"),
        {DeviceId(name): vector.integer(name) for name in vector.values},
        fields.text("snapshot"),
    )


def read_ack(vault: Vault, objects: ObjectStore, device: RosterEntry) -> Ack | None:
    """What that device last acknowledged; None if it never did. Raises TamperedError and what the bucket raises."""
    try:
        data = objects.get(ack_key(device.device_id), length=2 * _MOST_BYTES)
    except NotFoundError:
        return None
    return open_ack(vault, device, data)


def _signed(vault: Vault, device_id: DeviceId, content: bytes) -> bytes:
    ids = bytes.fromhex(vault.vault_id) + bytes.fromhex(device_id)
    return _SIGNED + ids + hashlib.sha256(content).digest()
