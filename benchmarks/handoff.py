"""Handoff, resume and restore of whole sessions: time as processes and in the running server, memory, exactness.

    python benchmarks/handoff.py                       a sample session of about 4 MB and one of 20 MB
    python benchmarks/handoff.py --claude-dir DIR      every session of a Claude Code configuration folder
    python benchmarks/handoff.py --runs 20             more runs for the quantiles

Every run starts the real commands on fresh data homes with a folder as bucket. Times are whole processes,
interpreter start included, unless the column says "server".
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from dualmem_mcp.sample import write_sample_session

DUALMEM = [sys.executable, "-m", "dualmem_mcp.cli"]
SERVER = [sys.executable, "-m", "dualmem_mcp.server.serve"]


@dataclass
class Measured:
    """What one session gave, over all runs."""

    name: str
    session_bytes: int
    handoff_s: list[float] = field(default_factory=list)
    again_s: list[float] = field(default_factory=list)
    resume_s: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    server_handoff_s: list[float] = field(default_factory=list)
    server_resume_s: list[float] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    again: dict[str, Any] = field(default_factory=dict)
    restored_exactly: bool = False
    plaintext_found: int = -1


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claude-dir", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dualmem-benchmark-") as folder:
        place = Path(folder)
        claude_dir = arguments.claude_dir or _make_samples(place / "claude")
        sessions = [
            path for path in sorted((claude_dir / "projects").glob("*/*.jsonl")) if path.name[:6] != "agent-"
        ]
        rows = []
        for number, session in enumerate(sessions):
            rows.append(_measure(session, claude_dir, place / str(number), arguments.runs))
            print(f"measured {session.name}", file=sys.stderr)
        _print(rows, arguments.runs)


def _make_samples(claude_dir: Path) -> Path:
    for turns, cwd in ((None, "/home/you/projects/tollgate"), (1_900, "/home/you/a"), (8_000, "/home/you/b")):
        if turns is None:
            write_sample_session(claude_dir, cwd=cwd)
        else:
            write_sample_session(claude_dir, cwd=cwd, turns=turns)
    return claude_dir


def _measure(session: Path, claude_dir: Path, place: Path, runs: int) -> Measured:
    row = Measured(session.stem[:8], _session_bytes(session))
    for run in range(runs):
        home = place / f"run{run}"
        common = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DUALMEM_", "CLAUDE_"))},
            "DUALMEM_PASSPHRASE": "benchmarks need no secret",
            "DUALMEM_BUCKET": str(home / "bucket"),
            "DUALMEM_KEYSTORE": "file",
            "CLAUDE_CONFIG_DIR": str(claude_dir),
        }
        desktop = {**common, "DUALMEM_HOME": str(home / "desktop")}
        phone = {**common, "DUALMEM_HOME": str(home / "phone"), "DUALMEM_DEVICE": "ios"}
        _run(desktop, "init")
        row.report, seconds = _run(desktop, "handoff", "--transcript", str(session))
        row.handoff_s.append(seconds)
        row.again, seconds = _run(desktop, "handoff", "--transcript", str(session))
        row.again_s.append(seconds)
        _run(phone, "join", str(home / "bucket"))
        brief, seconds = _run(phone, "resume")
        row.resume_s.append(seconds)
        if run == 0:
            restored, _ = _run(phone, "restore", brief["conversation_id"], "--claude-dir", str(home / "restored"))
            row.restored_exactly = _same_files(session, Path(restored["session_path"]))
            row.plaintext_found = _plaintext(session, [home / "bucket", home / "desktop", home / "phone"])
            measured = {**common, "DUALMEM_HOME": str(home / "third"), "DUALMEM_BUCKET": str(home / "third-bucket")}
            _run(measured, "init")
            row.peak_mb = _peak_mb(measured, "handoff", "--transcript", str(session))
            times = anyio.run(_through_server, desktop, phone, brief["conversation_id"], max(runs, 5))
            row.server_handoff_s, row.server_resume_s = times
        shutil.rmtree(home)
    return row


async def _through_server(
    desktop: dict[str, str], phone: dict[str, str], conversation_id: str, runs: int
) -> tuple[list[float], list[float]]:
    """Seconds of prepare_handoff and resume_conversation calls in servers that are running already."""

    async def timed(environment: dict[str, str], tool: str, arguments: dict[str, Any]) -> list[float]:
        parameters = StdioServerParameters(command=SERVER[0], args=SERVER[1:], env=environment)
        async with stdio_client(parameters) as (read, write), ClientSession(read, write) as client:
            await client.initialize()
            seconds = []
            for _ in range(runs + 1):
                start = time.perf_counter()
                result = await client.call_tool(tool, arguments)
                seconds.append(time.perf_counter() - start)
                if result.is_error:
                    raise RuntimeError(f"{tool}: {result.content}")
            return seconds[1:]  # the first call opens the data home

    handoffs = await timed(desktop, "prepare_handoff", {"conversation_id": conversation_id})
    resumes = await timed(phone, "resume_conversation", {"conversation_id": conversation_id})
    return handoffs, resumes


def _run(environment: dict[str, str], *arguments: str) -> tuple[dict[str, Any], float]:
    """The command's JSON, and its seconds."""
    start = time.perf_counter()
    done = subprocess.run([*DUALMEM, *arguments, "--json"], env=environment, stdout=subprocess.PIPE, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"dualmem {' '.join(arguments)} ended with {done.returncode}")
    return json.loads(done.stdout), seconds


