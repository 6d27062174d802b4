"""The sealed object: clear header, sealed index, then sections sealed one by one and read by range.

Every AEAD key here encrypts once: it is derived from a random data key and the section's label, or with a
fresh salt. So the nonce is fixed to zeros: there is none to repeat, to store, or to run out of after 2^32
random ones. Source of the layout: docs/format.md, "The envelope".
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from dualmem_mcp.crypto.header import (
    HEADER_BYTES,
    IDENTITY_BYTES,
    MAX_INDEX_BYTES,
    OBJECT_ID_BYTES,
    WRAP_AAD_BYTES,
    WRAP_SALT_BYTES,
    Header,
    ObjectKind,
    Place,
    check_key_id,
    tampered,
)
from dualmem_mcp.crypto.index import (
    MAX_EXPANSION,
    MAX_NAME_BYTES,
    MAX_SECTION_BYTES,
    MAX_SECTIONS,
    TAG_BYTES,
    Algorithm,
    SectionEntry,
    decode_index,
    decode_name,
    encode_index,
)
from dualmem_mcp.crypto.kdf import KEY_BYTES, expand, extract_and_expand
from dualmem_mcp.crypto.padding import INDEX_FLOOR_BYTES, SECTION_FLOOR_BYTES, padded_length
from dualmem_mcp.errors import NotFoundError, TamperedError, UsageError

__all__ = [
    "Algorithm",
    "Header",
    "ObjectKind",
    "Place",
    "RangeReader",
    "SealedReader",
    "Section",
    "SectionEntry",
    "UnopenedObject",
    "bytes_reader",
    "seal_object",
]

RangeReader = Callable[[int, int], bytes]
"""(start, length) to the bytes there; fewer at the end of the object."""

NONCE = bytes(12)
COMPRESSION_LEVEL = 3
"""Level 9 makes session files 9 % smaller and takes four times as long (benchmarks/envelope.py)."""

_COMMITMENT = b"dualmem/1/envelope/commitment"
_WRAP = b"dualmem/1/envelope/wrap"
_INDEX = b"dualmem/1/envelope/index"
_SECTION = b"dualmem/1/envelope/section"
_HASH = b"dualmem/1/envelope/hash"
_MOST_HEADS_BYTES = HEADER_BYTES + INDEX_FLOOR_BYTES + TAG_BYTES
"""Of header and index where the index has no more than its least padding, as nearly all have."""


_AEADS: dict[int, type[AESGCM | ChaCha20Poly1305]] = {
    Algorithm.AES_256_GCM: AESGCM,
    Algorithm.CHACHA20_POLY1305: ChaCha20Poly1305,
}


@dataclass(frozen=True, slots=True)
class Section:
    """One named part of an object, sealed on its own. `compress=False` for what does not get smaller."""

    name: str
    data: bytes = field(repr=False)
    algorithm: Algorithm = Algorithm.AES_256_GCM
    compress: bool = True


def seal_object(
    sections: Sequence[Section], *, place: Place, key_id: str, key_epoch: int, wrapping_key: bytes
) -> bytes:
    """The sections as one sealed object that opens only in that place and with that wrapping key.

    `wrapping_key` has 32 uniformly random bytes; `key_id` and `key_epoch` tell a reader which it is.
    Raises UsageError for names twice or out of bounds, or a section over 256 MiB.
    """
    _check_sections(sections)
    data_key = os.urandom(KEY_BYTES)
    stored = [_store(section) for section in sections]
    entries = _entries_of(sections, stored)
    index = encode_index(entries)
    plain_index = _pad(index, padded_length(len(index), floor=INDEX_FLOOR_BYTES))
    if len(plain_index) + TAG_BYTES > MAX_INDEX_BYTES:
        raise UsageError(
            "the names of the sections are too long in all", operation="seal object", subject=place.key
        )
    header = Header(
        kind=place.kind,
        vault_id=place.vault_id,
        object_id=os.urandom(OBJECT_ID_BYTES),
        device_id=place.device_id,
        sequence=place.sequence,
        previous_hash=place.previous_hash,
        index_bytes=len(plain_index) + TAG_BYTES,
        commitment=expand(data_key, _COMMITMENT),
        key_epoch=key_epoch,
        key_id=check_key_id(key_id),
        wrap_salt=os.urandom(WRAP_SALT_BYTES),
    )
    clear, key = header.encode(), place.encoded_key()
    identity = clear[:IDENTITY_BYTES]
    wrapped = AESGCM(extract_and_expand(wrapping_key, salt=header.wrap_salt, info=_WRAP)).encrypt(
        NONCE, data_key, _WRAP + clear[:WRAP_AAD_BYTES] + key
    )
    sealed = [header.with_wrapped_key(wrapped).encode()]
    sealed.append(AESGCM(expand(data_key, _INDEX)).encrypt(NONCE, plain_index, _INDEX + identity + key))
    for number, (entry, data) in enumerate(zip(entries, stored, strict=True)):
        label = _label(number, entry.name, entry.algorithm)
        aead = _AEADS[entry.algorithm](expand(data_key, _SECTION + label))
        padded = _pad(data, entry.sealed_size - TAG_BYTES)
        sealed.append(aead.encrypt(NONCE, padded, _SECTION + identity + key + label))
    return b"".join(sealed)


@dataclass(frozen=True, slots=True)
class UnopenedObject:
    """What the head of a sealed object states, and the hash of that object. Nothing of it is authenticated but by
    that hash: who knows it from elsewhere knows that this is the very object."""

    header: Header
    object_hash: bytes

    @classmethod
    def read(cls, read: RangeReader, *, subject: str) -> UnopenedObject:
        """By one read of 1,296 bytes, or two where the index is longer than most. Raises TamperedError."""
        head = read(0, _MOST_HEADS_BYTES)
        header = Header.decode(head, subject=subject)
        end = HEADER_BYTES + header.index_bytes
        if len(head) < end:
            head += read(len(head), end - len(head))
        if len(head) < end:
            raise tampered("was cut short", subject)
        return cls(header, _object_hash(head[:IDENTITY_BYTES], head[HEADER_BYTES:end]))


class SealedReader:
    """A sealed object whose header and index have been authenticated; its sections are read when asked for.

    Made by `open`. Not safe for use by several threads at once if the RangeReader is not.
    """

    def __init__(
        self,
        read: RangeReader,
        *,
        head: bytes,
        ended: bool,
        header: Header,
        place: Place,
        data_key: bytes,
        entries: Sequence[SectionEntry],
        object_hash: bytes,
    ) -> None:
        self._read = read
        self._head = head
        self._ended = ended
        self._data_key = data_key
        self._aad = _SECTION + head[:IDENTITY_BYTES] + place.encoded_key()
        self._numbers = {entry.name: number for number, entry in enumerate(entries)}
        self._entries = tuple(entries)
        self.header = header
        self.place = place
        self.object_hash = object_hash
        """SHA-256 over identity and sealed index: commits to all content and outlives re-wrapping."""

    @classmethod
    def open(
        cls,
        read: RangeReader,
        *,
        place_of: Callable[[Header], Place] | Place,
        unwrap: Callable[[Header], bytes],
        head_bytes: int = 65536,
        subject: str = "",
    ) -> SealedReader:
        """A reader of the object, after one read of `head_bytes` from its beginning (two for a long index).

        `place_of` is where the object was found; given as a function it may take from the header what only
        the writer knows (device, sequence), never vault, kind or key. `unwrap` finds the wrapping key by
        the header's epoch and key id; `subject` names the object in errors where `place_of` is a function.
        Raises TamperedError if anything is not as it was sealed, NewerFormatError for a format unknown
        here, and what `read` and `unwrap` raise.
        """
        length = max(head_bytes, HEADER_BYTES)
        head = read(0, length)[:length]
        header = Header.decode(head, subject=place_of.key if isinstance(place_of, Place) else subject)
        place = place_of if isinstance(place_of, Place) else place_of(header)
        header.check_place(place)
        ended = len(head) < length
        index_end = HEADER_BYTES + header.index_bytes
        if len(head) < index_end and not ended:
            # index_bytes is at most 1 MiB, so this cannot be made to ask for much.
            head += read(len(head), index_end - len(head))
        if len(head) < index_end:
            raise tampered("was cut short", place.key)
        key = place.encoded_key()
        data_key = _unwrap_data_key(head, header, key, place.key, unwrap(header))
        identity, sealed_index = head[:IDENTITY_BYTES], head[HEADER_BYTES:index_end]
        try:
            plain_index = AESGCM(expand(data_key, _INDEX)).decrypt(NONCE, sealed_index, _INDEX + identity + key)
        except InvalidTag:
            raise tampered("does not authenticate", place.key) from None
        entries = decode_index(plain_index, start=index_end, subject=place.key)
        object_hash = _object_hash(identity, sealed_index)
        reader = cls(
            read,
            head=head,
            ended=ended,
            header=header,
            place=place,
            data_key=data_key,
            entries=entries,
            object_hash=object_hash,
        )
        if ended and len(head) != reader.total_bytes:
            raise tampered("has another length than when it was sealed", place.key)
        return reader

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sections in their order."""
        return tuple(entry.name for entry in self._entries)

    @property
    def total_bytes(self) -> int:
        """Length of the whole object as it was sealed."""
        if self._entries:
            return self._entries[-1].offset + self._entries[-1].sealed_size
        return HEADER_BYTES + self.header.index_bytes

    def entry(self, name: str) -> SectionEntry:
        """What the index states of a section. Raises NotFoundError."""
        try:
            return self._entries[self._numbers[name]]
        except KeyError:
            raise NotFoundError(
                f"there is no section {name!r}", operation="read section", subject=self.place.key
            ) from None

    def read_section(self, name: str) -> bytes:
        """The plain bytes of a section: from the head where that covers it, else with one read.

        Raises NotFoundError if there is no such section, TamperedError if it is not as it was sealed,
        and what the RangeReader raises.
        """
        entry = self.entry(name)
        number, subject = self._numbers[name], self.place.key
        sealed = self._sealed_bytes(entry, last=number == len(self._entries) - 1)
        if len(sealed) != entry.sealed_size:
            raise tampered("was cut short or made longer", subject)
        label = _label(number, entry.name, entry.algorithm)
        aead = _AEADS[entry.algorithm](expand(self._data_key, _SECTION + label))
        try:
            padded = aead.decrypt(NONCE, sealed, self._aad + label)
        except InvalidTag:
            raise tampered("does not authenticate", subject) from None
        # What follows is authenticated: only a holder of the keys can fail it. It is checked all the same,
        # since a device of the vault may be hostile, or its program wrong.
        stored = padded[: entry.stored_size]
        if padded.count(0, entry.stored_size) != len(padded) - entry.stored_size:
            raise tampered("is padded with something else than zeros", subject)
        data = _decompress(stored, entry.size, subject) if entry.compressed else stored
        if len(data) != entry.size or not hmac.compare_digest(hashlib.sha256(data).digest(), entry.sha256):
            raise tampered("does not have the checksum it was sealed with", subject)
        return data

    def _sealed_bytes(self, entry: SectionEntry, *, last: bool) -> bytes:
        # One byte more behind the last section shows whether the object was made longer.
        length = entry.sealed_size + last
        if self._ended or entry.offset + length <= len(self._head):
            return self._head[entry.offset : entry.offset + length]
        return self._read(entry.offset, length)[:length]


