"""What lies in the bucket: counted by a listing, or as far as this device knows without one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from dualmem_mcp.ports import BlobCache, Clock, CostCounts, ObjectInfo, ObjectStore

_BLOB: Final = "local/cost/objects"
PACKAGES: Final = "packages"


@dataclass(frozen=True, slots=True)
class Stored:
    """Objects of one kind: how many, and their bytes."""

    count: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class BucketContents:
    """Objects by kind, the first part of their keys. `looked_at` is when they were listed; None if only the
    packages are known, from the catalogue."""

    kinds: Mapping[str, Stored]
    looked_at: datetime | None

    @property
    def size_bytes(self) -> int:
        """Bytes of all of them."""
        return sum(one.size_bytes for one in self.kinds.values())

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(one.count for one in self.kinds.values())


def look(objects: ObjectStore, blobs: BlobCache, clock: Clock) -> BucketContents:
    """What a listing of the whole bucket shows, one request for each 1,000 objects; remembered on this device.

    Raises StoreUnreachableError.
    """
    kinds = count_kinds(objects.list())
    at = clock.now()
    fields = {name: [one.count, one.size_bytes] for name, one in kinds.items()}
    blobs.put(_BLOB, json.dumps({"at": at.isoformat(), "kinds": fields}).encode("ascii"))
    return BucketContents(kinds, at)


def known_contents(blobs: BlobCache, counts: CostCounts) -> BucketContents:
    """What the last look showed, and packages at least as the catalogue has them now; no request is made."""
    packages = counts.packages()
    stored = Stored(len(packages), sum(one.size_bytes for one in packages))
    kept = blobs.get(_BLOB)
    if not kept:
        return BucketContents({PACKAGES: stored} if packages else {}, None)
    document: dict[str, Any] = json.loads(kept)
    kinds = {name: Stored(*numbers) for name, numbers in document["kinds"].items()}
    if stored.size_bytes > kinds.get(PACKAGES, Stored()).size_bytes:
        kinds[PACKAGES] = stored
    return BucketContents(kinds, datetime.fromisoformat(document["at"]))


def count_kinds(infos: Iterable[ObjectInfo]) -> dict[str, Stored]:
    """Objects by kind: the first part of their keys, `vault` for those that have one only."""
    kinds: dict[str, Stored] = {}
    for info in infos:
        kind, slash, _ = info.key.partition("/")
        name = kind if slash else "vault"
        before = kinds.get(name, Stored())
        kinds[name] = Stored(before.count + 1, before.size_bytes + info.size_bytes)
    return dict(sorted(kinds.items()))
