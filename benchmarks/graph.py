"""The memory tools beside the reference server's, both over stdio in one run: medians and ratios.

    python benchmarks/graph.py                         graphs of 1,000, 10,000 and 50,000 entities
    python benchmarks/graph.py --entities 50000        one size
    python benchmarks/graph.py --mirror                ours with MEMORY_FILE_PATH set, too

Needs Node.js; the reference server is installed from the npm registry into `--cache`. Each entity has three
observations and one relation. Times are from writing the request to reading the whole answer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import platformdirs
from stdio_server import running

PACKAGE = "@modelcontextprotocol/server-memory"
VERSION = "2026.8.31"
ENTRY = Path("node_modules") / PACKAGE / "dist" / "index.js"
WORDS = ["amber", "basalt", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "juniper", "kelp"]


def main() -> None:
    """Measure and print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--mirror", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path(platformdirs.user_cache_dir("dualmem-benchmarks")))
    arguments = parser.parse_args()
    entry = install_reference(arguments.cache)
    if entry is None:
        sys.exit(0)
    for count in arguments.entities:
        with tempfile.TemporaryDirectory() as folder:
            compare(count, arguments.runs, entry, Path(folder), mirror=arguments.mirror)


def install_reference(cache: Path) -> Path | None:
    """The reference server's entry point in the cache, or None where it cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        print("Skipped: Node.js with npm is needed to run the reference server.")
        return None
    folder = cache / f"server-memory-{VERSION}"
    if not (folder / ENTRY).exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            "npm",
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(folder),
            f"{PACKAGE}@{VERSION}",
        ]
        if subprocess.run(command, check=False).returncode or not (folder / ENTRY).exists():
            print(f"Skipped: {PACKAGE} {VERSION} could not be installed.")
            return None
    return folder / ENTRY


def memory_file(count: int) -> bytes:
    """A graph in the reference's form: the same for every run."""
    chance = random.Random(7)

    def line(**fields: Any) -> str:
        return json.dumps(fields, separators=(",", ":"))

    lines = [
        line(
            type="entity",
            name=f"entity {number}",
            entityType=chance.choice(WORDS),
            observations=[
                f"observation {item}: {' '.join(chance.choices(WORDS, k=8))}, topic{chance.randrange(count // 10)}"
                for item in range(3)
            ],
        )
        for number in range(count)
    ]
    lines += [
        line(
            type="relation",
            **{"from": f"entity {number}", "to": f"entity {chance.randrange(count)}"},
            relationType="leads to",
        )
        for number in range(count)
    ]
    return "\n".join(lines).encode()


def calls_of(run: int, count: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name to tool and arguments, in the order of measuring; no two runs ask for the same."""
    created = {"name": f"new {run}", "entityType": "new", "observations": ["a", "b", "c"]}
    addition = {"entityName": f"entity {run * 11}", "contents": [f"added in run {run}"]}
    relation = {"from": f"new {run}", "to": f"entity {run}", "relationType": "follows"}
    return {
        "create_entities, one": ("create_entities", {"entities": [created]}),
        "add_observations, one": ("add_observations", {"observations": [addition]}),
        "create_relations, one": ("create_relations", {"relations": [relation]}),
        "search_nodes, about 30 hits": ("search_nodes", {"query": f"TOPIC{count // 10 - 1 - run}"}),
        "search_nodes, no hit": ("search_nodes", {"query": f"nowhere to be found {run}"}),
        "search_nodes, thousands of hits": ("search_nodes", {"query": f"{run}{run}"}),
        "open_nodes, one": ("open_nodes", {"names": [f"entity {run}"]}),
        "delete_entities, one": ("delete_entities", {"entityNames": [f"new {run}"]}),
        "read_graph": ("read_graph", {}),
    }


def compare(count: int, runs: int, entry: Path, folder: Path, *, mirror: bool) -> None:
    """Measure one size and print its table."""
    source = folder / "memory.jsonl"
    source.write_bytes(memory_file(count))
    home = {"DUALMEM_HOME": str(folder / "home"), "DUALMEM_KEYSTORE": "file"}
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "dualmem_mcp.cli", "import", str(source)],
        env=os.environ | home,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    import_s = time.perf_counter() - started
    if mirror:
        home["MEMORY_FILE_PATH"] = str(folder / "mirror.jsonl")
    ours: dict[str, list[float]] = {}
    theirs: dict[str, list[float]] = {}
    with (
        running([sys.executable, "-m", "dualmem_mcp.server.serve"], home) as our_server,
        running(["node", str(entry)], {"MEMORY_FILE_PATH": str(source)}) as their_server,
    ):
        for name in calls_of(0, count):
            for run in range(runs + 1):
                tool, given = calls_of(run, count)[name]
                for server, times in ((our_server, ours), (their_server, theirs)):
                    begun = time.perf_counter()
                    server.call(tool, given)
                    if run:  # the first run warms both up
                        times.setdefault(name, []).append(time.perf_counter() - begun)
    print(f"\n{count:,} entities, {3 * count:,} observations, {count:,} relations; medians of {runs} runs")
    print(f"imported in {import_s:.1f} s as a whole process; file of {source.stat().st_size / 1e6:.1f} MB")
    print(f"\n| {'call':32} | ours ms | reference ms | times faster |")
    print(f"|{'-' * 34}|{'-' * 9}|{'-' * 14}|{'-' * 14}|")
    for name in ours:
        our_ms, their_ms = (statistics.median(times[name]) * 1e3 for times in (ours, theirs))
        print(f"| {name:32} | {our_ms:7.2f} | {their_ms:12.1f} | {their_ms / our_ms:12.1f} |")


if __name__ == "__main__":
    main()