def bytes_reader(data: bytes) -> RangeReader:
    """A RangeReader over an object that is in memory."""
    return lambda start, length: data[start : start + length]


def _unwrap_data_key(head: bytes, header: Header, key: bytes, subject: str, wrapping_key: bytes) -> bytes:
    try:
        data_key = AESGCM(extract_and_expand(wrapping_key, salt=header.wrap_salt, info=_WRAP)).decrypt(
            NONCE, header.wrapped_key, _WRAP + head[:WRAP_AAD_BYTES] + key
        )
    except InvalidTag:
        raise tampered("does not authenticate", subject) from None
    # AES-GCM does not commit to its key. Wrapping keys are random, so nobody can test passphrases with such
    # a ciphertext, but a device of the vault could hand two others different contents in one object.
    if not hmac.compare_digest(expand(data_key, _COMMITMENT), header.commitment):
        raise tampered("does not authenticate", subject)
    return data_key


def _check_sections(sections: Sequence[Section]) -> None:
    if len(sections) > MAX_SECTIONS:
        raise UsageError(f"an object has at most {MAX_SECTIONS} sections", operation="seal object")
    names = [section.name for section in sections]
    if len(set(names)) != len(names):
        raise UsageError("two sections have one name", operation="seal object")
    for section in sections:
        try:
            decode_name(section.name.encode("utf-8"), section.name)
        except (TamperedError, UnicodeEncodeError):
            raise UsageError(
                f"a section's name has 1 to {MAX_NAME_BYTES} bytes and no control characters",
                operation="seal object",
            ) from None
        if len(section.data) > MAX_SECTION_BYTES:
            raise UsageError(
                f"section {section.name!r} has {len(section.data)} bytes, more than {MAX_SECTION_BYTES}",
                operation="seal object",
                subject=section.name,
                hint="Cut it into several sections.",
            )


