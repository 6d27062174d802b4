"""Snapshots: written part by part, found by the pointer, taken in whole or not at all.

Source: docs/format.md, "Snapshots"; docs/sync.md, "Snapshots and compaction".
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Final

from dualmem_mcp.crypto.canonical import MAX_JSON_BYTES, canonical_json
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.durable_files import file_faults
from dualmem_mcp.errors import ConflictError, NotFoundError, TamperedError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import NO_HEAD, LogHead, Op
from dualmem_mcp.ports import Applied, BlobCache, Clock, ObjectStore, Progress, no_progress
from dualmem_mcp.sync.log_state import LogState
from dualmem_mcp.sync.snapshot_format import (
    MOST_MANIFEST_OBJECT_BYTES,
    MOST_OBJECT_BYTES,
    POINTER_KEY,
    Manifest,
    Pointer,
    RevokedMakerError,
    manifest_key,
    open_manifest,
    open_part,
    open_pointer,
    part_key,
    parts_of,
    seal_manifest,
    seal_part,
    seal_pointer,
)

OPS_AT_ONCE: Final = 1_000
"""That one transaction of taking in merges: other programs' writes wait some tenths of a second."""

_SEEN: Final = "local/snapshot/seen"
_TAKEN: Final = "local/snapshot/taken"


@dataclass(frozen=True, slots=True)
class Latest:
    """The snapshot that the pointer names, and the pointer's tag, by which it is replaced."""

    pointer: Pointer
    manifest: Manifest
    tag: str


