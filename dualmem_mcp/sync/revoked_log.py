"""The log of a device that was revoked: which segments of it count, told by the last of them.

A revoked device has the keys still that it had, and may be able to write to the bucket: what lies under the numbers
that count may have been put there since. The roster names the object hash of the last segment that counts, and each
segment names the hash of the one before it. Source: docs/sync.md, "Revoked devices".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from dualmem_mcp.crypto.envelope import UnopenedObject
from dualmem_mcp.crypto.header import tampered
from dualmem_mcp.crypto.roster import RosterEntry
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.errors import MalformedError, NotFoundError
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.model.adoption import adopted_ops
from dualmem_mcp.model.oplog import NO_HEAD, LogHead, OpKind
from dualmem_mcp.ports import ObjectStore, OpLog
from dualmem_mcp.sync.segments import Segment, segment_key

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


def adopt_late(vault: Vault, log: OpLog) -> list[str]:
    """Tell the others what this device took in of logs before it heard how far they count; a sentence for the user
    on each."""
    notes: list[str] = []
    heads = log.heads()
    for entry in vault.devices():
        last, sequence = entry.revoked_after, entry.revoked_sequence
        if last is None or sequence is None or heads.get(entry.device_id, NO_HEAD).segment <= last:
            continue
        if adopted := log.adopt(entry.device_id, LogHead(last, entry.revoked_hash, sequence)):
            notes.append(
                f"{adopted} changes of {one_line(entry.name)}, which was revoked, had come here before this device "
                "heard of that: they stay, and this device hands them on to the others"
            )
    return notes


def check_adoptions(vault: Vault, segment: Segment, key: str) -> None:
    """Raises TamperedError if the segment hands on what nobody has to, NotFoundError if it may be right once this
    device has read more of the roster."""
    for op in segment.ops:
        if op.kind != OpKind.LOG_ADOPT:
            continue
        try:
            ops = adopted_ops(json.loads(op.payload))
        except MalformedError:
            raise tampered("hands on changes of another device in a form that is none", key) from None
        for device_id in {one.stamp.device_id for one in ops}:
            entry = next((one for one in vault.devices() if one.device_id == device_id), None)
            if entry is None or entry.revoked_after is None:
                raise NotFoundError(
                    "it hands on changes of a device that was not revoked, as far as this device knows",
                    operation="pull",
                    subject=key,
                    hint="Run `dualmem sync` again.",
                )
            last = entry.revoked_sequence
            if last is None or any(0 < one.sequence <= last for one in ops):
                raise tampered("hands on changes that stand in the log of their device", key)


def _unopened(objects: ObjectStore, key: str) -> UnopenedObject:
    return UnopenedObject.read(lambda start, length: objects.get(key, start=start, length=length), subject=key)
