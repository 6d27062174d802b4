"""The session's files as parts of thread streams: a new handoff carries only the bytes the last one lacks.

Session files are append-only in ordinary use, so a file whose beginning is what the base handoff carried
is described by the base's parts and one new part. A file that was rewritten is carried whole.

What a thread may be is one rule for writer and reader, `thread_fault`: nothing is sealed that it would refuse, and
a reader asks it before it reads anything. Source: docs/package.md, "Bounds of a thread".
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dualmem_mcp.crypto.envelope import Section
from dualmem_mcp.errors import TamperedError, UsageError
from dualmem_mcp.handoff.manifest import PackageManifest, Part, ThreadFile
from dualmem_mcp.handoff.patches import MAX_DICTIONARY_BYTES, MAX_PATCH_EXPANSION, apply_patch, make_patch
from dualmem_mcp.model.ids import HandoffId


class SectionReader(Protocol):
    """What reads the sections of one package."""

    def read_section(self, name: str) -> bytes: ...


CHUNK_BYTES = 1 << 20
"""Thread streams are sealed in chunks of this size, so that a part is read without the whole."""

MAX_CHUNK_BYTES = 16 << 20
MIN_CHUNK_BYTES = 64 << 10
"""Chunks that are read: smaller ones would make one part a request for each few bytes."""

MAX_SOURCES = 16
"""Packages that one thread may be spread over; past it the next handoff carries everything anew. Bounds
both the requests of a restore and what is lost with one damaged package."""


MAX_THREAD_BYTES = 1 << 30
"""All files of a session together: they are made and read in memory."""

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
    """The plan for a handoff's thread on the base of an earlier one, or whole without.

    Raises UsageError for a session that is too long to be handed over.
    """
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
    holders = sorted({part.handoff_id for file in planned for part in file.parts})
    fault = thread_fault(planned)
    # The base may be another device's, and hostile.
    if base is not None and (fault or not keys.keys() >= set(holders)):
        return plan_thread(files, handoff_id=handoff_id, package_key=package_key, base=None)
    if fault:
        raise UsageError(
            f"the session cannot be handed over: {fault}",
            operation="plan thread",
            subject=planned[0].name,
            hint="Hand over a shorter session: go on in a new one.",
        )
    return ThreadPlan(tuple(planned), {holder: keys[holder] for holder in holders}, b"".join(stream))


def thread_fault(files: Sequence[ThreadFile]) -> str:
    """Why files of these parts are neither written nor read; "" if they may be.

    It says nothing of the bytes, so that it can be asked before any of them is there. What it lets through takes no
    more memory than MAX_THREAD_BYTES and reads no stored byte twice.
    """
    if sum(file.size for file in files) > MAX_THREAD_BYTES:
        return f"its files have more than {MAX_THREAD_BYTES} bytes together"
    if fault := next(filter(None, map(_fault_of_file, files)), ""):
        return fault
    stored = sorted((part.handoff_id, part.offset, part.stored) for file in files for part in file.parts)
    if len({holder for holder, _, _ in stored}) > MAX_SOURCES:
        return f"its files lie in more than {MAX_SOURCES} packages"
    for (holder, offset, size), (next_holder, next_offset, _) in itertools.pairwise(stored):
        if holder == next_holder and next_offset < offset + size:
            return "parts of its files overlap"
    return ""


def _fault_of_file(file: ThreadFile) -> str:
    if sum(part.size for part in file.parts) != file.size:
        return "the parts of a file are not as long as the file"
    if len({part.handoff_id for part in file.parts}) != len(file.parts):
        return "a file has two parts in one package"
    if not all(map(_is_possible, file.parts)):
        return "a part of a file is not what so many stored bytes can give"
    return ""


def _is_possible(part: Part) -> bool:
    if part.patched:
        # What is no smaller as a patch is stored as it is.
        return part.stored < part.size <= min(MAX_PATCHED_BYTES, MAX_PATCH_EXPANSION * part.stored)
    return 0 < part.size == part.stored


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
    are not the ones handed over, before anything is read if the manifest says what no thread is; NotFoundError from
    `open_source` if a package is gone.
    """
    if fault := _fault_of_manifest(manifest):
        raise TamperedError(
            f"what the package says of the session's files cannot be: {fault}",
            operation="read thread",
            subject=manifest.handoff_id,
            hint="Hand the conversation over again from the device that has it.",
        )
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
                piece = apply_patch(earlier, piece, size=part.size, subject=file.name)
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


def _fault_of_manifest(manifest: PackageManifest) -> str:
    parts = [part for file in manifest.thread for part in file.parts]
    if parts and not MIN_CHUNK_BYTES <= manifest.chunk_size <= MAX_CHUNK_BYTES:
        return f"chunks of {manifest.chunk_size} bytes"
    own = [part.offset + part.stored for part in parts if part.handoff_id == manifest.handoff_id]
    if max(own, default=0) > manifest.stream_size:
        return "a part lies behind the end of the package"
    return thread_fault(manifest.thread)


class _Stream:
    """One package's thread stream, read by chunks, the last one kept."""

    def __init__(self, reader: SectionReader, chunk_size: int) -> None:
        self._reader = reader
        self._chunk_size = chunk_size
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
