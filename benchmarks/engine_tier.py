"""A tier in Qdrant's own engine, in this process: the client that the tests use, behind the product's own store."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.stores.qdrant_faults import qdrant_faults
from dualmem_mcp.stores.qdrant_tier import QdrantTier

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tests.stores.edge_client import EdgeClient


@contextmanager
def engine_tier(folder: Path, name: TierName, dimensions: int) -> Iterator[QdrantTier]:
    """An empty tier in a folder that is not there yet."""
    client = EdgeClient(folder, dimensions)

    @contextmanager
    def asking(operation: str) -> Iterator[Any]:
        with qdrant_faults(operation, name, local=False):
            yield client

    try:
        yield QdrantTier(asking, name, name, dimensions)
    finally:
        client.close()
