"""A model that was built: a folder with the graph, the tokenizer, and a manifest that names both by their digests.

    <model folder>/all-MiniLM-L6-v2-onnx-w8a8-1/
      manifest.json    written last: a folder without it holds no model
      model.onnx
      tokenizer.json

Each file is replaced as a whole. The folder's name follows the model's id, so that two versions of this program
that share a cache do not overwrite each other's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dualmem_mcp.embedding import minilm
from dualmem_mcp.errors import NotFoundError, StoreUnreachableError, TamperedError

MANIFEST_FILE: Final = "manifest.json"
GRAPH_FILE: Final = "model.onnx"
PULL_HINT: Final = "Run `dualmem model pull`."

_MAX_MANIFEST_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A built model whose files have the digests that its manifest states."""

    model_id: str
    graph: Path
    tokenizer: Path
    manifest: dict[str, Any]

    @property
    def size_bytes(self) -> int:
        """Bytes of graph and tokenizer together."""
        return sum(int(entry["bytes"]) for entry in self.manifest["files"].values())


def model_folder(models: Path) -> Path:
    """Where in the folder of models the one lies that this version builds and reads."""
    return models / minilm.MODEL_ID.replace("/", "-")


def check_present(models: Path) -> None:
    """Look whether there is a built model whose files have the sizes that they should have; nothing more is read.

    Raises NotFoundError, TamperedError or StoreUnreachableError if there is not.
    """
    folder = model_folder(models)
    for name, entry in _read_manifest(folder)["files"].items():
        _check_size(folder / name, entry["bytes"])


def verified_model(models: Path) -> BuiltModel:
    """The built model, after its files were read once and compared with the manifest (0.02 s for 23 MB).

    Raises NotFoundError if there is none, TamperedError if a file is cut short or changed,
    StoreUnreachableError if it cannot be read.
    """
    folder = model_folder(models)
    manifest = _read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = folder / name
        _check_size(path, entry["bytes"])
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as fault:
            raise _unreadable(path, fault) from fault
        if digest != entry["sha256"]:
            raise _damaged(path, "was changed")
    return BuiltModel(str(manifest["model_id"]), folder / GRAPH_FILE, folder / minilm.TOKENIZER_FILE, manifest)


def _check_size(path: Path, size_bytes: int) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise _damaged(path, "is missing") from None
    except OSError as fault:
        raise _unreadable(path, fault) from fault
    if size != size_bytes:
        raise _damaged(path, f"has {size} bytes instead of {size_bytes}")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_FILE
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_MANIFEST_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(
            "there is no embedding model on this device",
            operation="load model",
            subject=str(folder),
            hint=PULL_HINT,
        ) from None
    except OSError as fault:
        raise _unreadable(path, fault) from fault
    except (ValueError, RecursionError):
        raise _damaged(path, "is no manifest") from None
    if not _fits(document):
        raise _damaged(path, "is no manifest of this model")
    return dict(document)


def _fits(document: Any) -> bool:
    """Whether it is the manifest of the model that this version reads, with an entry for each file and no other."""
    if not isinstance(document, dict) or document.get("model_id") != minilm.MODEL_ID:
        return False
    files = document.get("files")
    return (
        isinstance(files, dict)
        and files.keys() == {GRAPH_FILE, minilm.TOKENIZER_FILE}
        and all(isinstance(entry, dict) and entry.keys() >= {"bytes", "sha256"} for entry in files.values())
    )


def _damaged(path: Path, what: str) -> TamperedError:
    return TamperedError(
        f"the embedding model is damaged: {path} {what}", operation="load model", subject=str(path), hint=PULL_HINT
    )


def _unreadable(path: Path, fault: OSError) -> StoreUnreachableError:
    return StoreUnreachableError(
        f"the embedding model cannot be read: {path}: {fault.strerror or type(fault).__name__}",
        operation="load model",
        subject=str(path),
        hint="Check your rights on the file, and that its disk is present.",
    )
