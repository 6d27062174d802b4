"""Opening a data home: what it takes in, keeps, and says."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dualmem_mcp.app import open_app
from dualmem_mcp.errors import ConflictError
from dualmem_mcp.model.graph import Entity, Relation
from dualmem_mcp.settings import Settings, load_settings

GRAPH = '{"type":"entity","name":"Ada","entityType":"person","observations":["x"]}'


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in list(os.environ):
        if name.startswith(("DUALMEM_", "CLAUDE_")) or name == "MEMORY_FILE_PATH":
            monkeypatch.delenv(name)
    return replace(load_settings(tmp_path / "home"), keystore="file")


def test_a_mirror_named_another_way_is_migrated_once(settings: Settings, clock, tmp_path: Path) -> None:
    settings.home.mkdir()
    (settings.home / "memory.json").write_text(GRAPH)
    (tmp_path / "link").symlink_to(settings.home)
    mirrored = replace(settings, memory_file=tmp_path / "link" / "memory.json")
    with open_app(mirrored, clock=clock) as app:
        assert any("migrated" in notice for notice in app.notices)
    with open_app(mirrored, clock=clock) as app:
        assert app.notices == []
    assert (settings.home / "memory.json").read_text() == GRAPH
    assert len(list(settings.home.glob("*.bak"))) == 1


def test_a_program_without_the_mirror_leaves_it_to_the_one_that_keeps_it(settings: Settings, clock) -> None:
    mirrored = replace(settings, memory_file=settings.home / "memory.json")
    with open_app(mirrored, clock=clock) as keeper:
        keeper.graph.create_entities([])
        settings.home.joinpath("memory.json").write_text(GRAPH)
        with open_app(settings, clock=clock) as other:
            assert any("`mirror`" in notice for notice in other.notices)
            assert other.graph.read_graph().entities == ()
    assert (settings.home / "memory.json").read_text() == GRAPH
    assert not list(settings.home.glob("*.bak"))


def test_an_export_replaces_nothing_not_even_a_link_that_leads_nowhere(settings: Settings, clock, tmp_path) -> None:
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "nowhere")
    with open_app(settings, clock=clock) as app, pytest.raises(ConflictError):
        app.export_file(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").is_symlink()


def test_status_counts_what_is_stored(settings: Settings, clock) -> None:
    with open_app(settings, clock=clock) as app:
        app.graph.create_entities([Entity("a", "t"), Entity("b", "t"), Entity("a", "u")])
        app.graph.create_relations([Relation("a", "b", "r")])
        status = app.status()
        assert (status["entities"], status["relations"]) == (2, 1)
        app.graph.delete_entities(["a"])
        status = app.status()
        assert (status["entities"], status["relations"]) == (1, 0)
