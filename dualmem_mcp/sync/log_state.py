"""What compaction and joining need of this device's log as a whole, as Protocols; `stores/` implements them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import LogHead, Op
from dualmem_mcp.model.whole_log import Thinned, WholeLog
from dualmem_mcp.ports import Applied


class SnapshotMerge(Protocol):
    """A snapshot on its way into this device's log. Killed at any moment it does no harm: it is begun again."""

    def merge(self, ops: Sequence[Op]) -> Applied:
        """Merge some of its ops, in one transaction; what is here already changes nothing. Heads stay where they
        are."""
        ...

    def finish(self) -> Applied:
        """All of it has been merged: let go of ops that it covers and does not have, and move to its heads those of
        other devices that are behind them.

        Raises TamperedError, and moves none, if a head here and one of the snapshot's contradict each other.
        """
        ...


class LogState(Protocol):
    """This device's log as a whole, written out and taken in."""

    def heads(self) -> Mapping[DeviceId, LogHead]:
        """Where each log ends here; logs of which there is nothing are left out."""
        ...

    def exported(self) -> AbstractContextManager[WholeLog]:
        """One state of the log, from one transaction, which lasts as long as the context."""
        ...

    def merging(self, vector: Mapping[DeviceId, LogHead]) -> SnapshotMerge:
        """Begin to take in a snapshot that goes so far in each log."""
        ...

    def thin(self, vector: Mapping[DeviceId, LogHead]) -> Thinned:
        """Take out of this device's ops up to those heads what has no effect any more."""
        ...
