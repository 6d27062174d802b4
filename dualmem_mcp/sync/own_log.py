"""This device's log in the bucket, where it is not as this device left it. Source: docs/sync.md, "Faults".

Another object in the place of a segment is an earlier upload of the same ops, a damaged upload, or the segment of
another machine: this data home is a copy, or was set back to an older state.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.errors import ConflictError, NewerFormatError, NotFoundError, TamperedError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import NO_HEAD, LogHead, Op, OpKind
from dualmem_mcp.ports import ObjectStore, OpLog, Outbox
from dualmem_mcp.sync.identity import Identity
from dualmem_mcp.sync.listing import ListedLog
from dualmem_mcp.sync.segments import MOST_OBJECT_BYTES, Segment, open_segment, parse_segment_key, segment_key


@dataclass(slots=True)
class OwnLog:
    """This device's log and the vault that it is sealed for, which is another one after the device took a new id.

    `notes` are sentences for the user about what had to be done.
    """

    vault: Vault
    objects: ObjectStore
    outbox: Outbox
    log: OpLog
    identity: Identity
    notes: list[str] = field(default_factory=list)
    forks: int = 0

    def finish_fork(self) -> None:
        """Take up a new id that a crash kept from being taken up."""
        device_id = self.log.device_id()
        if device_id != self.vault.device_id:
            self.vault = self.identity.settle(device_id)

    def head(self) -> LogHead:
        """Where the log ends that is sealed."""
        return self.log.heads().get(self.vault.device_id, NO_HEAD)

    def uploaded(self) -> int:
        """The number of the last segment of the log that is in the bucket, as this device knows; 0 for none."""
        waiting = [parse_segment_key(key) for key in self.outbox.pending()]
        numbers = [one[1] for one in waiting if one is not None and one[0] == self.vault.device_id]
        return min(numbers) - 1 if numbers else self.head().segment

    def settle(self, key: str) -> None:
        """Deal with a waiting segment that is damaged, or whose place another object has: uploading can go on.

        Raises TamperedError if neither queue nor bucket tell any more where the log was.
        """
        if key not in self.outbox.pending():
            return  # a handoff has uploaded it meanwhile
        waiting = self._waiting(key)
        try:
            found = self._found(key)
        except NewerFormatError:
            found = None  # of another machine, whose program is newer
        except TamperedError:
            if waiting is None:
                self._go_back(key)
            else:
                self._replace(key)
            return
        except NotFoundError:
            self._go_back(key)
            return
        before = waiting.before if waiting else (found.before if found else self._before(key))
        if found is None:
            self._fork(before, before.sequence)
        else:
            self._compare(found, before)

    def check(self, listed: ListedLog, reach: Callable[[DeviceId], int]) -> None:
        """See whether the bucket's log is the one that this device left there, and leave it to another machine that
        goes on with it. `reach` tells how far the newest snapshot goes in a log, for segments that it replaces.

        Raises TamperedError if what this device uploaded has gone: the bucket was set back.
        """
        uploaded, sealed = self.uploaded(), self.head()
        if listed.last > sealed.segment == uploaded:
            self._look_behind(sealed)
        elif not uploaded or not (listed.known_is_there or self._is_there(uploaded)):
            included = self._included(reach, uploaded)
            if included > uploaded:
                before = sealed if uploaded == sealed.segment else self._before(self._key(uploaded + 1))
                self._fork(before, before.sequence)
            elif included < uploaded:
                raise TamperedError(
                    f"the bucket {self.objects.location} no longer has what this device uploaded: it was set back",
                    operation="sync",
                    subject=self._key(uploaded),
                    hint="Put what is missing below log/ back from a backup. Nothing was changed on this device.",
                )

    def _included(self, reach: Callable[[DeviceId], int], uploaded: int) -> int:
        try:
            return reach(self.vault.device_id)
        except TamperedError:
            # Of a log that was ever written its last segment stays; a new one begins, whatever is wrong elsewhere.
            if uploaded:
                raise
            return 0

    def _look_behind(self, head: LogHead) -> None:
        """The bucket's log goes on behind what this device has sealed: another machine has written it."""
        try:
            found = self._found(self._key(head.segment + 1))
        except (NewerFormatError, NotFoundError):  # not to be read here, or in a snapshot only
            self._fork(head, head.sequence)
        except TamperedError:
            return  # what is damaged there is dealt with when this device comes to that number
        else:
            self._compare(found, head)

    def _is_there(self, number: int) -> bool:
        try:
            self.objects.get(self._key(number), length=1)
        except NotFoundError:
            return False
        return True

    def _key(self, number: int) -> str:
        return segment_key(self.vault.device_id, number)

    def _compare(self, found: Segment, before: LogHead) -> None:
        """Take a segment of the bucket for this device's if it holds its very ops, else leave the log to it."""
        mine = self.log.own_ops(found.before.sequence, found.head.sequence)
        pairs = zip(mine, found.ops, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: _is_same(*pair), pairs))
        if common == len(found.ops) and found.before == before:
            self.log.go_back(found.head)
            self.outbox.remove(self._key(found.head.segment))
        else:
            self._fork(before, found.before.sequence + common if found.before == before else before.sequence)

    def _fork(self, before: LogHead, after: int) -> None:
        device_id = self.identity.prepare(self.vault, self.objects)
        moved = self.log.fork(device_id, after, before)
        self.vault = self.identity.settle(device_id)
        self.forks += 1
        self.notes.append(
            "another machine writes under this device's id: its data home is a copy of this one, or this one was "
            f"set back. This one goes on as a new device, {self.vault.device_name!r}, with {moved} of its changes "
            "that were not sent yet"
        )

    def _go_back(self, key: str) -> None:
        """Have what is damaged in the queue sealed anew."""
        self.log.go_back(self._before(key))

    def _before(self, key: str) -> LogHead:
        """Where the log ended before the segment of that key, as the segment before it tells."""
        number = _number(key)
        if number == 1:
            return NO_HEAD
        earlier = self._key(number - 1)
        try:
            return (self._waiting(earlier) or self._found(earlier)).head
        except NotFoundError:
            raise TamperedError(
                "a segment of this device's log was damaged while it waited, and the one before it has gone",
                operation="push",
                subject=key,
                hint="Put back a backup of the data home's folder handoff_cache/sync_queue.",
            ) from None

    def _replace(self, key: str) -> None:
        """Put the waiting segment over an object that nobody can open: a torn upload, or damage in the bucket."""
        try:
            tag = self.objects.stat(key).etag
            self._found(key)
        except (NewerFormatError, NotFoundError):
            return  # it has been changed or removed since, and is looked at again
        except TamperedError:
            try:
                self.objects.put(key, self.outbox.read(key), if_match=tag)
            except ConflictError:
                return  # somebody changed it meanwhile: it is looked at again
            self.notes.append(f"the object {key} in the bucket was damaged and has been written again")

    def _waiting(self, key: str) -> Segment | None:
        """The segment that waits, or None if it is damaged or not there."""
        try:
            return self._open(key, self.outbox.read(key))
        except (NotFoundError, TamperedError):
            return None

    def _found(self, key: str) -> Segment:
        return self._open(key, self.objects.get(key, length=MOST_OBJECT_BYTES + 1))

    def _open(self, key: str, data: bytes) -> Segment:
        return open_segment(self.vault, key, self.vault.device_keys.ed25519_public, data)


def _number(key: str) -> int:
    parsed = parse_segment_key(key)
    if parsed is None:
        raise ValueError(f"{key} is not the key of a segment")
    return parsed[1]


def _is_same(mine: Op, found: Op) -> bool:
    """Whether it is the same op, as far as this device keeps its own."""
    if (mine.stamp, mine.sequence, mine.kind) != (found.stamp, found.sequence, found.kind):
        return False
    return mine.payload == found.payload or (
        found.kind == OpKind.TURN_ADD
        and _turns_of(json.loads(mine.payload)) == _turns_of(json.loads(found.payload))
    )


def _turns_of(payload: dict[str, Any]) -> tuple[Any, Sequence[Any]]:
    """Conversation and uuids of the turns, with their texts or without."""
    turns = payload.get("turns")
    if turns is None:
        return payload.get("conversation_id"), payload.get("uuids", [])
    return payload.get("conversation_id"), [turn.get("uuid") for turn in turns if isinstance(turn, dict)]
