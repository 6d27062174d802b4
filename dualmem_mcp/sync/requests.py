"""Requests to the bucket, counted by what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from dualmem_mcp.model.cost import request_cost_usd
from dualmem_mcp.ports import ObjectInfo, ObjectStore

_OBJECTS_A_PAGE = 1_000
"""That a listing takes one more request for. Source: Amazon S3 API reference, ListObjectsV2, MaxKeys."""


@dataclass(slots=True)
class Requests:
    """How many requests of each kind; the store's own retries are not among them."""

    get: int = 0
    put: int = 0
    list: int = 0
    stat: int = 0
    delete: int = 0

    def cost_usd(self, location: str) -> float:
        """Their list price in US dollars; removing is free."""
        return request_cost_usd(location, writes=self.put + self.list, reads=self.get + self.stat)


@dataclass(slots=True)
class CountingObjectStore:
    """An ObjectStore over another one that counts what is asked of it."""

    objects: ObjectStore
    requests: Requests = field(default_factory=Requests)

    @property
    def cost_usd(self) -> float:
        """The list price of all that was asked of it, in US dollars."""
        return round(self.requests.cost_usd(self.location), 9)

    @property
    def location(self) -> str:
        return self.objects.location

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self.requests.get += 1
        return self.objects.get(key, start=start, length=length)

    def stat(self, key: str) -> ObjectInfo:
        self.requests.stat += 1
        return self.objects.stat(key)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        self.requests.put += 1
        return self.objects.put(key, data, if_absent=if_absent, if_match=if_match)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        self.requests.list += 1
        for count, info in enumerate(self.objects.list(prefix, start_after=start_after), start=1):
            yield info
            if not count % _OBJECTS_A_PAGE:
                self.requests.list += 1

    def delete(self, key: str) -> None:
        self.requests.delete += 1
        self.objects.delete(key)

    def server_time(self) -> datetime | None:
        return self.objects.server_time()
