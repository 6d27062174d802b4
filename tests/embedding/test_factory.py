from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from dualmem_mcp.embedding.factory import open_embedder
from dualmem_mcp.embedding.model_files import GRAPH_FILE, model_folder
from dualmem_mcp.embedding.onnx_embedder import OnnxEmbedder
from dualmem_mcp.embedding.sentence_transformers_embedder import (
    SentenceTransformersEmbedder,
    fetch_sentence_transformer,
)
from dualmem_mcp.errors import NotFoundError


def test_the_default_is_the_built_model(models: Path) -> None:
    embedder, missing = open_embedder(models)
    assert isinstance(embedder, OnnxEmbedder)
    assert not embedder.loaded
    assert missing == ""


def test_no_model_is_said_with_what_to_do(tmp_path: Path) -> None:
    embedder, missing = open_embedder(tmp_path)
    assert embedder is None
    assert "goes by words alone" in missing
    assert "`dualmem model pull`" in missing


def test_a_damaged_model_is_not_called_missing(models: Path) -> None:
    (model_folder(models) / GRAPH_FILE).write_bytes(b"")
    embedder, missing = open_embedder(models)
    assert embedder is None
    assert "damaged" in missing


def test_other_models_need_the_extra(tmp_path: Path) -> None:
    embedder, missing = open_embedder(tmp_path, "BAAI/bge-small-en-v1.5")
    if importlib.util.find_spec("sentence_transformers") is None:
        assert embedder is None
        assert "dualmem-mcp[sentence-transformers]" in missing
    else:
        assert isinstance(embedder, SentenceTransformersEmbedder)
        assert embedder.model_id == "BAAI/bge-small-en-v1.5/sentence-transformers"


def test_a_model_in_the_home_of_somebody_unknown_is_no_traceback() -> None:
    with pytest.raises(NotFoundError) as caught:
        fetch_sentence_transformer("~nobody-of-this-name/model")
    assert "DUALMEM_MODEL" in caught.value.hint


def test_a_model_of_the_extra_that_is_not_here_is_no_traceback(tmp_path: Path) -> None:
    embedder = SentenceTransformersEmbedder(str(tmp_path / "no-such-model"))
    with pytest.raises(NotFoundError) as caught:
        embedder.embed(["a"])
    assert "DUALMEM_MODEL" in caught.value.hint
