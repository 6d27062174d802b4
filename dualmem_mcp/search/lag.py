"""Whether the indexes lack something that the truth has: a look that costs less than a millisecond."""

from __future__ import annotations

from collections.abc import Mapping

from dualmem_mcp.model.search import Collection
from dualmem_mcp.model.source import IndexProgress
from dualmem_mcp.ports import SearchIndex
from dualmem_mcp.search.filling import FINDINGS_OF
from dualmem_mcp.search.sources import SearchTruth


def is_behind(truth: SearchTruth, indexes: Mapping[Collection, SearchIndex]) -> bool:
    """Whether anything is to be put into one of the indexes (something new, or all, if it was begun anew) or taken
    out of it.

    Raises the errors of the truth and the indexes.
    """
    return any(_lacks(truth, collection, index) for collection, index in indexes.items())


def _lacks(truth: SearchTruth, collection: Collection, index: SearchIndex) -> bool:
    if truth.forgotten(collection, 1):
        return True
    has = truth.progress(index.generation) or IndexProgress()
    if collection is Collection.CONVERSATIONS:
        return bool(truth.turns(has.turns, 1))
    if truth.findings(has.findings, FINDINGS_OF[collection], 1):
        return True
    return collection is Collection.CONTEXT and truth.changed_entities(has.ops, 1)[1] != has.ops
