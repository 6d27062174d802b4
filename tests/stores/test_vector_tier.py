"""What every VectorTier does, over all implementations."""

from __future__ import annotations

import os
import secrets
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualmem_mcp.crypto.vector_payload import VectorPayload, open_payload, seal_payload
from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.errors import StoreRefusedError, TamperedError
from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.ports.tiers import SparseVector, TierHit, TierPoint, VectorTier
from dualmem_mcp.stores.qdrant import QdrantService
from dualmem_mcp.stores.qdrant_faults import qdrant_faults
from dualmem_mcp.stores.qdrant_tier import QdrantTier
from dualmem_mcp.stores.vector_tier import SqliteVectorTier, rarity
from tests.stores.qdrant_server import QdrantServer

# Read here, once: tests change the environment.
_URL = os.environ.get("DUALMEM_QDRANT_URL", "")
_API_KEY = os.environ.get("DUALMEM_QDRANT_API_KEY")

TENANT, OTHER = "0a" * 16, "0b" * 16
KEY = bytes(range(32))
D = 8


def sqlite_tier(folder: Path) -> Iterator[VectorTier]:
    tier = SqliteVectorTier.open(folder / "tier.db", KEY, name="critical", model_id="m", dimensions=D)
    yield tier
    tier.close()


def qdrant_tier(location: str, **options: Any) -> Iterator[VectorTier]:
    service = QdrantService.open(location, **options)
    yield service.create("critical", dimensions=D, model_id="m")
    service.close()


def memory_tier(_: Path) -> Iterator[VectorTier]:
    return qdrant_tier(":memory:")


def loopback_tier(_: Path) -> Iterator[VectorTier]:
    server = QdrantServer()
    yield from qdrant_tier(server.url)
    server.close()


def edge_tier(folder: Path) -> Iterator[VectorTier]:
    from tests.stores.edge_client import EdgeClient

    client = EdgeClient(folder / "edge", D)

    @contextmanager
    def asking(operation: str) -> Iterator[Any]:
        with qdrant_faults(operation, "edge", local=False):
            yield client

    yield QdrantTier(asking, "edge", "critical", D)
    client.close()


def server_tier(_: Path) -> Iterator[VectorTier]:
    if not _URL:
        pytest.skip("needs a Qdrant server: set DUALMEM_QDRANT_URL")
    service = QdrantService.open(_URL, api_key=_API_KEY, prefix=f"test-{secrets.token_hex(6)}-")
    yield service.create("critical", dimensions=D, model_id="m")
    service.client.delete_collection(service.collection("critical"))
    service.close()


MADE: dict[str, Callable[[Path], Iterator[VectorTier]]] = {
    "sqlite": sqlite_tier,
    "memory": memory_tier,
    "loopback": loopback_tier,
    "edge": edge_tier,
    "server": server_tier,
}


@pytest.fixture(params=list(MADE))
def tier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorTier]:
    yield from MADE[request.param](tmp_path)


def vectors(count: int, seed: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, D))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def words(**weights: float) -> SparseVector:
    """Of names like `w7`."""
    pairs = sorted((int(name[1:]), weight) for name, weight in weights.items())
    return SparseVector(
        np.array([pair[0] for pair in pairs], np.uint32), np.array([pair[1] for pair in pairs], np.float32)
    )


def point(number: int, *, tenant: str = TENANT, **changes: Any) -> TierPoint:
    made = TierPoint(
        id=str(uuid.uuid5(uuid.UUID(tenant), str(number))),
        tenant=tenant,
        vector=vectors(1, seed=number)[0],
        payload=f"sealed {number}".encode(),
    )
    return replace(made, **changes)


def by_id(found: Any) -> dict[str, Any]:
    assert len({one.id for one in found}) == len(found)
    return {one.id: one for one in found}


