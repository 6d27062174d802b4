"""Servers as separate processes, spoken to in raw JSON-RPC: what a client really gets, byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# With the libraries that its texts come from, whose newer versions may word them otherwise.
REFERENCE_PACKAGES = (
    "@modelcontextprotocol/server-memory@2026.8.31",
    "@modelcontextprotocol/sdk@1.32.2",
    "zod@4.6.7",
)

Json = dict[str, Any]


class Server:
    """A server process. Everything it writes is kept; every wait has an end, so that no test hangs."""

    timeout_seconds = 30.0

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.notifications: list[Json] = []
        self.answers: dict[Any, Json] = {}
        self.stdout_lines: list[bytes] = []
        self._stderr: list[bytes] = []
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._last_id = 0
        self._threads = [
            threading.Thread(target=self._collect, args=(self.process.stdout, self._take_line), daemon=True),
            threading.Thread(target=self._collect, args=(self.process.stderr, self._stderr.append), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _collect(self, stream: Any, take: Callable[[bytes], None]) -> None:
        for line in stream:
            take(line)
        if stream is self.process.stdout:
            self._lines.put(None)

    def _take_line(self, line: bytes) -> None:
        self.stdout_lines.append(line)
        self._lines.put(line)

    @property
    def stderr(self) -> str:
        return b"".join(self._stderr).decode(errors="replace")

    def wait_for_stderr(self, text: str) -> None:
        """Wait until the server has written that to stderr."""
        deadline = time.monotonic() + self.timeout_seconds
        while text not in self.stderr:
            assert time.monotonic() < deadline, self.stderr
            time.sleep(0.01)

    def send(self, message: Json | str | bytes) -> None:
        data = (
            message
            if isinstance(message, bytes)
            else (message if isinstance(message, str) else json.dumps(message)).encode()
        )
        self.process.stdin.write(data + b"\n")
        self.process.stdin.flush()

    def notify(self, method: str, params: Json | None = None) -> None:
        self.send({"jsonrpc": "2.0", "method": method, **({"params": params} if params is not None else {})})

    def request(self, method: str, params: Json | None = None) -> int:
        """Send a request; `answer(id)` waits for its answer."""
        self._last_id += 1
        message: Json = {"jsonrpc": "2.0", "id": self._last_id, "method": method}
        self.send({**message, "params": params} if params is not None else message)
        return self._last_id

    def answer(self, request_id: Any) -> Json:
        """The whole answer of that request: a message with `result` or `error`."""
        while request_id not in self.answers:
            line = self._lines.get(timeout=self.timeout_seconds)
            assert line is not None, f"the server ended without an answer; stderr:\n{self.stderr}"
            self._sort(line)
        return self.answers.pop(request_id)

    def _sort(self, line: bytes) -> None:
        message = json.loads(line)
        if "method" in message:
            self.notifications.append(message)
        else:
            self.answers[message.get("id")] = message

    def ask(self, method: str, params: Json | None = None) -> Json:
        """Send a request and wait: the whole answer."""
        return self.answer(self.request(method, params))

    def call(self, name: str, arguments: Json | None = None, meta: Json | None = None) -> Json:
        """Call a tool and wait: its result."""
        params: Json = {"name": name, **({"arguments": arguments} if arguments is not None else {})}
        if meta:
            params["_meta"] = meta
        answer = self.ask("tools/call", params)
        assert "result" in answer, answer
        return answer["result"]

    def initialize(self, version: str = "2025-11-25") -> Json:
        """Shake hands: the result of `initialize`."""
        client = {"name": "test", "version": "1"}
        answer = self.ask("initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": client})
        self.notify("notifications/initialized")
        return answer["result"]

    def hear(self, method: str) -> Json:
        """Wait for a notification of that method, and take it from those that came: its parameters."""
        while True:
            for position, message in enumerate(self.notifications):
                if message["method"] == method:
                    return self.notifications.pop(position).get("params", {})
            line = self._lines.get(timeout=self.timeout_seconds)
            assert line is not None, f"the server ended without {method}; stderr:\n{self.stderr}"
            self._sort(line)

    def drain(self) -> None:
        """Sort everything that has arrived so far."""
        with contextlib.suppress(queue.Empty):
            while (line := self._lines.get_nowait()) is not None:
                self._sort(line)

    def close_input(self) -> int:
        """Close the server's input and wait for its end: its exit status."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        return self.wait()

    def wait(self) -> int:
        """Wait for the server's end: its exit status."""
        status = self.process.wait(self.timeout_seconds)
        for thread in self._threads:
            thread.join(self.timeout_seconds)
        while (line := self._lines.get_nowait()) is not None:
            self._sort(line)
        return status

    def stop(self) -> None:
        """End the process whatever it does, and free what it held."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(self.timeout_seconds)
        for thread in self._threads:
            thread.join(self.timeout_seconds)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


StartServer = Callable[..., Server]


@pytest.fixture(scope="session")
def start_process() -> Iterator[Callable[[list[str], dict[str, str]], Server]]:
    """Starts servers, and sees to it that none outlives the tests."""
    started: list[Server] = []

    def start(command: list[str], environment: dict[str, str]) -> Server:
        server = Server(command, environment)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def own_environment() -> Callable[..., dict[str, str]]:
    """Makes environments with a data home of their own, its key in a file, and nothing of the developer's."""
    return _own_environment


