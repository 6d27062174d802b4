"""Receiving: the segments of other devices' logs, from where each ends here. Source: docs/sync.md, "A sync"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from dualmem_mcp.crypto.header import tampered
from dualmem_mcp.crypto.roster import RosterEntry
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.errors import ConflictError, DualmemError, NotFoundError, TamperedError
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import NO_HEAD, LogHead
from dualmem_mcp.ports import Applied, ObjectStore, OpLog
from dualmem_mcp.sync.listing import ListedLog, Listing
from dualmem_mcp.sync.revoked_log import check_adoptions, trace_back
from dualmem_mcp.sync.segments import MOST_OBJECT_BYTES, Segment, open_segment, segment_key


class CatchUp(Protocol):
    """Takes in a snapshot that includes all of a device's log that is known here and has gone from the bucket."""

    def __call__(self, device_id: DeviceId, *, into: Callable[[Applied], object]) -> bool:
        """Whether there is such a snapshot; `into` is told what it changed."""
        ...


@dataclass(slots=True)
class Pulled:
    """What came in: segments, new ops, bytes; what looks different now; and problems with single devices' logs."""

    segments: int = 0
    ops: int = 0
    size_bytes: int = 0
    held: int = 0
    subjects: set[bytes] = field(default_factory=set)
    conversations: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def add(self, applied: Applied) -> None:
        """Count what a merge did."""
        self.ops += applied.ops
        self.held += applied.held
        self.subjects |= applied.subjects
        self.conversations |= applied.conversations


def pull(
    vault: Vault,
    objects: ObjectStore,
    log: OpLog,
    *,
    listed: Listing | None,
    catch_up: CatchUp,
    into: Pulled,
) -> None:
    """Merge what other devices have written since the last time, and tell of it in `into`.

    `listed` shows where each log goes in the bucket, from the last segment that is known here, which has to be
    there still; with None the next segment of each log is simply asked for. Where segments have gone, `catch_up` is
    asked to take in a snapshot that includes them. What is wrong with one device's log stops that log alone.

    Raises StoreUnreachableError and what the database raises; what came in until then is merged.
    """
    for entry in vault.devices():
        if entry.device_id == vault.device_id:
            continue
        try:
            _pull_log(_Source(vault, objects, log, entry, catch_up), into, listed)
        except (TamperedError, NotFoundError) as error:
            into.problems.append(f"the log of {_named(entry)} stops here: {error.message}. {error.hint}".strip())


@dataclass(frozen=True, slots=True)
class _Source:
    """One other device's log."""

    vault: Vault
    objects: ObjectStore
    log: OpLog
    entry: RosterEntry
    catch_up: CatchUp

    def head(self) -> LogHead:
        return self.log.heads().get(self.entry.device_id, NO_HEAD)

    def fetch(self, number: int) -> bytes | None:
        try:
            return self.objects.get(segment_key(self.entry.device_id, number), length=MOST_OBJECT_BYTES + 1)
        except NotFoundError:
            return None

    def open(self, data: bytes, head: LogHead) -> Segment:
        key = segment_key(self.entry.device_id, head.segment + 1)
        segment = open_segment(self.vault, key, self.entry.ed25519, data)
        if segment.before != head:
            raise tampered("does not follow on the segment before it", key)
        check_adoptions(self.vault, segment, key)
        return segment


def _pull_log(source: _Source, pulled: Pulled, listed: Listing | None) -> None:
    if source.entry.revoked_after is not None:
        if listed is not None:  # what is left of it is read once, and needs no haste
            _pull_revoked(source, pulled)
        return
    entry = source.entry
    head = source.head()
    if not head.segment and listed is not None:
        _begin(source, pulled)
        head = source.head()
    seen = ListedLog(known_is_there=True, last=0) if listed is None else listed.log(entry.device_id)
    if head.segment and not seen.known_is_there:
        # Compacted away, or the bucket was set back. The listing may be stale, too: then the object is there.
        if source.fetch(head.segment) is None and not source.catch_up(entry.device_id, into=pulled.add):
            raise _missing(entry, head.segment)
        head = source.head()
    while True:
        data = source.fetch(head.segment + 1)
        if data is None:
            if seen.last <= head.segment:
                return
            if not source.catch_up(entry.device_id, into=pulled.add) or source.head().segment <= head.segment:
                raise _missing(entry, head.segment + 1)
            head = source.head()
            continue
        head = _take_in(source, source.open(data, head), len(data), head, pulled)


def _begin(source: _Source, pulled: Pulled) -> None:
    """A log that is new here begins with the snapshot, if there is one: all of it may have been compacted away.

    A snapshot that does not hold is told of once, and stops no log that is there without it.
    """
    try:
        source.catch_up(source.entry.device_id, into=pulled.add)
    except (TamperedError, NotFoundError) as error:
        problem = f"the newest snapshot was not taken in: {error.message}. {error.hint}".strip()
        if problem not in pulled.problems:
            pulled.problems.append(problem)


def _take_in(source: _Source, segment: Segment, size: int, head: LogHead, pulled: Pulled) -> LogHead:
    """Merge a segment that follows on `head`; where the log ends here then."""
    try:
        pulled.add(source.log.take_in(source.entry.device_id, segment.ops, segment.head))
    except ConflictError:
        now = source.head()
        if now == head:
            raise
        return now  # another process of this device was faster
    pulled.segments += 1
    pulled.size_bytes += size
    return segment.head


def _pull_revoked(source: _Source, pulled: Pulled) -> None:
    """Read what counts of a revoked device's log, once all of it is known to be what the device wrote before."""
    entry, last = source.entry, source.entry.revoked_after or 0
    if not source.head().segment < last:
        return
    if not source.head().segment:
        _begin(source, pulled)
    while (head := source.head()).segment < last:
        chain = trace_back(source.objects, entry, head)
        if not chain.missing:
            break
        if not source.catch_up(entry.device_id, into=pulled.add) or source.head().segment <= head.segment:
            raise _missing(entry, chain.missing)
    while head.segment < last:
        key, data = segment_key(entry.device_id, head.segment + 1), source.fetch(head.segment + 1)
        if data is None:
            raise _missing(entry, head.segment + 1)
        segment = source.open(data, head)
        if segment.head.object_hash != chain.hash_of(segment.head.segment):
            raise tampered("is not the one that its device wrote before it was revoked", key)
        head = _take_in(source, segment, len(data), head, pulled)


def _named(entry: RosterEntry) -> str:
    return f"{one_line(entry.name)} ({entry.device_id[:8]})"


def _missing(entry: RosterEntry, number: int) -> DualmemError:
    return NotFoundError(
        f"its segment {number} is missing from the bucket",
        operation="pull",
        subject=segment_key(entry.device_id, number),
        hint="If it was removed by hand or the bucket was set back, put it back from a backup; what came later "
        "waits for it.",
    )
