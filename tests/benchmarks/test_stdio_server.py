"""The client of a stdio server, against a server of a few lines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from stdio_server import running, structured, text

SERVER = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "tools/call":
        asked = message["params"]
        print(json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}), flush=True)
        wrong = asked["name"] == "wrong"
        content = [{"type": "text", "text": asked["arguments"]["say"]}]
        result = {"content": content, "structuredContent": asked["arguments"], "isError": wrong}
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        print(json.dumps(answer, separators=(",", ":")), flush=True)
    elif "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {}}), flush=True)
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "server.py"
    script.write_text(SERVER, encoding="utf-8")
    return [sys.executable, str(script)]


def test_an_answer_is_read_past_notifications(command: list[str]) -> None:
    with running(command, {}) as server:
        answer = server.call("echo", {"say": "hello"})
    assert text(answer) == "hello"
    assert structured(answer) == {"say": "hello"}


def test_an_error_of_a_tool_is_raised(command: list[str]) -> None:
    with running(command, {}) as server, pytest.raises(RuntimeError, match="wrong failed"):
        server.call("wrong", {"say": "no"})


def test_a_server_that_ends_is_said_to_have_ended(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text("", encoding="utf-8")
    with pytest.raises(RuntimeError, match="the server has ended"), running([sys.executable, str(script)], {}):
        pass


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_memory_counts_the_children_too(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    child = "import time; block = bytearray(60_000_000); time.sleep(60)"
    script.write_text(
        "import json, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print(json.dumps({'jsonrpc': '2.0', 'id': 1, 'result': {}}), flush=True)\n"
        "sys.stdin.read()\n"
        "child.kill()\n",
        encoding="utf-8",
    )
    with running([sys.executable, str(script)], {}) as server:
        while (held := server.resident_mb()) < 60:
            os.sched_yield()
    assert 60 < held < 200
