"""The remote endpoint under load: many clients at once, and many connections at rest.

    python benchmarks/load.py                          1,000 clients, then 10,000 streams
    python benchmarks/load.py --clients 200 --seconds 5 --streams 0

A server as `dualmem serve --transport http` runs it, on a data home of its own with a vault and some memory, in one
process; the clients, with real access tokens, in another. Each client has one connection and calls `memory_status`,
once without a session (as Claude's connectors do) and once in one; with half a second to one and a half between
calls, and in a closed loop, where the next call follows the answer. Streams are those that a session's client
listens on (`GET /mcp`); the bound on sessions of one user, 256, is raised for them. An answer counts if it is a
result of the tool. Needs Linux, for its `/proc`.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import brotli
import uvloop

from dualmem_mcp.model.grant import DEFAULT_SCOPES, OWNER
from dualmem_mcp.ports import SystemClock
from dualmem_mcp.remote.host import hosted
from dualmem_mcp.remote.interfaces import Unlocked
from dualmem_mcp.remote.oauth.grants import Grants
from dualmem_mcp.remote.oauth.redirects import Redirect
from dualmem_mcp.remote.oauth.registration import Client
from dualmem_mcp.remote.options import Limits, RemoteOptions
from dualmem_mcp.remote.run import run
from dualmem_mcp.server.faults import log_to_stderr
from dualmem_mcp.settings import load_settings
from dualmem_mcp.stores.login_store import open_logins

PASSPHRASE = "correct horse battery staple"
ENTITIES = 500
TOKENS = 20

CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "memory_status", "arguments": {}}}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "load", "version": "1"},
    },
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(Path(arguments.serve))
        return
    raise_own_file_limit()
    with tempfile.TemporaryDirectory(prefix="dualmem-load-") as folder:
        home = Path(folder) / "home"
        make_home(home)
        tokens = make_tokens(home)
        process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(home)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(measure(arguments, port, tokens, process.pid))
        finally:
            process.terminate()
            process.wait(20)


# The server


def make_home(home: Path) -> None:
    """A data home with a vault and some memory."""
    os.environ["DUALMEM_KEYSTORE"] = "file"
    os.environ["DUALMEM_PASSPHRASE"] = PASSPHRASE
    dualmem = [sys.executable, "-m", "dualmem_mcp.cli", "--home", str(home)]
    subprocess.run(
        [*dualmem, "init", "--bucket", str(home.parent / "bucket")], check=True, stdout=subprocess.DEVNULL
    )
    graph = home.parent / "graph.jsonl"
    with graph.open("w") as file:
        for number in range(ENTITIES):
            entity = {"name": f"thing {number}", "entityType": "thing", "observations": [f"weighs {number} kg"]}
            print(json.dumps({"type": "entity", **entity}), file=file)
    subprocess.run([*dualmem, "import", str(graph)], check=True, stdout=subprocess.DEVNULL)


def remote_options() -> RemoteOptions:
    """Those of the server; sessions for all streams."""
    return RemoteOptions(
        "http://localhost:8787", port=0, limits=dataclasses.replace(Limits(), sessions_per_user=12_000)
    )


def make_tokens(home: Path) -> list[str]:
    """Access tokens as a login gives them, kept where the server looks for them."""
    redirect = Redirect("http://localhost:33418/callback", "http", "localhost", "33418", "/callback")
    with open_logins(home, choice="file") as store:
        grants = Grants(store, remote_options(), SystemClock())
        client = Client("load", "load", (redirect.uri,))
        issued = (grants.issue(client, redirect, Unlocked(OWNER, b""), DEFAULT_SCOPES) for _ in range(TOKENS))
        return [answer["access_token"] for _, answer in issued]


def serve(home: Path) -> None:
    """Run the server until it is ended."""
    log_to_stderr()
    settings, options = load_settings(home), remote_options()
    run(options, lambda: hosted(options, settings), lambda port: print(port, flush=True))


# The clients


def request(method: str, token: str, body: object = None, session: str = "") -> bytes:
    """A request as Claude's clients send it."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} /mcp HTTP/1.1",
        "Host: localhost:8787",
        f"Authorization: Bearer {token}",
        "User-Agent: Claude-User",
        "Accept-Encoding: gzip, deflate, br",
        *([f"Mcp-Session-Id: {session}", "MCP-Protocol-Version: 2025-11-25"] if session else []),
    ]
    if method == "GET":
        lines.append("Accept: text/event-stream")
    else:
        lines += ["Accept: application/json, text/event-stream", "Content-Type: application/json"]
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode() + data


