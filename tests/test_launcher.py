"""The Node launcher and the files of the data home profile in sydney/mcp_memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROFILE = Path(__file__).resolve().parents[1] / "sydney" / "mcp_memory"
LAUNCHER = "memory_server_wrapper.js"
TIMEOUT_SECONDS = 30


@pytest.fixture
def node() -> str:
    path = shutil.which("node")
    if path is None:
        pytest.skip("needs Node.js")
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of the profile, as a user has it."""
    ignore = shutil.ignore_patterns("memory.db*", "device.key", "*.bak", ".setup.lock", "*.sealed", "*.dualmem")
    return Path(shutil.copytree(PROFILE, tmp_path / "mcp_memory", ignore=ignore))


@contextlib.contextmanager
def launched(node: str, home: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The launcher, started from another folder with this environment and PATH only."""
    process = subprocess.Popen(
        [node, str(home / LAUNCHER), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home.parent,
        env={"PATH": os.environ["PATH"], "HOME": str(home.parent), "DUALMEM_KEYSTORE": "file", **environment},
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def script(path: Path, text: str) -> str:
    """A program that stands in for a Python: the launcher gives it `-P -m dualmem_mcp.server.serve`."""
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return str(path)


def request(process: subprocess.Popen[bytes], method: str, number: int | None, **params: Any) -> Any:
    message = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if number is None else {"id": number})
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()
    if number is None:
        return None
    answer = json.loads(process.stdout.readline())
    assert answer["id"] == number, answer
    return answer["result"]


# The server behind it


def test_a_client_talks_to_the_server_on_this_folder(node: str, home: Path) -> None:
    with launched(node, home, DUALMEM_PYTHON=sys.executable, DUALMEM_HOME="/nowhere") as process:
        answer = request(
            process,
            "initialize",
            1,
            protocolVersion="2025-06-18",
            capabilities={},
            clientInfo={"name": "test", "version": "1"},
        )
        assert answer["serverInfo"]["name"]
        request(process, "notifications/initialized", None)
        graph = request(process, "tools/call", 2, name="read_graph", arguments={})["structuredContent"]
        assert "dualmem-mcp" in {entity["name"] for entity in graph["entities"]}
        entity = {"name": "launcher test", "entityType": "test", "observations": ["written through the launcher"]}
        request(process, "tools/call", 3, name="create_entities", arguments={"entities": [entity]})
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(TIMEOUT_SECONDS) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b""
    assert (home / "memory.db").exists()
    assert "written through the launcher" in (home / "memory.json").read_text()
    copies = list(home.glob("memory.json.*.bak"))
    assert [copy.read_bytes() for copy in copies] == [(PROFILE / "memory.json").read_bytes()]


def test_sigterm_ends_the_server_and_then_the_launcher(node: str, home: Path) -> None:
    with launched(node, home, DUALMEM_PYTHON=sys.executable) as process:
        request(
            process,
            "initialize",
            1,
            protocolVersion="2025-06-18",
            capabilities={},
            clientInfo={"name": "test", "version": "1"},
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_SECONDS) == -signal.SIGTERM


# Streams, exit codes, signals


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_exit_code_is_the_servers(node: str, home: Path, tmp_path: Path, code: int) -> None:
    server = script(tmp_path / "server", f"raise SystemExit({code})")
    with launched(node, home, DUALMEM_PYTHON=server) as process:
        assert process.wait(TIMEOUT_SECONDS) == code


def test_streams_and_arguments_are_the_servers(node: str, home: Path, tmp_path: Path) -> None:
    server = script(
        tmp_path / "server",
        "import os, sys\n"
        "print(sys.argv[1:], os.environ['DUALMEM_HOME'], sys.stdin.read(), flush=True)\n"
        "print('a word to the user', file=sys.stderr)",
    )
    with launched(node, home, "--flag", DUALMEM_PYTHON=server, DUALMEM_HOME="/nowhere") as process:
        out, err = process.communicate(b"from the client", TIMEOUT_SECONDS)
    arguments = ["-P", "-m", "dualmem_mcp.server.serve", "--flag"]
    assert out.decode() == f"{arguments} {home} from the client\n"
    assert err == b"a word to the user\n"


def test_a_link_to_the_launcher_means_its_own_folder(node: str, home: Path, tmp_path: Path) -> None:
    server = script(tmp_path / "server", "import os; print(os.environ['DUALMEM_HOME'])")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / LAUNCHER).symlink_to(home / LAUNCHER)
    with launched(node, elsewhere, DUALMEM_PYTHON=server) as process:
        assert process.communicate(timeout=TIMEOUT_SECONDS)[0].decode() == f"{home}\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_reach_the_server_once(node: str, home: Path, tmp_path: Path, name: str) -> None:
    """Also when a terminal sends them to the whole process group, as for Ctrl-C."""
    server = script(
        tmp_path / "server",
        "import signal, sys, time\n"
        "seen = []\n"
        f"signal.signal(signal.{name}, lambda number, frame: seen.append(number))\n"
        "print('ready', flush=True)\n"
        "while not seen: time.sleep(0.01)\n"
        "time.sleep(0.2)\n"
        "print(len(seen), flush=True)\n"
        "sys.exit(7)",
    )
    with launched(node, home, DUALMEM_PYTHON=server) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.Signals[name])
        assert process.stdout.readline() == b"1\n"
        assert process.wait(TIMEOUT_SECONDS) == 7


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGINT"])
def test_a_signal_that_ended_the_server_ends_the_launcher(node: str, home: Path, tmp_path: Path, name: str) -> None:
    server = script(
        tmp_path / "server",
        f"import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.{name})",
    )
    with launched(node, home, DUALMEM_PYTHON=server) as process:
        assert process.wait(TIMEOUT_SECONDS) == -signal.Signals[name]


# Finding the server


def only(*programs: str, folder: Path) -> str:
    """A PATH with these programs alone."""
    folder.mkdir()
    for program in programs:
        (folder / Path(program).name).symlink_to(program)
    return str(folder)


def test_no_server_at_all(node: str, home: Path, tmp_path: Path) -> None:
    with launched(node, home, PATH=only(node, folder=tmp_path / "bin")) as process:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 127
    assert out == b""
    assert b"error: dualmem-mcp was not found" in err
    assert b"hint: " in err


def test_a_python_that_is_not_there(node: str, home: Path, tmp_path: Path) -> None:
    with launched(node, home, DUALMEM_PYTHON=str(tmp_path / "none")) as process:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 127
    assert out == b""
    assert b"could not be started (ENOENT)" in err


def test_the_environment_of_the_checkout_goes_first(node: str, tmp_path: Path) -> None:
    home = Path(shutil.copytree(PROFILE, tmp_path / "checkout" / "sydney" / "mcp_memory"))
    programs = tmp_path / "checkout" / ".venv" / "bin"
    programs.mkdir(parents=True)
    script(programs / "dualmem-mcp", "")
    script(programs / "python", "print('checkout')")
    path = only(node, script(tmp_path / "dualmem-mcp", "print('path')"), folder=tmp_path / "bin")
    with launched(node, home, PATH=path) as process:
        assert process.communicate(timeout=TIMEOUT_SECONDS)[0] == b"checkout\n"
    shutil.rmtree(tmp_path / "checkout" / ".venv")
    with launched(node, home, PATH=path) as process:
        assert process.communicate(timeout=TIMEOUT_SECONDS)[0] == b"path\n"


def test_any_python_that_has_it(node: str, home: Path, tmp_path: Path) -> None:
    without = script(tmp_path / "python3", "import sys; sys.exit(1)")
    having = script(tmp_path / "python", "import sys; print(sys.argv[2]) if '-m' in sys.argv else sys.exit(0)")
    with launched(node, home, PATH=only(node, without, having, folder=tmp_path / "bin")) as process:
        assert process.communicate(timeout=TIMEOUT_SECONDS)[0] == b"-m\n"


def test_nothing_is_taken_from_the_folder_it_is_started_in(node: str, home: Path, tmp_path: Path) -> None:
    script(home.parent / "dualmem-mcp", "print('taken')")
    path = only(node, folder=tmp_path / "bin") + os.pathsep + "." + os.pathsep
    with launched(node, home, PATH=path) as process:
        assert process.communicate(timeout=TIMEOUT_SECONDS)[0] == b""
    assert process.returncode == 127


def test_it_runs_inside_a_package_of_modules(node: str, home: Path, tmp_path: Path) -> None:
    (home.parent / "package.json").write_text('{"type": "module"}')
    server = script(tmp_path / "server", "print('started')")
    with launched(node, home, DUALMEM_PYTHON=server) as process:
        assert process.communicate(timeout=TIMEOUT_SECONDS)[0] == b"started\n"


# The profile's files


def test_settings_are_read_as_they_stand(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dualmem_mcp.settings import load_settings

    for name in [name for name in os.environ if name.startswith(("DUALMEM_", "MEMORY_", "CLAUDE_"))]:
        monkeypatch.delenv(name)
    settings = load_settings(home)
    assert settings.memory_file == home / "memory.json"
    assert settings.bucket == str(home.parent / "mcp_memory-bucket")
    assert settings.profile.name == "desktop"
    assert settings.profile.context_tokens == 12_000


def test_every_setting_is_described() -> None:
    from dualmem_mcp.config_file import ConfigFile

    readme = (PROFILE / "README.md").read_text()
    config = json.loads((PROFILE / "cloud_sync_config.json").read_text())
    assert set(config) <= set(ConfigFile.model_fields)
    for field in ConfigFile.model_fields:
        assert f"| `{field}` |" in readme, field


def test_the_sample_graph_is_whole() -> None:
    from dualmem_mcp.reference_jsonl import parse_memory_file

    content = parse_memory_file((PROFILE / "memory.json").read_bytes())
    assert content.faithful
    assert not content.warnings
    names = {entity.name for entity in content.graph.entities}
    assert len(names) >= 5
    for relation in content.graph.relations:
        assert {relation.source, relation.target} <= names


def test_a_used_data_home_stays_out_of_git(home: Path) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("needs git")
    used = ["memory.db", "memory.db-wal", "device.key", "memory.json.2026-03-01.bak", ".setup.lock"]
    used += ["handoff_cache/desktop_sessions/0f.dualmem", "vector_cache/context_vectors/index.db"]
    for name in used:
        (home / name).write_text("x")
    subprocess.run([git, "init", "-q", str(home.parent)], check=True)
    listed = subprocess.run(
        [git, "-C", str(home), "ls-files", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    folders = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_dir()}
    kept = {".gitignore", "README.md", "memory.json", "cloud_sync_config.json", LAUNCHER}
    assert set(listed) == kept | {f"{folder}/README.md" for folder in folders}
