"""Uploading what waits in the outbox, in the order it was sealed, the same bytes on every try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dualmem_mcp.errors import ConflictError, NotFoundError, StoreUnreachableError, TamperedError
from dualmem_mcp.ports import ObjectStore, Outbox

LOG: Final = "log/"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one run uploaded, what still waits, and why it stopped (empty when nothing waits; `fault` is its error).

    `segment` is the first of this device's log that could not be uploaded as it is: it was damaged while it waited,
    or another object has its place. It and those behind it are left to the next sync and not counted as waiting.
    """

    uploaded: int
    uploaded_bytes: int
    waiting: int
    reason: str = ""
    segment: str = ""
    segments: int = 0
    fault: StoreUnreachableError | None = None


def deliver(
    outbox: Outbox,
    objects: ObjectStore,
    *,
    on_delivered: Callable[[str], object],
    mend: Callable[[str], object],
    leave: Callable[[str], bool] | None = None,
) -> Delivery:
    """Upload all waiting objects, oldest first, and stop at the first that the store does not take.

    A store that cannot be reached is no error here: the objects go on waiting and `reason` says why.
    Order matters: a handoff record must never be seen before the package it names, nor a segment before the one
    that it follows. Objects that `leave` names go on waiting.
    `on_delivered` is told each key. `mend` is told the key of an object that was damaged while it waited, and
    makes it whole or takes it out: otherwise nothing behind it would ever be delivered. Raises ConflictError
    if another object lies where one should go, which random names never cause.
    """
    uploaded = uploaded_bytes = segments = 0
    segment = ""
    pending = [key for key in outbox.pending() if leave is None or not leave(key)]
    for position, key in enumerate(pending):
        in_log = key.startswith(LOG)
        if in_log and segment:
            continue
        try:
            data = outbox.read(key) if in_log else _read(outbox, key, mend)
        except NotFoundError:
            continue  # another process delivered it since we looked
        except TamperedError:
            if not in_log:
                raise
            segment = key
            continue
        try:
            _put_once(objects, key, data)
        except StoreUnreachableError as error:
            waiting = len(pending) - position
            return Delivery(uploaded, uploaded_bytes, waiting, error.message, segment, segments, error)
        except ConflictError:
            if not in_log:
                raise
            segment = key
            continue
        on_delivered(key)
        outbox.remove(key)
        uploaded += 1
        uploaded_bytes += len(data)
        segments += in_log
    return Delivery(uploaded, uploaded_bytes, 0, segment=segment, segments=segments)


def _read(outbox: Outbox, key: str, mend: Callable[[str], object]) -> bytes:
    try:
        return outbox.read(key)
    except TamperedError:
        mend(key)
        return outbox.read(key)


def _put_once(objects: ObjectStore, key: str, data: bytes) -> None:
    try:
        objects.put(key, data, if_absent=True)
    except ConflictError:
        # An earlier try arrived although its answer did not; anything else there is not ours to touch.
        if objects.get(key, length=len(data) + 1) != data:
            raise
