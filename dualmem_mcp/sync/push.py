"""Sending: this device's changes sealed into segments, queued, and uploaded in order. Source: docs/sync.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dualmem_mcp.errors import ConflictError, NotFoundError, StoreUnreachableError, TamperedError
from dualmem_mcp.handoff.delivery import deliver
from dualmem_mcp.sync.own_log import OwnLog
from dualmem_mcp.sync.segments import (
    LOG,
    MOST_BYTES,
    MOST_OPS,
    fill,
    is_omitted,
    open_segment,
    seal_segment,
)

_MOST_ATTEMPTS: Final = 64
"""Times that a log is taken up anew in one run: more means that something is wrong for good."""


@dataclass(slots=True)
class Pushed:
    """What was uploaded: segments, ops in them, bytes of all objects; and what stopped it, None if nothing did."""

    segments: int = 0
    ops: int = 0
    size_bytes: int = 0
    fault: StoreUnreachableError | None = None
    warnings: list[str] = field(default_factory=list)


def push(
    own: OwnLog,
    *,
    mend: Callable[[str], object],
    leave: Callable[[str], bool] | None = None,
) -> Pushed:
    """Seal what no segment holds and upload what waits, until nothing does or the bucket is away.

    `mend` and `leave` are as for `deliver`. Raises TamperedError, LockedError, what the database raises,
    and ConflictError if the log in the bucket goes on changing.
    """
    pushed = Pushed()
    counts: dict[str, int] = {}
    for _ in range(_MOST_ATTEMPTS):
        pushed.warnings += seal_waiting(own, counts)
        earlier = [key for key in own.outbox.pending() if key.startswith(LOG) and key not in counts]
        counts.update((key, _count_ops(own, key)) for key in earlier)

        def delivered(key: str) -> None:
            own.vault.mark_uploaded(key)
            pushed.ops += counts.get(key, 0)

        delivery = deliver(own.outbox, own.objects, on_delivered=delivered, mend=mend, leave=leave)
        pushed.size_bytes += delivery.uploaded_bytes
        pushed.segments += delivery.segments
        pushed.fault = delivery.fault
        if delivery.fault or not delivery.segment:
            return pushed
        own.settle(delivery.segment)
    raise ConflictError(
        "this device's log in the bucket goes on changing",
        operation="push",
        subject=own.objects.location,
        hint="Run `dualmem sync` again.",
    )


def seal_waiting(own: OwnLog, counts: dict[str, int]) -> list[str]:
    """Seal and queue the changes that no segment holds; returns sentences about what cannot be sent.

    Adds to `counts` how many ops each segment has, by its key.
    """
    warnings = []
    while ops := own.log.unsealed(MOST_OPS, MOST_BYTES):
        head = own.head()
        while ops:
            lines, taken = fill(ops)
            warnings += [
                f"a change ({op.kind}) is too large to be sent and stays on this device"
                for op in taken
                if is_omitted(op)
            ]
            sealed = seal_segment(own.vault, lines, last_sequence=taken[-1].sequence, after=head)
            for key, data in own.vault.pending_epoch():
                own.outbox.add(key, data)
            own.log.add_segment(sealed.key, sealed.data, sealed.head)
            counts[sealed.key] = len(taken)
            head, ops = sealed.head, ops[len(taken) :]
    return warnings


def _count_ops(own: OwnLog, key: str) -> int:
    try:
        return len(open_segment(own.vault, key, own.vault.device_keys.ed25519_public, own.outbox.read(key)).ops)
    except (NotFoundError, TamperedError):
        return 0  # what is wrong with it shows when it is delivered
