"""Taking a conversation up on another device: find its newest handoff, open it, fit a brief to the device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dualmem_mcp.crypto.envelope import ObjectKind, SealedReader, bytes_reader
from dualmem_mcp.crypto.index import MAX_SECTION_BYTES
from dualmem_mcp.errors import DualmemError, NotFoundError, StoreRefusedError, StoreUnreachableError, TamperedError
from dualmem_mcp.handoff.agent_states import agents_from_json
from dualmem_mcp.handoff.bundle import open_bundle
from dualmem_mcp.handoff.channel import Channel, manifest_prefix
from dualmem_mcp.handoff.manifest import (
    CarriedFile,
    PackageManifest,
    PatchedSection,
    record_from_json,
)
from dualmem_mcp.handoff.patches import MAX_PATCH_EXPANSION, apply_patch
from dualmem_mcp.handoff.preload import SECTION as PRELOAD
from dualmem_mcp.handoff.preload import PreloadSet, preload_from_bytes
from dualmem_mcp.handoff.thread import read_thread
from dualmem_mcp.model.digest import Digest
from dualmem_mcp.model.handoff import HandoffRecord
from dualmem_mcp.model.ids import ConversationId, HandoffId

KEEP_LIMIT_BYTES = 16 << 20
"""Packages up to this size are kept whole on the device that resumes them, for use offline."""

MAX_RECORD_BYTES = 64 << 10
"""More of a handoff record is not read: the largest has a title, a folder and some numbers."""

_FETCHES_AT_ONCE = 16
_PASSED_OVER = "a handoff was passed over, so this may not show the newest"


class PackageGoneError(NotFoundError):
    """The package of a handoff, or one that it is built upon, is neither here nor in the bucket."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a look at the bucket brought: handoffs not known before, warnings, and what they warn of."""

    found: int
    warnings: tuple[str, ...] = ()
    faults: tuple[DualmemError, ...] = ()


def refresh_catalogue(channel: Channel, conversation_id: ConversationId | None = None) -> Refresh:
    """Record the handoffs that other devices put into the bucket since the last look.

    A bucket that cannot be reached, and single records that do not open, are warnings: what is known on
    this device stays usable. Raises TamperedError if the bucket was exchanged or set back, NotFoundError if
    the vault is gone from it.
    """
    known = channel.catalogue.manifest_keys()
    prefix = manifest_prefix(channel.vault, conversation_id)
    try:
        channel.vault.refresh(channel.objects)
        unseen = [info.key for info in channel.objects.list(prefix) if info.key not in known]
    except StoreUnreachableError as error:
        warning = f"the bucket cannot be reached ({error.message}); showing what this device has"
        if isinstance(error, StoreRefusedError):
            warning = f"the bucket refuses this device ({error.message}); showing what it has. {error.hint}".strip()
        return Refresh(0, (warning,), (error,))
    faults: list[DualmemError] = []
    found = 0
    with ThreadPoolExecutor(max_workers=_FETCHES_AT_ONCE) as pool:
        for outcome in pool.map(lambda key: _fetch_record(channel, key), unseen):
            if isinstance(outcome, HandoffRecord):
                channel.catalogue.save_handoff(outcome, told_elsewhere=True)
                found += 1
            else:
                faults.append(outcome)
    return Refresh(found, tuple(f"{_PASSED_OVER}: {fault.message}" for fault in faults), tuple(faults))


def _fetch_record(channel: Channel, key: str) -> HandoffRecord | DualmemError:
    try:
        data = channel.objects.get(key, length=MAX_RECORD_BYTES)
        reader = channel.open(ObjectKind.MANIFEST, key, lambda start, length: data[start : start + length])
        return record_from_json(reader.read_section("record"), manifest_key=key)
    except DualmemError as error:
        return error


def find_handoff(
    channel: Channel, conversation_id: ConversationId | None, refreshed: Refresh | None = None
) -> HandoffRecord:
    """The newest handoff of the conversation, or of all.

    Raises NotFoundError; if the look at the bucket met faults, one of their kind, since the handoff may be
    there all the same.
    """
    if conversation_id is None:
        record = channel.catalogue.newest_handoff()
        missing = "no conversation has been handed over yet"
        hint = "Run `dualmem handoff` on the device that has the conversation."
    else:
        record = next(iter(channel.catalogue.handoffs(conversation_id)), None)
        missing = f"conversation {conversation_id} has not been handed over"
        hint = "`dualmem conversations` lists those that were; `dualmem handoff` hands one over."
    if record is not None:
        return record
    for fault in refreshed.faults if refreshed else ():
        raise type(fault)(
            f"no handoff {f'of {conversation_id} ' if conversation_id else ''}can be opened: {fault.message}",
            operation="resume",
            subject=conversation_id or "",
            hint=fault.hint or "Hand the conversation over again from the device that has it.",
        )
    raise NotFoundError(missing, operation="resume", subject=conversation_id or "", hint=hint)


