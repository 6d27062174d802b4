"""A device with tiers over SQLite files, switched on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dualmem_mcp.stores.qdrant_collections import Cluster
from tests.conftest import SteppingClock
from tests.crypto.conftest import MemoryObjectStore
from tests.tiers.home import SqliteService, TierDevice, service_of


@pytest.fixture
def service(tmp_path: Path) -> Iterator[SqliteService]:
    with service_of(tmp_path / "service") as service:
        yield service


@pytest.fixture
def desk(tmp_path: Path, clock: SteppingClock, service: SqliteService) -> Iterator[TierDevice]:
    """A device that has enabled its tiers."""
    device = TierDevice(tmp_path / "desk", MemoryObjectStore(), clock, lambda _: service)
    device.tiers.init(Cluster())
    device.tiers.enable(words=False)
    yield device
    device.close()


@pytest.fixture
def phone(tmp_path: Path, clock: SteppingClock, service: SqliteService, desk: TierDevice) -> Iterator[TierDevice]:
    """A second device of the vault, with the same service."""
    device = TierDevice(
        tmp_path / "phone", desk.objects, SteppingClock(clock.time), lambda _: service, name="phone", joins=True
    )
    device.tiers.enable(words=False)
    yield device
    device.close()
