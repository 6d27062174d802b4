"""Vault objects inside the database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dualmem_mcp.stores.blob_cache import DatabaseBlobCache
from dualmem_mcp.stores.database import Database


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[DatabaseBlobCache]:
    with Database.open(tmp_path / "memory.db", bytes(32)) as database:
        yield DatabaseBlobCache(database)


def test_keeps_the_last_bytes(cache: DatabaseBlobCache) -> None:
    assert cache.get("a") is None
    cache.put("a", b"\0\xff")
    cache.put("a", b"")
    assert cache.get("a") == b""


def test_lists_keys_by_prefix(cache: DatabaseBlobCache) -> None:
    for key in ("keys/c/2", "keys/c/1", "keys%", "roster/1", "KEYS/c/3"):
        cache.put(key, b"x")
    assert cache.keys("keys/") == ["keys/c/1", "keys/c/2"]
    assert cache.keys("%") == []
    assert len(cache.keys()) == 5