@dataclass(frozen=True, slots=True)
class Written:
    """A snapshot that was written: what it states, and how much was uploaded."""

    manifest: Manifest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshots:
    """The snapshots of a vault as one device writes and reads them."""

    vault: Vault
    objects: ObjectStore
    blobs: BlobCache
    state: LogState
    clock: Clock

    def now(self) -> datetime:
        """The bucket's time where it states one, else this machine's."""
        return self.objects.server_time() or self.clock.now()

    def latest(self, *, of_revoked: bool = False) -> Latest | None:
        """The snapshot that counts now; None if there has never been one. With `of_revoked` also one of a device
        that was revoked since: to be replaced, never to be taken in.

        Raises TamperedError if the pointer was set back or exchanged, or does not lead to a signed manifest.
        """
        # The tag first: if somebody replaces the pointer between the two, no write over the new one succeeds.
        tag = self._any_tag()
        pointer = self._pointer()
        if pointer is None:
            return None
        return Latest(pointer, self._manifest(pointer, trusted=of_revoked), tag)

    def write(self, latest: Latest | None, *, replace: bool = False, progress: Progress = no_progress) -> Written:
        """A new snapshot of all that is sealed, in the place of `latest`, which is the newest; with `replace` where
        that is None, in the place of whatever the pointer is.

        Raises ConflictError if another device has replaced the pointer meanwhile, or if `latest` goes further than
        what is here. Parts that were uploaded are then nobody's, and are removed later.
        """
        for key, data in self.vault.pending_epoch():
            self._put_once(key, data)
            self.vault.mark_uploaded(key)
        if latest is not None:
            self._check_covers(latest.manifest)
        tag = latest.tag if latest else self._any_tag() if replace else ""
        snapshot_id = os.urandom(16).hex()
        hashes: list[bytes] = []
        size = count = 0
        with self.state.exported() as whole:
            for number, (lines, in_part) in enumerate(parts_of(whole.ops), start=1):
                data, object_hash = seal_part(self.vault, snapshot_id, number, lines)
                self.objects.put(part_key(snapshot_id, number), data, if_absent=True)
                hashes.append(object_hash)
                size += len(data)
                count += in_part
                progress(number, number + 1, "writing the snapshot")
            vector = dict(whole.vector)
        manifest = Manifest(
            snapshot_id=snapshot_id,
            made_by=self.vault.device_id,
            at=self.now(),
            vector=vector,
            parts=hashes,
            ops=count,
        )
        data, manifest_hash = seal_manifest(self.vault, manifest)
        self.objects.put(manifest_key(snapshot_id), data, if_absent=True)
        pointer = self._next_pointer(snapshot_id, manifest_hash, latest)
        sealed = seal_pointer(self.vault, pointer)
        self._put_pointer(sealed, tag)
        self._remember_pointer(pointer)
        self._remember_taken(pointer, vector)
        return Written(manifest, size + len(data) + len(sealed))

    def catch_up(self, device_id: DeviceId, *, into: Callable[[Applied], object] | None = None) -> bool:
        """Whether a snapshot includes all that is known here of that device's log and what of it has gone; takes it
        in first if it goes beyond what is here of any log. `into` is told what that changed.

        One of a device that was revoked since is as none: the segments are still there, or are missing. Raises
        TamperedError if the snapshot does not hold, and then nothing of it counts.
        """
        pointer = self._pointer()
        if pointer is None:
            return False
        heads = self.state.heads()
        covered = self._covered(pointer.snapshot_id)
        if covered is None:
            try:
                manifest = self._manifest(pointer)
            except RevokedMakerError:
                return False
            covered = {device: head.segment for device, head in manifest.vector.items()}
            others = (device for device in covered if device != self.vault.device_id)
            if any(covered[device] > heads.get(device, NO_HEAD).segment for device in others):
                applied = self.take_in(Latest(pointer, manifest, ""))
                if into is not None:
                    into(applied)
        return device_id in covered and covered[device_id] >= heads.get(device_id, NO_HEAD).segment

    def reach(self, device_id: DeviceId) -> int:
        """The number of the last segment of that device's log that the newest snapshot includes; 0 for none.

        Raises TamperedError if the snapshot does not hold.
        """
        pointer = self._pointer()
        if pointer is None:
            return 0
        covered = self._covered(pointer.snapshot_id)
        if covered is not None:
            return covered.get(device_id, 0)
        try:
            return self._manifest(pointer).vector.get(device_id, NO_HEAD).segment
        except RevokedMakerError:
            return 0

    def take_in(self, latest: Latest, *, progress: Progress = no_progress) -> Applied:
        """Merge the snapshot. All its parts are fetched and checked before the first op of it counts.

        Raises TamperedError, which names the part, if one is missing or changed; and what the store and the
        database raise. Done again after it was broken off, it changes nothing twice.
        """
        manifest = latest.manifest
        ops, subjects, conversations, held = 0, set[bytes](), set[str](), 0
        with _Spool() as spool:
            self._fetch(manifest, spool, progress)
            merging = self.state.merging(manifest.vector)
            for some in self._batches(manifest, spool):
                applied = merging.merge(some)
                ops, held = ops + applied.ops, held + applied.held
                subjects |= applied.subjects
                conversations |= applied.conversations
                progress(len(manifest.parts) + ops, len(manifest.parts) + manifest.ops, "taking the snapshot in")
        subjects |= merging.finish().subjects
        self._remember_taken(latest.pointer, manifest.vector)
        return Applied(ops, held, frozenset(subjects), frozenset(conversations))

    def taken(self) -> str:
        """Id of the snapshot last taken in or made here; empty if there is none."""
        kept = self.blobs.get(_TAKEN)
        return str(json.loads(kept)["snapshot"]) if kept else ""

    def _fetch(self, manifest: Manifest, spool: _Spool, progress: Progress) -> None:
        count = 0
        for number in range(1, len(manifest.parts) + 1):
            key = part_key(manifest.snapshot_id, number)
            try:
                data = self.objects.get(key, length=MOST_OBJECT_BYTES + 1)
            except NotFoundError:
                raise _incomplete(key) from None
            count += len(open_part(self.vault, manifest, number, data))
            spool.add(data)
            progress(number, len(manifest.parts) + manifest.ops, "fetching the snapshot")
        if count != manifest.ops:
            raise _incomplete(manifest_key(manifest.snapshot_id))

    def _batches(self, manifest: Manifest, spool: _Spool) -> Iterator[Sequence[Op]]:
        for number, data in enumerate(spool.read(), start=1):
            ops = iter(open_part(self.vault, manifest, number, data, checked=True))
            while some := list(islice(ops, OPS_AT_ONCE)):
                yield some

    def _manifest(self, pointer: Pointer, *, trusted: bool = False) -> Manifest:
        key = manifest_key(pointer.snapshot_id)
        try:
            data = self.objects.get(key, length=MOST_MANIFEST_OBJECT_BYTES + 1)
        except NotFoundError:
            raise _incomplete(key) from None
        return open_manifest(self.vault, pointer, data, trusted=trusted or self.taken() == pointer.snapshot_id)

    def _pointer(self) -> Pointer | None:
        try:
            data = self.objects.get(POINTER_KEY, length=MAX_JSON_BYTES + 1)
        except NotFoundError:
            if self.blobs.get(_SEEN) is not None:
                raise _set_back("is gone") from None
            return None
        pointer = open_pointer(self.vault, data)
        self._remember_pointer(pointer)
        return pointer

    def _covered(self, snapshot_id: str) -> dict[DeviceId, int] | None:
        """How far that snapshot goes in each log, if it is the one last taken in or made here."""
        kept = self.blobs.get(_TAKEN)
        values = json.loads(kept) if kept else {}
        return values["vector"] if values.get("snapshot") == snapshot_id else None

    def _check_covers(self, manifest: Manifest) -> None:
        """What the old snapshot includes may be nowhere else any more."""
        heads = self.state.heads()
        revoked = {entry.device_id: entry.revoked_after for entry in self.vault.devices()}
        for device, head in manifest.vector.items():
            last = revoked.get(device)
            wanted = head.segment if last is None else min(head.segment, last)
            if heads.get(device, NO_HEAD).segment < wanted:
                raise ConflictError(
                    "the newest snapshot includes changes that this device does not have",
                    operation="write snapshot",
                    subject=manifest.snapshot_id,
                    hint="Run `dualmem sync`, then try again."
                    if revoked.get(manifest.made_by) is None
                    else "Run `dualmem compact` on a device that has more, or with --force to go without them.",
                )

    def _any_tag(self) -> str:
        try:
            return self.objects.stat(POINTER_KEY).etag
        except NotFoundError:
            return ""

    def _put_pointer(self, sealed: bytes, tag: str) -> None:
        try:
            if tag:
                self.objects.put(POINTER_KEY, sealed, if_match=tag)
            else:
                self.objects.put(POINTER_KEY, sealed, if_absent=True)
        except ConflictError:
            # An earlier try may have arrived although its answer did not.
            if self.objects.get(POINTER_KEY, length=len(sealed) + 1) != sealed:
                raise ConflictError(
                    "another device has written a snapshot meanwhile; that one counts",
                    operation="write snapshot",
                    subject=POINTER_KEY,
                    hint="Nothing is lost. Run `dualmem compact` again if there is still need to.",
                ) from None

    def _put_once(self, key: str, data: bytes) -> None:
        try:
            self.objects.put(key, data, if_absent=True)
        except ConflictError:
            if self.objects.get(key, length=len(data) + 1) != data:
                raise

    def _next_pointer(self, snapshot_id: str, manifest_hash: bytes, latest: Latest | None) -> Pointer:
        generation = self.vault.generation_of(self.vault.current_epoch())
        before = [one for one in (self._seen(), latest.pointer if latest else None) if one is not None]
        sequence = max((one.sequence for one in before if one.generation == generation), default=0) + 1
        return Pointer(snapshot_id, manifest_hash, sequence, generation)

    def _seen(self) -> Pointer | None:
        """The latest pointer that this device has seen."""
        kept = self.blobs.get(_SEEN)
        if not kept:
            return None
        values = json.loads(kept)
        manifest_hash, generation = bytes.fromhex(values["manifest"]), values.get("generation", 1)
        return Pointer(values["snapshot"], manifest_hash, values["sequence"], generation)

    def _remember_pointer(self, pointer: Pointer) -> None:
        seen = self._seen()
        if pointer == seen:
            return
        if seen is not None and pointer.order <= seen.order:
            raise _set_back("is older than this device saw it, or another one")
        stated = {
            "generation": pointer.generation,
            "sequence": pointer.sequence,
            "snapshot": pointer.snapshot_id,
            "manifest": pointer.manifest_hash.hex(),
        }
        self.blobs.put(_SEEN, canonical_json(stated))

    def _remember_taken(self, pointer: Pointer, vector: Mapping[DeviceId, LogHead]) -> None:
        covered = {device: head.segment for device, head in vector.items()}
        self.blobs.put(_TAKEN, canonical_json({"snapshot": pointer.snapshot_id, "vector": covered}))


