"""Compaction: a snapshot in the place of segments that nobody needs any more. Source: docs/sync.md.

Nothing goes that the newest snapshot does not include; so a stop at any moment leaves a bucket that says the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from dualmem_mcp.crypto.canonical import canonical_json
from dualmem_mcp.crypto.header import tampered
from dualmem_mcp.errors import NotFoundError, TamperedError
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import NO_HEAD, LogHead
from dualmem_mcp.model.whole_log import Thinned
from dualmem_mcp.ports import ObjectInfo, Progress, no_progress
from dualmem_mcp.sync.acks import Ack, read_ack, write_ack
from dualmem_mcp.sync.segments import LOG, MOST_OBJECT_BYTES, open_segment, parse_segment_key
from dualmem_mcp.sync.snapshot_format import (
    MOST_MANIFEST_OBJECT_BYTES,
    PREFIX,
    Manifest,
    RevokedMakerError,
    manifest_key,
    read_manifest,
    snapshot_of,
)
from dualmem_mcp.sync.snapshots import Latest, Snapshots

GRACE: Final = timedelta(days=14)
"""What a snapshot replaced stays so long after it was written, for devices that are just reading it."""

SILENT_AFTER: Final = timedelta(days=90)
"""A device that has acknowledged nothing for so long is not waited for: it starts from the snapshot again."""

ABANDONED_AFTER: Final = timedelta(days=1)
"""The least age of parts that no manifest names: none takes as long to write a snapshot."""

ENOUGH_SEGMENTS: Final = 64
ENOUGH_BYTES: Final = 2**20
ENOUGH_OF_SNAPSHOT: Final = 4
"""A new snapshot is written when so many segments came since the last, or so many bytes that are also more than
one in so many of its own."""

_MOST_OBJECTS: Final = 1_000_000
_STRAYS: Final = "local/snapshot/strays"
WANTED: Final = "local/snapshot/wanted"
"""Blob that is not empty while something was erased since the last snapshot that was written here."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did, or with `dry_run` would do. `why` counts for each reason the segments that stay."""

    dry_run: bool
    snapshot: str
    written: bool
    ops: int
    segments_deleted: int
    snapshots_deleted: int
    bytes_freed: int
    kept: int
    kept_bytes: int
    why: Mapping[str, int]
    local: Thinned
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields of `dualmem compact --json`."""
        return {
            "dry_run": self.dry_run,
            "snapshot": self.snapshot or None,
            "written": self.written,
            "ops": self.ops,
            "segments_deleted": self.segments_deleted,
            "snapshots_deleted": self.snapshots_deleted,
            "bytes_freed": self.bytes_freed,
            "kept": self.kept,
            "kept_bytes": self.kept_bytes,
            "why": [{"reason": reason, "segments": count} for reason, count in self.why.items()],
            "local_ops_removed": self.local.removed,
            "local_ops_shortened": self.local.shortened,
            "local_bytes_freed": self.local.bytes_freed,
            "warnings": list(self.warnings),
        }


@dataclass(slots=True)
class Compaction:
    """One compaction. `banned` are the names of erased conversations; `grace` may be set shorter by the user."""

    snapshots: Snapshots
    banned: Collection[str] = ()
    grace: timedelta = GRACE
    dry_run: bool = False
    force: bool = False
    progress: Progress = no_progress
    warnings: list[str] = field(default_factory=list)

    def run(self) -> Compacted:
        """Write a snapshot if the log grew enough, and remove what is past being needed.

        This device has synced just before, unless it is a dry run, which changes nothing at all. Raises
        ConflictError if another device was faster, TamperedError if the newest snapshot does not hold (with `force`
        a new one takes its place), and what the bucket raises.
        """
        segments = list(self._segments())
        objects = list(self._snapshot_objects())
        latest = self._latest()
        due = self._is_due(segments, objects, latest)
        written = None
        if due and not self.dry_run:
            written = self.snapshots.write(latest, replace=self.force, progress=self.progress)
            self.snapshots.blobs.put(WANTED, b"")
            latest = self.snapshots.latest()
        heads = self.snapshots.state.heads()
        if not self.dry_run:
            self._acknowledge(heads)
        manifests = self._manifests(objects, latest)
        going, why = self._judge(segments, latest, manifests, heads)
        old = self._old_objects(objects, latest, manifests)
        if not self.dry_run:
            self._delete([*(info for _, _, info in going), *old])
        thinned = Thinned(0, 0, 0)
        if written is not None:
            thinned = self.snapshots.state.thin(written.manifest.vector)
        gone = {info.key for _, _, info in going}
        kept = [info for _, _, info in segments if info.key not in gone]
        return Compacted(
            dry_run=self.dry_run,
            snapshot=latest.pointer.snapshot_id if latest else "",
            written=written is not None or (due and self.dry_run),
            ops=latest.manifest.ops if latest else 0,
            segments_deleted=len(going),
            snapshots_deleted=len({snapshot_of(info.key) for info in old}),
            bytes_freed=sum(info.size_bytes for info in (*(info for _, _, info in going), *old)),
            kept=len(kept),
            kept_bytes=sum(info.size_bytes for info in kept),
            why=why,
            local=thinned,
            warnings=tuple(self.warnings),
        )

    def _latest(self) -> Latest | None:
        try:
            latest = self.snapshots.latest()
        except RevokedMakerError as error:
            self.warnings.append(f"{error.message}; a new snapshot takes its place")
            # What it includes has to be here, unless the user says that it goes without.
            latest = None if self.force else self.snapshots.latest(of_revoked=True)
        except TamperedError as error:
            if not self.force:
                raise
            self.warnings.append(f"{error.message}; a new snapshot takes its place")
            return None
        return latest

    def _is_due(self, segments: Sequence[_Segment], objects: Sequence[ObjectInfo], latest: Latest | None) -> bool:
        if self.force or (latest is not None and self._is_of_revoked(latest.manifest)):
            return True
        vector = latest.manifest.vector if latest else {}
        # What a revoked device wrote beyond what counts is in no snapshot, ever.
        entries = self.snapshots.vault.devices()
        last = {one.device_id: one.revoked_after for one in entries if one.revoked_after is not None}
        new = [
            info
            for device, number, info in segments
            if number > vector.get(device, NO_HEAD).segment and number <= last.get(device, number)
        ]
        if new and self.snapshots.blobs.get(WANTED):
            return True
        size = sum(info.size_bytes for info in new)
        snapshot_bytes = sum(
            info.size_bytes for info in objects if latest and snapshot_of(info.key) == latest.pointer.snapshot_id
        )
        enough = size >= ENOUGH_BYTES and size * ENOUGH_OF_SNAPSHOT >= snapshot_bytes
        return len(new) >= ENOUGH_SEGMENTS or enough

    def _is_of_revoked(self, manifest: Manifest) -> bool:
        """Whether devices that have not taken it in before refuse it: nobody can start from it."""
        devices = self.snapshots.vault.devices()
        return any(one.device_id == manifest.made_by and one.revoked_after is not None for one in devices)

    def _acknowledge(self, heads: Mapping[DeviceId, LogHead]) -> None:
        one = self.snapshots
        write_ack(one.vault, one.objects, one.blobs, heads=heads, snapshot=one.taken(), now=one.now())

    def _judge(
        self,
        segments: Sequence[_Segment],
        latest: Latest | None,
        manifests: Mapping[str, Manifest],
        heads: Mapping[DeviceId, LogHead],
    ) -> tuple[list[_Segment], Counter[str]]:
        """The segments that may go, in an order in which logs begin later and later; and why the others stay."""
        why: Counter[str] = Counter()
        if latest is None:
            why.update({"no snapshot includes them": len(segments)} if segments else {})
            return [], why
        now = self.snapshots.now()
        past_grace = [one for one in manifests.values() if one.at <= now - self.grace]
        acked = self._acknowledged(heads)
        last = {device: number for device, number, _ in segments}  # they come in order
        going: list[_Segment] = []
        for segment in segments:
            device, number, info = segment
            waits = [name for name, vector in acked.items() if vector.get(device, 0) < number]
            if number > latest.manifest.vector.get(device, NO_HEAD).segment:
                why["the snapshot does not include them yet"] += 1
            elif not any(number <= one.vector.get(device, NO_HEAD).segment for one in past_grace):
                why[f"a snapshot includes them for less than {_days(self.grace)}"] += 1
            elif waits:
                why[f"{waits[0]} has not read them yet"] += 1
            elif number == last[device] and not self._holds_erased(info.key):
                why["the last of each log stays, to show where it ends"] += 1
            else:
                going.append(segment)
        return going, why

    def _acknowledged(self, heads: Mapping[DeviceId, LogHead]) -> dict[str, Mapping[DeviceId, int]]:
        """For each device that is waited for, by its name, how far it has read each log."""
        one = self.snapshots
        acked: dict[str, Mapping[DeviceId, int]] = {}
        for entry in one.vault.devices():
            if entry.revoked_after is not None:
                continue
            ack: Ack | None = None
            if entry.device_id == one.vault.device_id:
                acked["this device"] = {device: head.segment for device, head in heads.items()}
                continue
            name = one_line(entry.name) or entry.device_id[:8]
            try:
                ack = read_ack(one.vault, one.objects, entry)
            except TamperedError as error:
                self.warnings.append(f"{name}: {error.message} ({error.subject})")
            signs = max(entry.joined_at, ack.at) if ack else entry.joined_at
            if signs < one.now() - SILENT_AFTER:
                self.warnings.append(
                    f"{name} has not been heard of for {_days(SILENT_AFTER)} and is not waited for"
                )
                continue
            vector = dict(ack.vector) if ack else {}
            vector.pop(entry.device_id, None)
            # A device has its own log.
            acked[f"{name} ({entry.device_id[:8]})"] = {**vector, entry.device_id: 2**63}
        return acked

    def _holds_erased(self, key: str) -> bool:
        """Whether a segment has changes of a conversation that was erased, which must not stay."""
        if not self.banned:
            return False
        one = self.snapshots
        parsed = parse_segment_key(key)
        entry = next((entry for entry in one.vault.devices() if parsed and entry.device_id == parsed[0]), None)
        if entry is None:
            return False
        segment = open_segment(one.vault, key, entry.ed25519, one.objects.get(key, length=MOST_OBJECT_BYTES + 1))
        for op in segment.ops:
            conversation_id = json.loads(op.payload).get("conversation_id")
            if (
                isinstance(conversation_id, str)
                and one.vault.object_name("conversation", conversation_id) in self.banned
            ):
                return True
        return False

    def _manifests(self, objects: Sequence[ObjectInfo], latest: Latest | None) -> dict[str, Manifest]:
        """The manifests of the bucket that can be read, by the ids of their snapshots."""
        found: dict[str, Manifest] = {}
        one = self.snapshots
        for info in objects:
            snapshot_id = snapshot_of(info.key)
            if snapshot_id is None or info.key != manifest_key(snapshot_id):
                continue
            try:
                data = one.objects.get(info.key, length=MOST_MANIFEST_OBJECT_BYTES + 1)
                found[snapshot_id], _ = read_manifest(one.vault, snapshot_id, data)
            except (NotFoundError, TamperedError):
                continue  # nobody's, until it is old enough to go
        if latest is not None:
            found[latest.pointer.snapshot_id] = latest.manifest
        return found

    def _old_objects(
        self, objects: Sequence[ObjectInfo], latest: Latest | None, manifests: Mapping[str, Manifest]
    ) -> list[ObjectInfo]:
        """What is of snapshots that were replaced or never finished, and past grace; manifests before parts."""
        if latest is None:
            return []
        now = self.snapshots.now()
        current = latest.pointer.snapshot_id
        replaced: dict[str, datetime] = {}
        times = sorted(one.at for one in manifests.values())
        for snapshot_id, one in manifests.items():
            if snapshot_id != current and _is_within(one, latest.manifest):
                replaced[snapshot_id] = next((at for at in times if at > one.at), latest.manifest.at)
        others = {found for info in objects if (found := snapshot_of(info.key)) and found != current}
        strays = self._strays(others - set(replaced), now)
        going = {snapshot_id for snapshot_id, at in replaced.items() if at <= now - self.grace}
        going |= {found for found, since in strays.items() if since <= now - max(self.grace, ABANDONED_AFTER)}
        old = [info for info in objects if snapshot_of(info.key) in going]
        return sorted(old, key=lambda info: (not info.key.endswith("/manifest"), info.key))

    def _strays(self, ids: Collection[str], now: datetime) -> dict[str, datetime]:
        """When this device first saw each of these, which do not say how old they are."""
        kept = self.snapshots.blobs.get(_STRAYS)
        known: dict[str, str] = json.loads(kept) if kept else {}
        seen = {found: known.get(found, now.isoformat()) for found in sorted(ids)}
        if seen != known and not self.dry_run:
            self.snapshots.blobs.put(_STRAYS, canonical_json(seen))
        return {found: datetime.fromisoformat(at) for found, at in seen.items()}

    def _segments(self) -> Iterator[_Segment]:
        """All segments of devices of the vault, by log and number."""
        devices = {entry.device_id for entry in self.snapshots.vault.devices()}
        for info in self._bounded(LOG):
            parsed = parse_segment_key(info.key)
            if parsed is not None and parsed[0] in devices:
                yield (*parsed, info)

    def _snapshot_objects(self) -> Iterator[ObjectInfo]:
        return (info for info in self._bounded(PREFIX) if snapshot_of(info.key))

    def _bounded(self, prefix: str) -> Iterator[ObjectInfo]:
        for count, info in enumerate(self.snapshots.objects.list(prefix)):
            if count >= _MOST_OBJECTS:
                raise tampered("is one of too many", prefix)
            yield info

    def _delete(self, infos: Sequence[ObjectInfo]) -> None:
        for done, info in enumerate(infos, start=1):
            self.snapshots.objects.delete(info.key)
            self.progress(done, len(infos), "removing what was replaced")


_Segment = tuple[DeviceId, int, ObjectInfo]


def _is_within(one: Manifest, other: Manifest) -> bool:
    """Whether a snapshot includes all that another one does, which is older."""
    return one.at <= other.at and all(
        head.segment <= other.vector.get(device, NO_HEAD).segment for device, head in one.vector.items()
    )


def _days(span: timedelta) -> str:
    return f"{span.days} day{'' if span.days == 1 else 's'}" if span >= timedelta(days=1) else f"{span}"
