"""A VectorTier in one collection of Qdrant.

Whoever runs the service may answer anything: each point of an answer is checked before it is given on, and left
out if it is none of ours. The client does not check what it is answered.
"""

from __future__ import annotations

import base64
import binascii
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qdrant_client import QdrantClient, models

from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports.tiers import SparseVector, TierHit, TierPage, TierPoint, check_dimensions
from dualmem_mcp.stores.qdrant_collections import SEALED, TENANT, VECTOR, WORDS, search_params

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_SEALED_CHARACTERS: Final = 1_500_000
"""Of a payload in base64; longer ones are not ours. Source: docs/format.md, at most 1 MiB sealed."""

_POINTS_AT_ONCE: Final = 256
_FETCHED_AT_ONCE: Final = 64
"""Of the largest payloads 90 MB."""
_BYTES_AT_ONCE: Final = 8 << 20
"""Of payloads in one request. Source: Qdrant's configuration, max_request_size_mb 32; base64 and vectors come on
top."""

_Asking = Callable[[str], AbstractContextManager[QdrantClient]]


class QdrantTier:
    """As VectorTier says. Made by `QdrantService`, which has checked whose vectors the collection holds."""

    def __init__(self, asking: _Asking, collection: str, name: TierName, dimensions: int) -> None:
        """`asking` gives the client for an operation, and turns its errors into ours."""
        self._asking = asking
        self._collection = collection
        self._name: TierName = name
        self._dimensions = dimensions

    @property
    def name(self) -> TierName:
        """As VectorTier says."""
        return self._name

    @property
    def dimensions(self) -> int:
        """As VectorTier says."""
        return self._dimensions

    def upsert(self, points: Sequence[TierPoint]) -> None:
        """As VectorTier says; 256 points or 8 MiB of payloads in a request."""
        check_dimensions(points, self._dimensions)
        # Of two points of one id in a request the service may take either: the later counts.
        for part in _batches({point.id: point for point in points}.values()):
            structs = [_struct(point) for point in part]
            with self._asking("write points") as client:
                client.upsert(self._collection, structs, wait=True)

    def nearest(
        self,
        tenant: str,
        limit: int,
        *,
        vector: NDArray[np.float32] | None = None,
        words: SparseVector | None = None,
    ) -> Sequence[TierHit]:
        """As VectorTier says, in one request. With quantised vectors and a graph the nearest are so nearly
        always."""
        ours = _of_tenant(tenant)
        by_vector, by_words = search_params(self._name, ours)
        common: dict[str, Any] = {"filter": ours, "limit": limit, "with_payload": [TENANT, SEALED]}
        requests: dict[str, models.QueryRequest] = {}
        if vector is not None and limit > 0:
            query = vector.tolist()
            requests[VECTOR] = models.QueryRequest(query=query, using=VECTOR, params=by_vector, **common)
        if words is not None and len(words.indices) and limit > 0:
            query = _sparse(words)
            requests[WORDS] = models.QueryRequest(query=query, using=WORDS, params=by_words, **common)
        if not requests:
            return []
        with self._asking("search points") as client:
            answers = client.query_batch_points(self._collection, [*requests.values()])
            found = {
                view: _scored(answer.points[:limit], tenant) for view, answer in zip(requests, answers, strict=True)
            }
        similarities, scores = found.get(VECTOR, {}), found.get(WORDS, {})
        return [
            TierHit(point, sealed, similarities.get(point, (b"", None))[1], scores.get(point, (b"", None))[1])
            for point, (sealed, _) in (scores | similarities).items()
        ]

    def fetch(self, tenant: str, ids: Sequence[str]) -> Sequence[TierPoint]:
        """As VectorTier says."""
        points: list[TierPoint] = []
        for start in range(0, len(ids), _FETCHED_AT_ONCE):
            wanted = [*ids[start : start + _FETCHED_AT_ONCE]]
            with self._asking("read points") as client:
                found = client.retrieve(self._collection, wanted, with_payload=True, with_vectors=True)
                points += self._points(found, tenant, {*wanted})
        return points

    def remove(self, tenant: str, ids: Sequence[str]) -> None:
        """As VectorTier says."""
        for start in range(0, len(ids), _POINTS_AT_ONCE):
            chosen = models.HasIdCondition(has_id=[*ids[start : start + _POINTS_AT_ONCE]])
            selector = models.FilterSelector(filter=models.Filter(must=[_is_of(tenant), chosen]))
            with self._asking("remove points") as client:
                client.delete(self._collection, selector, wait=True)

    def ids(self, tenant: str, *, start: str | None = None, limit: int = 1_000) -> TierPage:
        """As VectorTier says."""
        with self._asking("list points") as client:
            records, following = client.scroll(
                self._collection,
                scroll_filter=_of_tenant(tenant),
                limit=limit,
                offset=start,
                with_payload=[TENANT],
            )
            ours = sorted({point for record in records if (point := _own_id(record.id, record.payload, tenant))})
        # A next page that does not lie behind this one would have a reader go round for ever.
        following = _uuid(following)
        behind = (ours[-1] if ours else "", start or "")
        return TierPage(tuple(ours), following if following is not None and following > max(behind) else None)

    def count(self, tenant: str) -> int:
        """As VectorTier says."""
        with self._asking("count points") as client:
            return max(0, int(client.count(self._collection, count_filter=_of_tenant(tenant), exact=True).count))

    def _points(self, records: Iterable[models.Record], tenant: str, wanted: set[str]) -> Iterator[TierPoint]:
        for record in records:
            point, sealed = _own_id(record.id, record.payload, tenant), _sealed(record.payload)
            vector, words = self._vectors(record.vector)
            if point in wanted and sealed is not None and vector is not None:
                wanted.discard(point)
                yield TierPoint(point, tenant, vector, sealed, words)

    def _vectors(self, answered: object) -> tuple[NDArray[np.float32] | None, SparseVector | None]:
        """A point's vectors out of an answer, None for what is none."""
        if not isinstance(answered, Mapping):
            return None, None
        vector = _numbers(answered.get(VECTOR), np.float32)
        if vector is None or vector.shape != (self._dimensions,) or not np.isfinite(vector).all():
            return None, None
        words = answered.get(WORDS)
        indices = _numbers(getattr(words, "indices", None), np.uint32)
        values = _numbers(getattr(words, "values", None), np.float32)
        if indices is None or values is None or indices.shape != values.shape or indices.ndim != 1:
            return vector, None
        order = np.argsort(indices)
        return vector, SparseVector(indices[order], values[order])


