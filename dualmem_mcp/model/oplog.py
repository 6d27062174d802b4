"""Ops: every change of the memory as a record that other devices can merge. `docs/ops.md` has the payloads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from dualmem_mcp.errors import MalformedError
from dualmem_mcp.model.ids import DeviceId

COUNTER_BITS = 16
# The first digit keeps ticks below 2**63, where SQLite's integers end (the year 6429).
_STAMP = re.compile(r"([0-7][0-9a-f]{15})-([0-9a-f]{32})")
_TAG = re.compile(r"([0-7][0-9a-f]{15}-[0-9a-f]{32})\.(0|[1-9][0-9]{0,9})")
_MAX_ITEM = 2**32 - 1


def physical_ticks(instant: datetime) -> int:
    """The instant as an HLC with counter 0: milliseconds since 1970 UTC in the upper 48 of 64 bits."""
    return int(instant.timestamp() * 1000) << COUNTER_BITS


def next_ticks(last: int, instant: datetime) -> int:
    """The HLC of the next event after `last`: the clock's time if that is later, else `last` plus one.

    Monotone whatever the clock does. A full counter carries into the milliseconds, so that a clock that
    stands still or was set back only makes HLCs run ahead of it. Source: Kulkarni et al. 2014, "Logical
    Physical Clocks", with time and counter packed in one integer.
    """
    return max(last + 1, physical_ticks(instant))


@dataclass(frozen=True, slots=True, order=True)
class Stamp:
    """When and where an op was made: HLC ticks (48 bits of milliseconds, 16 of counter), then the device.

    Totally ordered, ties of ticks broken by the device id; unique, as no device uses one tick twice.
    Text form: 16 hexadecimal digits, `-`, the device id; it sorts as the stamps do.
    """

    ticks: int
    device_id: DeviceId

    def __str__(self) -> str:
        return f"{self.ticks:016x}-{self.device_id}"

    @property
    def instant(self) -> datetime:
        """The time that the ticks state, UTC, to the millisecond."""
        # Ticks from elsewhere reach to the year 6429, and datetime to 9999.
        return datetime.fromtimestamp((self.ticks >> COUNTER_BITS) / 1000, UTC)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The stamp of its text form. Raises MalformedError."""
        match = _STAMP.fullmatch(text)
        if match is None:
            raise MalformedError("this is no stamp of an op", operation="parse op", subject=text[:80])
        return cls(int(match[1], 16), DeviceId(match[2]))

    def to_bytes(self) -> bytes:
        """24 bytes that sort as the stamps do: ticks big-endian, then the device id's 16 bytes."""
        return self.ticks.to_bytes(8, "big") + bytes.fromhex(self.device_id)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The stamp of its 24 bytes."""
        return cls(int.from_bytes(data[:8], "big"), DeviceId(data[8:24].hex()))


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """The add-tag of one item of an add-wins set: the stamp of the op that added it, and which of its items.

    Item 0 of `entity.create` and `relation.create` is the entity or relation itself; observations count
    from 1 in the order of the payload's list. Text form: the stamp, `.`, the item in decimal.
    """

    SIZE_BYTES = 28

    stamp: Stamp
    item: int

    def __str__(self) -> str:
        return f"{self.stamp}.{self.item}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The tag of its text form. Raises MalformedError."""
        match = _TAG.fullmatch(text)
        if match is None or int(match[2]) > _MAX_ITEM:
            raise MalformedError("this is no add-tag of an op", operation="parse op", subject=text[:80])
        return cls(Stamp.parse(match[1]), int(match[2]))

    def to_bytes(self) -> bytes:
        """28 bytes: the stamp's 24, then the item big-endian."""
        return self.stamp.to_bytes() + self.item.to_bytes(4, "big")

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The tag of its 28 bytes."""
        return cls(Stamp.from_bytes(data), int.from_bytes(data[24:28], "big"))


def split_tags(data: bytes) -> list[Tag]:
    """The tags of their concatenated bytes."""
    return [Tag.from_bytes(data[start : start + 28]) for start in range(0, len(data), 28)]


class OpKind(StrEnum):
    """What an op does; new kinds may be added, and a reader keeps those that it does not know."""

    ENTITY_CREATE = "entity.create"
    ENTITY_SET = "entity.set"
    ENTITY_DELETE = "entity.delete"
    OBSERVATION_ADD = "observation.add"
    OBSERVATION_DELETE = "observation.delete"
    RELATION_CREATE = "relation.create"
    RELATION_SET = "relation.set"
    RELATION_DELETE = "relation.delete"
    RECORD_SET = "record.set"
    RECORD_DELETE = "record.delete"
    TURN_ADD = "turn.add"
    FINDING_PUT = "finding.put"
    CONVERSATION_SET = "conversation.set"
    CONVERSATION_ERASE = "conversation.erase"
    HANDOFF_ADD = "handoff.add"
    LOG_ADOPT = "log.adopt"


@dataclass(frozen=True, slots=True)
class Op:
    """One op as it lies in a log. `payload` is the JSON text as its device first wrote it; `sequence` is 0 in a
    snapshot where the number has no meaning any more. `device_id` of the stamp is the device that made it."""

    stamp: Stamp
    sequence: int
    kind: str
    payload: str


@dataclass(frozen=True, slots=True)
class LogHead:
    """Where a device's log ends: the number of its last segment, that segment's object hash (32 bytes), and the
    sequence of the last op in it. `LogHead(0, bytes(32), 0)` before the first."""

    segment: int
    object_hash: bytes
    sequence: int


NO_HEAD = LogHead(0, bytes(32), 0)


def subject_of(kind: str, payload: Mapping[str, Any]) -> str | None:
    """What an op is about: ops of one subject are merged with each other and with no others.

    None for ops whose effect is rows of their own, for kinds that are not known here, and for payloads that do not
    name their subject. Source: docs/ops.md, "Subjects".
    """
    name = payload.get("name")
    if kind.startswith(("entity.", "observation.")) and isinstance(name, str):
        return f"entity\0{name}"
    ends = (payload.get("from"), payload.get("to"), payload.get("relationType"))
    if kind.startswith("relation.") and all(isinstance(end, str) for end in ends):
        return "relation\0" + "\0".join(map(str, ends))
    named = (payload.get("type"), payload.get("id"))
    if kind.startswith("record.") and all(isinstance(part, str) for part in named):
        return "record\0" + "\0".join(map(str, named))
    return None


def subject_digest(kind: str, payload: Mapping[str, Any]) -> bytes | None:
    """16 bytes of BLAKE2b of `subject_of`: what an index over ops holds in its place."""
    subject = subject_of(kind, payload)
    if subject is None:
        return None
    return hashlib.blake2b(subject.encode("utf-8", "surrogatepass"), digest_size=16).digest()