class OpenedPackage:
    """One handoff's package, its sections opened as they are asked for.

    A copy kept on this device that does not authenticate is dropped, and the bucket's is read instead.
    """

    def __init__(self, channel: Channel, handoff_id: HandoffId, key: str) -> None:
        self._channel = channel
        self._handoff_id = handoff_id
        self.key = key
        self._reader = self._open()

    def _open(self) -> SealedReader:
        try:
            return _reader_of(self._channel, self._handoff_id, self.key)
        except TamperedError:
            if not _drop_kept(self._channel, self._handoff_id):
                raise
            return _reader_of(self._channel, self._handoff_id, self.key)

    def read_section(self, name: str) -> bytes:
        """The plain bytes of a section, made from a patch where the package has one. Raises TamperedError,
        NotFoundError, StoreUnreachableError."""
        if not self._has(name) and (patched := self._patched(name)):
            return self._unpatch(*patched)
        return self._read(name)

    def whole_section(self, name: str) -> tuple[HandoffId, bytes]:
        """The plain bytes of a section that stands whole in a package, and that package's handoff: this one, or the
        one that a patch here is against. b"" for none. Raises as `read_section` does."""
        if self._has(name):
            return self.manifest.handoff_id, self._read(name)
        if patched := self._patched(name):
            section, _ = patched
            return section.base, self._open_source(section.base).read_section(name)
        return self.manifest.handoff_id, b""

    def _patched(self, name: str) -> tuple[PatchedSection, int] | None:
        """The patch of that section, and where it begins among the patches."""
        position = 0
        for section in self.manifest.patched:
            if section.name == name:
                return section, position
            position += section.stored
        return None

    def _unpatch(self, section: PatchedSection, position: int) -> bytes:
        if section.size > min(MAX_SECTION_BYTES, MAX_PATCH_EXPANSION * section.stored):
            raise _does_not_fit(section.name, self.key)
        patch = self._read("patches")[position : position + section.stored]
        source = self._open_source(section.base)
        if section.name not in source.section_names:
            raise _does_not_fit(section.name, self.key)
        data = apply_patch(source.read_section(section.name), patch, size=section.size, subject=self.key)
        if hashlib.sha256(data).hexdigest() != section.sha256:
            raise _does_not_fit(section.name, self.key)
        return data

    def _has(self, name: str) -> bool:
        return name in self._reader.names or name in self._bundled

    def _read(self, name: str) -> bytes:
        if name not in self._reader.names and name in self._bundled:
            return self._bundled[name]
        return self._read_sealed(name)

    def _read_sealed(self, name: str) -> bytes:
        try:
            return self._reader.read_section(name)
        except TamperedError:
            if not _drop_kept(self._channel, self._handoff_id):
                raise
            self._reader = self._open()
            return self._reader.read_section(name)

    @property
    def section_names(self) -> tuple[str, ...]:
        """All sections of this package that stand whole in it. Raises TamperedError."""
        return (*self._reader.names, *self._bundled)

    @cached_property
    def manifest(self) -> PackageManifest:
        """What the package says of itself. Raises TamperedError."""
        return self._opened[0]

    @property
    def _bundled(self) -> Mapping[str, bytes]:
        return self._opened[1]

    @cached_property
    def _opened(self) -> tuple[PackageManifest, Mapping[str, bytes]]:
        return open_bundle(self._read_sealed("manifest"))

    @cached_property
    def digest(self) -> Digest:
        """The conversation's digest. Raises TamperedError."""
        return Digest.from_json(_json(self.read_section("digest"), "digest"))

    @cached_property
    def agents(self) -> dict[str, Any]:
        """The agents section: model, permission mode, agents, changed definitions. Raises TamperedError."""
        return agents_from_json(self.read_section("agents"))

    @cached_property
    def state(self) -> dict[str, Any]:
        """The opaque state that was handed over. Raises TamperedError."""
        if self.manifest.format > 1 and not self._has("state") and not self._patched("state"):
            return {}
        state = _json(self.read_section("state"), "state")
        return state if isinstance(state, dict) else {}

    @cached_property
    def preload(self) -> PreloadSet:
        """What a device with a small cache is to have at hand; empty in a package for others. Raises TamperedError,
        NotFoundError, StoreUnreachableError."""
        if not self._has(PRELOAD) and not self._patched(PRELOAD):
            return PreloadSet()
        return preload_from_bytes(self.read_section(PRELOAD), self.manifest.conversation_id)

    def carried_files(self, kinds: Sequence[str] = ()) -> list[tuple[CarriedFile, bytes]]:
        """The files of those kinds (all if none is named) with their bytes. Raises TamperedError."""
        files = [file for file in self.manifest.files if not kinds or file.kind in kinds]
        if not files:
            return []
        size = sum(file.size for file in files)
        if size > MAX_SECTION_BYTES:  # of ranges that repeat each other
            raise _does_not_fit("files", self.key)
        blob = self.read_section("files") if size else b""
        return [(file, blob[file.offset : file.offset + file.size]) for file in files]

    def thread_files(self, names: Sequence[str] | None = None) -> dict[str, bytes]:
        """Name and bytes of the session's files, checked. Raises TamperedError, NotFoundError."""
        return dict(read_thread(self.manifest, self._open_source, names))

    def _open_source(self, handoff_id: HandoffId) -> OpenedPackage:
        if handoff_id == self.manifest.handoff_id:
            return self
        key = self.manifest.sources.get(handoff_id)
        if key is None:
            raise TamperedError(
                "the package refers to a package that it does not name",
                operation="read thread",
                subject=self.key,
                hint="Hand the conversation over again from the device that has it.",
            )
        return OpenedPackage(self._channel, handoff_id, key)


