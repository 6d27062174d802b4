"""What a small device has at hand of a conversation that it takes up, and of what is worth most."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from dualmem_mcp.edge.refreshing import refresh_working_set
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.handoff.preload import PreloadEntry, PreloadSet, preload_from_bytes, preload_to_bytes
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.model.search import COLLECTION_OF, Collection, ItemKind, SearchItem, item_key, key_digest
from dualmem_mcp.ports import CachedItem
from dualmem_mcp.search import preloading
from dualmem_mcp.search.preloading import OwnItem, find_preload, from_bytes, take_preload, to_bytes
from dualmem_mcp.search.working_set import WorkingSet
from dualmem_mcp.stores.access_log import DatabaseAccessLog
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index
from tests.edge.conftest import TALK, OpenApp, StartEdge, texts, until

DIMENSIONS = 64
MODEL = "made up"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Indexes = Mapping[Collection, SqliteSearchIndex]
Put = Callable[..., SearchItem]


@pytest.fixture
def indexes(tmp_path: Path):
    opened = {name: open_search_index(tmp_path / name.value, b"k" * 32, name) for name in Collection}
    for index in opened.values():
        index.use_model(MODEL, DIMENSIONS)
    yield opened
    for index in opened.values():
        index.close()


@pytest.fixture
def put(indexes: Indexes) -> Put:
    """Puts an item with vectors into its index."""

    def into(
        name: str,
        *vectors: np.ndarray,
        kind: ItemKind = "turn",
        conversation: str = "boat",
        text: str = "",
        days=1.0,
    ) -> SearchItem:
        key = item_key(kind, conversation, name) if conversation else item_key(kind, name)
        turn = name if kind == "turn" else ""
        item = SearchItem(
            key, kind, text or f"words of {name}", conversation, turn, "user", NOW - timedelta(days=days), "desk"
        )
        index = indexes[COLLECTION_OF[kind]]
        index.put([item])
        if vectors:
            index.put_vectors(MODEL, [(index.ids([key])[key], np.array(vectors, np.float32))])
        return item

    return into


def at(degrees: float, axis: int = 1) -> np.ndarray:
    """A vector so many degrees from the first axis, towards another."""
    vector = np.zeros(DIMENSIONS, np.float32)
    vector[0], vector[axis] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return vector


def found(indexes: Indexes, *own: SearchItem | OwnItem, limit: int = 10) -> tuple[PreloadSet, str]:
    items = [one if isinstance(one, OwnItem) else OwnItem(one.key, key_digest(one.text)) for one in own]
    return find_preload("boat", items, indexes, model_id=MODEL, embed=EMBEDDED.get, limit=limit, threshold=0.85)


EMBEDDED: dict[str, np.ndarray] = {}
"""What is embedded quickly."""


def keys(preload: PreloadSet) -> list[str]:
    return [entry.key for entry in preload.entries]


# Where it is handed over


def test_first_its_own_then_what_is_near_the_nearest_first(indexes: Indexes, put: Put) -> None:
    own = [put("one", at(0)), put("two", at(90, 2))]
    far = put("far", at(31, 3), conversation="kiln")
    near = put("near", at(20, 4), conversation="kiln")
    mast = put("mast", at(25, 5), kind="entity", conversation="")
    put("too far", at(33, 6), conversation="kiln")
    preload, problem = found(indexes, *own)
    assert keys(preload) == [own[0].key, own[1].key, near.key, mast.key, far.key]
    assert [round(entry.relevance, 2) for entry in preload.entries] == [1, 1, 0.94, 0.91, 0.86]
    assert problem == ""
    assert (preload.model_id, preload.dimensions) == (MODEL, DIMENSIONS)


def test_only_what_is_of_the_conversation_has_its_text(indexes: Indexes, put: Put) -> None:
    own = put("one", at(0))
    earlier = put("earlier", at(15, 3), text="long ago " * 1_000)
    put("kiln", at(20, 4), conversation="kiln")
    put("mast", at(25, 5), kind="entity", conversation="")
    preload, _ = found(indexes, own)
    with_text = {entry.key: entry.item.text for entry in preload.entries if entry.item}
    assert list(with_text) == [earlier.key]
    assert with_text[earlier.key].startswith("long ago ")
    assert len(with_text[earlier.key]) <= 2_000
    assert len(preload.entries) == 4


def test_what_says_the_same_comes_once(indexes: Indexes, put: Put) -> None:
    own = put("one", at(0), text="The winch is blue.")
    put("own again", at(5, 2), conversation="kiln")
    put("own words", at(20, 3), conversation="kiln", text="the WINCH  is blue.")
    first = put("first", at(20, 4), conversation="kiln")
    put("much like first", at(21, 4), conversation="kiln")
    put("words of first", at(25, 5), conversation="kiln", text="Words of first")
    preload, _ = found(indexes, own)
    assert keys(preload) == [own.key, first.key]


def test_it_takes_no_more_than_the_cache(indexes: Indexes, put: Put) -> None:
    own = [put(f"own {number}", at(90, 2 + number)) for number in range(4)]
    for number in range(12):
        put(f"near {number}", at(20, 20 + number), conversation="kiln")
    for limit in (4, 5, 9):
        preload, _ = found(indexes, *own, put("centre", at(0)), limit=limit)
        assert len(preload.entries) == max(limit, 5)
    assert len(found(indexes, *own, put("centre", at(0)), limit=50)[0].entries) == 17


def test_a_text_that_is_indexed_otherwise_has_no_vector_of_it(indexes: Indexes, put: Put) -> None:
    own = put("one", at(0))
    put("near", at(20, 4), conversation="kiln")
    preload, problem = found(indexes, OwnItem(own.key, key_digest("another text")))
    assert preload.entries == []
    assert "vectors yet" in problem


def test_what_is_not_indexed_is_embedded_where_that_is_quick(
    indexes: Indexes, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = put("near", at(20, 4), conversation="kiln")
    monkeypatch.setitem(EMBEDDED, "we take the blue one", at(0))
    new = [
        OwnItem("decision/boat/given/1", 1, "we take the blue one"),
        OwnItem("decision/boat/given/2", 2, "something slow"),
    ]
    preload, problem = found(indexes, *new)
    assert keys(preload) == [new[0].key, near.key]
    assert problem == ""
    monkeypatch.setattr(preloading, "SECONDS", -1.0)
    assert keys(found(indexes, *new)[0]) == []


def test_what_is_only_quoted_brings_nothing_with_it(indexes: Indexes, put: Put) -> None:
    quoted = put("quoted", at(0))
    put("near", at(20, 4), conversation="kiln")
    preload, _ = found(indexes, OwnItem(quoted.key, key_digest(quoted.text), is_seed=False))
    assert keys(preload) == [quoted.key]


def test_what_is_not_looked_for_in_time_is_told(
    indexes: Indexes, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = put("one", at(0))
    put("near", at(20, 4), conversation="kiln")
    monkeypatch.setattr(preloading, "SECONDS", -1.0)
    preload, problem = found(indexes, own)
    assert keys(preload) == [own.key]
    assert "in time" in problem


def test_of_several_passages_the_middle_one_stands_for_the_item(indexes: Indexes, put: Put) -> None:
    own = put("one", at(80, 2), at(10, 3), at(0), at(10, 4))
    entry = found(indexes, own)[0].entries[0]
    assert float(from_bytes(entry.vector) @ at(0)) > 0.999


def test_a_byte_a_component_keeps_the_order() -> None:
    numbers = np.random.default_rng(7)
    vectors = numbers.standard_normal((300, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = np.array([from_bytes(to_bytes(vector)) for vector in vectors])
    assert np.allclose(np.linalg.norm(kept, axis=1), 1, atol=1e-5)
    exact, near = vectors @ vectors.T, vectors @ kept.T
    assert np.abs(exact - near).max() < 0.005
    assert np.abs(exact - near).mean() < 0.0005
    assert len(to_bytes(vectors[0])) == 384
    assert from_bytes(bytes(384)) is None


# Where it is taken up


def preloaded(*entries: PreloadEntry, model: str = MODEL) -> PreloadSet:
    return PreloadSet(model, DIMENSIONS, entries)


def own_entry(name: str, degrees: float = 0) -> PreloadEntry:
    item = SearchItem(item_key("turn", "boat", name), "turn", f"carried words of {name}", "boat", name)
    return PreloadEntry(item.key, 1.0, item, to_bytes(at(degrees)))


def test_what_is_at_hand_is_found_by_words_and_by_meaning(indexes: Indexes) -> None:
    cache = WorkingSet(5)
    taken = take_preload(preloaded(own_entry("one"), own_entry("two", 80)), cache, indexes, MODEL)
    assert taken == [("turn/boat/one", 1.0), ("turn/boat/two", 1.0)]
    assert [item.turn_id for item, _ in cache.find(["two"], None, 5)] == ["two"]
    assert cache.find([], at(75), 5)[0][0].turn_id == "two"
    assert take_preload(preloaded(own_entry("one"), own_entry("two", 80)), cache, indexes, MODEL) == []


def test_of_others_only_what_is_known_here_is_taken(indexes: Indexes, put: Put) -> None:
    known = put("known", conversation="kiln")
    entries = [PreloadEntry(key, 0.9, None, to_bytes(at(3))) for key in (known.key, "turn/kiln/erased")]
    cache = WorkingSet(5)
    assert take_preload(preloaded(own_entry("one"), *entries), cache, indexes, MODEL)[1:] == [(known.key, 0.9)]
    assert {item.text for item, _ in cache.find(["words"], None, 5)} == {known.text, "carried words of one"}


def test_the_index_has_the_whole_text_of_what_travelled_cut(indexes: Indexes, put: Put) -> None:
    whole = put("one", text="all of it")
    cache = WorkingSet(5)
    take_preload(preloaded(own_entry("one")), cache, indexes, MODEL)
    assert [item for item, _ in cache.find(["all"], None, 5)] == [whole]


def test_what_came_is_shown_without_what_hides_or_reorders(indexes: Indexes) -> None:
    item = SearchItem(
        item_key("turn", "boat", "x"), "turn", "blue\u202e\x1b[31m winch", "boat", "x", "a\nb", None, "c\u200b"
    )
    cache = WorkingSet(5)
    take_preload(preloaded(PreloadEntry(item.key, 1.0, item)), cache, indexes, MODEL)
    (kept,) = cache.entries([item.key])
    assert (kept.item.text, kept.item.author, kept.item.device) == ("blue winch", "a b", "c")


def test_vectors_of_another_model_are_left_out(indexes: Indexes) -> None:
    cache = WorkingSet(5)
    take_preload(preloaded(own_entry("one"), model="another"), cache, indexes, MODEL)
    assert [entry.vector for entry in cache.take_changed() or ()] == [None]
    assert cache.find(["carried"], at(0), 5)


def test_the_best_stay_where_there_is_not_room_for_all(indexes: Indexes) -> None:
    cache = WorkingSet(3)
    many = [own_entry(f"t{number}") for number in range(9)]
    assert [key for key, _ in take_preload(preloaded(*many), cache, indexes, MODEL)] == [
        entry.key for entry in many[:3]
    ]


def section(*entries: PreloadEntry) -> str:
    return base64.b64encode(preload_to_bytes(preloaded(*entries))).decode()


@pytest.fixture
def phone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device with a cache of 50 vectors."""
    monkeypatch.setenv("DUALMEM_DEVICE", "ios")


