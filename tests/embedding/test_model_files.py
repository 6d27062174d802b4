from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dualmem_mcp.embedding import minilm
from dualmem_mcp.embedding.model_files import (
    GRAPH_FILE,
    MANIFEST_FILE,
    check_present,
    model_folder,
    verified_model,
)
from dualmem_mcp.embedding.onnx_embedder import OnnxEmbedder
from dualmem_mcp.errors import NotFoundError, StoreUnreachableError, TamperedError


def cut(name: str, missing: int = 1) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-missing])


def change(name: str) -> Callable[[Path], object]:
    def flip(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return flip


def rewrite(**fields: object) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        document = json.loads((folder / MANIFEST_FILE).read_text())
        (folder / MANIFEST_FILE).write_text(json.dumps({**document, **fields}))

    return write


def test_a_built_model_is_what_its_manifest_says(models: Path) -> None:
    model = verified_model(models)
    assert model.model_id == minilm.MODEL_ID
    assert model.size_bytes == model.graph.stat().st_size + model.tokenizer.stat().st_size
    check_present(models)


@pytest.mark.parametrize("name", ["", "nothing/here"])
def test_without_a_model_there_is_none(tmp_path: Path, name: str) -> None:
    for look in (check_present, verified_model):
        with pytest.raises(NotFoundError, match="no embedding model") as caught:
            look(tmp_path / name)
        assert "dualmem model pull" in caught.value.hint


def test_a_file_in_place_of_the_folder_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFoundError):
        check_present(tmp_path / "file")


@pytest.mark.parametrize(
    ("damage", "seen_by_sizes"),
    [
        (cut(GRAPH_FILE), True),
        (cut("tokenizer.json"), True),
        (lambda folder: (folder / GRAPH_FILE).unlink(), True),
        (lambda folder: (folder / GRAPH_FILE).write_bytes(b""), True),
        (cut(MANIFEST_FILE, 3), True),
        (lambda folder: (folder / MANIFEST_FILE).write_bytes(b""), True),
        (lambda folder: (folder / MANIFEST_FILE).write_bytes(b"\xff\xfe"), True),
        (lambda folder: (folder / MANIFEST_FILE).write_text("[" * 100_000), True),
        (lambda folder: (folder / MANIFEST_FILE).write_text("[]"), True),
        (rewrite(model_id="another/model"), True),
        (rewrite(files={}), True),
        (rewrite(files={GRAPH_FILE: {}, "tokenizer.json": {}}), True),
        (rewrite(files={"../model.onnx": {"bytes": 1, "sha256": ""}}), True),
        (change(GRAPH_FILE), False),
        (change("tokenizer.json"), False),
    ],
)
def test_damage_is_reported_and_never_embedded_with(
    models: Path, damage: Callable[[Path], object], seen_by_sizes: bool
) -> None:
    damage(model_folder(models))
    if seen_by_sizes:
        with pytest.raises(TamperedError, match="embedding model is damaged"):
            check_present(models)
    else:
        check_present(models)
    with pytest.raises(TamperedError, match="embedding model is damaged") as caught:
        OnnxEmbedder(models).embed(["a"])
    assert "dualmem model pull" in caught.value.hint


def test_what_cannot_be_read_is_no_missing_model(models: Path) -> None:
    manifest = model_folder(models) / MANIFEST_FILE
    manifest.unlink()
    manifest.mkdir()  # root may read every file, but nobody a folder as one
    with pytest.raises(StoreUnreachableError, match="cannot be read"):
        verified_model(models)
