"""Devices with tiers over one service, switched on."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualmem_mcp.model.tiers import Cluster
from dualmem_mcp.ports import ObjectStore
from dualmem_mcp.stores.qdrant import QdrantService
from dualmem_mcp.tiers import attempts
from tests.conftest import SteppingClock
from tests.crypto.conftest import MemoryObjectStore
from tests.tiers.home import SharedService, TierDevice, founded_homes


@pytest.fixture
def service() -> Iterator[SharedService]:
    """Qdrant's local mode, in memory."""
    qdrant = QdrantService.open(":memory:")
    yield SharedService(qdrant)
    qdrant.close()


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemoryObjectStore]:
    """Two data homes of a vault as they are at first, and its bucket: copied they are there sooner than made."""
    return founded_homes(tmp_path_factory.mktemp("homes"), ("desk", "phone"))


@pytest.fixture
def objects(founded: tuple[Path, MemoryObjectStore]) -> MemoryObjectStore:
    """The bucket."""
    return copy.deepcopy(founded[1])


def device(
    name: str, founded: tuple[Path, MemoryObjectStore], tmp_path: Path, objects: ObjectStore, service: SharedService
) -> Iterator[TierDevice]:
    shutil.copytree(founded[0] / name, tmp_path / name)
    opened = TierDevice(tmp_path / name, objects, SteppingClock(), lambda _: service, name=name)
    opened.tiers.init(Cluster())
    opened.tiers.enable(words=False)
    yield opened
    opened.close()


@pytest.fixture
def desk(
    founded: tuple[Path, MemoryObjectStore], tmp_path: Path, objects: MemoryObjectStore, service: SharedService
) -> Iterator[TierDevice]:
    """A device that has switched its tiers on."""
    yield from device("desk", founded, tmp_path, objects, service)


@pytest.fixture
def phone(
    founded: tuple[Path, MemoryObjectStore], tmp_path: Path, objects: MemoryObjectStore, service: SharedService
) -> Iterator[TierDevice]:
    """A second one of the same vault."""
    yield from device("phone", founded, tmp_path, objects, service)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again at once."""
    monkeypatch.setattr(attempts, "BASE_SECONDS", 0.001)