CARRIED = (own_entry("pawl"), PreloadEntry("turn/kiln/t3", 0.9, None, to_bytes(at(2))))


@pytest.mark.usefixtures("phone")
def test_a_small_device_searches_what_it_took_up_without_an_index(open_home: OpenApp, home: Path) -> None:
    with open_home() as app:
        assert app.local_edge.preload("boat", section(*CARRIED)) == 2
        assert DatabaseAccessLog(app.database).accesses(["turn/boat/pawl"]) == {}
    with open_home() as app:
        # What was shown was used, once, however often it is taken up.
        log = DatabaseAccessLog(app.database)
        assert app.local_edge.preload("boat", section(*CARRIED)) == 0
        app.local_edge.flush()
        assert log.accesses(["turn/boat/pawl", "turn/kiln/t3"]).keys() == {"turn/boat/pawl"}
        assert log.accesses(["turn/boat/pawl"])["turn/boat/pawl"].count == 1
    for folder in Collection:
        shutil.rmtree(home / "vector_cache" / folder.value)
        (home / "vector_cache" / folder.value).write_text("a file in the folder's place")
    with open_home() as app:
        assert texts(app.local_edge.search("carried")) == ["carried words of pawl"]
        assert texts(app.local_edge.search("glaze")) == [TALK[3][2]]


