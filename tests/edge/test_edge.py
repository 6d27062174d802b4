"""The edge in this process: the working set of small devices, what was used, and faults that leave an answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dualmem_mcp.durable_files import file_lock_if_free
from dualmem_mcp.edge.edge import Edge
from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.graph import Entity, EntityObservations
from dualmem_mcp.model.search import Collection
from dualmem_mcp.stores.access_log import DatabaseAccessLog
from tests.edge.conftest import TALK, OpenApp, texts, turns

FIRST_TURN = "turn/boat/t0"


@pytest.fixture
def phone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device with a cache of 50 vectors."""
    monkeypatch.setenv("DUALMEM_DEVICE", "ios")


def tiers(found: dict) -> dict[str, int]:
    return {tier["name"]: tier["results"] for tier in found["tiers"]}


def replace_indexes_by_files(home: Path) -> None:
    for folder in Collection:
        shutil.rmtree(home / "vector_cache" / folder.value)
        (home / "vector_cache" / folder.value).write_text("a file in the folder's place")


def test_a_device_with_its_whole_index_at_hand_keeps_no_working_set(open_home: OpenApp) -> None:
    found = open_home().local_edge.search("glaze")
    assert list(tiers(found)) == ["edge_index"]


@pytest.mark.usefixtures("phone")
def test_a_small_device_answers_from_its_working_set_first(open_home: OpenApp) -> None:
    edge = open_home().local_edge
    first = edge.search("glaze")
    assert tiers(first) == {"edge_cache": 0, "edge_index": len(first["results"])}
    assert tiers(edge.search("glaze")) == {"edge_cache": 1, "edge_index": len(first["results"])}
    assert tiers(edge.search("glaze", conversation_id="boat"))["edge_cache"] == 0