class Connection(asyncio.Protocol):
    """A connection that sends a request and tells when its answer is there."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answered: Callable[[bytes, bytes], None] | None = None
        self._listens = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._tell(b"", b"")

    def ask(self, data: bytes, answered: Callable[[bytes, bytes], None], *, listen: bool = False) -> None:
        """Send the request; `answered` gets head and body of the answer, nothing if the connection is lost.

        To `listen` is to take the head for the answer, and to pass over what follows.
        """
        self._answered, self._listens = answered, listen
        self._transport.write(data)  # type: ignore[attr-defined]

    async def asked(self, data: bytes, *, listen: bool = False) -> tuple[bytes, bytes]:
        """Head and body of the answer."""
        future: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        self.ask(data, lambda head, body: future.set_result((head, body)), listen=listen)
        return await future

    def data_received(self, data: bytes) -> None:
        if self._answered is None:
            return
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end])
        at = head.find(b"content-length: ")
        if at >= 0:
            whole = len(self._buffer) - end - 4 >= int(head[at + 16 :].split(b"\r", 1)[0])
        else:
            whole = self._listens or self._buffer.endswith(b"0\r\n\r\n")
        if whole:
            self._tell(head, bytes(self._buffer[end + 4 :]))

    def _tell(self, head: bytes, body: bytes) -> None:
        self._buffer.clear()
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(head, body)


async def connections(number: int, port: int) -> list[Connection]:
    """So many connections, opened fifty at a time."""
    loop = asyncio.get_running_loop()
    opened: list[Connection] = []
    while len(opened) < number:
        batch = range(min(50, number - len(opened)))
        pairs = await asyncio.gather(*(loop.create_connection(Connection, "127.0.0.1", port) for _ in batch))
        opened += [connection for _, connection in pairs]
    return opened


async def session(connection: Connection, token: str) -> str:
    """The id of a new session."""
    head, _ = await connection.asked(request("POST", token, INITIALIZE))
    found = head.partition(b"mcp-session-id: ")[2].partition(b"\r")[0]
    if not found:
        raise RuntimeError(f"no session: {head[:200]!r}")
    return found.decode()


def is_result(head: bytes, body: bytes) -> bool:
    """Whether that is the tool's answer, unpacked if it is compressed."""
    if b"content-encoding: br" in head and b"content-length" in head:
        body = brotli.decompress(body)
    return head.startswith(b"HTTP/1.1 200 ") and b'"isError":true' not in body and b'"entities":' in body


async def load(
    clients: Sequence[tuple[Connection, bytes]], seconds: float, thinking: float
) -> tuple[list[float], int]:
    """Seconds that each call took, and how many failed; in the first fifth of the time nothing is counted."""
    loop = asyncio.get_running_loop()
    taken: list[float] = []
    failed = 0
    started = loop.time()
    count_from, end = started + seconds / 5, started + seconds * 6 / 5
    still_on = len(clients)
    over = asyncio.Event()

    def call(connection: Connection, data: bytes) -> None:
        begun = time.perf_counter()

        def answered(head: bytes, body: bytes) -> None:
            nonlocal failed, still_on
            now = loop.time()
            if now >= count_from:
                taken.append(time.perf_counter() - begun)
                # Each is looked at; one in fifty is unpacked, which takes this program longer than the rest.
                good = is_result(head, body) if len(taken) % 50 == 0 else head.startswith(b"HTTP/1.1 200 ")
                failed += not good
            if now < end and head:
                pause = random.uniform(0.5, 1.5) * thinking  # the same for all would set them in step
                loop.call_later(pause, call, connection, data) if thinking else call(connection, data)
            else:
                still_on -= 1
                if not still_on:
                    over.set()

        connection.ask(data, answered)

    for connection, data in clients:
        loop.call_later(random.uniform(0, max(thinking, 0.5)), call, connection, data)
    await over.wait()
    return taken, failed


