"""Making room on a device: kept packages that it does not need go, the least recently used first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from dualmem_mcp.errors import DualmemError, NotFoundError, StoreUnreachableError
from dualmem_mcp.handoff.channel import Channel, package_key, packed_handoff
from dualmem_mcp.handoff.reconstruct import open_package
from dualmem_mcp.model.handoff import HandoffRecord, KeptPackage
from dualmem_mcp.model.ids import HandoffId

_MOST_LOOKED_FOR: Final = 50
"""Packages looked for in the bucket in one go: each is a request, and somebody waits for the handoff."""


class KeptPackages(Protocol):
    """The packages kept on this device, as eviction sees them."""

    def kept(self) -> Sequence[KeptPackage]:
        """All of them. Raises StoreUnreachableError."""
        ...

    def remove(self, handoff_id: HandoffId) -> None:
        """Forget a package; one that is not there is no error."""
        ...


def make_room(channel: Channel, packages: KeptPackages, *, limit_bytes: int) -> list[str]:
    """Bring the kept packages below the limit, as far as they can be spared; warnings where that fails.

    Whatever the limit, these stay: the newest package of each conversation with those that its sections are patches
    of, what waits to be uploaded, and what the bucket does not hold in the same size. Other parts of sessions that
    newest packages build on go after everything else. Once there is too much a tenth of the limit is made free.
    """
    try:
        kept = packages.kept()
        size_bytes = sum(one.size_bytes for one in kept)
        if size_bytes > limit_bytes:
            _evict(channel, packages, kept, size_bytes - limit_bytes * 9 // 10)
    except DualmemError as error:
        return [f"packages kept on this device could not be evicted: {error.message}"]
    return []


def _evict(channel: Channel, packages: KeptPackages, kept: Sequence[KeptPackage], excess: int) -> None:
    here = {one.handoff_id for one in kept}
    newest = [record for record in _newest_handoffs(channel) if record.handoff_id in here]
    needed = {record.handoff_id for record in newest}.union(*(_patched(channel, record) for record in newest))
    needed.update(filter(None, map(packed_handoff, channel.outbox.pending())))
    built_upon = {base for record in newest for base in _bases(channel, record)}
    spared = [one for one in kept if one.handoff_id not in needed]
    spared.sort(key=lambda one: (one.handoff_id in built_upon, one.used_ns))
    for one in spared[:_MOST_LOOKED_FOR]:
        if excess <= 0:
            return
        try:
            # The copy here may be the last one: a bucket can lose what it held.
            stored = channel.objects.stat(package_key(one.handoff_id)).size_bytes
        except NotFoundError:
            continue
        except StoreUnreachableError:
            return
        if stored == one.size_bytes:
            packages.remove(one.handoff_id)
            excess -= one.size_bytes


def _newest_handoffs(channel: Channel) -> Iterator[HandoffRecord]:
    cursor = ""
    while True:
        page, cursor = channel.catalogue.conversations(limit=200, cursor=cursor)
        for summary in page:
            if summary.handoff_id and (record := channel.catalogue.handoff(summary.handoff_id)):
                yield record
        if not cursor:
            return


def _patched(channel: Channel, record: HandoffRecord) -> set[HandoffId]:
    """The handoffs whose packages hold sections that patches in this one are made of: without them no brief can be
    made of it."""
    try:
        return {section.base for section in open_package(channel, record).manifest.patched}
    except DualmemError:  # whoever opens it is told
        return set()


def _bases(channel: Channel, record: HandoffRecord) -> Iterator[HandoffId]:
    """The handoffs that this one builds on, directly or through others."""
    seen = {record.handoff_id}
    current: HandoffRecord | None = record
    while current is not None and current.base and current.base not in seen:
        seen.add(current.base)
        yield current.base
        current = channel.catalogue.handoff(current.base)
