"""The Embedder of the base install: all-MiniLM-L6-v2 in ONNX Runtime, on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.embedding import minilm
from dualmem_mcp.embedding.model_files import PULL_HINT, verified_model
from dualmem_mcp.embedding.native_memory import give_back_memory
from dualmem_mcp.embedding.onnx_graph import OUTPUT
from dualmem_mcp.embedding.tokens import Tokenizer, batches
from dualmem_mcp.errors import NotFoundError, TamperedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TEXTS_AT_ONCE: Final = 512
"""Texts whose tokens are in memory at a time; also the span within which texts are sorted by length."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    session: Any
    tokenizer: Tokenizer


class OnnxEmbedder:
    """Loads its model from the folder of models at the first use, or when told; may be used from several threads.

    A text's vector is the same in every batch, up to the order in which floats are added (1e-6).
    """

    def __init__(self, models: Path, *, threads: int = 2) -> None:
        """`threads` is how many cores one call of `embed` may use; a single short text uses one in any case."""
        self._models = models
        self._threads = threads
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    @property
    def model_id(self) -> str:
        """Names model, weights, arithmetic and cut of texts."""
        return minilm.MODEL_ID

    @property
    def dimensions(self) -> int:
        """384."""
        return minilm.DIMENSIONS

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._loaded is not None

    def load(self) -> None:
        """Bring the model into memory, if it is not there (0.2 s).

        Raises NotFoundError if there is none, or no runtime for it, TamperedError if it is damaged,
        StoreUnreachableError if it cannot be read.
        """
        self._model()

    def unload(self) -> None:
        """Give the model's memory back; the next use loads it again. Calls that are under way go on."""
        with self._lock:
            if self._loaded is None:
                return
            self._loaded = None
        give_back_memory()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One vector a text, in order: float32 (n, 384), L2-normalised. Of a text the first 256 tokens count.

        Raises what `load` raises.
        """
        import numpy as np  # noqa: PLC0415

        model = self._model()
        vectors = np.empty((len(texts), minilm.DIMENSIONS), np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = vectors[start : start + _TEXTS_AT_ONCE]
            numbers = model.tokenizer.token_numbers(texts[start : start + _TEXTS_AT_ONCE])
            self._run(model, list(batches(numbers)), part)
        return vectors

    def _run(
        self, model: _Loaded, work: list[tuple[list[int], dict[str, Any]]], vectors: NDArray[np.float32]
    ) -> None:
        """Fill in the vectors. One batch a thread: two that share a batch wait for each other at every node."""

        def run(batch: tuple[list[int], dict[str, Any]]) -> None:
            places, inputs = batch
            vectors[places] = model.session.run([OUTPUT], inputs)[0]

        if self._threads == 1 or len(work) == 1:
            for batch in work:
                run(batch)
            return
        with ThreadPoolExecutor(self._threads, thread_name_prefix="embed") as pool:
            # The longest first, so that none is left over at the end.
            list(pool.map(run, reversed(work)))

    def _model(self) -> _Loaded:
        with self._lock:
            if self._loaded is None:
                self._loaded = _load(self._models)
            return self._loaded


def _load(models: Path) -> _Loaded:
    files = verified_model(models)
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:  # on Windows also where its C++ libraries are missing
        raise NotFoundError(
            f"ONNX Runtime cannot be imported ({error})",
            operation="load model",
            subject="onnxruntime",
            hint="Install it again: `pip install --force-reinstall onnxruntime`; on Windows it also needs "
            "Microsoft's Visual C++ Redistributable.",
        ) from error
    options = onnxruntime.SessionOptions()
    # With one thread the runtime starts none of its own, and nothing waits actively between calls.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # The graph has the nodes that were measured to be fast; higher levels replace them by slower ones.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # A plan of memory is kept for each shape of a batch, of which there are thousands: 20 MB, and no time gained.
    options.enable_mem_pattern = False
    options.log_severity_level = 3  # errors; they are raised too
    try:
        session = onnxruntime.InferenceSession(str(files.graph), options, providers=["CPUExecutionProvider"])
        return _Loaded(session, Tokenizer(files.tokenizer))
    except Exception as error:  # the runtime's errors have no other class in common
        # The files are as they were written: what wrote them was another version, or had other weights.
        raise TamperedError(
            f"the embedding model does not load: {type(error).__name__}",
            operation="load model",
            subject=str(files.graph),
            hint=PULL_HINT,
        ) from error
