"""Devices that share a bucket: each a data home of its own, with a real database, vault and queue."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.crypto.keys import load_device
from dualmem_mcp.crypto.membership import create_vault, join_vault, open_vault
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.model.graph import Entity, EntityObservations
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import NO_HEAD
from dualmem_mcp.ports import ObjectStore
from dualmem_mcp.stores.blob_cache import DatabaseBlobCache
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.objects import open_object_store
from dualmem_mcp.stores.outbox import FileOutbox
from dualmem_mcp.stores.snapshot_state import SnapshotState
from dualmem_mcp.stores.sync_log import SyncLog
from dualmem_mcp.sync.engine import Exchange, SyncReport, sync
from dualmem_mcp.sync.identity import KeptIdentity
from dualmem_mcp.sync.pull import CatchUp
from dualmem_mcp.sync.snapshots import Snapshots
from tests.conftest import SteppingClock
from tests.crypto.conftest import FAST_KDF, FAST_LIMITS, PASSPHRASE, MemoryObjectStore


@dataclass
class Device:
    """One data home, opened. `copy` of its folder, opened again, is a cloned machine."""

    home: Path
    objects: ObjectStore
    clock: SteppingClock
    database: Database = field(init=False)

    def __post_init__(self) -> None:
        (self.home / "sync_queue").mkdir(parents=True, exist_ok=True)
        self.database = Database.open(self.home / "memory.db", bytes(32))
        self.blobs = DatabaseBlobCache(self.database)
        self.first_id, self.keys = load_device(self.blobs)
        self.graph = GraphStore(self.database, self.clock, self.first_id)
        self.outbox = FileOutbox(self.database, self.home / "sync_queue")
        self.vault: Vault | None = None
        self.mended: list[str] = []
        self.catch_up: CatchUp | None = None

    @property
    def log(self) -> SyncLog:
        return SyncLog(self.database, self.clock, self.first_id, self.outbox, name_of=self.name_of)

    @property
    def id(self) -> DeviceId:
        return self.log.device_id()

    def name_of(self, conversation_id: str) -> str:
        return self.vault.object_name("conversation", conversation_id) if self.vault else ""

    def create(self, name: str = "desk") -> None:
        self.vault, _ = create_vault(
            self.objects,
            self.blobs,
            passphrase=PASSPHRASE,
            device_id=self.first_id,
            device_name=name,
            device_keys=self.keys,
            clock=self.clock,
            kdf=FAST_KDF,
        )

    def join(self, name: str = "phone") -> None:
        self.vault = join_vault(
            self.objects,
            self.blobs,
            secret=PASSPHRASE,
            device_id=self.first_id,
            device_name=name,
            device_keys=self.keys,
            clock=self.clock,
            limits=FAST_LIMITS,
        )

    def reopen(self) -> None:
        """As another process would after this one ended."""
        self.database.close()
        self.__post_init__()
        self.vault = open_vault(
            self.blobs, device_id=self.first_id, device_keys=self.keys, objects=self.objects, clock=self.clock
        )

    def exchange(self, **changes: Any) -> Exchange:
        assert self.vault is not None
        values: dict[str, Any] = {
            "vault": self.vault,
            "objects": self.objects,
            "outbox": self.outbox,
            "log": self.log,
            "clock": self.clock,
            "lock_file": self.home / "sync.lock",
            "identity": KeptIdentity(self.blobs, self.objects, self.clock, on_change=self._changed),
            "mend": lambda key, warnings: self.mended.append(key),
            "catch_up": self.catch_up or self.snapshots().catch_up,
            "reach": self.snapshots().reach,
            "count_conflicts": lambda: 0,
        }
        return Exchange(**{**values, **changes})

    def snapshots(self) -> Snapshots:
        assert self.vault is not None
        state = SnapshotState(self.database, self.clock, self.first_id, name_of=self.name_of)
        return Snapshots(self.vault, self.objects, self.blobs, state, self.clock)

    def compact(self) -> None:
        """Write a snapshot of all that was synced, and take away what of the logs it includes."""
        snapshots = self.snapshots()
        snapshots.write(snapshots.latest())
        for info in list(self.objects.list("log/")):
            self.objects.delete(info.key)

    def sync(self, **how: Any) -> SyncReport:
        return sync(self.exchange(), **how)

    def _changed(self, vault: Vault) -> None:
        self.vault = vault

    # What is in the memory

    def add(self, *names: str) -> None:
        self.graph.create_entities([Entity(name, "thing", (f"{name} is here",)) for name in names])

    def observe(self, name: str, *texts: str) -> None:
        self.graph.add_observations([EntityObservations(name, tuple(texts))])

    def names(self) -> set[str]:
        return {entity.name for entity in self.graph.read_graph().entities}

    def content(self) -> dict[str, tuple[str, frozenset[str]]]:
        """The entities with what they say, whatever their order."""
        return {
            entity.name: (entity.entity_type, frozenset(entity.observations))
            for entity in self.graph.read_graph().entities
        }


@dataclass
class Bench:
    """A bucket and the devices over it."""

    root: Path
    objects: Any
    devices: list[Device] = field(default_factory=list)

    def device(self, name: str, clock: SteppingClock | None = None) -> Device:
        """A new device of the vault, which the first one makes."""
        device = Device(self.root / name, self.objects, clock or SteppingClock())
        device.join(name) if self.devices else device.create(name)
        self.devices.append(device)
        return device

    def clone(self, device: Device, name: str) -> Device:
        """A second machine with a copy of that device's data home, as it is now."""
        device.database.close()
        shutil.copytree(device.home, self.root / name)
        device.reopen()
        copy = Device(self.root / name, self.objects, SteppingClock(device.clock.time))
        copy.reopen()
        self.devices.append(copy)
        return copy

    def settle(self) -> None:
        """Sync all until all have everything."""
        for _ in range(3):
            for device in self.devices:
                device.sync()

    def close(self) -> None:
        for device in self.devices:
            device.database.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """An empty bucket in memory."""
    bench = Bench(tmp_path, MemoryObjectStore())
    yield bench
    bench.close()


@pytest.fixture
def folder_bench(tmp_path: Path) -> Iterator[Bench]:
    """An empty bucket in a folder."""
    bench = Bench(tmp_path, open_object_store(str(tmp_path / "bucket"), create=True))
    yield bench
    bench.close()


def revoke(device: Device, *, by: Device) -> None:
    """Put a device out of the vault, as far as the other has read it."""
    assert by.vault is not None
    by.vault.revoke(
        device.id,
        passphrase=PASSPHRASE,
        head=by.log.heads().get(device.id, NO_HEAD),
        show=lambda key: None,
        kdf=FAST_KDF,
        limits=FAST_LIMITS,
    )
