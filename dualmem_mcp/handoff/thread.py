"""The session's files as parts of thread streams: a new handoff carries only the bytes the last one lacks.

Session files are append-only in ordinary use, so a file whose beginning is what the base handoff carried
is described by the base's parts and one new part. A file that was rewritten is carried whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dualmem_mcp.crypto.envelope import Section
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.handoff.manifest import PackageManifest, Part, ThreadFile
from dualmem_mcp.handoff.patches import MAX_DICTIONARY_BYTES, apply_patch, make_patch
from dualmem_mcp.model.ids import HandoffId


class SectionReader(Protocol):
    """What reads the sections of one package."""

    def read_section(self, name: str) -> bytes: ...


CHUNK_BYTES = 1 << 20
"""Thread streams are sealed in chunks of this size, so that a part is read without the whole."""

MAX_SOURCES = 16
"""Packages that one thread may be spread over; past it the next handoff carries everything anew. Bounds
both the requests of a restore and what is lost with one damaged package."""


MAX_PATCHED_BYTES = 64 << 20
"""A patch is made and read in memory; of what is longer the rest of the file would be the smaller gain."""


@dataclass(frozen=True, slots=True)
class ThreadPlan:
    """Where each file's bytes lie, the packages referred to, and the new bytes to be sealed."""

    files: tuple[ThreadFile, ...]
    sources: Mapping[HandoffId, str]
    stream: bytes


def plan_thread(
    files: Sequence[tuple[str, bytes]],
    *,
    handoff_id: HandoffId,
    package_key: str,
    base: PackageManifest | None,
) -> ThreadPlan:
    """The plan for a handoff's thread on the base of an earlier one, or whole without."""
    known = {file.name: file for file in base.thread} if base else {}
    keys = dict(base.sources) if base else {}
    keys[handoff_id] = package_key
    planned: list[ThreadFile] = []
    stream: list[bytes] = []
    position = 0
    for name, data in files:
        parts: tuple[Part, ...] = ()
        rest = data
        before = known.get(name)
        if before is not None and _starts_with(data, before):
            parts, rest = before.parts, data[before.size :]
        if rest:
            part, stored = _part(handoff_id, position, rest, earlier=data[: len(data) - len(rest)])
            parts = (*parts, part)
            stream.append(stored)
            position += len(stored)
        planned.append(ThreadFile(name, len(data), hashlib.sha256(data).hexdigest(), parts))
    holders = {part.handoff_id for file in planned for part in file.parts}
    if len(holders) > MAX_SOURCES:
        return plan_thread(files, handoff_id=handoff_id, package_key=package_key, base=None)
    return ThreadPlan(tuple(planned), {holder: keys[holder] for holder in sorted(holders)}, b"".join(stream))


def _part(handoff_id: HandoffId, position: int, new: bytes, *, earlier: bytes) -> tuple[Part, bytes]:
    """The new bytes of a file as they are stored: as a patch against those before them, where there are some."""
    patch = make_patch(earlier, new) if earlier and len(new) <= MAX_PATCHED_BYTES else new
    if len(patch) < len(new):
        return Part(handoff_id, position, len(new), len(patch), patched=True), patch
    return Part(handoff_id, position, len(new), len(new)), new


def thread_sections(stream: bytes) -> Iterator[Section]:
    """The stream cut into sections `thread/00000`, `thread/00001`, …"""
    for index, start in enumerate(range(0, len(stream), CHUNK_BYTES)):
        yield Section(_section_name(index), stream[start : start + CHUNK_BYTES])


def read_thread(
    manifest: PackageManifest, open_source: Callable[[HandoffId], SectionReader], names: Iterable[str] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file of the session, checked against their SHA-256.

    `open_source` opens the package of a handoff named in the manifest. Raises TamperedError if the bytes
    are not the ones handed over; NotFoundError from `open_source` if a package is gone.
    """
    wanted = None if names is None else set(names)
    streams: dict[HandoffId, _Stream] = {}
    for file in manifest.thread:
        if wanted is not None and file.name not in wanted:
            continue
        read = bytearray()
        for part in file.parts:
            if part.handoff_id not in streams:
                streams[part.handoff_id] = _Stream(open_source(part.handoff_id), manifest.chunk_size)
            piece = streams[part.handoff_id].read(part.offset, part.stored)
            if part.patched:
                earlier = bytes(read[-MAX_DICTIONARY_BYTES:])
                piece = apply_patch(earlier, piece, size=_bounded(part, file), subject=file.name)
            read += piece
        data = bytes(read)
        if len(data) != file.size or hashlib.sha256(data).hexdigest() != file.sha256:
            raise TamperedError(
                "a session file does not have the checksum it was handed over with",
                operation="read thread",
                subject=file.name,
                hint="Hand the conversation over again from the device that has it.",
            )
        yield file.name, data


def _bounded(part: Part, file: ThreadFile) -> int:
    """The size that a patch may have: what it gives is part of the file."""
    if part.size > min(file.size, MAX_PATCHED_BYTES):
        raise TamperedError(
            "a part of a session file is larger than the file",
            operation="read thread",
            subject=file.name,
            hint="Hand the conversation over again from the device that has it.",
        )
    return part.size


class _Stream:
    """One package's thread stream, read by chunks, the last one kept."""

    def __init__(self, reader: SectionReader, chunk_size: int) -> None:
        self._reader = reader
        self._chunk_size = max(chunk_size, 1)
        self._index = -1
        self._chunk = b""

    def read(self, offset: int, size: int) -> bytes:
        pieces = []
        while size > 0:
            index, within = divmod(offset, self._chunk_size)
            if index != self._index:
                self._chunk, self._index = self._reader.read_section(_section_name(index)), index
            piece = self._chunk[within : within + size]
            if not piece:
                break  # the checksum over the whole file says what that means
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return b"".join(pieces)


def _starts_with(data: bytes, before: ThreadFile) -> bool:
    return len(data) >= before.size and hashlib.sha256(memoryview(data)[: before.size]).hexdigest() == before.sha256


def _section_name(index: int) -> str:
    return f"thread/{index:05d}"
