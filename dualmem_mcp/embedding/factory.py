"""Which embedding model is used: the one that the settings name, if what it needs is here."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from dualmem_mcp.embedding import minilm
from dualmem_mcp.embedding.model_files import is_present
from dualmem_mcp.embedding.onnx_embedder import OnnxEmbedder
from dualmem_mcp.ports import Embedder

DEFAULT_MODEL: Final = minilm.NAME

_NOT_PULLED: Final = "search goes by words alone: the model is not here yet (`dualmem model pull` fetches it once)"


class LoadableEmbedder(Embedder, Protocol):
    """An Embedder whose model can be brought into memory ahead of its first use, and let go."""

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        ...

    def load(self) -> None:
        """Bring it into memory. Raises NotFoundError, TamperedError, StoreUnreachableError."""
        ...

    def unload(self) -> None:
        """Give its memory back; the next use loads it again."""
        ...


def open_embedder(models: Path, name: str = DEFAULT_MODEL) -> tuple[LoadableEmbedder | None, str]:
    """The model of that name, not loaded yet, and ""; or None, and the sentence that says what is missing."""
    if name == DEFAULT_MODEL:
        return (OnnxEmbedder(models), "") if is_present(models) else (None, _NOT_PULLED)
    return None, f"search goes by words alone: there is no model {name!r} (DUALMEM_MODEL names it)"