class _Spool:
    """Sealed parts on this device's disk between being checked and being merged; gone when it is closed."""

    def __init__(self) -> None:
        self._sizes: list[int] = []

    def __enter__(self) -> _Spool:
        with file_faults("write", Path(tempfile.gettempdir())):
            self._file: IO[bytes] = tempfile.TemporaryFile()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, data: bytes) -> None:
        with file_faults("write", Path(tempfile.gettempdir())):
            self._file.write(data)
        self._sizes.append(len(data))

    def read(self) -> Iterator[bytes]:
        with file_faults("read", Path(tempfile.gettempdir())):
            self._file.seek(0)
        for size in self._sizes:
            with file_faults("read", Path(tempfile.gettempdir())):
                data = self._file.read(size)
            yield data


def _incomplete(key: str) -> TamperedError:
    return TamperedError(
        f"the snapshot lacks {key}; nothing of it was taken in",
        operation="read snapshot",
        subject=key,
        hint="Put it back from a backup of the bucket, or run `dualmem compact --force` on a device that has the "
        "memory.",
    )


def _set_back(what: str) -> TamperedError:
    return TamperedError(
        f"the pointer to the newest snapshot {what}: the bucket was set back or exchanged",
        operation="read snapshot",
        subject=POINTER_KEY,
        hint="Check DUALMEM_BUCKET. If it is right, somebody restored an old copy of the bucket or changed it.",
    )
