"""Cold start of the MCP server, against the smallest server that the SDK can make.

    python benchmarks/startup.py [--pairs N] [--json]

Starts both as a client does and takes the time from the start of the process to the answer to `initialize`;
then also to the answer of a first `read_graph`, which opens the data home. The two servers take turns, so that
what else the machine does falls on both; the ratio is the median of the pairs' ratios. Bytecode is compiled
beforehand, as an installer does. The claim is a ratio of at most 1.25; exit status 1 if it is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLAIMED_RATIO = 1.25

ONE_TOOL = """\
from mcp.server import MCPServer

server = MCPServer("one-tool")


@server.tool()
def hello(name: str) -> str:
    "Say hello."
    return f"hello {name}"


server.run("stdio")
"""


@dataclass(frozen=True)
class Start:
    """Milliseconds from the start of a process to its answer to `initialize`, and to its first call's."""

    initialize_ms: float
    first_call_ms: float


def measure_start(command: list[str], environment: dict[str, str], tool: str, arguments: dict[str, Any]) -> Start:
    """One start, one handshake, one call, one end."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:

        def ask(identity: int, method: str, params: dict[str, Any]) -> float:
            message = {"jsonrpc": "2.0", "id": identity, "method": method, "params": params}
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            while json.loads(process.stdout.readline()).get("id") != identity:
                pass
            return (time.perf_counter() - began) * 1000

        client = {"name": "benchmark", "version": "1"}
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        initialized = ask(1, "initialize", hello)
        process.stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        called = ask(2, "tools/call", {"name": tool, "arguments": arguments})
        process.stdin.close()
    return Start(initialized, called)


def measure(pairs: int) -> dict[str, Any]:
    """Medians of both servers over that many pairs of starts, after one pair that is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "one_tool.py"
        script.write_text(ONE_TOOL, encoding="utf-8")
        environment = {
            **os.environ,
            "DUALMEM_HOME": str(Path(folder) / "home"),
            "DUALMEM_BUCKET": str(Path(folder) / "bucket"),
            "DUALMEM_KEYSTORE": "file",
        }
        environment.pop("MEMORY_FILE_PATH", None)

        def pair() -> tuple[Start, Start]:
            ours = [sys.executable, "-m", "dualmem_mcp.server.serve"]
            return (
                measure_start([sys.executable, str(script)], environment, "hello", {"name": "you"}),
                measure_start(ours, environment, "read_graph", {}),
            )

        pair()
        measured = [pair() for _ in range(pairs)]
    return {
        "pairs": pairs,
        "one_tool_initialize_ms": round(statistics.median(one.initialize_ms for one, _ in measured), 1),
        "dualmem_initialize_ms": round(statistics.median(ours.initialize_ms for _, ours in measured), 1),
        "ratio": round(statistics.median(ours.initialize_ms / one.initialize_ms for one, ours in measured), 3),
        "one_tool_first_call_ms": round(statistics.median(one.first_call_ms for one, _ in measured), 1),
        "dualmem_first_call_ms": round(statistics.median(ours.first_call_ms for _, ours in measured), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Cold start of the MCP server.")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    result = measure(options.pairs)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"median of {result['pairs']} pairs of starts      one-tool MCPServer     dualmem-mcp    ratio")
        print(
            f"until initialize is answered     {result['one_tool_initialize_ms']:>12.0f} ms "
            f"{result['dualmem_initialize_ms']:>15.0f} ms {result['ratio']:>8.2f}"
        )
        print(
            f"until the first call is answered {result['one_tool_first_call_ms']:>12.0f} ms "
            f"{result['dualmem_first_call_ms']:>15.0f} ms"
        )
    return 0 if result["ratio"] <= CLAIMED_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
