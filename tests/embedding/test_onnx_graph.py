from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from dualmem_mcp.embedding.onnx_graph import INPUTS, OUTPUT, build_graph
from tests.embedding import small_model as small

SEQUENCES = [[101, 103, 104, 102], [101, 120, 110, 105, 103, 128, 102], [101, 102]]


def bert(weights: Mapping[str, NDArray[Any]], numbers: list[int]) -> NDArray[Any]:
    """The sentence vector by the book, in float64, for one text without padding."""

    def linear(x: NDArray[Any], name: str) -> NDArray[Any]:
        return x @ weights[f"{name}.weight"].T.astype(np.float64) + weights[f"{name}.bias"]

    def normalize(x: NDArray[Any], name: str) -> NDArray[Any]:
        spread = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-12)
        return (x - x.mean(axis=-1, keepdims=True)) / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    gelu = np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)
    x = weights["embeddings.word_embeddings.weight"][numbers].astype(np.float64)
    x = x + weights["embeddings.position_embeddings.weight"][: len(numbers)]
    x = normalize(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(small.LAYERS):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            linear(x, f"{name}.attention.self.{part}").reshape(len(numbers), small.HEADS, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = np.exp(query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1]))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        attended = linear(mixed.swapaxes(0, 1).reshape(len(numbers), -1), f"{name}.attention.output.dense")
        x = normalize(attended + x, f"{name}.attention.output.LayerNorm")
        wide = gelu(linear(x, f"{name}.intermediate.dense"))
        x = normalize(linear(wide, f"{name}.output.dense") + x, f"{name}.output.LayerNorm")
    pooled = x.mean(axis=0)
    return pooled / np.linalg.norm(pooled)


def run(graph: bytes, sequences: list[list[int]]) -> NDArray[np.float32]:
    longest = max(map(len, sequences))
    numbers = np.array([row + [0] * (longest - len(row)) for row in sequences], np.int32)
    mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in sequences], np.int32)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run([OUTPUT], {INPUTS[0]: numbers, INPUTS[1]: mask})[0]
    return output


@pytest.mark.usefixtures("published")
def test_the_float_graph_calculates_what_bert_is_defined_as() -> None:
    weights = small.tensors()
    expected = np.array([bert(weights, row) for row in SEQUENCES])
    np.testing.assert_allclose(run(build_graph(weights, quantized=False), SEQUENCES), expected, atol=1e-5)


@pytest.mark.usefixtures("published")
def test_the_8_bit_graph_calculates_nearly_the_same() -> None:
    weights = small.tensors()
    expected = np.array([bert(weights, row) for row in SEQUENCES])
    vectors = run(build_graph(weights), SEQUENCES)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.min(np.sum(vectors * expected, axis=1)) > 0.995


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("quantized", [True, False])
def test_padding_and_company_change_nothing(quantized: bool) -> None:
    graph = build_graph(small.tensors(), quantized=quantized)
    alone = np.concatenate([run(graph, [row]) for row in SEQUENCES])
    np.testing.assert_allclose(run(graph, SEQUENCES), alone, atol=1e-5)


@pytest.mark.usefixtures("published")
def test_a_word_without_weights_is_no_division_by_zero() -> None:
    weights = small.tensors()
    weights["embeddings.word_embeddings.weight"][103] = 0
    assert np.isfinite(run(build_graph(weights), SEQUENCES)).all()


@pytest.mark.usefixtures("published")
def test_the_graph_is_valid_and_the_same_every_time() -> None:
    first = build_graph(small.tensors())
    assert first == build_graph(small.tensors())
    model = onnx.load_from_string(first)
    onnx.checker.check_model(model)
    used = {name for node in model.graph.node for name in node.input}
    assert {constant.name for constant in model.graph.initializer} <= used


@pytest.mark.usefixtures("published")
def test_a_missing_tensor_is_named() -> None:
    weights = small.tensors()
    del weights["encoder.layer.1.output.dense.bias"]
    with pytest.raises(KeyError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        build_graph(weights)


def test_a_session_on_the_real_model_needs_no_external_files(model_dir: Path) -> None:
    (path,) = model_dir.glob("*/model.onnx")
    model = onnx.load(path, load_external_data=False)
    assert not any(constant.external_data for constant in model.graph.initializer)
    assert {opset.domain for opset in model.opset_import} == {"", "com.microsoft"}