# A process inherits the peak of the one that started it, so the command is started by one that is small.
_SMALL_PARENT = (
    "import resource, subprocess, sys\n"
    "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def _peak_mb(environment: dict[str, str], *arguments: str) -> float:
    """Peak memory of the command in MB."""
    command = [sys.executable, "-S", "-c", _SMALL_PARENT, *DUALMEM, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def _session_bytes(session: Path) -> int:
    beside = session.with_suffix("")
    return session.stat().st_size + sum(path.stat().st_size for path in beside.rglob("*") if path.is_file())


def _same_files(session: Path, restored: Path) -> bool:
    def hashes(main: Path) -> dict[str, str]:
        files = [main, *(path for path in main.with_suffix("").rglob("*") if path.is_file())]
        return {str(path.relative_to(main.parent)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return hashes(session) == hashes(restored)


def _plaintext(session: Path, places: list[Path]) -> int:
    """Lines of 24 characters and more of the session's texts that stand in any file of the places."""
    needles: set[bytes] = set()
    for line in session.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)["message"]["content"]
        except (ValueError, KeyError, TypeError):
            continue
        texts = [content] if isinstance(content, str) else [str(block.get("text") or "") for block in content]
        stripped = (part.strip() for text in texts for part in text.splitlines())
        needles.update(part.encode() for part in stripped if len(part) >= 24)
    blob = b"\0".join(path.read_bytes() for place in places for path in place.rglob("*") if path.is_file())
    return sum(needle in blob for needle in needles)


def _p95(values: list[float]) -> float:
    return sorted(values)[max(0, -(-95 * len(values) // 100) - 1)]


def _print(rows: list[Measured], runs: int) -> None:
    print(f"\n{runs} runs; seconds as median / 95th percentile\n")
    print(
        "session      bytes     package  again    tokens   digest  less    handoff      again        resume       "
        "server handoff  server resume  peak MB  exact  plaintext"
    )
    for row in rows:
        report = row.report

        def pair(values: list[float]) -> str:
            return f"{statistics.median(values):5.2f}/{_p95(values):5.2f}"

        print(
            f"{row.name:<9}{row.session_bytes:>10,}{report['package_bytes']:>10,}{row.again['package_bytes']:>8,}"
            f"{report['visible_tokens']:>10,}{report['digest_tokens']:>8,}{report['reduction']:>8.2%}  "
            f"{pair(row.handoff_s)}  {pair(row.again_s)}  {pair(row.resume_s)}  "
            f"{pair(row.server_handoff_s):>14}  {pair(row.server_resume_s):>13}  {row.peak_mb:>7.0f}  "
            f"{'yes' if row.restored_exactly else 'NO':<5}  {row.plaintext_found}"
        )


if __name__ == "__main__":
    main()
