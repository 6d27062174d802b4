"""The Embedder of the extra [sentence-transformers]: any model of that library, in PyTorch."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.embedding.native_memory import give_back_memory
from dualmem_mcp.embedding.tokens import CHARACTERS_PER_TOKEN, readable
from dualmem_mcp.errors import DualmemError, NotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BATCH_TEXTS: Final = 32  # the library's own default; it sorts by length
_MAX_TOKENS: Final = 512  # for a model that states no length


class SentenceTransformersEmbedder:
    """Loads its model at the first use, or when told, from this device alone: a search never waits for a download.

    May be used from several threads. Importing PyTorch takes seconds and hundreds of megabytes, which `unload`
    does not give back.
    """

    def __init__(self, name: str, *, threads: int = 2) -> None:
        """`name` is the model's on the Hugging Face hub, or a folder; `threads` are PyTorch's in this process."""
        self._name = name
        self._threads = threads
        self._lock = threading.Lock()
        self._model: Any = None

    @property
    def model_id(self) -> str:
        """The model's name and the library."""
        return f"{self._name}/sentence-transformers"

    @property
    def dimensions(self) -> int:
        """Length of the vectors; loads the model, which alone knows it."""
        # Asked of a vector: the library's method for it has another name in each of its last versions.
        return int(self._loaded_model().encode([""], show_progress_bar=False).shape[1])

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._model is not None

    def load(self) -> None:
        """Bring the model into memory, if it is not there.

        Raises NotFoundError if the library or the model is not on this device.
        """
        self._loaded_model()

    def unload(self) -> None:
        """Let the model go; the next use loads it again. Calls that are under way go on."""
        with self._lock:
            self._model = None
        give_back_memory()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One vector a text, in order: float32 (n, dimensions), L2-normalised. What is too long is cut.

        Raises what `load` raises.
        """
        import numpy as np  # noqa: PLC0415

        model = self._loaded_model()
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        characters = CHARACTERS_PER_TOKEN * (model.max_seq_length or _MAX_TOKENS)
        vectors = model.encode(
            [readable(text, characters) for text in texts],
            batch_size=_BATCH_TEXTS,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, np.float32)

    def _loaded_model(self) -> Any:
        with self._lock:
            if self._model is None:
                self._model = open_sentence_transformer(self._name, threads=self._threads)
            return self._model


def fetch_sentence_transformer(name: str) -> dict[str, Any]:
    """Bring a model of the library into the local Hugging Face cache; returns path, bytes and source.

    Raises NotFoundError if the library is missing, or the model neither here nor on the hub.
    """
    folder = Path(_expanded(name))
    if folder.is_dir():
        open_sentence_transformer(name)
        source = "folder"
    else:
        folder = Path(_downloaded(name))
        source = "Hugging Face hub"
    return {
        "path": str(folder),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "source": source,
    }


def open_sentence_transformer(name: str, *, threads: int = 2) -> Any:
    """The library's model of that name, from this device alone. Raises NotFoundError."""
    try:
        import sentence_transformers  # noqa: PLC0415
        import torch  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415
    except ImportError as error:
        raise _no_library(name) from error
    torch.set_num_threads(threads)
    logging.disable_progress_bar()  # a server's stderr is its log
    try:
        return sentence_transformers.SentenceTransformer(_expanded(name), local_files_only=True)
    except (OSError, ValueError, RuntimeError, LookupError, ImportError, TypeError, AttributeError) as error:
        # The library passes on what each part of a model raises for files that are missing or do not fit.
        raise NotFoundError(
            f"the model {name} cannot be opened on this device ({type(error).__name__})",
            operation="load model",
            subject=name,
            hint="Run `dualmem model pull` with DUALMEM_MODEL set to it, or unset DUALMEM_MODEL.",
        ) from error


def _expanded(name: str) -> str:
    # Unlike Path.expanduser, this leaves the home of somebody unknown as it is: a model that is not there.
    return os.path.expanduser(name)  # noqa: PTH111


def _downloaded(name: str) -> str:
    import huggingface_hub  # noqa: PLC0415
    from huggingface_hub import errors  # noqa: PLC0415

    transport_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    repository = name if "/" in name else f"sentence-transformers/{name}"  # the library's own rule
    try:
        path: str = huggingface_hub.snapshot_download(repository)
    except (transport_error, OSError, ValueError) as error:
        raise NotFoundError(
            f"the model {name} is not here and cannot be fetched from the hub ({type(error).__name__})",
            operation="pull model",
            subject=name,
            hint="Check the name in DUALMEM_MODEL, go online, or set it to a folder that holds the model.",
        ) from error
    return path


def _no_library(name: str) -> DualmemError:
    return NotFoundError(
        f"the model {name} needs the library sentence-transformers, which is not installed",
        operation="load model",
        subject=name,
        hint="Install it: pip install 'dualmem-mcp[sentence-transformers]', or unset DUALMEM_MODEL.",
    )
