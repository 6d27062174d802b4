"""The log of a device that was revoked: which segments of it count, told by the last of them.

A revoked device has the keys still that it had, and may be able to write to the bucket: what lies under the numbers
that count may have been put there since. The roster names the object hash of the last segment that counts, and each
segment names the hash of the one before it. Source: docs/sync.md, "Revoked devices".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dualmem_mcp.crypto.envelope import UnopenedObject
from dualmem_mcp.crypto.header import tampered
from dualmem_mcp.crypto.roster import RosterEntry
from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.model.oplog import LogHead
from dualmem_mcp.ports import ObjectStore
from dualmem_mcp.sync.segments import segment_key

_HASH_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Chain:
    """The object hashes, 32 bytes each, of the segments of a log from the number `first` to the last that counts,
    or the number of one that is missing from the bucket: what is before it is not known then."""

    first: int
    hashes: bytes = b""
    missing: int = 0

    def hash_of(self, number: int) -> bytes:
        """What the segment of that number has to hash to."""
        at = (number - self.first) * _HASH_BYTES
        return self.hashes[at : at + _HASH_BYTES]


def trace_back(objects: ObjectStore, entry: RosterEntry, head: LogHead) -> Chain:
    """The segments of a revoked device's log behind `head`, from the last that counts back to it.

    One small read for each; what is kept of it is its hash. Raises TamperedError if one of them is another than the
    one after it names, or the first does not follow on `head`.
    """
    last = entry.revoked_after or 0
    hashes = bytearray()
    expected = entry.revoked_hash
    for number in range(last, head.segment, -1):
        key = segment_key(entry.device_id, number)
        try:
            found = _unopened(objects, key)
        except NotFoundError:
            return Chain(head.segment + 1, missing=number)
        if found.object_hash != expected:
            raise tampered("is not the one that its device wrote before it was revoked", key)
        hashes += expected[::-1]
        expected = found.header.previous_hash
    if expected != head.object_hash:
        key = segment_key(entry.device_id, head.segment)
        raise tampered("that counts is another than the one that this device has read", key)
    return Chain(head.segment + 1, bytes(hashes[::-1]))


def _unopened(objects: ObjectStore, key: str) -> UnopenedObject:
    return UnopenedObject.read(lambda start, length: objects.get(key, start=start, length=length), subject=key)
