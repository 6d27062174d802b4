"""The model as searching sees it: absent, loading, there, damaged, mended."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from dualmem_mcp.edge.model import QueryModel
from dualmem_mcp.embedding.minilm import NAME
from dualmem_mcp.embedding.onnx_embedder import OnnxEmbedder


def test_without_a_model_it_says_what_to_do(tmp_path: Path) -> None:
    model = QueryModel(tmp_path, NAME)
    vector, why = model.query_vector("a text", 0.0)
    assert vector is None
    assert "dualmem model pull" in why
    assert (model.embedder, model.model_id, model.loaded()) == (None, "", None)


def test_one_that_comes_later_is_used(tmp_path: Path, model_dir: Path) -> None:
    model = QueryModel(tmp_path / "models", NAME)
    assert model.missing
    (tmp_path / "models").symlink_to(model_dir)
    vector, why = model.query_vector("a text", 60.0)
    assert why == ""
    assert vector is not None
    assert vector.shape == (384,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)


def test_a_search_does_not_wait_for_one_that_loads_slowly(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    load = OnnxEmbedder.load

    def slowly(self: OnnxEmbedder) -> None:
        assert release.wait(20)
        load(self)

    monkeypatch.setattr(OnnxEmbedder, "load", slowly)
    model = QueryModel(model_dir, NAME)
    vector, why = model.query_vector("a text", 0.01)
    assert vector is None
    assert "still being loaded" in why
    release.set()
    vector, why = model.query_vector("a text", 20.0)
    assert (vector is not None, why) == (True, "")


def test_a_damaged_one_is_tried_again_when_it_has_changed(tmp_path: Path, model_dir: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(model_dir, models)
    (graph,) = models.glob("*/model.onnx")
    whole = graph.read_bytes()
    graph.write_bytes(bytes(len(whole)))
    model = QueryModel(models, NAME)
    assert model.missing == ""  # of the right size, and nobody has looked closer
    vector, why = model.query_vector("a text", 60.0)
    assert vector is None
    assert "was changed" in why
    assert model.loaded() is None
    graph.write_bytes(whole)
    assert model.loaded() is not None
    assert model.missing == ""
