"""What the tests of snapshots, compaction and erasure have of a device beside its log."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dualmem_mcp.stores.erasure_rows import ErasedConversations
from dualmem_mcp.stores.logical_state import logical_hash, logical_view
from dualmem_mcp.stores.snapshot_state import SnapshotState
from dualmem_mcp.sync.compaction import Compacted, Compaction
from dualmem_mcp.sync.snapshots import Snapshots
from tests.conftest import SteppingClock
from tests.sync.conftest import Bench, Device


def state_of(device: Device) -> SnapshotState:
    return SnapshotState(device.database, device.clock, device.first_id, name_of=device.name_of)


def snapshots_of(device: Device) -> Snapshots:
    assert device.vault is not None
    return Snapshots(device.vault, device.objects, device.blobs, state_of(device), device.clock)


def joined(bench: Bench, name: str) -> Device:
    """A new device of the vault that starts from a snapshot where it has to."""
    clock = SteppingClock(bench.devices[0].clock.time) if bench.devices else None
    device = bench.device(name, clock)
    device.catch_up = snapshots_of(device).catch_up
    return device


def erased_of(device: Device) -> ErasedConversations:
    return ErasedConversations(device.database, device.clock, device.first_id, name_of=device.name_of)


def compact(device: Device, *, grace_days: float = 14, **how: Any) -> Compacted:
    """Sync and compact, as the application does."""
    device.sync()
    banned = erased_of(device).names()
    return Compaction(snapshots_of(device), banned=banned, grace=timedelta(days=grace_days), **how).run()


def hash_of(device: Device) -> str:
    with device.database.read() as connection:
        return logical_hash(connection)


def view_of(device: Device) -> dict[str, list[Any]]:
    with device.database.read() as connection:
        return logical_view(connection)
