"""Recall and speed of Qdrant's own engine, in this process, with the tiers' settings and with others beside."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from dualmem_mcp.stores.qdrant_collections import (
    FULL_SCAN_KB,
    GRAPH_BREADTH,
    LINKS_OF_TENANTS,
    OVERSAMPLING,
    TENANT,
    VECTOR,
)

_ONE_TENANT = {TENANT: "0a" * 16}
_OF_TENANT = edge.Filter(must=[edge.FieldCondition(TENANT, match=edge.MatchValue(_ONE_TENANT[TENANT]))])
_ANY_BITS = edge.BinaryQuantizationQueryEncoding.Default
_EIGHT_BITS = edge.BinaryQuantizationQueryEncoding.Scalar8Bits
_INT8 = edge.ScalarQuantizationConfig(edge.ScalarType.Int8)


@dataclass(frozen=True)
class Setting:
    """How a collection is set up and asked; `full_scan_kb` 10,000 is Qdrant's default."""

    name: str
    quantization: Any = None
    oversampling: float | None = None
    full_scan_kb: int = FULL_SCAN_KB
    breadth: int | None = GRAPH_BREADTH


SETTINGS = (
    Setting("critical", None),
    Setting("context", _INT8),
    Setting("historical", edge.BinaryQuantizationConfig(query_encoding=_EIGHT_BITS), OVERSAMPLING),
    Setting("one bit, query too, 3 times as many", edge.BinaryQuantizationConfig(query_encoding=_ANY_BITS), 3.0),
    Setting("a graph", full_scan_kb=10_000, breadth=None),
    Setting(f"a graph, {GRAPH_BREADTH} looked at", full_scan_kb=10_000),
)


@dataclass(frozen=True)
class Found:
    """What a setting gave: candidates as places of the points, int64 (queries, count) for each count."""

    name: str
    candidates: dict[int, NDArray[np.int64]]
    placed_seconds: float
    median_ms: float


def searched(
    points: NDArray[np.float32], ids: list[str], queries: NDArray[np.float32], counts: tuple[int, ...]
) -> Iterator[Found]:
    """Place the points of one tenant and ask the queries, by setting."""
    places = {point: number for number, point in enumerate(ids)}
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            shard = _placed(setting, folder, points, ids)
            placed = time.perf_counter() - begun
            how = edge.QuantizationSearchParams(rescore=True, oversampling=setting.oversampling)
            params = edge.SearchParams(
                hnsw_ef=setting.breadth, quantization=how if setting.quantization is not None else None
            )
            times, candidates = [], {}
            for count in counts:
                rows = []
                for query in queries:
                    request = edge.QueryRequest(
                        limit=count,
                        query=edge.Query.Nearest(query.tolist(), using=VECTOR),
                        filter=_OF_TENANT,
                        params=params,
                    )
                    begun = time.perf_counter()
                    hits = shard.query(request)
                    times.append((time.perf_counter() - begun) * 1000)
                    rows.append([places[str(hit.id)] for hit in hits])
                candidates[count] = np.array(rows)
            shard.close()
        yield Found(setting.name, candidates, placed, float(np.median(times)))


def _placed(setting: Setting, folder: str, points: NDArray[np.float32], ids: list[str]) -> Any:
    config = edge.EdgeConfig(
        {VECTOR: edge.EdgeVectorParams(points.shape[1], edge.Distance.Cosine)},
        quantization_config=setting.quantization,
        hnsw_config=edge.HnswIndexConfig(0, 100, setting.full_scan_kb, payload_m=LINKS_OF_TENANTS),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1_000),
    )
    shard = edge.EdgeShard.create(folder, config)
    shard.update(edge.UpdateOperation.create_field_index(TENANT, edge.KeywordIndexParams(is_tenant=True)))
    for start in range(0, len(points), 256):
        part = zip(ids[start : start + 256], points[start : start + 256], strict=True)
        made = [edge.Point(point, {VECTOR: vector.tolist()}, _ONE_TENANT) for point, vector in part]
        shard.update(edge.UpdateOperation.upsert_points(made))
    shard.optimize()
    return shard
