"""Qdrant: how collections are set up, who is refused, and what comes of answers that are none."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dualmem_mcp.errors import DualmemError, StoreRefusedError, StoreUnreachableError, UsageError
from dualmem_mcp.model.tiers import Cluster, TierName
from dualmem_mcp.ports.tiers import TierPage
from dualmem_mcp.stores.qdrant import KEPT_SECONDS, QdrantService
from dualmem_mcp.stores.qdrant_tier import QdrantTier
from tests.stores.qdrant_server import QdrantExchange, QdrantServer
from tests.stores.test_vector_tier import OTHER, TENANT, D, point, words

SECRET = "s3cr3t-of-the-server"


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    server = QdrantServer()
    yield server
    server.close()


@pytest.fixture
def service(server: QdrantServer) -> Iterator[QdrantService]:
    service = QdrantService.open(server.url, api_key="the-key", timeout_seconds=1)
    yield service
    service.close()


@pytest.fixture
def tier(service: QdrantService) -> QdrantTier:
    return service.create("critical", dimensions=D, model_id="m")


# Collections


@pytest.mark.parametrize(
    ("name", "on_disk", "quantization"),
    [
        ("critical", False, None),
        ("context", True, {"scalar": {"type": "int8", "always_ram": True}}),
        ("historical", True, {"binary": {"always_ram": True, "query_encoding": "scalar8bits"}}),
    ],
)
def test_each_tier_is_set_up_for_its_price(server, service, name, on_disk, quantization):
    service.create(name, dimensions=384, model_id="m", cluster=Cluster(shards=3, replicas=2))
    settings = server.settings[f"dualmem-{name}"]
    vector = settings["vectors"]["vector"]
    assert (vector["size"], vector["distance"], vector["on_disk"]) == (384, "Cosine", on_disk)
    assert vector.get("quantization_config") == quantization
    graph = {"m": 0, "payload_m": 16, "full_scan_threshold": 100_000, "on_disk": name == "historical"}
    assert vector["hnsw_config"] == graph
    assert settings["sparse_vectors"]["words"]["modifier"] == "idf"
    assert (settings["shard_number"], settings["replication_factor"]) == (3, 2)
    assert server.indexes == [
        (f"dualmem-{name}", {"field_name": "tenant", "field_schema": {"type": "keyword", "is_tenant": True}})
    ]


def test_made_again_a_collection_stays_as_it_is(server, service, tier):
    tier.upsert([point(1)])
    assert service.create("critical", dimensions=D, model_id="m").count(TENANT) == 1


def test_another_device_was_faster(server, service):
    service.create("critical", dimensions=D, model_id="m")

    def not_there(exchange: QdrantExchange) -> None:
        server.behave = taken
        exchange.answer(200, {"result": {"exists": False}, "status": "ok", "time": 0})

    def taken(exchange: QdrantExchange) -> None:
        server.behave = None
        exchange.answer(409, {"status": {"error": "already exists"}, "time": 0})

    server.behave = not_there
    assert service.create("critical", dimensions=D, model_id="m").count(TENANT) == 0


@pytest.mark.parametrize("location", [":memory:", "folder", "url"])
def test_a_tier_that_was_never_set_up(location, server, tmp_path):
    place = {"folder": str(tmp_path / "q"), "url": server.url}.get(location, location)
    service = QdrantService.open(place)
    with pytest.raises(StoreRefusedError, match="no collection dualmem-context") as caught:
        service.tier("context", dimensions=D, model_id="m")
    assert "dualmem tiers init" in caught.value.hint
    service.close()


@pytest.mark.parametrize("location", [":memory:", "url"])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"dimensions": 9, "model_id": "m"}, "vectors of 8 dimensions, and the model's have 9"),
        ({"dimensions": D, "model_id": "n"}, "vectors of another model \\('m'\\) than n"),
    ],
)
def test_a_collection_of_another_model_is_refused(location, server, other, message):
    service = QdrantService.open(server.url if location == "url" else location)
    service.create("critical", dimensions=D, model_id="m")
    for ask in (service.create, service.tier):
        with pytest.raises(StoreRefusedError, match=message) as caught:
            ask("critical", **other)
        assert caught.value.hint
    service.close()


def test_somebody_elses_collection_is_refused(service, server):
    from qdrant_client import models

    server.local.create_collection("dualmem-critical", models.VectorParams(size=D, distance=models.Distance.DOT))
    with pytest.raises(StoreRefusedError, match="was not made by dualmem-mcp"):
        service.tier("critical", dimensions=D, model_id="m")


# The client forgets to close the file that tells it of the other program.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_folder_is_kept_private_and_used_by_one(tmp_path):
    folder = tmp_path / "deep" / "qdrant"
    service = QdrantService.open(str(folder))
    kept = [point(1, words=words(w1=1)), point(2)]
    service.create("critical", dimensions=D, model_id="m").upsert(kept)
    assert folder.stat().st_mode & 0o077 == 0
    with pytest.raises(StoreUnreachableError, match="another program uses it"):
        QdrantService.open(str(folder))
    service.close()
    again = QdrantService.open(str(folder))
    tier = again.tier("critical", dimensions=D, model_id="m")
    assert tier.count(TENANT) == 2
    assert [hit.id for hit in tier.nearest(TENANT, 1, vector=kept[1].vector)] == [kept[1].id]
    assert [hit.id for hit in tier.nearest(TENANT, 5, words=words(w1=1))] == [kept[0].id]
    again.close()
    with pytest.raises(StoreUnreachableError, match="closed"):
        again.tier("critical", dimensions=D, model_id="m")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnreachableError, match="could not make"):
        QdrantService.open(str(tmp_path / "file" / "qdrant"))


# Locations


@pytest.mark.parametrize(
    ("location", "api_key", "message"),
    [
        ("https://user:pass@host:6333", None, "not of the form"),
        ("https://", None, "not of the form"),
        ("htps://host", None, "not of the form"),
        ("https://[host", None, "not of the form"),
        ("https://host:99999", None, "not of the form"),
        ("https://host/?key=pass@", None, "not of the form"),
        ("http://qdrant.example:6333", "the-key", "without encryption"),
    ],
)
def test_locations_that_are_refused(location, api_key, message):
    with pytest.raises(UsageError, match=message) as caught:
        QdrantService.open(location, api_key=api_key)
    assert "pass@" not in f"{caught.value} {caught.value.hint} {caught.value.subject}"
    assert "the-key" not in f"{caught.value} {caught.value.hint}"


def test_the_key_goes_with_each_request_and_nothing_is_logged(server, tier, caplog):
    caplog.set_level(logging.DEBUG)
    tier.upsert([point(1)])
    assert {headers["api-key"] for _, _, headers, _ in server.seen} == {"the-key"}
    assert [record for record in caplog.records if record.name.startswith(("httpx", "httpcore", "qdrant"))] == []


def test_nothing_but_what_the_format_says_is_sent(server, tier):
    tier.upsert([point(1, words=words(w7=2))])
    (sent,) = [json.loads(body) for method, path, _, body in server.seen if method == "PUT" and "/points" in path]
    (one,) = sent["points"]
    assert one["payload"] == {"tenant": TENANT, "sealed": base64.b64encode(b"sealed 1").decode()}
    assert one["vector"]["words"] == {"indices": [7], "values": [2.0]}
    assert one.keys() == {"id", "vector", "payload"}


# Answers that are none


Call = Callable[[QdrantTier], Any]
CALLS: dict[str, Call] = {
    "upsert": lambda tier: tier.upsert([point(1)]),
    "nearest": lambda tier: tier.nearest(TENANT, 5, vector=point(1).vector, words=words(w1=1)),
    "fetch": lambda tier: tier.fetch(TENANT, [point(1).id]),
    "remove": lambda tier: tier.remove(TENANT, [point(1).id]),
    "ids": lambda tier: tier.ids(TENANT),
    "count": lambda tier: tier.count(TENANT),
}


def replying(status: int, body: bytes = b"", **headers: str) -> Callable[[QdrantExchange], None]:
    return lambda exchange: exchange.reply(status, body, **headers)


def hang_up(exchange: QdrantExchange) -> None:
    exchange.close_connection = True


def cut(exchange: QdrantExchange) -> None:
    exchange.send_response_only(200)
    exchange.send_header("Content-Length", "1000")
    exchange.end_headers()
    exchange.wfile.write(b'{"result": ')
    exchange.close_connection = True


FAULTS: dict[str, tuple[Callable[[QdrantExchange], None], type[DualmemError]]] = {
    "wrong key": (replying(401, SECRET.encode()), StoreRefusedError),
    "no rights": (replying(403, SECRET.encode()), StoreRefusedError),
    "no collection": (replying(404, SECRET.encode()), StoreRefusedError),
    "refused": (replying(400, SECRET.encode()), StoreRefusedError),
    "moved": (replying(302, Location="https://elsewhere.example/"), StoreRefusedError),
    "too many requests": (replying(429, b'{"status":{"error":"slow"}}', Retry_After="7"), StoreUnreachableError),
    "too many, and when is garbage": (replying(429, b"{}", Retry_After="soon"), StoreUnreachableError),
    "full": (replying(507, SECRET.encode()), StoreUnreachableError),
    "broken": (replying(500, SECRET.encode()), StoreUnreachableError),
    "a page": (replying(200, b"<html>" + SECRET.encode()), StoreUnreachableError),
    "nothing": (replying(200), StoreUnreachableError),
    "another shape": (replying(200, b'{"result": "s3cr3t-of-the-server"}'), StoreUnreachableError),
    "a list": (replying(200, b"[1, 2]"), StoreUnreachableError),
    "cut": (cut, StoreUnreachableError),
    "hung up": (hang_up, StoreUnreachableError),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_our_errors_and_quote_nothing(server, tier, fault):
    for call in CALLS.values():
        server.behave, error = FAULTS[fault]
        with pytest.raises(DualmemError) as caught:
            call(tier)
        assert type(caught.value) is error
        assert caught.value.hint
        assert caught.value.subject == "dualmem-critical"
        assert SECRET not in f"{caught.value} {caught.value.hint}"
        server.behave = None
        call(tier)


@pytest.mark.parametrize("call", ["nearest", "count"])
def test_empty_results_are_no_answers(server, tier, call):
    server.behave = replying(200, b'{"result": null, "status": "ok", "time": 0}')
    with pytest.raises(StoreUnreachableError):
        CALLS[call](tier)


def test_a_late_answer_is_not_waited_for(server, tier):
    server.behave = lambda _: time.sleep(1.5)
    with pytest.raises(StoreUnreachableError, match="is late"):
        tier.count(TENANT)


def test_an_answer_that_drips_in_is_not_waited_for(server, tier):
    def drip(exchange: QdrantExchange) -> None:
        exchange.send_response_only(200)
        exchange.send_header("Content-Length", "1000")
        exchange.end_headers()
        exchange.close_connection = True
        with contextlib.suppress(OSError):  # the client hangs up
            for _ in range(20):
                exchange.wfile.write(b" ")
                time.sleep(0.2)

    server.behave = drip
    with pytest.raises(StoreUnreachableError, match="is late"):
        tier.count(TENANT)


def test_answers_that_are_too_long_or_packed_are_not_read(server, tier, monkeypatch):
    monkeypatch.setattr("dualmem_mcp.stores.bounded_answers.MOST_ANSWER_BYTES", 10_000)
    tier.upsert([point(number) for number in range(20)])
    assert tier.count(TENANT) == 20
    server.forge = lambda _, result: result | {"more": "x" * 20_000}
    with pytest.raises(StoreUnreachableError, match="not Qdrant"):
        tier.count(TENANT)
    packed = gzip.compress(b'{"result": {"count": 1}, "status": "ok", "time": 0}')
    server.behave = replying(200, packed, Content_Encoding="gzip")
    with pytest.raises(StoreUnreachableError, match="not Qdrant"):
        tier.count(TENANT)
    assert {headers["Accept-Encoding"] for _, _, headers, _ in server.seen} == {"identity"}


def test_a_server_that_is_away():
    service = QdrantService.open("http://127.0.0.1:9")
    with pytest.raises(StoreUnreachableError, match="cannot be reached"):
        service.tier("critical", dimensions=D, model_id="m")
    service.close()


# Answers that hold what is none of ours

SEALED = base64.b64encode(b"sealed 1").decode()
OWN = point(1).id


def hit(**changes: Any) -> dict[str, Any]:
    return {"id": OWN, "version": 1, "score": 0.5, "payload": {"tenant": TENANT, "sealed": SEALED}} | changes


GARBAGE = {
    "of another tenant": hit(payload={"tenant": OTHER, "sealed": SEALED}),
    "of no tenant": hit(payload={"sealed": SEALED}),
    "without a payload": hit(payload=None),
    "with nothing sealed": hit(payload={"tenant": TENANT}),
    "sealed as a number": hit(payload={"tenant": TENANT, "sealed": 7}),
    "sealed in no base64": hit(payload={"tenant": TENANT, "sealed": "??"}),
    "sealed in letters of others": hit(payload={"tenant": TENANT, "sealed": "é" * 8}),
    "sealed beyond measure": hit(payload={"tenant": TENANT, "sealed": "A" * 1_600_000}),
    "with a number as id": hit(id=7),
    "with an id that is none": hit(id="../../x"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_none_of_ours_is_left_out_of_hits(server, tier, name):
    server.forge = lambda _, __: [{"points": [GARBAGE[name], hit()]}]
    (found,) = tier.nearest(TENANT, 5, vector=point(1).vector)
    assert (found.id, found.payload, found.similarity, found.word_score) == (OWN, b"sealed 1", 0.5, None)


def test_more_hits_than_were_asked_for_are_cut_and_doubles_left_out(server, tier):
    server.forge = lambda _, __: [{"points": [hit(), hit(score=0.4), *(hit(id=point(n).id) for n in range(2, 50))]}]
    found = tier.nearest(TENANT, 5, vector=point(1).vector)
    assert (found[0].id, found[0].similarity) == (OWN, 0.5)
    assert len({one.id for one in found}) == len(found) == 4


@pytest.mark.parametrize("answers", [0, 2])
def test_another_number_of_answers_than_questions(server, tier, answers):
    server.forge = lambda _, __: [{"points": []}] * answers
    with pytest.raises(StoreUnreachableError, match="not Qdrant"):
        tier.nearest(TENANT, 5, vector=point(1).vector)


def record(**changes: Any) -> dict[str, Any]:
    vector = {"vector": [0.1] * D, "words": {"indices": [9, 2], "values": [1.0, 2.0]}}
    return {"id": OWN, "payload": {"tenant": TENANT, "sealed": SEALED}, "vector": vector} | changes


@pytest.mark.parametrize(
    "forged",
    [
        record(payload={"tenant": OTHER, "sealed": SEALED}),
        record(id=point(2).id),
        record(vector=None),
        record(vector=[0.1] * D),
        record(vector={"vector": [0.1] * 7}),
        record(vector={"vector": [[0.1] * D]}),
        record(vector={"vector": ["x"] * D}),
        record(vector={"vector": [1e300] * D}),
        record(vector={}),
    ],
)
def test_what_is_none_of_ours_is_left_out_of_points(server, tier, forged):
    server.forge = lambda _, __: [forged, record(), record()]
    (found,) = tier.fetch(TENANT, [OWN])
    assert found.vector.tolist() == pytest.approx([0.1] * D)
    assert found.words is not None
    assert (found.words.indices.tolist(), found.words.values.tolist()) == ([2, 9], [2.0, 1.0])


def test_pages_do_not_go_round(server, tier):
    low, high = sorted([point(1).id, point(2).id])
    page = {"points": [record(id=high), record(id=low), record(id=9)], "next_page_offset": low}
    server.forge = lambda _, __: page
    assert tier.ids(TENANT) == TierPage((low, high), None)


def test_a_count_below_zero(server, tier):
    server.forge = lambda _, __: {"count": -5}
    assert tier.count(TENANT) == 0


def test_tier_names_are_those_of_the_model(service):
    for name in ("critical", "context", "historical"):
        assert service.create(_tier(name), dimensions=D, model_id="m").name == name


@pytest.mark.parametrize(
    ("url", "kept"), [("https://qdrant.example:6333", KEPT_SECONDS), ("http://localhost", None)]
)
def test_connections_over_a_network_are_kept_between_searches(monkeypatch, url, kept):
    given = {}
    monkeypatch.setattr("dualmem_mcp.stores.qdrant.QdrantClient", lambda **options: given.update(options))
    QdrantService.open(url)
    assert (given["limits"] and given["limits"].keepalive_expiry) == kept


def _tier(name: Any) -> TierName:
    return name