def _is_of(tenant: str) -> models.FieldCondition:
    return models.FieldCondition(key=TENANT, match=models.MatchValue(value=tenant))


def _of_tenant(tenant: str) -> models.Filter:
    return models.Filter(must=[_is_of(tenant)])


def _sparse(words: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=words.indices.tolist(), values=words.values.tolist())


def _struct(point: TierPoint) -> models.PointStruct:
    vectors: dict[str, Any] = {VECTOR: point.vector.tolist()}
    if point.words is not None:
        vectors[WORDS] = _sparse(point.words)
    payload = {TENANT: point.tenant, SEALED: base64.b64encode(point.payload).decode("ascii")}
    return models.PointStruct(id=point.id, vector=vectors, payload=payload)


def _batches(points: Iterable[TierPoint]) -> Iterator[list[TierPoint]]:
    batch: list[TierPoint] = []
    size_bytes = 0
    for point in points:
        if batch and (len(batch) == _POINTS_AT_ONCE or size_bytes + len(point.payload) > _BYTES_AT_ONCE):
            yield batch
            batch, size_bytes = [], 0
        batch.append(point)
        size_bytes += len(point.payload)
    if batch:
        yield batch


def _scored(points: Iterable[models.ScoredPoint], tenant: str) -> dict[str, tuple[bytes, float]]:
    """Payloads and scores by ids, best first, of what in an answer is a point of the tenant."""
    found: dict[str, tuple[bytes, float]] = {}
    for point in points:
        own, sealed = _own_id(point.id, point.payload, tenant), _sealed(point.payload)
        if own is not None and sealed is not None and math.isfinite(point.score):
            found.setdefault(own, (sealed, float(point.score)))
    return found


def _own_id(answered: object, payload: object, tenant: str) -> str | None:
    if isinstance(payload, Mapping) and payload.get(TENANT) == tenant:
        return _uuid(answered)
    return None


def _uuid(answered: object) -> str | None:
    try:
        return str(uuid.UUID(answered)) if isinstance(answered, str) else None
    except ValueError:
        return None


def _sealed(payload: object) -> bytes | None:
    text = payload.get(SEALED) if isinstance(payload, Mapping) else None
    if not isinstance(text, str) or len(text) > MOST_SEALED_CHARACTERS:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _numbers(answered: object, kind: type[np.number[Any]]) -> NDArray[Any] | None:
    if not isinstance(answered, list):
        return None
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            return np.array(answered, kind)
    except (ValueError, TypeError, OverflowError):
        return None
