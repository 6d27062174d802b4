"""What every Embedder promises, over both backends; and that they agree."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dualmem_mcp.embedding.factory import LoadableEmbedder, open_embedder
from dualmem_mcp.embedding.onnx_embedder import OnnxEmbedder

TEXTS = [
    "A cat sleeps on the sofa.",
    "A kitten is napping on the couch.",
    "The bucket refuses conditional writes.",
    "S3 answered 412 to a PUT with If-None-Match.",
    "Wann treffen wir uns?",
    "def parse(line: str) -> tuple[str, int]:",
    " ".join(["The handoff is sealed before it is uploaded."] * 60),  # longer than 256 tokens
]

ODD = [
    "",
    " ",
    "\0",
    "\0in the middle\0",
    "😀",
    "\ud83d",
    "half \ude00 a pair",
    "x" * 100_000,
    "日本語 " * 30_000,
    "\n" * 9_000,
]


def sentence_transformers_model() -> str:
    """A name or folder of all-MiniLM-L6-v2 for the second backend; skips where that cannot run."""
    if importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip("needs the extra [sentence-transformers]")
    return os.environ.get("DUALMEM_TEST_SENTENCE_TRANSFORMERS", "sentence-transformers/all-MiniLM-L6-v2")


@pytest.fixture(scope="module", params=["onnx", "sentence-transformers"])
def backend(request: pytest.FixtureRequest) -> Iterator[LoadableEmbedder]:
    if request.param == "onnx":
        models, name = request.getfixturevalue("model_dir"), "all-MiniLM-L6-v2"
    else:
        models, name = Path(), sentence_transformers_model()
    opened, missing = open_embedder(models, name)
    assert opened is not None, missing
    yield opened
    opened.unload()


def test_vectors_are_unit_float32_rows(backend: LoadableEmbedder) -> None:
    vectors = backend.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), backend.dimensions)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_give_no_vectors(backend: LoadableEmbedder) -> None:
    assert backend.embed([]).shape == (0, backend.dimensions)


def test_what_means_the_same_lies_closer(backend: LoadableEmbedder) -> None:
    cat, kitten, bucket, s3, *_ = backend.embed(TEXTS)
    assert cat @ kitten > 0.6
    assert bucket @ s3 > 0.25
    assert abs(cat @ bucket) < 0.15


def test_a_text_has_its_vector_in_any_company(backend: LoadableEmbedder) -> None:
    together = backend.embed(TEXTS)
    alone = np.concatenate([backend.embed([text]) for text in reversed(TEXTS)])[::-1]
    assert np.all(np.sum(together * alone, axis=1) > 0.9999)


def test_any_text_has_a_vector(backend: LoadableEmbedder) -> None:
    vectors = backend.embed(ODD)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    same = backend.embed(["half \ufffd a pair"])[0]
    assert same @ vectors[ODD.index("half \ude00 a pair")] > 0.9999


def test_the_beginning_of_a_long_text_counts(backend: LoadableEmbedder) -> None:
    beginning = "The vault is opened with a passphrase. " * 60
    first, second = backend.embed([beginning + "A cat. " * 5_000, beginning + "Nothing of the kind. " * 5_000])
    assert first @ second > 0.9999


def test_loads_at_first_use_and_again_after_unload(backend: LoadableEmbedder) -> None:
    backend.unload()
    assert not backend.loaded
    before = backend.embed(TEXTS[:2])
    assert backend.loaded
    backend.load()
    backend.unload()
    np.testing.assert_allclose(backend.embed(TEXTS[:2]), before, atol=1e-5)


def test_several_threads_share_an_embedder(backend: LoadableEmbedder) -> None:
    expected = backend.embed(TEXTS)
    wrong: list[int] = []

    def embed(number: int) -> None:
        for turn in range(3):
            if number == 0 and turn == 1:
                backend.unload()  # the others go on, or load it again
            if np.min(np.sum(backend.embed(TEXTS) * expected, axis=1)) < 0.9999:
                wrong.append(number)

    threads = [threading.Thread(target=embed, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_backends_agree(embedder: OnnxEmbedder) -> None:
    other, missing = open_embedder(Path(), sentence_transformers_model())
    assert other is not None, missing
    ours, theirs = embedder.embed(TEXTS), other.embed(TEXTS)
    assert np.min(np.sum(ours * theirs, axis=1)) >= 0.99
    assert embedder.model_id != other.model_id
