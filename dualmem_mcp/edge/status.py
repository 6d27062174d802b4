"""What `memory_status` and `dualmem status` say of search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dualmem_mcp.edge.interface import EdgeInterface
from dualmem_mcp.errors import StoreUnreachableError

if TYPE_CHECKING:
    from dualmem_mcp.edge.edge import Edge


def search_status(edge: EdgeInterface, local: Callable[[], Edge]) -> Mapping[str, Any]:
    """indexed, waiting_for_vectors, deduplicated (items that use the vectors of one that says the same) and
    index_bytes, None where no index can be used; index_problem, which then says why; and the model, or why there is
    none.

    Where the edge does not know at once, as its process is not running, `local` gives one that does.
    """
    try:
        status = edge.status() or local().status()
    except StoreUnreachableError as error:
        facts = dict.fromkeys(("indexed", "waiting_for_vectors", "deduplicated", "index_bytes", "model"))
        return {**facts, "index_problem": error.message}
    return {
        "indexed": sum(status["indexed"].values()),
        "waiting_for_vectors": status["waiting"],
        "deduplicated": status["shared"],
        "index_bytes": status["index_bytes"],
        "model": status["model"] or status["model_missing"],
        "index_problem": None,
    }