def assert_same(found: TierPoint, wanted: TierPoint) -> None:
    assert (found.id, found.tenant, found.payload) == (wanted.id, wanted.tenant, wanted.payload)
    assert found.vector == pytest.approx(wanted.vector, abs=1e-6)
    assert (found.words is None) == (wanted.words is None)
    if found.words is not None and wanted.words is not None:
        assert found.words.indices.tolist() == wanted.words.indices.tolist()
        assert found.words.values.tolist() == pytest.approx(wanted.words.values.tolist())


# Writing and reading


def test_what_is_written_is_read(tier):
    points = [point(1), point(2, words=words(w5=2, w4294967295=1)), point(3, payload=bytes(range(256)))]
    tier.upsert(points)
    found = by_id(tier.fetch(TENANT, [one.id for one in points]))
    for one in points:
        assert_same(found[one.id], one)
    assert (tier.name, tier.dimensions, tier.count(TENANT)) == ("critical", D, 3)


def test_an_empty_tier_answers(tier):
    assert tier.count(TENANT) == 0
    assert list(tier.fetch(TENANT, [point(1).id])) == []
    assert list(tier.fetch(TENANT, [])) == []
    assert list(tier.nearest(TENANT, 10, vector=vectors(1)[0], words=words(w1=1))) == []
    assert tier.ids(TENANT).ids == ()
    assert tier.ids(TENANT).next is None
    tier.upsert([])
    tier.remove(TENANT, [])


def test_written_again_it_is_the_same(tier):
    points = [point(number, words=words(w1=1)) for number in range(5)]
    tier.upsert(points)
    before = tier.nearest(TENANT, 5, vector=points[0].vector, words=words(w1=1))
    tier.upsert(points)
    tier.upsert(points[:2])
    assert tier.count(TENANT) == 5
    after = by_id(tier.nearest(TENANT, 5, vector=points[0].vector, words=words(w1=1)))
    assert {hit.id: (hit.similarity, hit.word_score) for hit in before} == {
        one: (pytest.approx(hit.similarity), pytest.approx(hit.word_score)) for one, hit in after.items()
    }


def test_a_later_writing_replaces_all_of_a_point(tier):
    tier.upsert([point(1, words=words(w1=1)), point(2, words=words(w1=1))])
    changed = point(1, vector=vectors(1, seed=77)[0], payload=b"later")
    tier.upsert([changed])
    assert_same(tier.fetch(TENANT, [changed.id])[0], changed)
    assert [hit.id for hit in tier.nearest(TENANT, 5, words=words(w1=1))] == [point(2).id]
    assert tier.nearest(TENANT, 1, vector=changed.vector)[0].payload == b"later"


def test_of_two_in_one_writing_the_later_counts(tier):
    tier.upsert([point(1), point(2), point(1, payload=b"later")])
    assert tier.count(TENANT) == 2
    assert tier.fetch(TENANT, [point(1).id])[0].payload == b"later"


def test_more_than_one_request_holds(tier):
    points = [point(number) for number in range(600)]
    tier.upsert(points)
    assert tier.count(TENANT) == 600
    assert by_id(tier.fetch(TENANT, [one.id for one in points])).keys() == {one.id for one in points}
    tier.remove(TENANT, [one.id for one in points[:590]])
    assert tier.count(TENANT) == 10


def test_the_largest_payloads_fit(tier):
    points = [point(number, payload=os.urandom(1 << 20)) for number in range(3)]
    tier.upsert(points)
    found = by_id(tier.fetch(TENANT, [one.id for one in points]))
    assert [found[one.id].payload for one in points] == [one.payload for one in points]


def test_a_vector_of_another_length_is_refused_before_anything_is_written(tier):
    with pytest.raises(ValueError, match="8 dimensions"):
        tier.upsert([point(1), point(2, vector=np.ones(D + 1, np.float32))])
    assert tier.count(TENANT) == 0


# Searching