def _own_environment(home: Path, **further: str) -> dict[str, str]:
    kept = {
        name: os.environ[name]
        for name in ("PATH", "SYSTEMROOT", "TEMP", "TMP", "COVERAGE_PROCESS_START")
        if name in os.environ
    }
    return {
        **kept,
        "HOME": str(home / "user"),
        "DUALMEM_HOME": str(home / "data"),
        "DUALMEM_BUCKET": str(home / "bucket"),
        "DUALMEM_KEYSTORE": "file",
        "PYTHONWARNINGS": "default",
        **further,
    }


@pytest.fixture
def start_server(start_process: Any, tmp_path: Path) -> Iterator[StartServer]:
    """Starts our server; on one data home, unless told otherwise by environment variables."""
    started: list[Server] = []

    def start(*, code: str | None = None, **environment: str) -> Server:
        command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "dualmem_mcp.server.serve"]
        started.append(start_process(command, _own_environment(tmp_path, **environment)))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """Our server, handshake done."""
    server = start_server()
    server.initialize()
    return server


@pytest.fixture(scope="session")
def reference_command() -> list[str]:
    """The command of the reference memory server, installed from the npm registry into a cache folder."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs Node.js and npm")
    default = Path(__file__).resolve().parents[2] / ".cache" / "npm"
    cache = Path(os.environ.get("DUALMEM_TEST_CACHE", default))
    folder = cache / "-".join(package.rpartition("/")[2] for package in REFERENCE_PACKAGES)
    entry = folder / "node_modules" / "@modelcontextprotocol" / "server-memory" / "dist" / "index.js"
    if not entry.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Beside its place and then moved there whole: several test processes may install at once.
        with tempfile.TemporaryDirectory(dir=cache) as unfinished:
            command = [npm, "install", "--no-audit", "--no-fund", "--prefix", unfinished, *REFERENCE_PACKAGES]
            installed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if installed.returncode:
                pytest.skip(f"the npm registry does not give {REFERENCE_PACKAGES[0]}: {installed.stderr[-200:]}")
            with contextlib.suppress(OSError):  # somebody else was first
                Path(unfinished).rename(folder)
            Path(unfinished).mkdir(exist_ok=True)
    return [node, str(entry)]


@pytest.fixture(scope="session")
def reference_server(
    start_process: Any, reference_command: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """The reference memory server, handshake done, with a memory file of its own."""
    memory_file = tmp_path_factory.mktemp("reference") / "memory.jsonl"
    server = start_process(reference_command, {"PATH": os.environ["PATH"], "MEMORY_FILE_PATH": str(memory_file)})
    server.initialize()
    return server


def entity(name: str) -> Json:
    """An entity as the memory tools have it."""
    return {"name": name, "entityType": "t", "observations": []}


class Vault:
    """A bucket with two devices, `desk` and `phone`, whose servers are started as their clients would."""

    def __init__(self, root: Path, start_process: Callable[[list[str], dict[str, str]], Server]) -> None:
        self.root = root
        self._start = start_process

    def environment(self, device: str) -> dict[str, str]:
        bucket = str(self.root / "bucket")
        return _own_environment(self.root / device, DUALMEM_BUCKET=bucket, DUALMEM_PASSPHRASE="a b c d e f g h")

    def command(self, device: str, *arguments: str) -> None:
        """Run a command of that device to its end."""
        command = [sys.executable, "-m", "dualmem_mcp.cli", *arguments]
        done = subprocess.run(
            command, env=self.environment(device), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr

    def configure(self, device: str, **settings: Any) -> None:
        """Set fields of the device's cloud_sync_config.json."""
        path = self.root / device / "data" / "cloud_sync_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    def server(self, device: str) -> Server:
        """A server of that device, handshake done."""
        server = self._start([sys.executable, "-m", "dualmem_mcp.server.serve"], self.environment(device))
        server.initialize()
        return server

    def log_objects(self) -> list[str]:
        """The segments in the bucket."""
        return sorted(str(path.relative_to(self.root)) for path in (self.root / "bucket" / "log").glob("*/*"))


@pytest.fixture(scope="session")
def new_vault(start_process: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bucket and the data homes of two devices, to be copied: passphrases take their time."""
    vault = Vault(tmp_path_factory.mktemp("new_vault"), start_process)
    vault.command("desk", "init", "--device-name", "desk")
    vault.command("phone", "join", str(vault.root / "bucket"), "--device-name", "phone")
    return vault.root


@pytest.fixture(scope="session")
def make_vault(new_vault: Path, start_process: Any) -> Callable[[Path], Vault]:
    """Makes vaults with two devices, in folders that are not there yet."""

    def make(root: Path) -> Vault:
        shutil.copytree(new_vault, root)
        return Vault(root, start_process)

    return make