def test_a_desktop_takes_nothing(open_home: OpenApp) -> None:
    edge = open_home().local_edge
    assert edge.preload("boat", section(*CARRIED)) == 0
    assert edge.refresh_cache() == 0
    assert texts(edge.search("carried")) == []


@pytest.mark.usefixtures("phone")
def test_a_section_that_is_none_is_told(open_home: OpenApp) -> None:
    edge = open_home().local_edge
    with pytest.raises(TamperedError):
        edge.preload("boat", base64.b64encode(b"{}\n").decode())
    with pytest.raises(TamperedError):
        edge.preload("kiln", section(own_entry("of boat")))


@pytest.mark.usefixtures("phone")
def test_a_process_that_is_not_there_takes_it_in_a_moment(start_edge: StartEdge) -> None:
    edge = start_edge()
    assert edge.preload("boat", section(*CARRIED)) == 0
    until(lambda: texts(edge.search("carried")))
    assert edge.preload("boat", section(own_entry("later"), *CARRIED)) == 1
    assert edge.preload("boat", section(own_entry("later"), *CARRIED)) == 0
    assert texts(edge.search("carried later"))[0] == "carried words of later"


def test_a_process_that_is_not_there_finds_nothing_at_once(start_edge: StartEdge) -> None:
    edge = start_edge()
    nothing = edge.preload_for("boat", own=[], limit=5, threshold=0.85)
    assert nothing["section"] == ""
    assert "not at hand" in nothing["problem"]
    edge.search("glaze")
    without_model = edge.preload_for("boat", own=[], limit=5, threshold=0.85)
    assert without_model["section"] == ""
    assert "model" in without_model["problem"]


