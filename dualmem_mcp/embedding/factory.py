"""Which Embedder there is on this device for the model that the settings name."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Protocol

from dualmem_mcp.embedding import minilm
from dualmem_mcp.embedding.model_files import check_present
from dualmem_mcp.embedding.onnx_embedder import OnnxEmbedder
from dualmem_mcp.embedding.sentence_transformers_embedder import SentenceTransformersEmbedder
from dualmem_mcp.errors import DualmemError
from dualmem_mcp.ports import Embedder


class LoadableEmbedder(Embedder, Protocol):
    """An Embedder whose model comes into memory and leaves it; it is loaded at its first use at the latest."""

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        ...

    def load(self) -> None:
        """Bring the model into memory, if it is not there.

        Raises NotFoundError, TamperedError or StoreUnreachableError if that cannot be done.
        """
        ...

    def unload(self) -> None:
        """Give the model's memory back; the next use loads it again. Calls that are under way go on."""
        ...


def open_embedder(
    models: Path, name: str = minilm.NAME, *, threads: int = 2
) -> tuple[LoadableEmbedder | None, str]:
    """The embedder for a model, not loaded yet, or None and a sentence on what is missing and what to do.

    `all-MiniLM-L6-v2` runs in ONNX Runtime, from the folder of models; any other name is one that the library
    sentence-transformers knows. Cheap: reads a manifest and the sizes of two files.
    """
    if name != minilm.NAME:
        if importlib.util.find_spec("sentence_transformers") is None:
            return None, (
                f"search goes by words alone: the model {name} needs the extra "
                "`pip install 'dualmem-mcp[sentence-transformers]'`"
            )
        return SentenceTransformersEmbedder(name, threads=threads), ""
    try:
        check_present(models)
    except DualmemError as error:
        return None, f"search goes by words alone: {error.message} (`dualmem model pull` fetches it)"
    return OnnxEmbedder(models, threads=threads), ""
