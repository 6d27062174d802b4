"""Parts, manifest and pointer of a snapshot as sealed objects. Source: docs/format.md, "Snapshots"."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dualmem_mcp.crypto.canonical import Fields, canonical_json, time_text
from dualmem_mcp.crypto.envelope import Header, ObjectKind, Place, SealedReader, Section, bytes_reader, seal_object
from dualmem_mcp.crypto.header import newer, tampered
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import LogHead, Op
from dualmem_mcp.sync.op_lines import MOST_LINE_BYTES, op_line, parse_op_line

PREFIX: Final = "snapshots/"
POINTER_KEY: Final = "snapshots/latest"
PART_BYTES: Final = 4 * 2**20
"""Of a part's lines; a line that is longer alone stands alone, up to `MOST_LINE_BYTES`."""
MOST_PART_BYTES: Final = MOST_LINE_BYTES + 1
MOST_PARTS: Final = 16_384
MOST_DEVICES: Final = 4096
MOST_MANIFEST_BYTES: Final = 4 * 2**20
MOST_MANIFEST_OBJECT_BYTES: Final = 5 * 2**20
MOST_OBJECT_BYTES: Final = MOST_PART_BYTES + 2**20
"""Of a sealed part: its section, which padding makes at most an eighth longer where it is not compressed."""

