"""What lies in the bucket, by a look or as far as it is known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from dualmem_mcp.cost.objects import BucketContents, Stored, count_kinds, known_contents, look
from dualmem_mcp.model.ids import ConversationId, HandoffId
from dualmem_mcp.ports import ObjectInfo, PackageFact
from tests.conftest import SteppingClock
from tests.crypto.conftest import MemoryBlobCache, MemoryObjectStore


class Packages:
    """A catalogue of so many packages of 100 bytes."""

    def __init__(self, count: int) -> None:
        self.count = count

    def packages(self) -> Sequence[PackageFact]:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        return [PackageFact(HandoffId(str(n)), ConversationId("c"), 100, at, None) for n in range(self.count)]


def test_objects_are_counted_by_the_first_part_of_their_keys() -> None:
    keys = ["vault.json", "log/a/1", "log/b/1", "packages/x"]
    assert count_kinds(ObjectInfo(key, 10, "") for key in keys) == {
        "vault": Stored(1, 10),
        "log": Stored(2, 20),
        "packages": Stored(1, 10),
    }
    assert count_kinds([]) == {}


def test_a_look_is_remembered_and_newer_packages_are_not_forgotten(clock: SteppingClock) -> None:
    blobs, objects = MemoryBlobCache(), MemoryObjectStore()
    assert known_contents(blobs, Packages(0)) == BucketContents({}, None)  # type: ignore[arg-type]
    assert known_contents(blobs, Packages(2)) == BucketContents({"packages": Stored(2, 200)}, None)  # type: ignore[arg-type]
    objects.put("packages/x", bytes(150))
    objects.put("log/a/1", bytes(50))
    looked = look(objects, blobs, clock)
    assert (looked.count, looked.size_bytes, looked.looked_at) == (2, 200, clock.now())
    assert known_contents(blobs, Packages(1)) == looked  # type: ignore[arg-type]
    later = known_contents(blobs, Packages(3))  # type: ignore[arg-type]
    assert later == BucketContents({"log": Stored(1, 50), "packages": Stored(3, 300)}, clock.now())
