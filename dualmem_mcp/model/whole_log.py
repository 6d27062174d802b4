"""A device's log as a whole: what a snapshot is written from, and what taking out of it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import LogHead, Op

TOMBSTONES: Final = "tombstones"
"""Kind of the lines of a snapshot that hold deleted tags, `[[tag, stamp], …]`. Source: docs/format.md."""


@dataclass(frozen=True, slots=True)
class WholeLog:
    """All that a device has of all logs: where each ends, and the ops that what was sealed adds up to.

    What has no effect any more is taken out of them. They can be gone through once.
    """

    vector: Mapping[DeviceId, LogHead]
    ops: Iterator[Op]


@dataclass(frozen=True, slots=True)
class Thinned:
    """What shortening a log did: ops that went, ops that got shorter, and bytes of payloads less."""

    removed: int
    shortened: int
    bytes_freed: int
