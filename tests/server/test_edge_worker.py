"""The server with its edge process: what is new is found, nothing outlives the server, no fault costs an answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.model.search import Collection
from dualmem_mcp.transcripts.slug import project_slug

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")

CUTTER = {"name": "cutter", "entityType": "boat", "observations": ["oak"]}
SESSION_ID = "0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"


def edge_processes(server: Any) -> list[int]:
    """The edge processes that a server has now."""
    found: list[int] = []
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return [process for process in found if b"edge_worker" in Path(f"/proc/{process}/cmdline").read_bytes()]


def ended(process: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return True


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def found(server: Any, query: str, **arguments: Any) -> dict[str, Any]:
    """The structured answer of a search."""
    result = server.call("search_memory", {"query": query, **arguments})
    assert not result.get("isError"), result
    return dict(result["structuredContent"])


def texts(answer: dict[str, Any]) -> list[str]:
    return [result["text"] for result in answer["results"]]


class Project:
    """A project with one session of Claude Code that grows."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "project"
        self.folder.mkdir()
        self.claude = root / "claude"
        self.path = self.claude / "projects" / project_slug(str(self.folder)) / f"{SESSION_ID}.jsonl"
        self.path.parent.mkdir(parents=True)
        self._said = 0

    @property
    def environment(self) -> dict[str, str]:
        return {"CLAUDE_CONFIG_DIR": str(self.claude), "CLAUDE_PROJECT_DIR": str(self.folder)}

    def say(self, *words: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            for text in words:
                file.write(json.dumps(self._record(text)) + "\n")
                self._said += 1

    def _record(self, text: str) -> dict[str, Any]:
        return {
            "parentUuid": f"{self._said - 1:08x}-0000-4000-8000-000000000000" if self._said else None,
            "isSidechain": False,
            "userType": "external",
            "cwd": str(self.folder),
            "sessionId": SESSION_ID,
            "version": "2.1.200",
            "type": "user",
            "uuid": f"{self._said:08x}-0000-4000-8000-000000000000",
            "timestamp": f"2026-02-01T00:{self._said // 60 % 60:02d}:{self._said % 60:02d}.000Z",
            "message": {"role": "user", "content": text},
        }


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_what_is_said_while_the_server_runs_is_found_within_seconds(start_server: Any, project: Project) -> None:
    project.say("the tide table hangs in the boathouse")
    server = start_server(**project.environment)
    server.initialize()
    # The first search sees what there is by then, though nothing was indexed before.
    assert texts(found(server, "where is the tide table?")) == ["the tide table hangs in the boathouse"]
    project.say("the spare rowlocks are in the blue crate")
    until(lambda: texts(found(server, "rowlocks", limit=1)) == ["the spare rowlocks are in the blue crate"])
    server.call("create_entities", {"entities": [CUTTER]})
    until(lambda: "cutter (boat)\noak" in texts(found(server, "cutter")))
    server.call("delete_entities", {"entityNames": ["cutter"]})
    until(lambda: "cutter (boat)\noak" not in texts(found(server, "cutter")))


def test_without_a_search_a_server_starts_no_process_at_once(start_server: Any) -> None:
    server = start_server()
    server.initialize()
    status = server.call("memory_status")["structuredContent"]
    server.call("create_entities", {"entities": [{"name": "a", "entityType": "b", "observations": []}]})
    assert (status["indexed"], status["waiting_for_vectors"]) == (0, 0)
    assert edge_processes(server) == []
    assert server.close_input() == 0


@pytest.mark.parametrize("how", ["end of input", "SIGTERM", "SIGKILL"])
def test_the_process_goes_with_its_server(start_server: Any, project: Project, how: str) -> None:
    project.say(*(f"entry {number} of the log" for number in range(50)))
    server = start_server(**project.environment)
    server.initialize()
    found(server, "log entry")
    (process,) = edge_processes(server)
    if how == "end of input":
        server.close_input()
        assert ended(process)
    else:
        server.process.send_signal(getattr(signal, how))
        until(lambda: ended(process), 10)


def test_kills_while_it_indexes_lose_nothing_and_double_nothing(start_server: Any, project: Project) -> None:
    project.say(*(f"entry {number} of the log: marker{number}" for number in range(2_000)))
    server = start_server(**project.environment)
    server.initialize()
    for _ in range(3):
        found(server, "log")
        for process in edge_processes(server):
            os.kill(process, signal.SIGKILL)
    until(lambda: server.call("memory_status")["structuredContent"]["indexed"] == 2_000)
    assert texts(found(server, "marker1999", limit=5))[0].endswith("marker1999")
    again = found(server, "marker7")
    assert len(set(texts(again))) == len(again["results"])
    assert server.call("memory_status")["structuredContent"]["indexed"] == 2_000


def test_indexes_damaged_while_in_use_are_made_again(start_server: Any, project: Project, tmp_path: Path) -> None:
    project.say("the tide table hangs in the boathouse")
    server = start_server(**project.environment)
    server.initialize()
    assert found(server, "tide table")["results"]
    cache = tmp_path / "data" / "vector_cache"
    index = cache / Collection.CONVERSATIONS.value / "index.db"
    damages: list[Callable[[], object]] = [
        index.unlink,
        lambda: index.write_bytes(b"not an index" * 5_000),
        lambda: os.truncate(index, index.stat().st_size // 2),
        lambda: os.truncate(index, 0),
        lambda: cache.rename(tmp_path / "gone"),
    ]
    for damage in damages:
        damage()
        until(lambda: found(server, "tide table")["results"])
    assert index.exists()
    assert server.close_input() == 0
    assert "Traceback" not in server.stderr


def test_where_no_index_can_be_written_memory_works_and_search_says_why(start_server: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    server = start_server()
    server.initialize()
    server.call("create_entities", {"entities": [CUTTER]})
    cache = tmp_path / "data" / "vector_cache"
    for folder in Collection:
        (cache / folder.value).rmdir()
        (cache / folder.value).write_text("a file in the folder's place")
    answer = found(server, "cutter")
    assert (answer["results"], answer["partial"]) == ([], True)
    assert any("vector_cache" in warning for warning in answer["warnings"])
    assert server.call("search_nodes", {"query": "cutter"})["structuredContent"]["entities"]
    assert "vector_cache" in server.call("memory_status")["structuredContent"]["index_problem"]
    assert "Traceback" not in server.stderr


def test_two_servers_search_and_write_on_one_data_home(start_server: Any, project: Project) -> None:
    project.say(*(f"entry {number} of the log" for number in range(50)))
    servers = [start_server(**project.environment) for _ in range(2)]
    for server in servers:
        server.initialize()

    def work(number: int) -> None:
        server = servers[number]
        for round_ in range(3):
            entity = {"name": f"buoy {number} {round_}", "entityType": "mark", "observations": ["red"]}
            requests = [
                server.request("tools/call", {"name": "search_memory", "arguments": {"query": "log entry"}}),
                server.request("tools/call", {"name": "create_entities", "arguments": {"entities": [entity]}}),
                server.request("tools/call", {"name": "search_memory", "arguments": {"query": "buoy"}}),
            ]
            for request in requests:
                assert not server.answer(request)["result"].get("isError")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    for server in servers:
        until(lambda server=server: len(found(server, "buoy", scope="memory", limit=20)["results"]) == 6)
        assert server.close_input() == 0


def test_a_model_that_is_pulled_meanwhile_is_used(start_server: Any, project: Project, model_dir: Path) -> None:
    project.say("the tide table hangs in the boathouse", "the kiln is too hot for this glaze")
    later = project.folder.parent / "models"
    server = start_server(**project.environment, DUALMEM_MODEL_DIR=str(later))
    server.initialize()
    before = found(server, "pottery oven temperature")
    assert before["partial"]
    assert any("dualmem model pull" in warning for warning in before["warnings"])
    later.symlink_to(model_dir)
    until(lambda: not found(server, "pottery oven temperature")["partial"])
    assert texts(found(server, "pottery oven temperature", limit=1)) == ["the kiln is too hot for this glaze"]
    status = server.call("memory_status")["structuredContent"]
    assert "MiniLM" in status["model"]


def test_vectors_move_after_a_sync_and_never_in_the_server_itself(
    make_vault: Any, start_process: Any, project: Project, model_dir: Path, tmp_path: Path
) -> None:
    vault = make_vault(tmp_path / "vault")
    vault.configure("desk", tiers={"url": str(tmp_path / "service")})
    environment = {**vault.environment("desk"), **project.environment, "DUALMEM_MODEL_DIR": str(model_dir)}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "dualmem_mcp.cli", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    project.say("the tide table hangs in the boathouse", "the kiln is too hot for this glaze")
    run("index")
    run("tiers", "init")
    run("tiers", "enable", "--yes")
    server = start_process([sys.executable, "-m", "dualmem_mcp.server.serve"], environment)
    server.initialize()
    until(lambda: "the kiln is too hot for this glaze" in texts(found(server, "pottery oven temperature")))
    server.call("sync_memory")
    libraries = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "numpy" not in libraries
    assert "onnxruntime" not in libraries

    def tiers() -> dict[str, Any]:
        return dict(server.call("memory_status")["structuredContent"]["tiers"])

    until(lambda: tiers()["points"] == 2)
    assert tiers() == {"enabled": True, "points": 2, "problem": None}
    assert found(server, "pottery oven temperature", limit=1)["results"]
    assert server.close_input() == 0
    assert "vectors:" not in server.stderr
    assert "All are as they should be" in run("tiers", "check")


def start_alone(home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "dualmem_mcp.server.edge_worker", str(home)]
    environment = {**os.environ, "DUALMEM_KEYSTORE": "file", "CLAUDE_CONFIG_DIR": str(home / "claude")}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_an_interruption_in_the_terminal_is_left_to_the_server(tmp_path: Path) -> None:
    with start_alone(tmp_path / "home") as process:
        process.stdin.write(b'{"id": 1, "method": "status", "params": {}}\n')
        process.stdin.flush()
        assert b'"result"' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdin.write(b'{"id": 2, "method": "status", "params": {}}\n')
        process.stdin.flush()
        assert b'"id": 2' in process.stdout.readline()
        process.stdin.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


def test_what_is_no_message_ends_the_process(tmp_path: Path) -> None:
    with start_alone(tmp_path / "home") as process:
        process.stdin.write(b"neither JSON nor anything\n")
        process.stdin.flush()
        assert process.wait(30) == 0