_SIGNED: Final = b"dualmem/1/snapshot"
_SIGNATURE_BYTES: Final = 64
_DEVICE: Final = re.compile(r"[0-9a-f]{32}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_OBJECT: Final = re.compile(r"snapshots/([0-9a-f]{32})/(manifest|[0-9]{20})")


class RevokedMakerError(TamperedError):
    """The snapshot was made by a device that was revoked since, or says so: it counts no more."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which snapshot counts: its id, its manifest's object hash (32 bytes), and how often that changed under the
    master key of that generation."""

    snapshot_id: str
    manifest_hash: bytes
    sequence: int
    generation: int = 1

    @property
    def order(self) -> tuple[int, int]:
        """Of two pointers the later has the greater: whoever was revoked can write none of a later generation."""
        return self.generation, self.sequence


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot states of itself: how far it goes in each log, the object hashes of its parts in order, and
    how many ops are in them."""

    snapshot_id: str
    made_by: DeviceId
    at: datetime
    vector: Mapping[DeviceId, LogHead]
    parts: Sequence[bytes]
    ops: int


def part_key(snapshot_id: str, number: int) -> str:
    """Where a part lies; numbers count from 1."""
    return f"{PREFIX}{snapshot_id}/{number:020d}"


def manifest_key(snapshot_id: str) -> str:
    """Where a snapshot's manifest lies."""
    return f"{PREFIX}{snapshot_id}/manifest"


def snapshot_of(key: str) -> str | None:
    """The id of the snapshot that the object of that key is a part or the manifest of; else None."""
    match = _OBJECT.fullmatch(key)
    return match[1] if match else None


def parts_of(ops: Iterable[Op]) -> Iterator[tuple[bytes, int]]:
    """The ops as lines, in parts of at most 4 MiB, with the number of lines of each."""
    lines: list[bytes] = []
    size = 0
    for op in ops:
        line = op_line(op)
        if lines and size + len(line) > PART_BYTES:
            yield b"".join(lines), len(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield b"".join(lines), len(lines)


def seal_part(vault: Vault, snapshot_id: str, number: int, state: bytes) -> tuple[bytes, bytes]:
    """A part as a sealed object, and its object hash."""
    return _seal(
        vault, ObjectKind.SNAPSHOT, part_key(snapshot_id, number), Section("state", state), sequence=number
    )


def open_part(vault: Vault, manifest: Manifest, number: int, data: bytes, *, checked: bool = False) -> list[Op]:
    """The ops of a part. Raises TamperedError if it is not the one that the manifest names, or holds anything else
    than ops; what was `checked` once is not looked at so closely again."""
    key = part_key(manifest.snapshot_id, number)
    place = Place(vault.vault_id, ObjectKind.SNAPSHOT, key, manifest.made_by, number)
    reader = SealedReader.open(bytes_reader(data), place_of=place, unwrap=vault.unwrap)
    if reader.object_hash != manifest.parts[number - 1]:
        raise tampered("is not the part that its snapshot names", key)
    state = _section(reader, "state", MOST_PART_BYTES)
    if state and not state.endswith(b"\n"):
        raise tampered("has a line without an end", key)
    return [parse_op_line(line, subject=key, checked=checked) for line in state.split(b"\n")[:-1]]


def seal_manifest(vault: Vault, manifest: Manifest) -> tuple[bytes, bytes]:
    """The manifest, signed by this device, as a sealed object, and its object hash."""
    content = canonical_json(
        {
            "format": 1,
            "snapshot": manifest.snapshot_id,
            "made_by": manifest.made_by,
            "at": time_text(manifest.at),
            "vector": {
                device: [head.segment, head.object_hash.hex(), head.sequence]
                for device, head in manifest.vector.items()
            },
            "parts": [part.hex() for part in manifest.parts],
            "ops": manifest.ops,
        }
    )
    signature = vault.device_keys.ed25519.sign(_signed(vault, content))
    section = Section("manifest", signature + content)
    return _seal(vault, ObjectKind.SNAPSHOT, manifest_key(manifest.snapshot_id), section)


def open_manifest(vault: Vault, pointer: Pointer, data: bytes, *, trusted: bool = False) -> Manifest:
    """The manifest that the pointer names.

    Raises TamperedError if it is another, or not signed by a device that is of the vault still: a revoked device's
    counts only where it is `trusted`, as one that this device took in before.
    """
    manifest, object_hash = read_manifest(vault, pointer.snapshot_id, data, trusted=trusted)
    if object_hash != pointer.manifest_hash:
        raise tampered("is not the manifest that the pointer names", manifest_key(pointer.snapshot_id))
    return manifest


def read_manifest(vault: Vault, snapshot_id: str, data: bytes, *, trusted: bool = False) -> tuple[Manifest, bytes]:
    """The manifest of a snapshot, and its object hash. Raises as `open_manifest`."""
    key = manifest_key(snapshot_id)
    reader = SealedReader.open(
        bytes_reader(data), place_of=vault.place_of(ObjectKind.SNAPSHOT, key), unwrap=vault.unwrap, subject=key
    )
    section = _section(reader, "manifest", MOST_MANIFEST_BYTES)
    signature, content = section[:_SIGNATURE_BYTES], section[_SIGNATURE_BYTES:]
    fields = Fields.parse(content, subject=key, most_bytes=MOST_MANIFEST_BYTES)
    if fields.integer("format") != 1:
        raise newer("is of a newer format", key)
    made_by = DeviceId(fields.binary("made_by", length=16).hex())
    if fields.text("snapshot") != snapshot_id or reader.header.device_id != made_by:
        raise tampered("belongs in another place", key)
    device = next((device for device in vault.devices() if device.device_id == made_by), None)
    if device is None:
        raise tampered("was made by a device that is not of this vault", key)
    if device.revoked_after is not None and not trusted:
        raise RevokedMakerError(
            "the newest snapshot was made by a device that was revoked",
            operation="read snapshot",
            subject=key,
            hint="Run `dualmem compact` on a device that has the memory: it puts a new one in its place.",
        )
    try:
        Ed25519PublicKey.from_public_bytes(device.ed25519).verify(signature, _signed(vault, content))
    except InvalidSignature:
        raise tampered("is not signed by its device", key) from None
    manifest = Manifest(
        snapshot_id=snapshot_id,
        made_by=made_by,
        at=fields.time("at"),
        vector=_vector(fields),
        parts=_parts(fields),
        ops=fields.integer("ops"),
    )
    return manifest, reader.object_hash


def seal_pointer(vault: Vault, pointer: Pointer) -> bytes:
    """The pointer as a sealed object."""
    content = canonical_json(
        {
            "format": 1,
            "snapshot": pointer.snapshot_id,
            "manifest": pointer.manifest_hash.hex(),
            "sequence": pointer.sequence,
        }
    )
    section = Section("pointer", content, compress=False)
    return _seal(vault, ObjectKind.POINTER, POINTER_KEY, section, sequence=pointer.sequence)[0]


def open_pointer(vault: Vault, data: bytes) -> Pointer:
    """The pointer that the bucket holds. Raises TamperedError."""

    def place_of(header: Header) -> Place:
        return Place(vault.vault_id, ObjectKind.POINTER, POINTER_KEY, header.device_id, header.sequence)

    def unwrap(header: Header) -> bytes:
        if header.key_id != "epoch":
            raise tampered("is sealed with a key that is not a pointer's", POINTER_KEY)
        return vault.unwrap(header)

    reader = SealedReader.open(bytes_reader(data), place_of=place_of, unwrap=unwrap, subject=POINTER_KEY)
    fields = Fields.parse(_section(reader, "pointer", MOST_MANIFEST_BYTES), subject=POINTER_KEY)
    if fields.integer("format") != 1:
        raise newer("is of a newer format", POINTER_KEY)
    pointer = Pointer(
        fields.binary("snapshot", length=16).hex(),
        fields.binary("manifest", length=32),
        fields.integer("sequence", low=1),
        vault.generation_of(reader.header.key_epoch),
    )
    if pointer.sequence != reader.header.sequence:
        raise tampered("belongs in another place", POINTER_KEY)
    return pointer


def _seal(vault: Vault, kind: ObjectKind, key: str, section: Section, *, sequence: int = 0) -> tuple[bytes, bytes]:
    epoch = vault.current_epoch()
    place = vault.place(kind, key, sequence=sequence)
    wrapping_key = vault.epoch_key(epoch)
    data = seal_object([section], place=place, key_id="epoch", key_epoch=epoch, wrapping_key=wrapping_key)
    reader = SealedReader.open(bytes_reader(data), place_of=place, unwrap=vault.unwrap)
    return data, reader.object_hash


def _section(reader: SealedReader, name: str, most_bytes: int) -> bytes:
    if name not in reader.names:
        raise tampered(f"has no section {name!r}", reader.place.key)
    if reader.entry(name).size > most_bytes:
        raise tampered("is longer than such an object can be", reader.place.key)
    return reader.read_section(name)


def _signed(vault: Vault, content: bytes) -> bytes:
    return _SIGNED + bytes.fromhex(vault.vault_id) + hashlib.sha256(content).digest()


def _vector(fields: Fields) -> dict[DeviceId, LogHead]:
    values = fields.nested("vector").values
    if len(values) > MOST_DEVICES or not all(map(_DEVICE.fullmatch, values)):
        raise fields.unfit("has no fit field 'vector'")
    return {DeviceId(device): _head(fields, value) for device, value in values.items()}


def _head(fields: Fields, value: Any) -> LogHead:
    if isinstance(value, list) and len(value) == len(("segment", "hash", "sequence")):
        head = Fields({"segment": value[0], "hash": value[1], "sequence": value[2]}, subject="vector")
        return LogHead(
            head.integer("segment", low=1), head.binary("hash", length=32), head.integer("sequence", low=1)
        )
    raise fields.unfit("has no fit field 'vector'")


def _parts(fields: Fields) -> tuple[bytes, ...]:
    values = fields.values.get("parts")
    if not isinstance(values, list) or len(values) > MOST_PARTS:
        raise fields.unfit("has no fit field 'parts'")
    if not all(isinstance(value, str) and _HASH.fullmatch(value) for value in values):
        raise fields.unfit("has no fit field 'parts'")
    return tuple(map(bytes.fromhex, values))
