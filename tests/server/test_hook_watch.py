"""The running server as hooks see it, as a process: `tests/test_hook.py` has the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dualmem_mcp.hook import SERVED_FOLDER, is_served
from dualmem_mcp.project_news import project_key, read_news, real_folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    (tmp_path / "project").mkdir()
    environment = {
        **os.environ,
        "DUALMEM_HOME": str(tmp_path / "home"),
        "DUALMEM_KEYSTORE": "file",
        "DUALMEM_MODEL_DIR": str(tmp_path / "models"),
        "CLAUDE_CONFIG_DIR": str(tmp_path / "claude"),
        "CLAUDE_PROJECT_DIR": str(tmp_path / "project"),
    }

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dualmem_mcp.server.serve"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        # Once the client says so, the server opens its data home.
        process.stdin.write(
            b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
            b'"capabilities":{},"clientInfo":{"name":"test","version":"1"}}}\n'
            b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
        )
        process.stdin.flush()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def eventually(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("ending", ["input", signal.SIGTERM, signal.SIGKILL])
def test_a_server_is_there_for_hooks_until_it_ends_however_that_is(
    server: Callable[[], subprocess.Popen[bytes]], tmp_path: Path, ending: object
) -> None:
    home = tmp_path / "home"

    def served() -> bool:
        salt, _ = read_news(str(home))
        return bool(salt) and is_served(str(home), project_key(salt, real_folder(str(tmp_path / "project"))))

    process = server()
    eventually(served)
    (file,) = (home / SERVED_FOLDER).iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o077 == 0
    if ending == "input":
        assert process.stdin is not None
        process.stdin.close()
    else:
        assert isinstance(ending, signal.Signals)
        process.send_signal(ending)
    process.wait(30)
    assert not served()
    assert not file.exists()
