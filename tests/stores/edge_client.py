"""What `stores/qdrant_tier.py` uses of Qdrant's client, over Qdrant's own engine in this process (qdrant-edge-py).

The client's local mode is a second implementation, in Python; this one is the server's.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from qdrant_client import models

from dualmem_mcp.stores.qdrant_collections import VECTOR, WORDS

edge = pytest.importorskip("qdrant_edge", reason="needs qdrant-edge-py, which has no wheel for this machine")


class EdgeClient:
    """One collection in a folder."""

    def __init__(self, folder: Path, dimensions: int) -> None:
        folder.mkdir()
        config = edge.EdgeConfig(
            vectors={VECTOR: edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine)},
            sparse_vectors={WORDS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        )
        self.shard = edge.EdgeShard.create(str(folder), config)

    def upsert(self, _: str, points: list[models.PointStruct], *, wait: bool) -> None:
        assert wait
        made = []
        for point in points:
            vectors = {
                name: edge.SparseVector(vector.indices, vector.values) if name == WORDS else vector
                for name, vector in point.vector.items()
            }
            made.append(edge.Point(point.id, vectors, point.payload))
        self.shard.update(edge.UpdateOperation.upsert_points(made))

    def query_batch_points(self, _: str, requests: list[models.QueryRequest]) -> list[Any]:
        made = []
        for request in requests:
            query, params = request.query, None
            if request.using == WORDS:
                query = edge.SparseVector(query.indices, query.values)
                params = edge.SearchParams(idf=edge.IdfParams(corpus=_filter(request.params.idf.corpus)))
            made.append(
                edge.QueryRequest(
                    limit=request.limit,
                    query=edge.Query.Nearest(query, using=request.using),
                    filter=_filter(request.filter),
                    with_payload=request.with_payload,
                    params=params,
                )
            )
        answers = self.shard.query_batch(edge.QueryBatchRequest(made))
        return [SimpleNamespace(points=[_plain(point, "score") for point in answer]) for answer in answers]

    def retrieve(self, _: str, ids: list[str], *, with_payload: bool, with_vectors: bool) -> list[Any]:
        return [_plain(point, "vector") for point in self.shard.retrieve(ids, with_payload, with_vectors)]

    def delete(self, _: str, selector: models.FilterSelector, *, wait: bool) -> None:
        assert wait
        self.shard.update(edge.UpdateOperation.delete_points_by_filter(_filter(selector.filter)))

    def scroll(
        self, _: str, *, scroll_filter: models.Filter, limit: int, offset: str | None, with_payload: list[str]
    ) -> tuple[list[Any], str | None]:
        request = edge.ScrollRequest(
            offset=offset, limit=limit, filter=_filter(scroll_filter), with_payload=with_payload
        )
        records, following = self.shard.scroll(request)
        return [_plain(record) for record in records], None if following is None else str(following)

    def count(self, _: str, *, count_filter: models.Filter, exact: bool) -> Any:
        return SimpleNamespace(count=self.shard.count(edge.CountRequest(exact=exact, filter=_filter(count_filter))))

    def close(self) -> None:
        self.shard.close()


def _filter(wanted: models.Filter) -> Any:
    conditions = []
    for condition in wanted.must:
        if isinstance(condition, models.HasIdCondition):
            conditions.append(edge.HasIdCondition(set(condition.has_id)))
        else:
            conditions.append(edge.FieldCondition(condition.key, match=edge.MatchValue(condition.match.value)))
    return edge.Filter(must=conditions)


def _plain(point: Any, *further: str) -> Any:
    return SimpleNamespace(
        id=str(point.id), payload=point.payload, **{name: getattr(point, name) for name in further}
    )
