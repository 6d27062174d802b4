"""What the workflows need of the outside world, as Protocols; `stores/` and `transcripts/` implement them."""

from dualmem_mcp.ports.cost import CostCounts, PackageFact
from dualmem_mcp.ports.log import Applied, Conflict, Conflicts, OpLog, Record, Records, Version
from dualmem_mcp.ports.run import Clock, Progress, SystemClock, no_progress
from dualmem_mcp.ports.search import (
    Access,
    AccessLog,
    CachedItem,
    Embedder,
    Features,
    IndexCounts,
    Scored,
    SearchIndex,
    SearchReader,
    Unembedded,
)
from dualmem_mcp.ports.storage import (
    CLIENT_PLACES,
    BlobCache,
    Catalogue,
    ObjectInfo,
    ObjectStore,
    Outbox,
    PackageCache,
    Threads,
)

__all__ = [
    "CLIENT_PLACES",
    "Access",
    "AccessLog",
    "Applied",
    "BlobCache",
    "CachedItem",
    "Catalogue",
    "Clock",
    "Conflict",
    "Conflicts",
    "CostCounts",
    "Embedder",
    "Features",
    "IndexCounts",
    "ObjectInfo",
    "ObjectStore",
    "OpLog",
    "Outbox",
    "PackageCache",
    "PackageFact",
    "Progress",
    "Record",
    "Records",
    "Scored",
    "SearchIndex",
    "SearchReader",
    "SystemClock",
    "Threads",
    "Unembedded",
    "Version",
    "no_progress",
]
