"""When a device syncs by itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SyncTiming:
    """How often a running server syncs, and what it may transfer unasked.

    `automatic`: whether it syncs by itself at all. `poll_seconds` lie between two looks for other devices' changes
    while the server is in use, at most `idle_seconds` while it is not. Changes made here are sent when
    `batch_changes` wait or `batch_ms` after the last; those that nobody makes on purpose, such as turns that
    indexing finds, every `background_seconds`. With `wifi_only`, large objects (packages) go only when asked for.
    `checkpoint_seconds` lie between two checkpoints of a running conversation's agents at least.
    """

    automatic: bool = True
    poll_seconds: float = 10.0
    idle_seconds: float = 300.0
    batch_changes: int = 3
    batch_ms: int = 500
    background_seconds: float = 60.0
    wifi_only: bool = False
    checkpoint_seconds: float = 300.0