def test_a_process_finds_what_a_conversation_brings(
    start_edge: StartEdge, monkeypatch: pytest.MonkeyPatch, model_dir: Path
) -> None:
    monkeypatch.setenv("DUALMEM_MODEL_DIR", str(model_dir))
    edge = start_edge()
    edge.search("glaze")
    until(lambda: (edge.status() or {"waiting": 1})["waiting"] == 0, 40.0)
    own = [{"key": f"turn/boat/t{number}", "contents": key_digest(TALK[number][2])} for number in (2, 1, 0)]
    given = {"key": "decision/boat/given/1", "contents": 1, "text": "We order a new pawl."}
    found = edge.preload_for("boat", own=[*own, given], limit=50, threshold=0.2)
    assert found["problem"] == ""
    preload = preload_from_bytes(base64.b64decode(found["section"]), "boat")
    assert keys(preload)[:4] == [one["key"] for one in (*own, given)]
    assert {key.split("/")[1] for key in keys(preload)[4:]} == {"kiln"}
    assert all(len(entry.vector) == 384 for entry in preload.entries)


# What is worth most


def refreshed(cache: WorkingSet, indexes: Indexes, log: DatabaseAccessLog) -> int:
    return refresh_working_set(cache, indexes, log.columns(), NOW)


@pytest.fixture
def log(open_home: OpenApp) -> DatabaseAccessLog:
    return DatabaseAccessLog(open_home().database)


def test_the_cache_is_filled_with_what_is_worth_most(indexes: Indexes, put: Put, log: DatabaseAccessLog) -> None:
    old = put("old", at(1), days=60)
    asked = put("asked for", at(2), days=60)
    new = put("new", at(3), days=1)
    decision = put("we take the blue one", at(4), kind="decision", days=2)
    put("without vectors", days=0)
    log.add([(asked.key, 0.9)] * 5, NOW - timedelta(days=1))
    cache = WorkingSet(3)
    assert refreshed(cache, indexes, log) == 3
    assert set(cache.keys()) == {asked.key, new.key, decision.key}
    assert all(entry.vector is not None for entry in cache.take_changed() or ())
    assert refreshed(cache, indexes, log) == 0
    assert cache.take_changed() is None
    log.add([(old.key, 0.9)] * 9, NOW)
    assert refreshed(cache, indexes, log) == 1
    assert set(cache.keys()) == {asked.key, old.key, decision.key}


def test_what_says_the_same_is_at_hand_once(indexes: Indexes, put: Put, log: DatabaseAccessLog) -> None:
    for number in range(3):
        put(f"t{number}", at(0), text="the very same words", days=number)
    other = put("other", at(60), days=50)
    cache = WorkingSet(2)
    refreshed(cache, indexes, log)
    assert set(cache.keys()) == {"turn/boat/t0", other.key}


def test_what_is_not_indexed_here_stays(indexes: Indexes, put: Put, log: DatabaseAccessLog) -> None:
    for number in range(4):
        put(f"t{number}", at(number * 20), text=f"words {number}")
    carried = own_entry("carried").item
    cache = WorkingSet(3, [CachedItem(carried, None, 1.0)])
    refreshed(cache, indexes, log)
    assert len(cache) == 3
    assert carried.key in cache.keys()  # noqa: SIM118


def test_an_entry_gets_the_vector_that_is_there_meanwhile(
    indexes: Indexes, put: Put, log: DatabaseAccessLog
) -> None:
    item = put("one", at(40))
    cache = WorkingSet(3, [CachedItem(item, None, 1.0)])
    assert refreshed(cache, indexes, log) == 0
    assert cache.without_vectors() == []
    assert cache.find([], at(40), 1)


@pytest.mark.usefixtures("phone")
def test_moving_vectors_refreshes_the_cache(open_home: OpenApp) -> None:
    app = open_home()
    app.graph.create_entities([Entity("mast", "part", ("spruce",))])
    edge = app.local_edge
    edge.catch_up()
    assert edge.refresh_cache() == 0  # nothing has vectors here
    context = edge._opened()[Collection.CONTEXT]
    context.use_model(MODEL, DIMENSIONS)
    ids = context.ids(["entity/mast"])
    context.put_vectors(MODEL, [(ids["entity/mast"], at(0)[None])])
    assert edge.move_vectors(max_seconds=1.0)["warnings"] == []
    cache = edge._cache()
    assert cache is not None
    assert cache.keys() == ("entity/mast",)
