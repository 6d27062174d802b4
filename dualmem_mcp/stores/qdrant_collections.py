"""How a tier's collection is set up in Qdrant, so that it costs what the tier may cost, and which model it is
for."""

from __future__ import annotations

from typing import Any, Final

from qdrant_client import models

from dualmem_mcp.errors import StoreRefusedError
from dualmem_mcp.model.tiers import Cluster, TierName

VECTOR: Final = "vector"
WORDS: Final = "words"
TENANT: Final = "tenant"
SEALED: Final = "sealed"

_FORMAT: Final = 1
_METADATA: Final = "dualmem"

OVERSAMPLING: Final = 4.0
"""How many times as many are taken by one bit a dimension as are asked for, to be ranked by the original vectors.
With it, a query of 8 bits a dimension and 200 candidates recall is above .99 (benchmarks/vectors.py, as all
here)."""

FULL_SCAN_KB: Final = 100_000
"""Tenants with fewer kilobytes of vectors, 65,000 of 384 dimensions, are looked through one by one: at 20,000
that takes 2 ms, and a graph misses 3 to 7 in 100 of what is wanted, since the random steps leave all vectors
nearly as far from each other."""

GRAPH_BREADTH: Final = 512
"""How many are looked at in the graph of a larger tenant; of 20,000 it then misses one in 100."""

# No graph over all tenants, only one for each: nobody searches across tenants. Source: Qdrant's documentation,
# "Multitenancy".
LINKS_OF_TENANTS: Final = 16


def collection_settings(tier: TierName, dimensions: int, model_id: str, cluster: Cluster) -> dict[str, Any]:
    """The arguments of `create_collection`.

    critical: vectors, graph and quantised copy in memory. context: int8 in memory, originals on disk. historical:
    one bit a dimension in memory, originals, graph and words on disk. Payloads are on disk everywhere: of a
    search's answer some hundred are read.
    """
    on_disk = tier != "critical"
    cold = tier == "historical"
    return {
        "vectors_config": {
            VECTOR: models.VectorParams(
                size=dimensions,
                distance=models.Distance.COSINE,
                on_disk=on_disk,
                quantization_config=_quantization(tier),
                hnsw_config=models.HnswConfigDiff(
                    m=0, payload_m=LINKS_OF_TENANTS, full_scan_threshold=FULL_SCAN_KB, on_disk=cold
                ),
            )
        },
        "sparse_vectors_config": {
            WORDS: models.SparseVectorParams(
                index=models.SparseIndexParams(on_disk=cold), modifier=models.Modifier.IDF
            )
        },
        "on_disk_payload": True,
        "shard_number": cluster.shards,
        "replication_factor": cluster.replicas,
        "metadata": {_METADATA: {"format": _FORMAT, "model": model_id, "dimensions": dimensions}},
    }


def search_params(tier: TierName, tenant: models.Filter) -> tuple[models.SearchParams, models.SearchParams]:
    """How the nearest vectors and the best words are searched: rarity is that among the tenant's own points."""
    quantization = None
    if tier == "historical":
        quantization = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
    return (
        models.SearchParams(hnsw_ef=GRAPH_BREADTH, quantization=quantization),
        models.SearchParams(idf=models.IdfCorpusParams(corpus=tenant)),
    )


def check_collection(info: models.CollectionInfo, collection: str, dimensions: int, model_id: str) -> None:
    """Raise StoreRefusedError if the collection is none of ours, or for other vectors."""
    vectors, words = info.config.params.vectors, info.config.params.sparse_vectors
    made_for = (info.config.metadata or {}).get(_METADATA)
    if (
        not isinstance(made_for, dict)
        or not isinstance(vectors, dict)
        or not isinstance(words, dict)
        or VECTOR not in vectors
        or WORDS not in words
    ):
        raise _unfit(f"the collection {collection} was not made by dualmem-mcp", collection)
    found, found_model = vectors[VECTOR].size, str(made_for.get("model"))
    if found != dimensions:
        raise _unfit(
            f"the collection {collection} holds vectors of {found} dimensions, and the model's have {dimensions}",
            collection,
        )
    if made_for.get("format") != _FORMAT:
        raise _unfit(f"the collection {collection} was made by another version of dualmem-mcp", collection)
    if found_model != model_id:
        raise _unfit(
            f"the collection {collection} holds vectors of another model ({found_model[:80]!r}) than {model_id}",
            collection,
        )


def _quantization(tier: TierName) -> models.ScalarQuantization | models.BinaryQuantization | None:
    if tier == "context":
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
    if tier == "historical":
        exact_query = models.BinaryQuantizationQueryEncoding.SCALAR8BITS
        return models.BinaryQuantization(
            binary=models.BinaryQuantizationConfig(always_ram=True, query_encoding=exact_query)
        )
    return None


def _unfit(message: str, collection: str) -> StoreRefusedError:
    return StoreRefusedError(
        message,
        operation="open collection",
        subject=collection,
        hint="Use the model that it was made for, or another Qdrant. A collection that is deleted is filled again "
        "from the vault after `dualmem tiers init`.",
    )
