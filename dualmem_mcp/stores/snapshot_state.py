"""The log of a data home as a whole: written out, a snapshot taken in, and shortened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import LogHead, physical_ticks
from dualmem_mcp.model.whole_log import Thinned, WholeLog
from dualmem_mcp.ports import Clock
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.log_export import LogExport, read_vector
from dualmem_mcp.stores.log_thinning import forget_adoptions, thin_log
from dualmem_mcp.stores.op_log import MOST_AHEAD_MS
from dualmem_mcp.stores.snapshot_merge import LogSnapshotMerge
from dualmem_mcp.stores.subject_fold import batched
from dualmem_mcp.stores.sync_log import HELD_AFTER

_SUBJECTS_AT_ONCE: Final = 200
"""That a transaction of shortening takes: others' writes wait some hundredths of a second."""


class SnapshotState:
    """A LogState in memory.db. `name_of` gives the keyed hash of a conversation's id, by which erased ones are
    known."""

    def __init__(
        self, database: Database, clock: Clock, device_id: DeviceId, *, name_of: Callable[[str], str]
    ) -> None:
        self._database = database
        self._clock = clock
        self._first_id = device_id
        self._name_of = name_of

    def heads(self) -> Mapping[DeviceId, LogHead]:
        """As the Protocol says."""
        with self._database.read() as connection:
            return read_vector(connection)

    @contextmanager
    def exported(self) -> Iterator[WholeLog]:
        """As the Protocol says."""
        with self._database.read() as connection:
            export = LogExport(connection, self._own(connection))
            yield WholeLog(export.vector, export.ops())

    def merging(self, vector: Mapping[DeviceId, LogHead]) -> LogSnapshotMerge:
        """As the Protocol says."""
        return LogSnapshotMerge(self._database, vector, own=self._own, limit=self._limit, name_of=self._name_of)

    def thin(self, vector: Mapping[DeviceId, LogHead]) -> Thinned:
        """As the Protocol says; some subjects at a time."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT subject FROM ops WHERE subject IS NOT NULL GROUP BY subject ORDER BY 1"
            )
            subjects = [row[0] for row in rows]
        removed = shortened = freed = 0
        for some in batched(subjects, _SUBJECTS_AT_ONCE):
            with self._database.write() as connection:
                done = thin_log(connection, vector, some)
            removed += done.removed
            shortened += done.shortened
            freed += done.bytes_freed
        with self._database.write() as connection:
            removed += forget_adoptions(connection, vector)
        if removed or shortened:
            self._database.empty_log()
        return Thinned(removed, shortened, freed)

    def _own(self, connection: Connection) -> DeviceId:
        (device,) = connection.execute("SELECT device_id FROM hybrid_clock").fetchone()
        return DeviceId(device or self._first_id)

    def _limit(self, connection: Connection) -> int:
        """Ticks above which an op is held back; by the bucket's clock where this machine's is known to be wrong."""
        (ahead_ms,) = connection.execute("SELECT ahead_ms FROM hybrid_clock").fetchone()
        now = self._clock.now()
        if abs(ahead_ms) > MOST_AHEAD_MS:
            now -= timedelta(milliseconds=ahead_ms)
        return physical_ticks(now + HELD_AFTER)