def test_the_nearest_are_those_of_the_highest_cosine(tier):
    points = [point(number) for number in range(60)]
    tier.upsert(points)
    query = vectors(1, seed=999)[0]
    cosines = {one.id: float(one.vector @ query) for one in points}
    hits = tier.nearest(TENANT, 10, vector=query)
    assert {hit.id for hit in hits} == set(sorted(cosines, key=cosines.__getitem__)[-10:])
    assert {hit.id: hit.similarity for hit in hits} == {
        hit.id: pytest.approx(cosines[hit.id], abs=1e-5) for hit in hits
    }
    assert {hit.id: hit.payload for hit in hits} == {one.id: one.payload for one in points if one.id in by_id(hits)}
    assert {hit.word_score for hit in hits} == {None}


def test_words_count_by_their_rarity_among_the_tenants_points(tier):
    held = [words(w1=1, w2=2), words(w1=3), words(w1=1, w3=1), words(w9=1), None]
    tier.upsert([point(number, words=weights) for number, weights in enumerate(held)])
    # Of another tenant, where the words are common.
    tier.upsert([point(number, tenant=OTHER, words=words(w2=1, w3=1)) for number in range(20)])
    hits = by_id(tier.nearest(TENANT, 10, words=words(w1=1, w2=1, w3=2, w77=1)))
    common, rare = rarity(4, 3), rarity(4, 1)
    assert {one: hit.word_score for one, hit in hits.items()} == {
        point(0).id: pytest.approx(common + 2 * rare, abs=1e-4),
        point(1).id: pytest.approx(3 * common, abs=1e-4),
        point(2).id: pytest.approx(common + 2 * rare, abs=1e-4),
    }
    assert {hit.similarity for hit in hits.values()} == {None}


def test_by_vector_and_by_words_at_once(tier):
    points = [point(number, words=words(w1=number + 1)) for number in range(20)]
    tier.upsert(points)
    query = points[0].vector
    hits = by_id(tier.nearest(TENANT, 3, vector=query, words=words(w1=1)))
    near = {one for one, hit in hits.items() if hit.similarity is not None}
    worded = {one for one, hit in hits.items() if hit.word_score is not None}
    assert near == set(sorted((one.id for one in points), key=lambda one: -_cosine(points, one, query))[:3])
    assert worded == {one.id for one in points[-3:]}
    assert near | worded == hits.keys()


def _cosine(points: list[TierPoint], wanted: str, query: np.ndarray) -> float:
    return float(next(one.vector for one in points if one.id == wanted) @ query)


@pytest.mark.parametrize(
    "asked", [{}, {"words": words()}, {"vector": vectors(1)[0], "limit": 0}, {"words": words(w1=1), "limit": 0}]
)
def test_who_asks_for_nothing_gets_nothing(tier, asked):
    tier.upsert([point(1, words=words(w1=1))])
    assert list(tier.nearest(TENANT, **({"limit": 5} | asked))) == []


# Tenants


def test_tenants_see_nothing_of_each_other(tier):
    own, foreign = point(1, words=words(w1=1)), point(2, tenant=OTHER, words=words(w1=1))
    tier.upsert([own, foreign])
    assert (tier.count(TENANT), tier.count(OTHER)) == (1, 1)
    assert [hit.id for hit in tier.nearest(TENANT, 9, vector=foreign.vector, words=words(w1=1))] == [own.id]
    assert [one.id for one in tier.fetch(TENANT, [own.id, foreign.id])] == [own.id]
    assert tier.ids(TENANT).ids == (own.id,)
    tier.remove(TENANT, [foreign.id])
    assert tier.count(OTHER) == 1


# Removing and listing


def test_removed_is_gone_and_removing_again_no_error(tier):
    tier.upsert([point(number, words=words(w1=1)) for number in range(3)])
    for _ in range(2):
        tier.remove(TENANT, [point(1).id, point(77).id])
    assert tier.count(TENANT) == 2
    hits = tier.nearest(TENANT, 9, vector=point(1).vector, words=words(w1=1))
    assert {hit.id for hit in hits} == {point(0).id, point(2).id}
    assert [hit.word_score for hit in hits] == [pytest.approx(rarity(2, 2), abs=1e-4)] * 2


