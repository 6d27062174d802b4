"""A bucket that counts as away once the time that somebody has for it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.ports import ObjectInfo, ObjectStore


@dataclass(frozen=True, slots=True)
class DeadlineObjectStore:
    """An ObjectStore over another one until the steady clock reads `ends_at`, in seconds.

    A request that has begun is finished; the next raises StoreUnreachableError, so that what waits goes on waiting.
    """

    objects: ObjectStore
    ends_at: float
    clock: Callable[[], float] = time.monotonic

    @property
    def location(self) -> str:
        return self.objects.location

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._check()
        return self.objects.get(key, start=start, length=length)

    def stat(self, key: str) -> ObjectInfo:
        self._check()
        return self.objects.stat(key)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        self._check()
        return self.objects.put(key, data, if_absent=if_absent, if_match=if_match)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        self._check()
        return self.objects.list(prefix, start_after=start_after)

    def delete(self, key: str) -> None:
        self._check()
        self.objects.delete(key)

    def server_time(self) -> datetime | None:
        return self.objects.server_time()

    def _check(self) -> None:
        if self.clock() >= self.ends_at:
            raise StoreUnreachableError(
                "the time for this sync is over",
                operation="sync",
                subject=self.objects.location,
                hint="The next one goes on where this one stopped.",
            )
