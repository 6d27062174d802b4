"""Use of the bucket, counted where every request passes, and written down in batches."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final

from dualmem_mcp.errors import DualmemError
from dualmem_mcp.ports import Clock, CostCounts, ObjectInfo, ObjectStore

_log = logging.getLogger(__name__)

READS: Final = "bucket_reads"
"""GET and HEAD, as they are priced."""
WRITES: Final = "bucket_writes"
"""PUT and LIST, as they are priced."""
DELETES: Final = "bucket_deletes"
"""Free; counted to be seen."""
BYTES_OUT: Final = "bytes_out"
"""Bytes that the bucket sent to this device."""
BYTES_IN: Final = "bytes_in"
"""Bytes that this device sent to the bucket; free."""

_EVERY_SECONDS: Final = 60.0
"""Between two writes of counts to the database; a process that is killed loses those of so long at most."""
_OBJECTS_A_PAGE: Final = 1_000
"""That a listing takes one more request for. Source: Amazon S3 API reference, ListObjectsV2, MaxKeys."""


class Meter:
    """Counts of one open application. Safe to use from any thread; `flush` at its end.

    A count belongs to the day (UTC) on which it is written down. `steady` counts seconds and never goes back.
    """

    def __init__(self, counts: CostCounts, clock: Clock, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._counts = counts
        self._clock = clock
        self._steady = steady
        self._lock = threading.Lock()
        self._pending: Counter[str] = Counter()
        self._flushed_at = steady()
        self.flushes = 0
        """How often counts were taken to be written down."""

    def count(self, component: str, number: int = 1) -> None:
        """Add to a component; costs no input or output."""
        with self._lock:
            self._pending[component] += number

    def pending(self) -> Mapping[str, int]:
        """What is counted and not written down yet."""
        with self._lock:
            return dict(self._pending)

    def flush(self) -> bool:
        """Write the counts down, in one transaction. False if the database takes none now: they are kept."""
        with self._lock:
            taken, self._pending = self._pending, Counter()
            self._flushed_at = self._steady()
            self.flushes += 1
        if not taken:
            return True
        try:
            self._counts.add_use(self._clock.now().date(), taken)
        except DualmemError as error:  # what is counted is worth no failed command
            _log.info("use is not written down: %s", error)
            with self._lock:
                self._pending.update(taken)
                self.flushes += 1
            return False
        with self._lock:
            self.flushes += 1  # whoever looked meanwhile looks again
        return True

    def flush_if_due(self) -> None:
        """The same, if the last was a minute ago or more."""
        if self._steady() - self._flushed_at >= _EVERY_SECONDS:
            self.flush()


class MeteredObjectStore:
    """An ObjectStore over another one that counts what is asked of it; before each request that costs, `check`.

    The store's own retries are not among the counts. What `check` raises keeps the request from being made.
    """

    def __init__(self, objects: ObjectStore, meter: Meter, check: Callable[[], object]) -> None:
        self.objects = objects
        self._meter = meter
        self._check = check

    @property
    def location(self) -> str:
        """As the port says."""
        return self.objects.location

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """As the port says."""
        self._check()
        self._meter.count(READS)
        data = self.objects.get(key, start=start, length=length)
        self._meter.count(BYTES_OUT, len(data))
        return data

    def stat(self, key: str) -> ObjectInfo:
        """As the port says."""
        self._check()
        self._meter.count(READS)
        return self.objects.stat(key)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """As the port says."""
        self._check()
        self._meter.count(WRITES)
        tag = self.objects.put(key, data, if_absent=if_absent, if_match=if_match)
        self._meter.count(BYTES_IN, len(data))
        return tag

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        """As the port says; a page is a request."""
        self._check()
        self._meter.count(WRITES)
        for number, info in enumerate(self.objects.list(prefix, start_after=start_after), start=1):
            yield info
            if not number % _OBJECTS_A_PAGE:
                self._check()
                self._meter.count(WRITES)

    def delete(self, key: str) -> None:
        """As the port says. Removing is free, and allowed whatever the budget says."""
        self._meter.count(DELETES)
        self.objects.delete(key)

    def server_time(self) -> datetime | None:
        """As the port says."""
        return self.objects.server_time()