@pytest.mark.parametrize("limit", [1, 7, 25, 100])
def test_ids_come_by_pages(tier, limit):
    tier.upsert([point(number) for number in range(25)] + [point(number, tenant=OTHER) for number in range(25)])
    pages, start = [], None
    for _ in range(26):
        page = tier.ids(TENANT, start=start, limit=limit)
        assert len(page.ids) <= limit
        pages.append(page.ids)
        start = page.next
        if start is None:
            break
    assert [one for page in pages for one in page] == sorted(point(number).id for number in range(25))


def test_pages_go_on_when_points_are_removed_meanwhile(tier):
    tier.upsert([point(number) for number in range(10)])
    first = tier.ids(TENANT, limit=4)
    tier.remove(TENANT, [*first.ids, first.next])
    rest = tier.ids(TENANT, start=first.next)
    assert [*first.ids, first.next, *rest.ids] == sorted(point(number).id for number in range(10))


# Together


def test_several_threads_at_once(tier):
    faults: list[Exception] = []

    def work(number: int) -> None:
        try:
            for step in range(5):
                tier.upsert([point(number * 10 + step, words=words(w1=1))])
                tier.nearest(TENANT, 3, vector=point(number).vector, words=words(w1=1))
        except Exception as fault:  # noqa: BLE001 - whatever it is, the test has to hear of it
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert tier.count(TENANT) == 20


def test_protected_vectors_find_what_exact_ones_do(tier):
    """The whole way: protect, seal, search, open, score exactly; another vault's payload does not open."""
    own, foreign = VectorKeys(KEY, "0c" * 16, 1), VectorKeys(KEY, "0d" * 16, 1)
    exact = vectors(40, seed=5)
    items = [SearchItem(key=f"note/{number}", kind="note", text=f"text {number}") for number in range(40)]
    ids = [own.point_id(item.key, 0) for item in items]
    sealed = [
        seal_payload(own, VectorPayload(item, 0, "m", vector)) for item, vector in zip(items, exact, strict=True)
    ]
    sealed[3] = seal_payload(foreign, VectorPayload(items[3], 0, "m", exact[3]))
    protected = own.protect(exact, ids)
    tier.upsert([TierPoint(*row) for row in zip(ids, [own.tenant] * 40, protected, sealed, strict=True)])
    hits = tier.nearest(own.tenant, 40, vector=own.protect_query(exact[7]))
    opened, refused = _opened(own, hits)
    assert refused == Counter({ids[3]: 1})
    ranked = sorted(opened, key=lambda payload: -float(payload.vector @ exact[7]))
    wanted = [number for number in np.argsort(-(exact @ exact[7])) if number != 3]
    assert [payload.item.key for payload in ranked[:10]] == [f"note/{number}" for number in wanted[:10]]


def _opened(keys: VectorKeys, hits: list[TierHit]) -> tuple[list[VectorPayload], Counter[str]]:
    opened, refused = [], Counter[str]()
    for hit in hits:
        try:
            opened.append(open_payload(keys, hit.id, hit.payload))
        except TamperedError:
            refused[hit.id] += 1
    return opened, refused


# Kept, and refused


def test_a_file_is_kept_and_refused_for_another_model(tmp_path):
    for tier in sqlite_tier(tmp_path):
        tier.upsert([point(1, words=words(w1=1))])
    for tier in sqlite_tier(tmp_path):
        assert_same(tier.fetch(TENANT, [point(1).id])[0], point(1, words=words(w1=1)))
    for other in ({"model_id": "n", "dimensions": D}, {"model_id": "m", "dimensions": 9}):
        with pytest.raises(StoreRefusedError, match="holds vectors of m, 8 dimensions") as caught:
            SqliteVectorTier.open(tmp_path / "tier.db", KEY, name="critical", **other)
        assert "filled again" in caught.value.hint
    for tier in sqlite_tier(tmp_path):
        assert tier.count(TENANT) == 1
