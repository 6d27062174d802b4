"""all-MiniLM-L6-v2 as an ONNX graph: token numbers in, L2-normalised sentence vectors out.

BERT: learned positions, layer normalisation after each sum; then the mean over the tokens that are no padding.
Source: https://arxiv.org/abs/1810.04805 (BERT), https://arxiv.org/abs/1908.10084 (mean pooling).

Written out by hand, not exported: no torch is needed to build it, and its nodes are those that were measured to be
fast. Of ONNX Runtime's fused ones `SkipLayerNormalization` took a sixth of all time where `Add` and
`LayerNormalization` take a twentieth, and `MultiHeadAttention` a quarter where its parts take a fifth. So the
session must not fuse them again: `ORT_ENABLE_BASIC`.

Linear layers calculate in 8 bits. Weights are symmetric with one scale for each output, activations with one for
each token, found at run time: a text's vector does not depend on what else is in its batch (cosine to float32
.997; with ONNX Runtime's own `DynamicQuantizeMatMul`, one range for the whole batch, .992 at a tenth less time).
Processors without VNNI add up pairs of products in 16 bits, which then saturate: cosine .996.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.embedding import minilm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.float32]]

INPUTS: Final = ("input_ids", "attention_mask")
"""int32 (batch, tokens) each; the mask is 1 for tokens and 0 for padding."""

OUTPUT: Final = "embedding"
"""float32 (batch, 384)."""

_RUNTIME: Final = "com.microsoft"
_OPSET: Final = 20
_IR_VERSION: Final = 9  # of ONNX 1.15: every supported runtime reads it
_LEVELS: Final = 127


def build_graph(tensors: Tensors, *, quantized: bool = True) -> bytes:
    """The model as an ONNX file's bytes: 23 MB with 8-bit weights, 90 MB in float32.

    Raises KeyError when a tensor is missing.
    """
    graph = _Graph(tensors, quantized=quantized)
    graph.build()
    return graph.serialized()


class _Graph:
    """Nodes and constants, collected in the order in which they are computed.

    Between the layers the batch is one table, (batch · tokens, 384).
    """

    def __init__(self, tensors: Tensors, *, quantized: bool) -> None:
        self._tensors = tensors
        self._quantized = quantized
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def build(self) -> None:
        """Lay all nodes from the inputs to the output."""
        self._integers("axis_0", 0)
        self._integers("axis_1", 1)
        self._integers("axis_2", 2)
        self._integers("table", -1, minilm.DIMENSIONS)
        hidden = self._embeddings()
        mask, bias = self._masks()
        for layer in range(minilm.LAYERS):
            hidden = self._layer(hidden, bias, f"encoder.layer.{layer}")
        # The sum over the tokens has the direction of their mean, and only the direction is kept.
        tokens = self._node(
            "Reshape", [hidden, self._join("shape_of_tokens", "shape", minilm.DIMENSIONS)], "tokens"
        )
        total = self._node("MatMul", [self._node("Unsqueeze", [mask, "axis_1"], "mask_row"), tokens], "total")
        pooled = self._node("Squeeze", [total, "axis_1"], "pooled")
        self._node("LpNormalization", [pooled], OUTPUT, axis=-1, p=2)

    def serialized(self) -> bytes:
        """The model with what was laid so far."""
        from onnx import TensorProto, helper  # noqa: PLC0415

        sizes = ["batch", "tokens"]
        model = helper.make_model(
            helper.make_graph(
                self._nodes,
                minilm.NAME,
                [helper.make_tensor_value_info(name, TensorProto.INT32, sizes) for name in INPUTS],
                [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", minilm.DIMENSIONS])],
                list(self._constants.values()),
            ),
            opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_RUNTIME, 1)],
            ir_version=_IR_VERSION,
            producer_name="dualmem-mcp",
        )
        return bytes(model.SerializeToString(deterministic=True))

    def _embeddings(self) -> str:
        import numpy as np  # noqa: PLC0415
        from onnx import TensorProto, helper  # noqa: PLC0415

        numbers = INPUTS[0]
        self._node("Shape", [numbers], "shape")
        words = self._tensors["embeddings.word_embeddings.weight"]
        if self._quantized:
            levels, scales = _quantize_rows(words)
            self._constant("words", levels)
            self._constant("word_scales", scales[:, np.newaxis])
            picked = self._node("Gather", ["words", numbers], "word_levels")
            picked = self._node("Cast", [picked], "word_numbers", to=TensorProto.FLOAT)
            word = self._node("Mul", [picked, self._node("Gather", ["word_scales", numbers], "word_scale")], "word")
            rows = self._node("ReduceProd", ["shape"], "rows", keepdims=1)
            middle = helper.make_tensor("middle", TensorProto.UINT8, [1], [_LEVELS + 1])
            self._node("ConstantOfShape", [rows], "middles", value=middle)
        else:
            word = self._node("Gather", [self._constant("words", words), numbers], "word")
        # There is one kind of sentence here, so its row is part of every position.
        positions = self._tensors["embeddings.position_embeddings.weight"][: minilm.MAX_TOKENS]
        self._constant("positions", positions + self._tensors["embeddings.token_type_embeddings.weight"][0])
        length = self._node("Slice", ["shape", "axis_1", "axis_2"], "length")
        position = self._node("Slice", ["positions", "axis_0", length, "axis_0"], "position")
        table = self._node("Reshape", [self._node("Add", [word, position], "embedded"), "table"], "embedded_table")
        return self._normalize(table, "embeddings.LayerNorm")

    def _masks(self) -> tuple[str, str]:
        """The mask as numbers (batch, tokens), and what is added to attention scores (batch, 1, 1, tokens)."""
        import numpy as np  # noqa: PLC0415
        from onnx import TensorProto  # noqa: PLC0415

        mask = self._node("Cast", [INPUTS[1]], "mask", to=TensorProto.FLOAT)
        self._constant("one", np.float32(1))
        self._constant("forbidding", np.float32(1e9))
        self._integers("axes_1_2", 1, 2)
        lowered = self._node("Mul", [self._node("Sub", [mask, "one"], "mask_less_1"), "forbidding"], "lowered")
        return mask, self._node("Unsqueeze", [lowered, "axes_1_2"], "attention_bias")

    def _layer(self, hidden: str, bias: str, prefix: str) -> str:
        attended = self._attention(hidden, bias, f"{prefix}.attention.self")
        output = self._dense(attended, [f"{prefix}.attention.output.dense"])
        summed = self._node("Add", [output, hidden], f"{prefix}.attended")
        middle = self._normalize(summed, f"{prefix}.attention.output.LayerNorm")
        wide = self._dense(middle, [f"{prefix}.intermediate.dense"])
        activated = self._node("Gelu", [wide], f"{prefix}.activated")
        narrow = self._dense(activated, [f"{prefix}.output.dense"])
        summed = self._node("Add", [narrow, middle], f"{prefix}.sum")
        return self._normalize(summed, f"{prefix}.output.LayerNorm")

    def _attention(self, hidden: str, bias: str, prefix: str) -> str:
        size = minilm.DIMENSIONS // minilm.HEADS
        heads = self._join("shape_of_heads", "shape", minilm.HEADS, size)
        # Scores are divided by the root of a head's size; here the query is, once and for all.
        packed = self._dense(hidden, [f"{prefix}.{part}" for part in ("query", "key", "value")], scale=size**-0.5)
        parts = [f"{prefix}.{part}.part" for part in ("query", "key", "value")]
        self._nodes.append(_make_node("Split", [packed], parts, axis=-1, num_outputs=3))
        query, key, value = (
            self._node(
                "Transpose", [self._node("Reshape", [part, heads], f"{part}.split")], f"{part}.heads", perm=order
            )
            for part, order in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
        )
        scores = self._node(
            "Add", [self._node("MatMul", [query, key], f"{prefix}.scores"), bias], f"{prefix}.masked"
        )
        weights = self._node("Softmax", [scores], f"{prefix}.weights", axis=-1)
        mixed = self._node("MatMul", [weights, value], f"{prefix}.mixed")
        by_token = self._node("Transpose", [mixed], f"{prefix}.by_token", perm=[0, 2, 1, 3])
        return self._node("Reshape", [by_token, "table"], f"{prefix}.joined")

    def _dense(self, hidden: str, names: Sequence[str], *, scale: float = 1.0) -> str:
        """`hidden` through the linear layers of these names side by side; the first one's output is scaled."""
        import numpy as np  # noqa: PLC0415

        factors = [np.float32(scale if place == 0 else 1.0) for place in range(len(names))]
        weights = np.concatenate(  # (outputs, inputs)
            [self._tensors[f"{name}.weight"] * factor for name, factor in zip(names, factors, strict=True)]
        )
        label = names[0]
        if self._quantized:
            product = self._quantized_product(hidden, weights, label)
        else:
            product = self._node(
                "MatMul", [hidden, self._constant(f"{label}.weights", weights.T)], f"{label}.product"
            )
        bias = np.concatenate(
            [self._tensors[f"{name}.bias"] * factor for name, factor in zip(names, factors, strict=True)]
        )
        return self._node("Add", [product, self._constant(f"{label}.biases", bias)], f"{label}.out")

    def _quantized_product(self, hidden: str, weights: NDArray[np.float32], label: str) -> str:
        """`hidden` times the weights' transpose, both in 8 bits: hidden ≈ scale of its row · (levels - 128).

        No row is all zeros: each comes from a layer normalisation, from values mixed, or from GELU.
        """
        import numpy as np  # noqa: PLC0415

        self._constant("level", np.float32(1 / _LEVELS))
        largest = self._node(
            "ReduceMax", [self._node("Abs", [hidden], f"{label}.size"), "axis_1"], f"{label}.largest"
        )
        row_scales = self._node("Mul", [largest, "level"], f"{label}.row_scales")  # (rows, 1)
        flat = self._node("Squeeze", [row_scales, "axis_1"], f"{label}.row_scales_flat")
        levels = self._node("QuantizeLinear", [hidden, flat, "middles"], f"{label}.row_levels", axis=0)
        weight_levels, weight_scales = _quantize_rows(weights)
        inputs = [
            levels,
            self._constant(f"{label}.levels", weight_levels.T),
            self._constant("scale_1", np.float32(1)),
            self._constant(f"{label}.scales", weight_scales),
            self._constant("middle", np.uint8(_LEVELS + 1)),
            self._constant(f"{label}.zeros", np.zeros(len(weight_scales), np.int8)),
        ]
        product = self._node("MatMulIntegerToFloat", inputs, f"{label}.scaled_product", domain=_RUNTIME)
        return self._node("Mul", [product, row_scales], f"{label}.product")

    def _normalize(self, hidden: str, name: str) -> str:
        inputs = [hidden, self._parameter(f"{name}.weight"), self._parameter(f"{name}.bias")]
        return self._node("LayerNormalization", inputs, f"{name}.out", axis=-1, epsilon=minilm.LAYER_NORM_EPSILON)

    def _join(self, name: str, shape: str, *sizes: int) -> str:
        """A shape followed by these sizes; laid once."""
        if name not in self._constants and all(node.name != name for node in self._nodes):
            self._node("Concat", [shape, self._integers(f"{name}.end", *sizes)], name, axis=0)
        return name

    def _parameter(self, name: str) -> str:
        return self._constant(name, self._tensors[name])

    def _integers(self, name: str, *values: int) -> str:
        import numpy as np  # noqa: PLC0415

        return self._constant(name, np.array(values, np.int64))

    def _constant(self, name: str, values: Any) -> str:
        import numpy as np  # noqa: PLC0415
        from onnx import numpy_helper  # noqa: PLC0415

        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def _node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self._nodes.append(_make_node(operator, inputs, [output], **attributes))
        return output


def _make_node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    from onnx import helper  # noqa: PLC0415

    return helper.make_node(operator, list(inputs), list(outputs), name=outputs[0], **attributes)


def _quantize_rows(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Levels int8 -127 … 127 in the matrix's shape and a scale for each row: matrix ≈ levels · scale."""
    import numpy as np  # noqa: PLC0415

    largest = np.abs(matrix).max(axis=1)
    scales = np.where(largest > 0, largest / _LEVELS, 1).astype(np.float32)
    return np.rint(matrix / scales[:, np.newaxis]).astype(np.int8), scales