def _label(number: int, name: str, algorithm: Algorithm) -> bytes:
    encoded = name.encode("utf-8")
    return struct.pack(">IBH", number, algorithm, len(encoded)) + encoded


def _entries_of(sections: Sequence[Section], stored: Sequence[bytes]) -> list[SectionEntry]:
    entries = []
    for section, data in zip(sections, stored, strict=True):
        entries.append(
            SectionEntry(
                name=section.name,
                algorithm=section.algorithm,
                compressed=data is not section.data,
                size=len(section.data),
                stored_size=len(data),
                sealed_size=padded_length(len(data), floor=_section_floor(section)) + TAG_BYTES,
                offset=0,  # follows from the sizes; the index does not state it
                sha256=hashlib.sha256(section.data).digest(),
            )
        )
    return entries


def _store(section: Section) -> bytes:
    """The section compressed if that makes it smaller, else the very same bytes."""
    if section.compress and section.data:
        compressed = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(section.data)
        if len(compressed) < len(section.data):
            return compressed
    return section.data


def _section_floor(section: Section) -> int:
    """What a section is padded to at least: the floor, and enough that a reader takes its expansion."""
    return max(SECTION_FLOOR_BYTES, -(-len(section.data) // MAX_EXPANSION))


def _pad(data: bytes, length: int) -> bytes:
    return data.ljust(length, b"\0")


def _decompress(stored: bytes, size: int, subject: str) -> bytes:
    try:
        # The frame's own size is what would be allocated, so it is compared before.
        if zstandard.get_frame_parameters(stored).content_size == size:
            return zstandard.ZstdDecompressor(max_window_size=MAX_SECTION_BYTES).decompress(
                stored, max_output_size=size, allow_extra_data=False
            )
    except zstandard.ZstdError:
        pass
    raise tampered("holds a section that cannot be decompressed", subject)


def _object_hash(identity: bytes, sealed_index: bytes) -> bytes:
    return hashlib.sha256(_HASH + identity + sealed_index).digest()