async def measure(arguments: argparse.Namespace, port: int, tokens: Sequence[str], server: int) -> None:
    """All measures, printed as they come."""
    (first,) = await connections(1, port)
    head, body = await first.asked(request("POST", tokens[0], CALL))  # opens the data home
    if not is_result(head, body):
        raise RuntimeError(f"not a result: {head!r} {body[:500]!r}")
    print(f"server at rest: {memory_mb(server)}")
    for in_session in (False, True):
        opened = await connections(arguments.clients, port)
        ids = (
            [await session(each, random.choice(tokens[:1])) for each in opened]
            if in_session
            else [""] * len(opened)
        )
        clients = [
            (each, request("POST", tokens[0] if one else random.choice(tokens), CALL, one))
            for each, one in zip(opened, ids, strict=True)
        ]
        for thinking in (1.0, 0.0):
            used = processor_seconds(server)
            taken, failed = await load(clients, arguments.seconds, thinking)
            used = processor_seconds(server) - used
            print(f"{arguments.clients} clients {'in a session' if in_session else 'without a session'}", end=", ")
            print("about a second between calls" if thinking else "closed loop", end=": ")
            print(summary(taken, failed, arguments.seconds), end="; ")
            # The calls of the fifth that is not counted ran, too.
            print(
                f"server {used / arguments.seconds / 1.2:.0%} CPU, {1000 * used / len(taken) / 1.2:.2f} ms a call"
            )
        for each in opened:
            each._transport.close()  # type: ignore[attr-defined]
        await asyncio.sleep(0.5)
    print(f"server after that: {memory_mb(server)}")
    if arguments.streams:
        await at_rest(arguments.streams, port, tokens, server, first)


async def at_rest(number: int, port: int, tokens: Sequence[str], server: int, first: Connection) -> None:
    """Memory with that many streams open, and what it is like to call meanwhile."""
    before = memory_mb(server)
    begun = time.perf_counter()
    opened: list[Connection] = []

    async def listen(connection: Connection) -> bool:
        token = random.choice(tokens)
        found = await session(connection, token)
        head, _ = await connection.asked(request("GET", token, session=found), listen=True)
        return head.startswith(b"HTTP/1.1 200 ")

    listening = 0
    while len(opened) < number:
        batch = await connections(min(100, number - len(opened)), port)
        listening += sum(await asyncio.gather(*map(listen, batch)))
        opened += batch
    print(f"{listening} of {number} streams opened in {time.perf_counter() - begun:.1f} s; before: {before}")
    used = processor_seconds(server)
    seconds = 20.0
    await asyncio.sleep(seconds)
    share = (processor_seconds(server) - used) / seconds
    print(f"with them at rest: {memory_mb(server)}, {share:.0%} CPU")
    taken, failed = await load([(first, request("POST", tokens[0], CALL))], 5.0, 0.05)
    print(f"one client meanwhile: {summary(taken, failed, 5.0)}")


def summary(taken: Sequence[float], failed: int, seconds: float) -> str:
    """Percentiles in milliseconds, calls a second, failures."""
    ordered = sorted(taken)
    at = [1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.95, 0.99)]
    rate = len(ordered) / seconds
    return f"p50 {at[0]:.0f} ms, p95 {at[1]:.0f} ms, p99 {at[2]:.0f} ms, {rate:.0f} calls/s, {failed} failed"


def memory_mb(process: int) -> str:
    """Memory of the server, and of the processes that it has started."""

    def resident(number: int) -> float:
        for line in Path(f"/proc/{number}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    children = Path(f"/proc/{process}/task/{process}/children")
    found = children.read_text().split() if children.exists() else []
    return f"{resident(process):.0f} MB, others {sum(resident(int(each)) for each in found):.0f} MB"


def processor_seconds(process: int) -> float:
    """Time that the server's threads have run."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def raise_own_file_limit() -> None:
    """As many connections as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main()
