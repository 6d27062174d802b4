"""Receiving: the segments of other devices' logs, from where each ends here. Source: docs/sync.md, "A sync"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from dualmem_mcp.crypto.header import tampered
from dualmem_mcp.crypto.roster import RosterEntry
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.errors import ConflictError, DualmemError, NotFoundError, StoreUnreachableError, TamperedError
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import NO_HEAD, LogHead
from dualmem_mcp.ports import Applied, ObjectStore, OpLog
from dualmem_mcp.sync.segments import LOG, MOST_OBJECT_BYTES, Segment, open_segment, parse_segment_key, segment_key

_LAST: Final = "z"
"""Sorts behind all numbers of segments."""

_MOST_FOLDERS: Final = 4096
_MOST_NAMED: Final = 5


class CatchUp(Protocol):
    """Takes in a snapshot that includes all of a device's log that is known here and has gone from the bucket."""

    def __call__(self, device_id: DeviceId, *, into: Callable[[Applied], object]) -> bool:
        """Whether there is such a snapshot; `into` is told what it changed."""
        ...


@dataclass(slots=True)
class Pulled:
    """What came in: segments, new ops, bytes; what looks different now; and problems with single devices' logs.

    `own_goes_on` says that the bucket has segments of this device's log behind the last that it sealed,
    `own_is_gone` that it has neither the last one that was uploaded nor a snapshot that includes it.
    """

    segments: int = 0
    ops: int = 0
    size_bytes: int = 0
    held: int = 0
    subjects: set[bytes] = field(default_factory=set)
    conversations: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    own_goes_on: bool = False
    own_is_gone: bool = False

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
    own_uploaded: int,
    probe: bool,
    catch_up: CatchUp,
    into: Pulled | None = None,
) -> Pulled:
    """Merge what other devices have written since the last time.

    `own_uploaded` is the number of the last segment of the own log that was uploaded.
    With `probe` only the next segment of each log is asked for; else the logs are listed from the last segment that
    is known here, which has to be there still. Where segments have gone, `catch_up` is asked to take in a snapshot
    that includes them. What is wrong with one device's log stops that log alone.

    Raises what the database raises, and StoreUnreachableError when what came in until then is merged, as `into`
    tells.
    """
    pulled = into if into is not None else Pulled()
    devices = {entry.device_id: entry for entry in vault.devices()}
    known = {device_id: head.segment for device_id, head in log.heads().items()}
    own_sealed = known.get(vault.device_id, 0)
    known[vault.device_id] = own_uploaded
    listed = None if probe else _list_logs(objects, devices, known, pulled)
    for entry in devices.values():
        if entry.device_id == vault.device_id:
            continue
        try:
            _pull_log(_Source(vault, objects, log, entry, catch_up), pulled, listed)
        except StoreUnreachableError:
            raise
        except (TamperedError, NotFoundError) as error:
            pulled.problems.append(f"the log of {_named(entry)} stops here: {error.message}. {error.hint}".strip())
    if listed is not None:
        own = listed.get(vault.device_id, _NOTHING)
        pulled.own_goes_on = own.last > own_sealed
        if own_uploaded and not own.known_is_there:
            key = segment_key(vault.device_id, own_uploaded)
            pulled.own_is_gone = not _is_there(objects, key) and not catch_up(vault.device_id, into=pulled.add)
    return pulled


@dataclass(frozen=True, slots=True)
class _Listed:
    """What a listing shows of a log from the last known segment on."""

    known_is_there: bool
    last: int


_NOTHING: Final = _Listed(known_is_there=False, last=0)


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
        return segment


def _pull_log(source: _Source, pulled: Pulled, listed: Mapping[DeviceId, _Listed] | None) -> None:
    entry = source.entry
    head = source.head()
    if not head.segment and listed is not None:
        # A log that is new here begins with the snapshot, if there is one: all of it may have been compacted away.
        source.catch_up(entry.device_id, into=pulled.add)
        head = source.head()
    seen = _Listed(known_is_there=True, last=0) if listed is None else listed.get(entry.device_id, _NOTHING)
    if head.segment and not seen.known_is_there and not _counts(entry, head.segment):
        return  # nothing more of a revoked device is wanted
    if head.segment and not seen.known_is_there:
        # Compacted away, or the bucket was set back. The listing may be stale, too: then the object is there.
        if source.fetch(head.segment) is None and not source.catch_up(entry.device_id, into=pulled.add):
            raise _missing(entry, head.segment)
        head = source.head()
    while _counts(entry, head.segment):
        data = source.fetch(head.segment + 1)
        if data is None:
            if seen.last <= head.segment:
                return
            if not source.catch_up(entry.device_id, into=pulled.add) or source.head().segment <= head.segment:
                raise _missing(entry, head.segment + 1)
            head = source.head()
            continue
        segment = source.open(data, head)
        try:
            pulled.add(source.log.take_in(entry.device_id, segment.ops, segment.head))
        except ConflictError:
            before, head = head, source.head()
            if head == before:
                raise
            continue  # another process of this device was faster
        pulled.segments += 1
        pulled.size_bytes += len(data)
        head = segment.head


def _counts(entry: RosterEntry, segment: int) -> bool:
    """Whether segments of that log behind this one count."""
    return entry.revoked_after is None or segment < entry.revoked_after


def _list_logs(
    objects: ObjectStore,
    devices: Mapping[DeviceId, RosterEntry],
    known: Mapping[DeviceId, int],
    pulled: Pulled,
) -> dict[DeviceId, _Listed]:
    """What the bucket shows of each log, with one request for each: a listing goes on from the last known segment
    of a log and ends with the first object of the next."""
    listed: dict[DeviceId, _Listed] = {}
    strangers: list[str] = []
    folder = _next_folder(objects, LOG)
    for _ in range(_MOST_FOLDERS):
        if folder is None:
            break
        device_id = DeviceId(folder)
        if device_id not in devices:
            strangers.append(folder)
            folder = _next_folder(objects, f"{LOG}{folder}/{_LAST}")
            continue
        listed[device_id], folder = _list_log(objects, device_id, known.get(device_id, 0))
    if strangers:
        named = ", ".join(one_line(name)[:32] for name in strangers[:_MOST_NAMED])
        pulled.problems.append(
            f"the bucket holds logs of devices that are not in the vault's roster, which count for nobody: {named}"
        )
    return listed


def _is_there(objects: ObjectStore, key: str) -> bool:
    try:
        objects.get(key, length=1)
    except NotFoundError:
        return False
    return True


def _next_folder(objects: ObjectStore, start_after: str) -> str | None:
    for info in objects.list(LOG, start_after=start_after):
        return info.key.removeprefix(LOG).partition("/")[0]
    return None


def _list_log(objects: ObjectStore, device_id: DeviceId, known: int) -> tuple[_Listed, str | None]:
    """What there is of one log from the last known segment on, and the folder that follows it."""
    start_after = segment_key(device_id, known - 1) if known else f"{LOG}{device_id}/"
    there, last = False, 0
    for info in objects.list(LOG, start_after=start_after):
        folder = info.key.removeprefix(LOG).partition("/")[0]
        if folder != device_id:
            return _Listed(there, last), folder
        parsed = parse_segment_key(info.key)
        if parsed is not None:
            there = there or parsed[1] == known
            last = max(last, parsed[1])
    return _Listed(there, last), None


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
