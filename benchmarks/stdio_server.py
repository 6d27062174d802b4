"""An MCP server as a child process, spoken to over its standard input and output, line by line.

The client of the SDK spends more time on a message than a fast server does; here nothing stands between the write
of a request and the read of its answer.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class Server:
    """An MCP server that is spoken to line by line. `environment` comes on top of PATH and HOME alone."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "SystemRoot") if name in os.environ}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**kept, **environment},
        )
        self.last_id = 0
        client = {"name": "benchmark", "version": "1"}
        try:
            self.request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
            self._send({"method": "notifications/initialized"})
        except BaseException:
            self.stop()
            raise

    def call(self, tool: str, arguments: Mapping[str, Any]) -> bytes:
        """Call a tool; the line that answers, not parsed. Raises RuntimeError for an error of the tool."""
        answer = self.request("tools/call", {"name": tool, "arguments": arguments})
        if b'"isError":true' in answer or b'"error":{' in answer[:60]:
            raise RuntimeError(f"{tool} failed: {answer[:400]!r}")
        return answer

    def request(self, method: str, params: Mapping[str, Any]) -> bytes:
        """The line that answers a request, not parsed, which would measure this program; notifications before
        it are passed over."""
        self.last_id += 1
        self._send({"id": self.last_id, "method": method, "params": params})
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if b'"method":' not in line[:60]:
                return line
        raise RuntimeError("the server has ended")

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError("the server has ended") from None

    def resident_mb(self) -> float:
        """Memory that the process and its children hold now, in MB of 10^6 bytes; Linux only.

        What they share, such as the interpreter's code, counts once for each: less is in use.
        Source: VmRSS, proc_pid_status(5).
        """
        return sum(map(_resident_bytes, _family(self.process.pid))) / 1e6

    def processor_seconds(self) -> float:
        """Processor time that the process and its children have taken so far; Linux only.

        It tells the cost of a call on a machine that is busy with other things, where elapsed time does not.
        Source: utime and stime, proc_pid_stat(5).
        """
        return sum(map(_processor_ticks, _family(self.process.pid))) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End the server as clients do: by closing its input."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # what could not be sent to a server that has ended
            self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()


def _family(pid: int) -> list[int]:
    family = [pid]
    for member in family:  # grows while children are found
        for listed in Path(f"/proc/{member}/task").glob("*/children"):
            family += map(int, listed.read_text(encoding="ascii").split())
    return family


def _resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    lines = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0  # a process that has just ended has none


def _processor_ticks(pid: int) -> int:
    # After the name, which may hold spaces and parentheses, comes the third field.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def structured(answer: bytes) -> dict[str, Any]:
    """What a tool answered as data."""
    content = json.loads(answer)["result"]["structuredContent"]
    assert isinstance(content, dict)
    return content


def text(answer: bytes) -> str:
    """What a tool answered as text."""
    return "\n".join(part["text"] for part in json.loads(answer)["result"]["content"] if part["type"] == "text")


@contextmanager
def running(command: Sequence[str | Path], environment: Mapping[str, str]) -> Iterator[Server]:
    """A server while it is needed."""
    server = Server(command, environment)
    try:
        yield server
    finally:
        server.stop()
