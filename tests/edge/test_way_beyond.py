"""The edge with tiers: what is only there is found and kept at hand, and a service that fails is a warning."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualmem_mcp.app import App
from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.edge.way_beyond import WayBeyond
from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.model.ids import VaultId
from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports.tiers import VectorTier
from dualmem_mcp.search.material import entity_item
from dualmem_mcp.stores.access_log import DatabaseAccessLog
from dualmem_mcp.stores.search_feed import SearchFeed
from dualmem_mcp.stores.stems import Stemmer
from dualmem_mcp.stores.vector_tier import SqliteVectorTier
from dualmem_mcp.tiers.asking import TierAsker
from dualmem_mcp.tiers.points import Embedded, PointMaker
from tests.edge.conftest import TALK, OpenApp, texts

KEYS = VectorKeys(bytes(32), VaultId("0c" * 16), 1 << 32)
D = 8
ALL: tuple[TierName, ...] = ("critical", "context", "historical")
ELSEWHERE = SearchItem(
    "turn/loom/t1",
    "turn",
    "The loom's shuttle is of pear wood.",
    "loom",
    "t1",
    "Mara",
    datetime(2026, 2, 3, tzinfo=UTC),
)


@pytest.fixture
def tiers(tmp_path: Path) -> Iterator[dict[TierName, VectorTier]]:
    opened = {
        name: SqliteVectorTier.open(tmp_path / f"{name}.db", bytes(32), name=name, model_id="m", dimensions=D)
        for name in ALL
    }
    yield opened
    for tier in opened.values():
        tier.close()


def put(tier: VectorTier, *items: SearchItem) -> None:
    maker = PointMaker(KEYS, "m", Stemmer())
    vectors = np.eye(D, dtype=np.float32)[:1]
    tier.upsert([point for made in maker.points([Embedded(item, vectors) for item in items]) for point in made])


@pytest.fixture
def look_into(tiers: dict[TierName, VectorTier], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Has an application's edge look into the tiers, and wait for them as long as it takes."""
    opened: list[TierAsker] = []
    monkeypatch.setattr("dualmem_mcp.search.beyond.PATIENCE_SECONDS", dict.fromkeys(ALL, 20.0))

    def look(app: App, *, tier: Callable[[TierName], Any] = tiers.__getitem__, **options: Any) -> None:
        asker = TierAsker(tier=tier, keys=lambda: [KEYS], words=lambda: True, passages_here=lambda: 10_000)
        opened.append(asker)
        edge = app.local_edge
        usual = {"is_erased": lambda _: False, "small_cache": edge._settings.profile.has_small_cache}
        given = {**usual, **options}
        edge._way_beyond = WayBeyond(
            lambda: asker, edge._truth, given["is_erased"], small_cache=given["small_cache"]
        )

    yield look
    for asker in opened:
        asker.close()


def told(found: dict[str, Any]) -> dict[str, int]:
    return {tier["name"]: tier["results"] for tier in found["tiers"]}


def test_what_only_the_tiers_have_is_found_and_counts_as_used(open_home: OpenApp, tiers, look_into) -> None:
    put(tiers["historical"], ELSEWHERE)
    app = open_home()
    look_into(app)
    found = app.local_edge.search("pear wood shuttle")
    assert texts(found)[0] == ELSEWHERE.text
    assert told(found) == {"edge_index": 0, "critical": 0, "context": 0, "historical": 1}
    assert all(set(tier) == {"name", "results", "duration_ms"} for tier in found["tiers"])
    app.local_edge.flush()
    assert DatabaseAccessLog(app.database).accesses([ELSEWHERE.key])[ELSEWHERE.key].count == 1


def test_with_tiers_off_an_answer_says_nothing_of_them(open_home: OpenApp) -> None:
    found = open_home().local_edge.search("glaze")
    assert list(told(found)) == ["edge_index"]
    assert set(found["tiers"][0]) == {"name", "results", "duration_ms"}


