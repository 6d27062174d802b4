"""The connection to the search service, over Qdrant's interface on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dualmem_mcp.edge.tier_work import open_service
from dualmem_mcp.errors import NotFoundError, StoreRefusedError, StoreUnreachableError
from dualmem_mcp.model.tiers import Cluster
from dualmem_mcp.stores.qdrant import QdrantService
from dualmem_mcp.tiers.service import SERVICE_TIERS, Service, ServiceSettings, TierService
from tests.stores.qdrant_server import QdrantExchange, QdrantServer
from tests.tiers.home import TierDevice

MODEL = ("m", 8)


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    server = QdrantServer()
    yield server
    server.close()


def over(server: QdrantServer, **changes: Any) -> TierService:
    values: dict[str, Any] = {"model": lambda: MODEL, "channel": lambda: None, "connect": open_service}
    return TierService(ServiceSettings(server.url), **{**values, **changes})


def test_nothing_is_asked_before_it_is_needed_and_collections_are_checked_once(server: QdrantServer) -> None:
    service = over(server)
    assert service.configured
    assert server.seen == []
    made = service.create(Cluster(shards=2, replicas=3))
    assert [(one["tier"], one["name"], one["made"]) for one in made] == [
        (name, f"dualmem-{name}", True) for name in SERVICE_TIERS
    ]
    assert server.settings["dualmem-context"]["shard_number"] == 2
    assert [one["made"] for one in service.create(Cluster())] == [False] * 3
    assert [*service.tiers()] == [*SERVICE_TIERS]
    asked = len(server.seen)
    assert service.tiers() == service.tiers()
    assert len(server.seen) == asked
    service.close()
    assert [*service.tiers()] == [*SERVICE_TIERS]
    service.close()


def test_another_model_is_another_check(server: QdrantServer) -> None:
    model = [MODEL]
    service = over(server, model=lambda: model[0])
    service.create(Cluster())
    model[0] = ("m", 9)
    with pytest.raises(StoreRefusedError, match="8 dimensions"):
        service.tier("critical")
    model[0] = ("n", 8)
    with pytest.raises(StoreRefusedError, match="another model"):
        service.create(Cluster())
    model[0] = MODEL
    assert service.tier("critical").dimensions == 8
    service.close()


def test_one_client_is_kept_whoever_asks(server: QdrantServer) -> None:
    clients: list[Service] = []

    def connect(settings: ServiceSettings) -> Service:
        clients.append(QdrantService.open(settings.url or ""))
        return clients[-1]

    service = over(server, connect=connect)
    service.create(Cluster())
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(service.tier("context"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients) == 1
    assert len(found) == 8
    assert len({*map(id, found)}) == 1
    service.close()


def test_without_vault_or_model_it_is_told_what_to_do(server: QdrantServer) -> None:
    service = over(server, model=lambda: None)
    with pytest.raises(NotFoundError, match="model") as caught:
        service.tiers()
    assert "dualmem model pull" in caught.value.hint
    with pytest.raises(NotFoundError, match="no vault") as caught:
        service.keys(1)
    assert "dualmem init" in caught.value.hint
    assert server.seen == []


def test_the_api_key_is_in_no_representation() -> None:
    assert "s3cret" not in repr(ServiceSettings("https://host", "s3cret"))


# A whole device over the interface, whatever it answers


@pytest.fixture
def far(desk: TierDevice, server: QdrantServer) -> Iterator[TierDevice]:
    """The device with Qdrant on the other end of a connection, and a turn that is placed there."""
    desk.url = server.url
    desk.connect = lambda settings: QdrantService.open(settings.url or "", timeout_seconds=1)
    desk.tiers.close()
    desk.tiers = desk.make_tiers()
    desk.tiers.init(Cluster())
    desk.tiers.enable(words=True)
    desk.turn(1, " ".join(f"word{number}" for number in range(200)))
    assert desk.apply()["done"] == {"place": 1}
    yield desk
    desk.tiers.close()


def fails(status: int) -> Any:
    return lambda exchange: exchange.answer(status, {"status": {"error": "no"}, "time": 0})


def garbage(exchange: QdrantExchange) -> None:
    exchange.reply(200, b"<html>not Qdrant</html>")


def empty(exchange: QdrantExchange) -> None:
    exchange.answer(200, {"result": None, "status": "ok", "time": 0})


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        (fails(500), "away"),
        (fails(507), "away"),
        (fails(429), "away"),
        (fails(401), "refused"),
        (fails(404), "refused"),
        (fails(413), "refused"),
        (garbage, "away"),
        (empty, "away"),
    ],
)
def test_whatever_it_answers_nothing_is_lost(
    far: TierDevice, server: QdrantServer, answer: Any, ending: str
) -> None:
    new = far.turn(2, chat="new")
    far.clock.advance(20 * 86_400)
    newer = far.turn(3, chat="newer")
    server.behave = answer
    done = far.apply()
    assert done[ending] is True
    assert done["problem"]
    assert "word1" not in done["problem"]
    server.behave = None
    assert far.apply()["problem"] == ""
    assert {key: tiers for key, tiers in far.where().items() if key in {new.key, newer.key}} == {
        new.key: ["historical"],
        newer.key: ["critical"],
    }
    assert len(far.where()) == 3


def test_answers_that_leave_points_out_end_in_nothing_removed(far: TierDevice, server: QdrantServer) -> None:
    far.clock.advance(20 * 86_400)
    server.forge = lambda path, result: [] if path.endswith("/points") and isinstance(result, list) else result
    done = far.apply()
    assert (done["done"], done["stale"]) == ({}, 1)
    server.forge = lambda path, result: result
    assert far.apply()["done"] == {"demote": 1}
    assert far.tiers.check(repair=False)["missing"] == 0


def test_a_server_that_has_gone_is_away(far: TierDevice, server: QdrantServer) -> None:
    far.turn(2, chat="new")
    server.behave = lambda exchange: exchange.connection.shutdown(socket.SHUT_RDWR)
    done = far.apply()
    assert (done["away"], done["left"]) == (True, 1)
    with pytest.raises(StoreUnreachableError):
        far.tiers.check(repair=True)
    server.behave = None
    checked = far.tiers.check(repair=True)
    assert (checked["changed"], checked["foreign"]) == (0, 0)
