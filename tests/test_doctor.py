"""The checks of an installation: each fault is found, named, and comes with what to do."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dualmem_mcp.app import App, open_app
from dualmem_mcp.doctor import examine
from dualmem_mcp.settings import load_settings


@pytest.fixture
def app(tmp_path: Path, clock, monkeypatch: pytest.MonkeyPatch):
    for name in list(os.environ):
        if name.startswith(("DUALMEM_", "CLAUDE_")):
            monkeypatch.delenv(name)
    settings = load_settings(tmp_path / "home", bucket=str(tmp_path / "bucket"))
    settings = replace(settings, keystore="file", claude_dir=tmp_path / "claude", model_dir=tmp_path / "model")
    with open_app(settings, clock=clock) as opened:
        yield opened


def found(app: App) -> dict[str, dict]:
    return {check["name"]: check for check in examine(app)}


def test_a_new_installation_is_healthy(app: App) -> None:
    checks = found(app)
    assert all(check["ok"] for check in checks.values())
    assert "init" in checks["vault"]["hint"]


def test_a_vault_in_use_is_healthy(app: App) -> None:
    app.init("correct horse battery staple")
    checks = found(app)
    assert all(check["ok"] for check in checks.values())
    assert "devices known here: 1" in checks["vault"]["detail"]


def test_a_data_home_that_others_can_read(app: App) -> None:
    app.settings.home.chmod(0o755)
    check = found(app)["data home"]
    assert not check["ok"]
    assert "chmod" in check["hint"]


def test_a_file_that_others_can_read_is_named_and_links_are_not_followed(app: App) -> None:
    home = app.settings.home
    (home / "dangling").symlink_to(home / "nowhere")
    assert found(app)["data home"]["ok"]
    (home / "notes.txt").write_text("x")
    (home / "notes.txt").chmod(0o640)
    assert found(app)["data home"]["detail"] == "others can read notes.txt"


def test_a_bucket_that_is_away_or_exchanged(app: App, tmp_path: Path) -> None:
    app.init("correct horse battery staple")
    (tmp_path / "bucket").rename(tmp_path / "unplugged")
    check = found(app)["bucket"]
    assert not check["ok"]
    assert check["hint"]


def test_how_the_last_sync_went_is_told(app: App, tmp_path: Path) -> None:
    assert found(app)["sync"]["detail"] == "none: this device belongs to no vault"
    app.init("correct horse battery staple")
    check = found(app)["sync"]
    assert (check["ok"], check["detail"]) == (True, "none ended well yet")
    assert "dualmem sync" in check["hint"]
    app.sync()
    check = found(app)["sync"]
    assert (check["ok"], check["hint"]) == (True, "")
    assert check["detail"].startswith("the last ended well at ")
    vault = tmp_path / "bucket" / "vault.json"
    vault.rename(tmp_path / "vault.json")
    vault.symlink_to(tmp_path / "vault.json")
    app.sync()
    check = found(app)["sync"]
    assert not check["ok"]
    assert "met a problem (the last ended well at " in check["detail"]
    assert check["hint"].startswith("the bucket refuses this device: ")


def test_a_check_that_fails_keeps_its_name(app: App) -> None:
    names = list(found(app))
    app.close()
    assert list(found(app)) == names
    assert not found(app)["outbox"]["ok"]


def test_damaged_pages_are_found(app: App) -> None:
    app.init("correct horse battery staple")
    database = app.home.database_file
    with app.database.write() as connection:
        connection.execute("CREATE TABLE filler (text)")
        connection.executemany("INSERT INTO filler VALUES (?)", [("x" * 500,)] * 500)
    app.close()
    data = bytearray(database.read_bytes())
    data[-2000] ^= 1
    database.write_bytes(data)
    with open_app(app.settings, clock=app.clock) as again:
        check = found(again)["database"]
    assert not check["ok"]
    assert check["hint"]


def test_without_a_model_it_says_how_to_get_one(app: App) -> None:
    check = found(app)["search model"]
    assert check["ok"]
    assert "by words alone" in check["detail"]
    assert "dualmem model pull" in check["hint"]


def test_items_without_vectors_are_told(app: App, tmp_path: Path) -> None:
    turn = '{"conversation_id": "c", "id": "t", "role": "user", "text": "The winch is broken."}'
    (tmp_path / "turns.jsonl").write_text(turn)
    app.import_file(tmp_path / "turns.jsonl")
    check = found(app)["search index"]
    assert check["ok"]
    assert "1 items" in check["detail"]
    assert "1 have no vectors yet" in check["detail"]
    assert "dualmem index" in check["hint"]


def test_a_model_that_is_there_is_tried(app: App, model_dir: Path, clock) -> None:
    settings = replace(app.settings, model_dir=model_dir)
    app.close()
    with open_app(settings, clock=clock) as opened:
        check = found(opened)["search model"]
    assert check["ok"]
    assert "loads and answers" in check["detail"]


def test_a_model_cut_short_needs_mending(app: App, model_dir: Path, tmp_path: Path, clock) -> None:
    copied = shutil.copytree(model_dir, tmp_path / "models")
    graph = next(copied.rglob("model.onnx"))
    os.truncate(graph, graph.stat().st_size // 2)
    app.close()
    with open_app(replace(app.settings, model_dir=copied), clock=clock) as opened:
        check = found(opened)["search model"]
    assert not check["ok"]
    assert str(graph) in check["detail"]
    assert "dualmem model pull" in check["hint"]


def test_a_place_where_no_index_can_be_is_named(app: App) -> None:
    folder = app.home.vector_cache / "context_vectors"
    folder.rmdir()
    folder.write_text("a file in the folder's place")
    check = found(app)["search index"]
    assert not check["ok"]
    assert str(folder) in check["detail"]
    assert check["hint"]
