"""all-MiniLM-L6-v2 as an ONNX graph: token numbers in, L2-normalised sentence vectors out.

BERT with learned positions, layer normalisation after each sum, mean pooling over the tokens that are no padding.
Source: https://arxiv.org/abs/1810.04805 (BERT), https://arxiv.org/abs/1908.10084 (mean pooling).

Written out by hand, not exported: no torch is needed to build it, and the nodes are the ones that were
measured to be fast. `Add` + `LayerNormalization` and plain attention are chosen over ONNX Runtime's fused
`SkipLayerNormalization` (a sixth of all time, against a twentieth) and `MultiHeadAttention` (a quarter, against a
sixth). `SESSION_LEVEL` keeps the runtime from fusing them again.
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


def build_graph(tensors: Tensors, *, quantized: bool = True) -> bytes:
    """The model as an ONNX file's bytes: 23 MB with 8-bit weights, 90 MB in float32.

    Quantized: weights symmetric, one scale for each output (words: for each row), activations in 8 bits with a
    range found at run time. Raises KeyError when a tensor is missing.
    """
    graph = _Graph(tensors, quantized=quantized)
    graph.build()
    return graph.serialized()


class _Graph:
    """Nodes and constants, collected in the order in which they are computed."""

    def __init__(self, tensors: Tensors, *, quantized: bool) -> None:
        self._tensors = tensors
        self._quantized = quantized
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def build(self) -> None:
        """Lay all nodes from the inputs to the output."""
        import numpy as np  # noqa: PLC0415

        self._constant("axis_1", np.array([1], np.int64))
        hidden = self._embeddings()
        mask, bias = self._masks()
        for layer in range(minilm.LAYERS):
            hidden = self._layer(hidden, bias, f"encoder.layer.{layer}")
        # The sum over the tokens has the direction of their mean, and only the direction is kept.
        total = self._node("MatMul", [self._node("Unsqueeze", [mask, "axis_1"], "mask_row"), hidden], "total")
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
        from onnx import TensorProto  # noqa: PLC0415

        words = self._tensors["embeddings.word_embeddings.weight"]
        if self._quantized:
            levels, scales = _quantize_rows(words)
            self._constant("words", levels)
            self._constant("word_scales", scales[:, np.newaxis])
            picked = self._node("Gather", ["words", INPUTS[0]], "word_levels")
            picked = self._node("Cast", [picked], "word_numbers", to=TensorProto.FLOAT)
            word = self._node(
                "Mul", [picked, self._node("Gather", ["word_scales", INPUTS[0]], "word_scale")], "word"
            )
        else:
            word = self._node("Gather", [self._constant("words", words), INPUTS[0]], "word")
        # There is one kind of sentence here, so its row is part of every position.
        positions = self._tensors["embeddings.position_embeddings.weight"][: minilm.MAX_TOKENS]
        self._constant("positions", positions + self._tensors["embeddings.token_type_embeddings.weight"][0])
        self._constant("from_0", np.array([0], np.int64))
        self._constant("axis_2", np.array([2], np.int64))
        shape = self._node("Shape", [INPUTS[0]], "shape")
        length = self._node("Slice", [shape, "axis_1", "axis_2"], "length")
        position = self._node("Slice", ["positions", "from_0", length, "from_0"], "position")
        return self._normalize(self._node("Add", [word, position], "embedded"), "embeddings.LayerNorm")

    def _masks(self) -> tuple[str, str]:
        """The mask as numbers (batch, tokens), and what is added to attention scores (batch, 1, 1, tokens)."""
        import numpy as np  # noqa: PLC0415
        from onnx import TensorProto  # noqa: PLC0415

        mask = self._node("Cast", [INPUTS[1]], "mask", to=TensorProto.FLOAT)
        self._constant("one", np.float32(1))
        self._constant("forbidding", np.float32(1e9))
        self._constant("axes_1_2", np.array([1, 2], np.int64))
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
        return self._normalize(self._node("Add", [narrow, middle], f"{prefix}.sum"), f"{prefix}.output.LayerNorm")

    def _attention(self, hidden: str, bias: str, prefix: str) -> str:
        import numpy as np  # noqa: PLC0415

        size = minilm.DIMENSIONS // minilm.HEADS
        self._constant("split_heads", np.array([0, 0, minilm.HEADS, size], np.int64))
        self._constant("join_heads", np.array([0, 0, minilm.DIMENSIONS], np.int64))
        packed = self._dense(
            hidden, [f"{prefix}.{name}" for name in ("query", "key", "value")], scale_first=size**-0.5
        )
        parts = [f"{prefix}.{name}_part" for name in ("query", "key", "value")]
        self._nodes.append(_make_node("Split", [packed], parts, axis=-1, num_outputs=3))
        query, key, value = (
            self._node(
                "Transpose",
                [self._node("Reshape", [part, "split_heads"], f"{part}.split")],
                f"{part}.heads",
                perm=order,
            )
            for part, order in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
        )
        scores = self._node(
            "Add", [self._node("MatMul", [query, key], f"{prefix}.scores"), bias], f"{prefix}.masked"
        )
        weights = self._node("Softmax", [scores], f"{prefix}.weights", axis=-1)
        mixed = self._node("MatMul", [weights, value], f"{prefix}.mixed")
        rows = self._node("Transpose", [mixed], f"{prefix}.rows", perm=[0, 2, 1, 3])
        return self._node("Reshape", [rows, "join_heads"], f"{prefix}.joined")

    def _dense(self, hidden: str, names: Sequence[str], *, scale_first: float = 1.0) -> str:
        """`hidden` through the linear layers of these names side by side; the first one's output is scaled."""
        import numpy as np  # noqa: PLC0415

        weights = [self._tensors[f"{name}.weight"] for name in names]  # (outputs, inputs) each
        biases = [self._tensors[f"{name}.bias"] for name in names]
        weights[0], biases[0] = weights[0] * np.float32(scale_first), biases[0] * np.float32(scale_first)
        weight, bias = np.concatenate(weights), self._constant(f"{names[0]}.biases", np.concatenate(biases))
        label = f"{names[0]}.out"
        if not self._quantized:
            product = self._node(
                "MatMul", [hidden, self._constant(f"{names[0]}.weights", weight.T)], f"{names[0]}.product"
            )
            return self._node("Add", [product, bias], label)
        levels, scales = _quantize_rows(weight)
        inputs = [
            hidden,
            self._constant(f"{names[0]}.levels", levels.T),
            self._constant(f"{names[0]}.scales", scales),
            self._constant(f"{names[0]}.zeros", np.zeros(len(scales), np.int8)),
            bias,
        ]
        return self._node("DynamicQuantizeMatMul", inputs, label, domain=_RUNTIME)

    def _normalize(self, hidden: str, name: str) -> str:
        gain = self._constant(f"{name}.weight", self._tensors[f"{name}.weight"])
        bias = self._constant(f"{name}.bias", self._tensors[f"{name}.bias"])
        epsilon = minilm.LAYER_NORM_EPSILON
        return self._node("LayerNormalization", [hidden, gain, bias], f"{name}.out", axis=-1, epsilon=epsilon)

    def _constant(self, name: str, values: Any) -> str:
        import numpy as np  # noqa: PLC0415
        from onnx import numpy_helper  # noqa: PLC0415

        if name not in self._constants:
            # asarray after ascontiguousarray would make a scalar a vector, so the order matters for `one`.
            array = np.asarray(values)
            self._constants[name] = numpy_helper.from_array(
                array if array.ndim == 0 else np.ascontiguousarray(array), name
            )
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
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(matrix / scales[:, np.newaxis]).astype(np.int8), scales