@pytest.mark.usefixtures("phone")
def test_what_a_brief_looked_for_is_not_kept_at_hand(open_home: OpenApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_home()
    # Turns of a file have no folder of their own.
    monkeypatch.setattr(app.catalogue, "conversations_in", {"/pottery": frozenset(("boat", "kiln"))}.__getitem__)
    found = app.local_edge.related("glaze", conversation_id="boat", cwd="/pottery")
    assert found[0]["text"] == TALK[3][2]
    assert {result["conversation_id"] for result in found} == {"kiln"}
    assert tiers(app.local_edge.search("glaze"))["edge_cache"] == 0


@pytest.mark.usefixtures("phone")
def test_the_working_set_outlives_the_process_and_the_indexes(open_home: OpenApp, home: Path) -> None:
    with open_home() as app:
        app.local_edge.search("glaze kiln")
    replace_indexes_by_files(home)
    with open_home() as app:
        found = app.local_edge.search("glaze")
        assert texts(found) == [TALK[3][2]]
        assert tiers(found) == {"edge_cache": 1}
        assert found["partial"]
        assert any("vector_cache" in warning for warning in found["warnings"])


@pytest.mark.usefixtures("phone")
def test_what_is_deleted_or_changed_in_the_graph_leaves_the_working_set(open_home: OpenApp, home: Path) -> None:
    with open_home() as app:
        app.graph.create_entities([Entity("winch", "part", ("broken pawl",)), Entity("mast", "part", ("spruce",))])
        app.local_edge.catch_up()
        assert len(app.local_edge.search("pawl spruce", scope="memory")["results"]) == 2
        app.graph.delete_entities(["winch"])
        app.graph.delete_observations([EntityObservations("mast", ("spruce",))])
        app.local_edge.catch_up()
    replace_indexes_by_files(home)
    with open_home() as app:
        assert texts(app.local_edge.search("pawl spruce mast", scope="memory")) == ["mast (part)"]


def test_an_item_counts_as_used_once_an_answer_and_that_outlives_the_index(open_home: OpenApp, home: Path) -> None:
    with open_home() as app:
        for _ in range(3):
            assert FIRST_TURN in {result["id"] for result in app.local_edge.search("regatta harbour")["results"]}
        app.local_edge.search("glaze")
        app.local_edge.related("regatta", conversation_id="x", cwd="/x")
    shutil.rmtree(home / "vector_cache")
    with open_home() as app:
        log = DatabaseAccessLog(app.database)
        assert log.accesses([FIRST_TURN])[FIRST_TURN].count == 3
        app.local_edge.index()
        app.local_edge.search("regatta")
        app.local_edge.flush()
        app.local_edge.flush()
        assert log.accesses([FIRST_TURN])[FIRST_TURN].count == 4


def test_uses_that_cannot_be_written_now_are_written_later(
    open_home: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_home()
    app.local_edge.search("regatta")

    def full(*_: object) -> None:
        raise StoreUnreachableError("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseAccessLog, "add", full)
        with pytest.raises(StoreUnreachableError):
            app.local_edge.flush()
    app.local_edge.flush()
    assert DatabaseAccessLog(app.database).accesses([FIRST_TURN])[FIRST_TURN].count == 1


def test_while_nothing_can_be_indexed_searches_say_so(open_home: OpenApp, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = open_home().local_edge

    def full(*_: object, **__: object) -> None:
        raise StoreUnreachableError("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr("dualmem_mcp.search.indexing.fill_indexes", full)
        found = edge.search("glaze", catch_up=True)
        assert (texts(found)[0], found["partial"]) == (TALK[3][2], True)
        assert "what is new is not indexed yet: the disk is away" in found["warnings"]
    edge.catch_up()
    assert not any("not indexed" in warning for warning in edge.search("glaze")["warnings"])


def test_one_index_that_cannot_be_used_leaves_the_others(open_home: OpenApp, home: Path) -> None:
    folder = home / "vector_cache" / Collection.CONTEXT.value
    shutil.rmtree(folder)
    folder.write_text("a file in the folder's place")
    found = open_home().local_edge.search("glaze")
    assert texts(found)[0] == TALK[3][2]
    assert found["partial"]
    assert any(str(folder) in warning for warning in found["warnings"])


def test_an_index_lost_while_in_use_is_filled_again_before_it_answers(open_home: OpenApp, home: Path) -> None:
    edge = open_home().local_edge
    before = texts(edge.search("glaze"))
    assert before
    shutil.rmtree(home / "vector_cache")
    assert texts(edge.search("glaze")) == before


def test_a_damaged_model_costs_the_meaning_and_not_the_answer(
    open_home: OpenApp, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    shutil.copytree(model_dir, models)
    (graph,) = models.glob("*/model.onnx")
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1000] + bytes(1000))
    monkeypatch.setenv("DUALMEM_MODEL_DIR", str(models))
    (tmp_path / "more.jsonl").write_text(
        turns((("kiln", "Wren", "The cone melted before the pyrometer said so."),))
    )
    app = open_home()
    report = app.import_file(tmp_path / "more.jsonl", "turns")
    assert any("was changed" in warning for warning in report["warnings"])
    found = app.local_edge.search("glaze", catch_up=True)
    assert (texts(found)[0], found["partial"]) == (TALK[3][2], True)
    assert any("dualmem model pull" in warning for warning in found["warnings"])
    graph.write_bytes(whole)
    app.local_edge.catch_up()
    found = app.local_edge.search("pottery oven too hot", catch_up=True)
    assert not found["partial"], found["warnings"]
    assert found["results"]
    assert app.local_edge.status()["waiting"] == 0


def test_a_model_cut_short_is_missing_until_it_is_whole(
    open_home: OpenApp, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    shutil.copytree(model_dir, models)
    (graph,) = models.glob("*/model.onnx")
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setenv("DUALMEM_MODEL_DIR", str(models))
    edge: Edge = open_home().local_edge
    assert "instead of" in edge.model.missing
    assert edge.search("glaze")["partial"]
    graph.write_bytes(whole)
    assert edge.model.missing == ""
    assert edge.index()["embedded"] == len(TALK)


def test_what_was_just_noted_is_found_and_what_was_just_deleted_is_not(open_home: OpenApp) -> None:
    app = open_home()
    app.graph.create_entities([Entity("winch", "part", ("broken pawl",))])
    assert texts(app.local_edge.search("pawl", scope="memory")) == ["winch (part)\nbroken pawl"]
    app.graph.delete_entities(["winch"])
    assert app.local_edge.search("pawl", scope="memory")["results"] == []


def test_an_index_that_cannot_be_filled_in_time_is_no_whole_answer(
    open_home: OpenApp, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = open_home().local_edge
    edge.search("glaze")
    (home / "vector_cache" / Collection.CONVERSATIONS.value / "index.db").unlink()
    # As where another process holds the lock, or there is far more than half a second's work.
    with file_lock_if_free(home / "vector_cache" / ".indexing.lock") as held:
        assert held
        found = edge.search("glaze")
    assert found["partial"]
    assert any("brought up to date" in warning for warning in found["warnings"])


def test_of_equal_texts_the_newer_comes_first(tmp_path: Path, open_home: OpenApp) -> None:
    app = open_home()
    lines = [
        {
            "conversation_id": year,
            "id": year,
            "role": "user",
            "text": "The heron nests by the weir.",
            "timestamp": f"{year}-03-01",
        }
        for year in ("2020", "2025", "2022")
    ]
    file = tmp_path / "herons.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    app.import_file(file, "turns")
    for query in ("heron", "where do herons nest?", "what nests by the weir"):
        found = [
            result["turn_id"] for result in app.local_edge.search(query)["results"] if "heron" in result["text"]
        ]
        assert found == ["2025", "2022", "2020"], query