def _does_not_fit(name: str, key: str) -> TamperedError:
    return TamperedError(
        f"the {name} section does not fit what the package says of it",
        operation="read package",
        subject=key,
        hint="Hand the conversation over again from the device that has it.",
    )


def open_package(channel: Channel, record: HandoffRecord) -> OpenedPackage:
    """The package of a handoff, from this device where it is kept, else by ranges from the bucket.

    Raises PackageGoneError, StoreUnreachableError, TamperedError.
    """
    opened = OpenedPackage(channel, record.handoff_id, record.package_key)
    if (opened.manifest.handoff_id, opened.manifest.conversation_id) != (record.handoff_id, record.conversation_id):
        raise TamperedError(
            "the package is another handoff's than the record says",
            operation="open package",
            subject=record.handoff_id,
            hint="Hand the conversation over again from the device that has it.",
        )
    return opened


def keep_package(
    channel: Channel, record: HandoffRecord, package: OpenedPackage, *, limit_bytes: int | None = KEEP_LIMIT_BYTES
) -> bool:
    """Keep the package and those it builds on, whole, for use offline; False if they are larger than the limit.

    All of it is authenticated first: raises TamperedError for a change in a part that the brief did not need,
    so that it is told now and not at the restore.
    """
    missing = [
        (holder, key)
        for holder, key in {**package.manifest.sources, record.handoff_id: record.package_key}.items()
        if channel.packages.read(holder, length=1) is None
    ]
    if not missing:
        return True
    sizes = {key: _size_of(channel, key) for _, key in missing}
    if limit_bytes is not None and sum(sizes.values()) > limit_bytes:
        return False
    for holder, key in missing:
        data = channel.objects.get(key, length=sizes[key])
        whole = channel.open(ObjectKind.PACKAGE, key, bytes_reader(data))
        for name in whole.names:
            whole.read_section(name)
        channel.packages.write(holder, data, made_here=False)
    return True


def _size_of(channel: Channel, key: str) -> int:
    try:
        return channel.objects.stat(key).size_bytes
    except NotFoundError:
        raise _gone(key) from None


def _gone(key: str) -> PackageGoneError:
    return PackageGoneError(
        f"a package of this conversation is gone from the bucket: {key}",
        operation="open package",
        subject=key,
        hint="Hand the conversation over again from the device that has it.",
    )


def _drop_kept(channel: Channel, handoff_id: HandoffId) -> bool:
    """Forget this device's copy of a package that is in the bucket, too; False if there is nothing to forget."""
    waiting = f"packages/{handoff_id}" in channel.outbox.pending()
    if waiting or channel.packages.read(handoff_id, length=1) is None:
        return False
    channel.packages.remove(handoff_id)
    return True


def _reader_of(channel: Channel, handoff_id: HandoffId, key: str) -> SealedReader:
    def read(start: int, length: int) -> bytes:
        kept = channel.packages.read(handoff_id, start=start, length=length)
        if kept is not None:
            return kept
        try:
            return channel.objects.get(key, start=start, length=length)
        except NotFoundError:
            raise _gone(key) from None

    return channel.open(ObjectKind.PACKAGE, key, read)


def _json(data: bytes, what: str) -> Any:
    try:
        return json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        raise TamperedError(
            f"the {what} section is not the JSON it should be",
            operation=f"read {what}",
            hint="Hand the conversation over again; if that fails too, update dualmem on both devices.",
        ) from None
