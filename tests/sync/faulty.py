"""A bucket that fails in all the ways a bucket can, and a way for a device to die at any moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeVar

from dualmem_mcp.errors import ConflictError, StoreUnreachableError
from dualmem_mcp.ports import ObjectInfo, ObjectStore
from tests.crypto.conftest import MemoryObjectStore

T = TypeVar("T")
Fault = Literal["", "away", "answer lost", "won before", "stale", "die before", "die after", "meanwhile"]
FAULTS: tuple[Fault, ...] = (
    "",
    "away",
    "answer lost",
    "won before",
    "stale",
    "die before",
    "die after",
    "meanwhile",
)


class CrashError(BaseException):
    """The process ends here: nothing but `finally` runs, and nobody is to catch it."""


@dataclass
class Line:
    """An ObjectStore: one device's way to the bucket. `faults` are taken one for each request, then all is well.

    away: the request does not arrive. answer lost: it does, but the answer does not. won before: the driver's own
    retry finds the place taken by the earlier try. stale: a listing does not show the newest objects. die before,
    die after: the process ends before or after the request. meanwhile: something else happens first.
    """

    bucket: MemoryObjectStore
    faults: deque[Fault] = field(default_factory=deque)
    meanwhile: Callable[[], None] | None = None
    location: str = "memory"

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._ask(lambda: self.bucket.get(key, start=start, length=length))[0]

    def stat(self, key: str) -> ObjectInfo:
        return self._ask(lambda: self.bucket.stat(key))[0]

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        tag, fault = self._ask(lambda: self.bucket.put(key, data, if_absent=if_absent, if_match=if_match))
        if fault == "won before" and (if_absent or if_match is not None):
            raise ConflictError("exists", subject=key)
        return tag

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        found, fault = self._ask(lambda: list(self.bucket.list(prefix, start_after=start_after)))
        hidden = set(list(self.bucket.objects)[-3:]) if fault == "stale" else set()
        return iter([info for info in found if info.key not in hidden])

    def delete(self, key: str) -> None:
        self._ask(lambda: self.bucket.delete(key))

    def server_time(self) -> datetime | None:
        return self.bucket.server_time()

    def _ask(self, request: Callable[[], T]) -> tuple[T, Fault]:
        fault = self.faults.popleft() if self.faults else ""
        if fault == "meanwhile" and self.meanwhile is not None:
            self.meanwhile()
        if fault == "die before":
            raise CrashError
        if fault == "away":
            raise StoreUnreachableError("the bucket is away", hint="Try again.")
        answer = request()
        if fault == "die after":
            raise CrashError
        if fault == "answer lost":
            raise StoreUnreachableError("the answer did not come", hint="Try again.")
        return answer, fault


def is_store(line: Line) -> ObjectStore:
    """Checked by the type checker alone."""
    return line
