"""The index of a sealed object: which sections there are, how long, how sealed. Source: docs/format.md, "Index"."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from dualmem_mcp.crypto.header import newer, tampered
from dualmem_mcp.crypto.padding import padded_length

MAX_SECTIONS = 4096
MAX_SECTION_BYTES = 256 << 20
MAX_EXPANSION = 1024
"""Most that a section may grow when opened, against its sealed bytes, which were received and paid for.
A session file compresses 5 to 10 times; what compresses better than this is padded to keep the rule."""
MAX_NAME_BYTES = 128
TAG_BYTES = 16

_ENTRY = struct.Struct(">BBQQQ32s")


class Algorithm(enum.IntEnum):
    """The AEAD that a section is sealed with."""

    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2


@dataclass(frozen=True, slots=True)
class SectionEntry:
    """A section as the index states it.

    `size` is the plain length in bytes, `stored_size` that after compression, `sealed_size` with padding
    and tag; `offset` is where the sealed bytes begin in the object; `sha256` is that of the plain bytes.
    """

    name: str
    algorithm: Algorithm
    compressed: bool
    size: int
    stored_size: int
    sealed_size: int
    offset: int
    sha256: bytes


def encode_index(entries: Iterable[SectionEntry]) -> bytes:
    """The index of these sections, not padded. Source: docs/format.md, "Index"."""
    rows = []
    for entry in entries:
        name = entry.name.encode("utf-8")
        sizes = (entry.size, entry.stored_size, entry.sealed_size)
        rows.append(
            bytes([len(name)]) + name + _ENTRY.pack(entry.algorithm, entry.compressed, *sizes, entry.sha256)
        )
    return struct.pack(">I", len(rows)) + b"".join(rows)


def decode_index(data: bytes, *, start: int, subject: str) -> list[SectionEntry]:
    """The sections that a plain index states, the first of them at offset `start`, all within bounds.

    Raises TamperedError if it is not an index or passes a bound, NewerFormatError for an algorithm or
    compression unknown here.
    """
    if len(data) < 4:
        raise tampered("has no index", subject)
    (count,) = struct.unpack_from(">I", data)
    # Before any loop: each entry takes at least one byte of name and its fixed fields.
    if count > MAX_SECTIONS or count * (2 + _ENTRY.size) > len(data):
        raise tampered("states an impossible number of sections", subject)
    entries: list[SectionEntry] = []
    position, offset = 4, start
    names: set[str] = set()
    for _ in range(count):
        fields_at = position + 1 + (data[position] if position < len(data) else 0)
        if fields_at + _ENTRY.size > len(data):
            raise tampered("has an index that ends too early", subject)
        name = decode_name(data[position + 1 : fields_at], subject)
        algorithm, compression, size, stored_size, sealed_size, sha256 = _ENTRY.unpack_from(data, fields_at)
        if algorithm not in Algorithm._value2member_map_ or compression > 1:
            raise newer("has a section sealed or compressed in a way unknown here", subject)
        if (
            name in names
            or size > MAX_SECTION_BYTES
            or size > MAX_EXPANSION * sealed_size
            or stored_size + TAG_BYTES > sealed_size
            or sealed_size > padded_length(MAX_SECTION_BYTES, floor=0) + TAG_BYTES
            or (not compression and stored_size != size)
        ):
            raise tampered("states an impossible section", subject)
        entries.append(
            SectionEntry(
                name, Algorithm(algorithm), bool(compression), size, stored_size, sealed_size, offset, sha256
            )
        )
        names.add(name)
        position, offset = fields_at + _ENTRY.size, offset + sealed_size
    if data.count(0, position) != len(data) - position:
        raise tampered("has something behind its index", subject)
    return entries


def decode_name(data: bytes, subject: str) -> str:
    """The name of a section. Raises TamperedError if it is empty, too long or not printable."""
    try:
        name = data.decode("utf-8")
    except UnicodeDecodeError:
        raise tampered("has a section with an impossible name", subject) from None
    if not 0 < len(data) <= MAX_NAME_BYTES or not name.isprintable():
        raise tampered("has a section with an impossible name", subject)
    return name
