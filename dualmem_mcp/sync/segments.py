"""Segments of a device's log: ops sealed, signed and chained. Source: docs/format.md, "Log segments"."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dualmem_mcp.crypto.envelope import ObjectKind, Place, SealedReader, Section, bytes_reader, seal_object
from dualmem_mcp.crypto.header import Header, tampered
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.model.ids import DeviceId, VaultId
from dualmem_mcp.model.oplog import LogHead, Op
from dualmem_mcp.sync.op_lines import op_line, parse_op_line

LOG: Final = "log/"
MOST_OPS: Final = 500
MOST_BYTES: Final = 1 << 20
MOST_BYTES_ALONE: Final = 16 << 20
"""Of an op that is longer than a segment and stands alone in one."""

MOST_OBJECT_BYTES: Final = 20 << 20
"""More than the longest op makes, with padding: longer is no segment, and is not read."""

_SECTION: Final = "segment"
_SIGNED: Final = b"dualmem/1/log"
_SIGNATURE_BYTES: Final = 64
_KIND: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.ASCII)
_KEY: Final = re.compile(r"log/([0-9a-f]{32})/([0-9]{20})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed segment, where it goes, and where its device's log ends with it."""

    key: str
    data: bytes
    head: LogHead


@dataclass(frozen=True, slots=True)
class Segment:
    """An opened segment: its ops, at least one, and where its device's log ends before it and with it."""

    ops: Sequence[Op]
    before: LogHead
    head: LogHead


def segment_key(device_id: DeviceId, number: int) -> str:
    """Where the segment of that number lies."""
    return f"{LOG}{device_id}/{number:020d}"


def parse_segment_key(key: str) -> tuple[DeviceId, int] | None:
    """The device and number that an object key states; None if it is no segment's."""
    match = _KEY.fullmatch(key)
    return (DeviceId(match[1]), int(match[2])) if match else None


def encode_op(op: Op) -> bytes:
    """The op as a line of a segment, with its line feed.

    One that no segment can take is told of without its content, so that the log goes on behind it.
    """
    line = op_line(op)
    return line if len(line) <= MOST_BYTES_ALONE else op_line(replace(op, payload='{"omitted":true}'))


def is_omitted(op: Op) -> bool:
    """Whether the op is too long for any segment: its content stays on this device."""
    # Escapes make a character six bytes at most, so nearly all are decided by their length.
    return len(op.payload) * 6 > MOST_BYTES_ALONE and len(op_line(op)) > MOST_BYTES_ALONE


def fill(ops: Sequence[Op]) -> tuple[list[bytes], Sequence[Op]]:
    """The lines of as many of the ops as one segment takes, and these ops; at least one if there is one."""
    lines: list[bytes] = []
    size = 0
    for op in ops[:MOST_OPS]:
        line = encode_op(op)
        if lines and size + len(line) > MOST_BYTES:
            break
        lines.append(line)
        size += len(line)
    return lines, ops[: len(lines)]


def seal_segment(vault: Vault, lines: Sequence[bytes], *, last_sequence: int, after: LogHead) -> Sealed:
    """The lines as the segment that follows `after` in the log of the vault's own device."""
    number = after.segment + 1
    key = segment_key(vault.device_id, number)
    ops = b"".join(lines)
    signed = _signed(vault.vault_id, vault.device_id, number, after.object_hash, ops)
    epoch = vault.current_epoch()
    data = seal_object(
        [Section(_SECTION, vault.device_keys.ed25519.sign(signed) + ops)],
        place=vault.place(ObjectKind.SEGMENT, key, sequence=number, previous_hash=after.object_hash),
        key_id="epoch",
        key_epoch=epoch,
        wrapping_key=vault.epoch_key(epoch),
    )
    return Sealed(key, data, LogHead(number, _open(vault, key, data).object_hash, last_sequence))


def open_segment(vault: Vault, key: str, public_key: bytes, data: bytes) -> Segment:
    """The segment that lies at `key`, sealed by the device of that key and signed with its Ed25519 key (32 bytes).

    Every length, count, number and type is within its bound; on what it follows the caller compares. Raises
    TamperedError if it is not as the device sealed it there, NewerFormatError if it is of a format unknown here,
    NotFoundError if the vault does not have its epoch key yet, and what the bucket raises.
    """
    device_id, number = _parsed(key)
    if len(data) > MOST_OBJECT_BYTES:
        raise tampered("is too long for a segment", key)
    reader = _open(vault, key, data)
    if _SECTION not in reader.names or reader.entry(_SECTION).size > _SIGNATURE_BYTES + MOST_BYTES_ALONE:
        raise tampered("is no segment of a log", key)
    content = reader.read_section(_SECTION)
    signature, lines = content[:_SIGNATURE_BYTES], content[_SIGNATURE_BYTES:]
    previous_hash = reader.header.previous_hash
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(
            signature, _signed(vault.vault_id, device_id, number, previous_hash, lines)
        )
    except (InvalidSignature, ValueError):
        raise tampered("is not signed by its device", key) from None
    ops = _decode(lines, device_id, key)
    return Segment(
        ops,
        before=LogHead(number - 1, previous_hash, ops[0].sequence - 1),
        head=LogHead(number, reader.object_hash, ops[-1].sequence),
    )


def _signed(vault_id: VaultId, device_id: DeviceId, number: int, previous_hash: bytes, ops: bytes) -> bytes:
    names = bytes.fromhex(vault_id) + bytes.fromhex(device_id)
    return _SIGNED + names + struct.pack(">Q", number) + previous_hash + hashlib.sha256(ops).digest()


def _parsed(key: str) -> tuple[DeviceId, int]:
    parsed = parse_segment_key(key)
    if parsed is None:
        raise tampered("is not named as a segment", key[:60])
    return parsed


def _open(vault: Vault, key: str, data: bytes) -> SealedReader:
    device_id, number = _parsed(key)

    def place_of(header: Header) -> Place:
        return Place(vault.vault_id, ObjectKind.SEGMENT, key, device_id, number, header.previous_hash)

    def unwrap(header: Header) -> bytes:
        if header.key_id != "epoch":
            raise tampered("is sealed with a key that is not a log's", key)
        return vault.unwrap(header)

    return SealedReader.open(bytes_reader(data), place_of=place_of, unwrap=unwrap, subject=key)


def _decode(data: bytes, device_id: DeviceId, key: str) -> list[Op]:
    """The ops of the lines, whose sequences follow each other and whose stamps grow."""
    count = data.count(b"\n")
    if not 0 < count <= MOST_OPS or not data.endswith(b"\n") or (count > 1 and len(data) > MOST_BYTES):
        raise tampered("has an impossible number of ops, or too long ones", key)
    ops: list[Op] = []
    for line in data[:-1].split(b"\n"):
        op = _decode_op(line, key)
        if op.stamp.device_id != device_id or (ops and op.stamp.ticks <= ops[-1].stamp.ticks):
            raise tampered("has ops with stamps of another device, or out of order", key)
        if op.sequence < 1 or (ops and op.sequence != ops[-1].sequence + 1):
            raise tampered("has ops that do not follow each other", key)
        ops.append(op)
    return ops


def _decode_op(line: bytes, key: str) -> Op:
    op = parse_op_line(line, subject=key)
    try:
        fits = _KIND.fullmatch(op.kind) and isinstance(json.loads(op.payload.encode("utf-8")), dict)
    except (ValueError, RecursionError):
        fits = False
    if not fits:
        raise tampered("has an op without a payload, or of an impossible kind", key)
    return op