def test_a_small_device_keeps_what_the_tiers_gave_at_hand(
    open_home: OpenApp, tiers, look_into, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALMEM_DEVICE", "ios")
    put(tiers["context"], ELSEWHERE)
    app = open_home()
    look_into(app)
    assert texts(app.local_edge.search("pear wood shuttle"))[0] == ELSEWHERE.text

    def away(_: TierName) -> VectorTier:
        raise StoreUnreachableError("Qdrant cannot be reached")

    look_into(app, tier=away)
    found = app.local_edge.search("pear wood shuttle")
    assert texts(found)[0] == ELSEWHERE.text
    assert told(found)["edge_cache"] == 1
    assert found["partial"]


def test_a_service_that_is_away_is_a_warning_and_a_partial_answer(open_home: OpenApp, look_into) -> None:
    def away(_: TierName) -> VectorTier:
        raise StoreUnreachableError("Qdrant cannot be reached")

    app = open_home()
    look_into(app, tier=away)
    found = app.local_edge.search("glaze")
    assert texts(found)[0] == TALK[3][2]
    assert found["partial"]
    assert (
        "more may be in the search service (critical, context, historical): Qdrant cannot be reached"
        in found["warnings"]
    )
    assert {tier["problem"] for tier in found["tiers"][1:]} == {"Qdrant cannot be reached"}


def test_points_that_do_not_open_are_told_of(open_home: OpenApp, tiers, look_into) -> None:
    put(tiers["context"], ELSEWHERE)
    (own,) = tiers["context"].ids(KEYS.tenant).ids
    point = tiers["context"].fetch(KEYS.tenant, [own])[0]
    tiers["context"].upsert([replace(point, payload=point.payload[:-1] + b"\0")])
    app = open_home()
    look_into(app)
    found = app.local_edge.search("pear wood shuttle")
    assert ELSEWHERE.text not in texts(found)
    assert found["partial"]
    assert any(warning.startswith("1 points in the search service do not open") for warning in found["warnings"])


def test_what_was_erased_here_does_not_come_back(open_home: OpenApp, tiers, look_into) -> None:
    put(tiers["context"], ELSEWHERE)
    app = open_home()
    look_into(app, is_erased={"loom"}.__contains__)
    assert ELSEWHERE.text not in texts(app.local_edge.search("pear wood shuttle"))


def entity(name: str, text: str, at: datetime) -> SearchItem:
    return entity_item(Entity(name, "thing", (text,)), at)


def test_what_was_deleted_from_the_memory_does_not_come_back_and_what_is_new_does(
    open_home: OpenApp, tiers, look_into
) -> None:
    app = open_home()
    app.graph.create_entities([Entity("winch", "part", ("broken pawl",)), Entity("mast", "part", ("spruce",))])
    before, later = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)
    put(tiers["context"], entity("winch", "broken pawl", before), entity("keel", "pawl of lead", later))
    look_into(app)
    app.graph.delete_entities(["winch"])
    found = {result["id"] for result in app.local_edge.search("pawl", scope="memory")["results"]}
    assert found == {"entity/keel"}


def test_a_device_that_has_heard_of_no_entity_yet_takes_those_of_the_tiers(
    open_home: OpenApp, tiers, look_into
) -> None:
    put(tiers["context"], entity("keel", "pawl of lead", datetime(2026, 1, 1, tzinfo=UTC)))
    app = open_home()
    look_into(app)
    assert [one["id"] for one in app.local_edge.search("pawl", scope="memory")["results"]] == ["entity/keel"]


def test_a_note_that_was_removed_is_known_to_be_gone(open_home: OpenApp) -> None:
    app = open_home()
    kept = SearchItem("note/boat/1", "note", "one", "boat")
    removed = SearchItem("note/boat/2", "note", "two", "boat")
    with app.database.write() as connection:
        connection.executemany(
            "INSERT INTO findings (conversation_id, kind, finding_id, turn_uuid, text, author, device_name, stamp) "
            "VALUES ('boat', 'note', ?, '', ?, 'user', '', X'')",
            [("1", "one"), ("2", "")],
        )
    elsewhere = SearchItem("decision/kiln/2", "decision", "two", "kiln")
    assert SearchFeed(app.database).deleted([kept, removed, elsewhere]) == {removed.key}


def test_connecting_begins_in_the_background(open_home: OpenApp, tiers, look_into) -> None:
    begun, free = threading.Event(), threading.Event()

    def slowly(name: TierName) -> VectorTier:
        begun.set()
        free.wait(20)
        return tiers[name]

    app = open_home()
    look_into(app, tier=slowly)
    app.local_edge.warm_up()
    assert begun.wait(20)
    free.set()


def test_whether_tiers_are_on_cannot_be_read_then_they_are_off(open_home: OpenApp) -> None:
    def broken() -> None:
        raise StoreUnreachableError("the disk has failed")

    way = WayBeyond(broken, SearchFeed(open_home().database), lambda _: False, small_cache=True)
    way.warm_up()
    assert way.beyond(eager=True) is None
    way.close()


def test_items_of_many_conversations_are_looked_at_once(open_home: OpenApp) -> None:
    asked: list[str] = []

    def is_erased(name: str) -> bool:
        asked.append(name)
        return name == "c1"

    way = WayBeyond(lambda: None, SearchFeed(open_home().database), is_erased, small_cache=False)
    items: Sequence[SearchItem] = [
        SearchItem(f"turn/c{n % 3}/{n}", "turn", "x", f"c{n % 3}", str(n)) for n in range(9)
    ]
    assert way.gone(items) == {"turn/c1/1", "turn/c1/4", "turn/c1/7"}
    assert sorted(asked) == ["c0", "c1", "c2"]
