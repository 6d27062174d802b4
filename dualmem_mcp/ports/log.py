"""What devices share: the log of their ops, records, and what they changed without knowing of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import LogHead, Op, Stamp
from dualmem_mcp.model.record import RecordType


@dataclass(frozen=True, slots=True)
class Applied:
    """What a segment changed here: ops that were new, how many of them are held back as from the future, and the
    subjects (16 bytes each) or conversations that look different now."""

    ops: int
    held: int
    subjects: frozenset[bytes] = frozenset()
    conversations: frozenset[str] = frozenset()


class OpLog(Protocol):
    """This device's ops and what it has of other devices', for exchange. `docs/sync.md` has the whole."""

    def device_id(self) -> DeviceId:
        """The device whose log this one writes."""
        ...

    def heads(self) -> Mapping[DeviceId, LogHead]:
        """Where each log ends here: for this device the last segment sealed, for others the last one taken in."""
        ...

    def waiting(self) -> int:
        """Changes made here that no segment holds yet."""
        ...

    def unsealed(self, most_ops: int, most_bytes: int) -> Sequence[Op]:
        """The oldest own ops that no segment holds, at least one if there is one; rows that no op tells of yet get
        theirs first."""
        ...

    def add_segment(self, key: str, data: bytes, head: LogHead) -> None:
        """Queue a sealed segment for upload and move this device's head to it, both or neither.

        Raises ConflictError if the head is not the one before it any more (another process was faster).
        """
        ...

    def take_in(self, device_id: DeviceId, ops: Sequence[Op], head: LogHead) -> Applied:
        """Merge a segment of another device and move its head, in one transaction; what is here already changes
        nothing. Ops more than 24 hours ahead of the clock are kept and held back.

        Raises ConflictError if the segment does not follow on that device's head.
        """
        ...

    def own_ops(self, after: int, upto: int) -> Sequence[Op]:
        """Ops of this device by sequence, those in (after, upto], as they were sealed as far as they are kept."""
        ...

    def release(self, *, all_of_them: bool = False) -> Applied:
        """Let ops take effect whose time has come, or all that were held back."""
        ...

    def held(self) -> Mapping[DeviceId, int]:
        """How many ops of each device are held back."""
        ...

    def adopt(self, device_id: DeviceId, limit: LogHead) -> int:
        """Take a device's log to count to that segment only, since it was revoked: what is here of it from beyond
        stays, and ops of this device tell the others of it. Returns how many of its ops that were; 0 if nothing is
        here from beyond."""
        ...

    def fork(self, device_id: DeviceId, after: int, head: LogHead) -> int:
        """Go on under a new device id, because another machine writes under the old one: own ops after that
        sequence become the new device's, with stamps of its own. The old log is from now on another device's, and
        known here up to `head`; segments of it that wait behind are dropped. Returns how many ops moved."""
        ...

    def go_back(self, head: LogHead) -> int:
        """Take the own log to end with that segment: what was sealed behind it waits to be sealed anew. Returns how
        many ops that are."""
        ...

    def set_ahead(self, milliseconds: int) -> int:
        """Remember how far this machine's clock is ahead of the bucket's (negative: behind).

        Ops that nobody has seen yet, from more than five minutes ahead of it, get stamps of the present; returns
        how many did.
        """
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """A note, task, bookmark, decision or the like: fields with JSON values. `created` and `changed` tell when, and
    on which device, by their stamps."""

    type: RecordType
    id: str
    conversation_id: str
    fields: Mapping[str, Any]
    created: Stamp
    changed: Stamp


class Records(Protocol):
    """Records of all types; each change is an op, merged by field."""

    def put(
        self, record_type: RecordType, record_id: str, fields: Mapping[str, Any], *, conversation_id: str = ""
    ) -> bool:
        """Make the record, or change these fields of it; whether anything changed. A deleted one stays deleted."""
        ...

    def get(self, record_type: RecordType, record_id: str) -> Record | None:
        """The record of that name, or None."""
        ...

    def find(
        self, *, conversation_id: str | None = None, types: Sequence[RecordType] = (), limit: int = 1000
    ) -> Sequence[Record]:
        """Records, the newest made last: of one conversation ("" for those of none), of these types, or all."""
        ...

    def delete(self, record_type: RecordType, record_id: str) -> bool:
        """Delete the record; whether there was one."""
        ...


@dataclass(frozen=True, slots=True)
class Version:
    """One side of a conflict: the value, and the stamp of the op that set it."""

    value: Any
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two devices changed one thing without knowing of each other.

    `field` is empty where a deletion hides what the other side added; `kept` is then None. `name` says to a person
    what it is about; `kept` is what counts now, `lost` what does not, the newest first.
    """

    conflict_id: str
    kind: Literal["entity", "relation", "record"]
    name: str
    field: str
    kept: Version | None
    lost: tuple[Version, ...]


class Conflicts(Protocol):
    """What lost and waits for a decision."""

    def find(self, limit: int = 100) -> Sequence[Conflict]:
        """Conflicts, those of the newest losers first."""
        ...

    def count(self) -> int:
        """How many there are."""
        ...

    def resolve(self, conflict_id: str, *, keep: bool, stamp: str | None = None) -> Conflict:
        """Decide: with `keep` for what counts now, else for the lost version of that stamp (the newest if None).
        Returns the conflict as it was; the decision is an op, so that all devices take it.

        Raises NotFoundError if there is none of that id, UsageError if it has no version of that stamp.
        """
        ...
