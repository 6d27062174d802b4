"""The embedding model as searching and indexing see it: there or not, in memory or not, loading meanwhile."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dualmem_mcp.embedding.factory import LoadableEmbedder, open_embedder
from dualmem_mcp.embedding.model_files import model_folder
from dualmem_mcp.errors import DualmemError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

LOADING_SECONDS: Final = 1.0
"""A search waits no longer for the model to be loaded: it then works by words, and says so."""

_LOADING: Final = "the model is still being loaded, so this search went by words alone"


class QueryModel:
    """The embedder that the settings name. `missing` says why there is none; empty if there is.

    Safe for use from several threads.
    """

    def __init__(self, models: Path, name: str) -> None:
        self._models = models
        self._name = name
        self._lock = threading.Lock()
        self._loader: threading.Thread | None = None
        self._failure = ""
        self._failed_with: object = None
        self._look()

    def _look(self) -> None:
        self._embedder, self._absent = open_embedder(self._models, self._name)

    @property
    def missing(self) -> str:
        """Why search has no model, with what to do about it; empty if it has one."""
        # It may have been pulled meanwhile.
        if self._embedder is None:
            self._look()
        elif self._failure and self._files() != self._failed_with:
            self._failure = ""
            self._look()
        return self._absent or self._failure

    @property
    def embedder(self) -> LoadableEmbedder | None:
        """The model, loaded or not; None where there is none."""
        return None if self.missing else self._embedder

    def loaded(self) -> LoadableEmbedder | None:
        """The model, brought into memory; None where there is none or it does not load, and `missing` says why."""
        embedder = self.embedder
        if embedder is not None:
            self._loading(embedder)
        return self.embedder

    @property
    def model_id(self) -> str:
        """Of the model, "" where there is none."""
        embedder = self.embedder
        return embedder.model_id if embedder else ""

    def query_vector(self, text: str, wait_seconds: float) -> tuple[NDArray[np.float32] | None, str]:
        """The vector of a query, float32 (d,), or None and why there is none: no model, or not loaded in time."""
        embedder = self.embedder
        if embedder is None:
            return None, self.missing
        if not embedder.loaded:
            self._load(embedder).join(wait_seconds)
            if not embedder.loaded:
                return None, self.missing or _LOADING
        try:
            return embedder.embed([text])[0], ""
        except DualmemError as error:
            self._fail(error)
            return None, self._failure
        except (RuntimeError, MemoryError) as error:  # of the runtimes, which have no class of errors in common
            _log.warning("the embedding model failed: %s", type(error).__name__)
            return None, f"this search went by words alone: the model failed ({type(error).__name__})"

    def _load(self, embedder: LoadableEmbedder) -> threading.Thread:
        with self._lock:
            if self._loader is None or not self._loader.is_alive():
                self._loader = threading.Thread(target=self._loading, args=(embedder,), name="model", daemon=True)
                self._loader.start()
            return self._loader

    def _loading(self, embedder: LoadableEmbedder) -> None:
        try:
            embedder.load()
        except DualmemError as error:
            self._fail(error)
            _log.warning("%s", self._failure)

    def _fail(self, error: DualmemError) -> None:
        self._failed_with = self._files()
        self._failure = _told(error)

    def _files(self) -> object:
        """What the model's files look like from outside: pulled again, they look otherwise."""
        try:
            looks = [(path.name, path.stat()) for path in model_folder(self._models).iterdir()]
        except OSError:
            return None
        return sorted((name, look.st_size, look.st_mtime_ns) for name, look in looks)


def _told(error: DualmemError) -> str:
    return f"search goes by words alone: {error.message}" + (f" ({error.hint})" if error.hint else "")
