from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dualmem_mcp.embedding import minilm
from dualmem_mcp.embedding.model_files import GRAPH_FILE, MANIFEST_FILE, model_folder
from dualmem_mcp.embedding.onnx_embedder import OnnxEmbedder
from dualmem_mcp.errors import NotFoundError, TamperedError

SENTENCES = [
    "A cat sleeps on the sofa.",
    "A kitten is napping on the couch.",
    "The bucket refuses conditional writes.",
    "S3 answered 412 to a PUT with If-None-Match.",
    "We meet on Friday at nine.",
    "Wann treffen wir uns?",
]
# Of the published weights in float32, in this order, as sentence-transformers gives them.
SIMILARITIES = [
    [1.000, 0.753, -0.015, -0.069, 0.033, -0.048],
    [0.753, 1.000, 0.012, -0.062, -0.011, -0.096],
    [-0.015, 0.012, 1.000, 0.315, -0.029, -0.007],
    [-0.069, -0.062, 0.315, 1.000, 0.040, -0.034],
    [0.033, -0.011, -0.029, 0.040, 1.000, 0.088],
    [-0.048, -0.096, -0.007, -0.034, 0.088, 1.000],
]


def test_the_real_model_gives_the_published_similarities(embedder: OnnxEmbedder) -> None:
    vectors = embedder.embed(SENTENCES)
    np.testing.assert_allclose(vectors @ vectors.T, SIMILARITIES, atol=0.04)


def test_many_texts_of_all_lengths_keep_their_order(embedder: OnnxEmbedder) -> None:
    texts = [f"{'word ' * (number * 7 % 13)}{number}" for number in range(540)]
    vectors = embedder.embed(texts)
    for place in (0, 1, 299, 511, 512, 539):
        assert vectors[place] @ embedder.embed([texts[place]])[0] > 0.9999


def test_one_thread_and_two_give_the_same(models: Path) -> None:
    texts = ["abc " * (number % 50) for number in range(200)]
    one, two = OnnxEmbedder(models, threads=1), OnnxEmbedder(models, threads=2)
    np.testing.assert_allclose(one.embed(texts), two.embed(texts), atol=1e-5)


def test_says_what_it_is_without_loading(tmp_path: Path) -> None:
    embedder = OnnxEmbedder(tmp_path)
    assert (embedder.model_id, embedder.dimensions, embedder.loaded) == (minilm.MODEL_ID, 384, False)
    embedder.unload()


def test_without_a_model_every_use_says_so(tmp_path: Path) -> None:
    embedder = OnnxEmbedder(tmp_path)
    for use in (embedder.load, lambda: embedder.embed(["a"])):
        with pytest.raises(NotFoundError) as caught:
            use()
        assert "dualmem model pull" in caught.value.hint
    assert not embedder.loaded


def test_a_model_that_is_pulled_later_is_found(tmp_path: Path, models: Path) -> None:
    embedder = OnnxEmbedder(tmp_path / "later")
    with pytest.raises(NotFoundError):
        embedder.load()
    models.rename(tmp_path / "later")
    assert embedder.embed(["a"]).shape == (1, minilm.DIMENSIONS)


def test_a_graph_that_this_runtime_cannot_read_is_no_traceback(models: Path) -> None:
    folder = model_folder(models)
    (folder / GRAPH_FILE).write_bytes(b"not a graph")
    document = json.loads((folder / MANIFEST_FILE).read_text())
    digest = hashlib.sha256(b"not a graph").hexdigest()
    document["files"][GRAPH_FILE] = {"bytes": len(b"not a graph"), "sha256": digest}
    (folder / MANIFEST_FILE).write_text(json.dumps(document))
    with pytest.raises(TamperedError, match="does not load"):
        OnnxEmbedder(models).load()


def test_a_runtime_that_cannot_be_imported_is_no_traceback(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NotFoundError, match="cannot be imported") as caught:
        OnnxEmbedder(models).load()
    assert "onnxruntime" in caught.value.hint


def test_a_loaded_model_survives_the_loss_of_its_files(models: Path) -> None:
    embedder = OnnxEmbedder(models)
    before = embedder.embed(["abc"])
    for path in model_folder(models).iterdir():
        path.unlink()
    np.testing.assert_allclose(embedder.embed(["abc"]), before, atol=1e-6)


def test_importing_the_package_costs_nothing() -> None:
    heavy = ["numpy", "onnxruntime", "onnx", "tokenizers", "huggingface_hub", "torch", "sentence_transformers"]
    program = (
        "import pkgutil, importlib, sys, dualmem_mcp.embedding as package\n"
        "for module in pkgutil.iter_modules(package.__path__):\n"
        "    importlib.import_module(f'{package.__name__}.{module.name}')\n"
        f"print(sorted(set(sys.modules) & set({heavy!r})))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
