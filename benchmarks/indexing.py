"""How fast sessions become searchable, and what graph writes of another process feel of it.

    python benchmarks/indexing.py                            5,000 turns in 10 session files, without a model
    python benchmarks/indexing.py --models DIR               and their vectors, with the model in DIR
    python benchmarks/indexing.py --claude-dir DIR           the sessions of a Claude Code folder instead
    python benchmarks/indexing.py --import-lines 100000      a file of turns, imported twice

Meanwhile a second process creates entities one by one in the same memory.db; its latencies stand beside those
without anybody indexing. Each phase is timed on its own: reading session files into memory.db, memory.db into the
indexes, vectors; and what of the second goes into looking for secrets.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

from dualmem_mcp.durable_files import file_lock_if_free
from dualmem_mcp.handoff.redact import redact
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.index_scope import IndexScope
from dualmem_mcp.model.search import Collection
from dualmem_mcp.ports import SystemClock
from dualmem_mcp.search.filling import fill_indexes
from dualmem_mcp.search.indexing import Indexer, IndexReport, embed_items
from dualmem_mcp.search.material import turn_item
from dualmem_mcp.search.reading import read_sessions
from dualmem_mcp.search.turns_file import import_turns
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.search_feed import SearchFeed
from dualmem_mcp.stores.search_index import open_search_index
from dualmem_mcp.stores.source_progress import SourceProgress
from dualmem_mcp.transcripts.local_sessions import LocalSessions

KEY = bytes(32)
DEVICE = DeviceId("ab" * 16)
WRITE_EVERY_SECONDS = 0.02
TEXT = (
    "the index reads each file from where it stopped and writes what it found in one short transaction so that "
    "nobody waits for it while tests of the importer fail with a token that has expired on line 42 of parser.py "
    "because src/store/log.py opens the database twice; we decided to keep one connection and to retry at most 3 "
    "times with a delay of 250 ms before the error is shown to the user who asked for it"
)
WORDS = TEXT.split()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5_000)
    parser.add_argument("--claude-dir", type=Path)
    parser.add_argument("--models", type=Path, help="the folder that `dualmem model pull` filled")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--import-lines", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if arguments.import_lines:
            measure_import(root, arguments.import_lines)
            return
        claude = arguments.claude_dir or write_sessions(root / "claude", arguments.turns)
        measure_indexing(root, claude, arguments.models, arguments.threads)


def write_sessions(claude: Path, turns: int, files: int = 10) -> Path:
    """Session files of a user and a model in turn, with a tool call and its result after each third turn."""
    chance = random.Random(11)
    folder = claude / "projects" / "-home-dev-app"
    folder.mkdir(parents=True)
    for number in range(files):
        lines = []
        for count in range(turns // files):
            role = "assistant" if count % 2 else "user"
            words = " ".join(chance.choices(WORDS, k=chance.randrange(20, 160) if count % 2 else 25))
            lines.append(record(number, len(lines), role, [{"type": "text", "text": words}]))
            if count % 3 == 0:
                call = {"type": "tool_use", "id": f"t{count}", "name": "Bash", "input": {"command": words[:80]}}
                result = {"type": "tool_result", "tool_use_id": f"t{count}", "content": words * 4}
                lines.append(record(number, len(lines), "assistant", [call]))
                lines.append(record(number, len(lines), "user", [result]))
        (folder / f"{number:08d}-0000-4000-8000-000000000000.jsonl").write_text("".join(lines))
    return claude


def record(session: int, number: int, role: str, content: list[dict[str, object]]) -> str:
    """One line of a session file."""
    time_of_day = f"{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}"
    return (
        json.dumps(
            {
                "type": role,
                "uuid": f"{session:08x}-{number:04x}-4000-8000-000000000000",
                "parentUuid": None,
                "isSidechain": False,
                "cwd": "/home/dev/app",
                "sessionId": f"{session:08d}-0000-4000-8000-000000000000",
                "version": "2.1.217",
                "timestamp": f"2026-03-{1 + session:02d}T{time_of_day}Z",
                "message": {"role": role, "content": content},
            }
        )
        + "\n"
    )


def write_graph(path: Path, stop: Event, latencies: Path) -> None:
    """Create entities one by one until told to stop, as a server beside the indexing one does."""
    taken: list[float] = []
    with Database.open(path, KEY) as database:
        graph = GraphStore(database, SystemClock(), DEVICE)
        while not stop.is_set():
            name = f"entity {time.monotonic_ns()}"
            begun = time.perf_counter()
            graph.create_entities([Entity(name, "thing", ("one", "two", "three"))])
            taken.append(time.perf_counter() - begun)
            time.sleep(WRITE_EVERY_SECONDS)
    latencies.write_text(json.dumps(taken))


class Writer:
    """The second process, while the block is run."""

    def __init__(self, root: Path, label: str) -> None:
        self._stop = multiprocessing.Event()
        self._latencies = root / "latencies.json"
        self._label = label
        self._process = multiprocessing.Process(
            target=write_graph, args=(root / "memory.db", self._stop, self._latencies)
        )

    def __enter__(self) -> None:
        self._process.start()
        time.sleep(0.5)  # until it writes

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.join()
        taken = sorted(json.loads(self._latencies.read_text()))
        p95 = taken[int(len(taken) * 0.95)]
        print(
            f"  graph writes {self._label}: p50 {statistics.median(taken) * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms, "
            f"longest {taken[-1] * 1e3:.1f} ms ({len(taken)} writes)"
        )


def measure_indexing(root: Path, claude: Path, models: Path | None, threads: int) -> None:
    """Time each phase, with somebody else writing to the graph."""
    database = Database.open(root / "memory.db", KEY)
    indexes = {one: open_search_index(root / one.value, KEY, one) for one in Collection}
    log, truth = SourceProgress(database, SystemClock(), "desk"), SearchFeed(database)
    files = LocalSessions(claude, IndexScope("all"), "")
    redact("token = 0")  # the detectors are imported once
    size = sum(Path(path).stat().st_size for path in files.paths())
    with Writer(root, "alone"):
        time.sleep(3)
    begun = time.perf_counter()
    with Writer(root, "while reading and filling"):
        begun = time.perf_counter()
        read = read_sessions(files, log)
        read_seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        filled = fill_indexes(truth, indexes)
        fill_seconds = time.perf_counter() - begun
        time.sleep(0.2)
    print(f"{read.turns:,} turns in {read.changed} files of {size / 1e6:.1f} MB; {filled.others:,} other items")
    print(f"  read     {read_seconds:7.2f} s  {read.turns / read_seconds:8,.0f} turns/s")
    print(f"  fill     {fill_seconds:7.2f} s  {filled.turns / fill_seconds:8,.0f} turns/s")
    show_redaction(truth)
    begun = time.perf_counter()
    read_sessions(files, log)
    print(f"  again    {time.perf_counter() - begun:7.3f} s  nothing new")
    if models is not None:
        from dualmem_mcp.embedding.onnx_embedder import OnnxEmbedder  # noqa: PLC0415

        embedder = OnnxEmbedder(models, threads=threads)
        embedder.load()
        report = IndexReport()
        with Writer(root, "while embedding"):
            begun, begun_cpu = time.perf_counter(), time.process_time()
            embed_items(indexes, embedder, report)
            seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - begun_cpu
        rate = report.embedded / seconds
        print(f"  embed    {seconds:7.2f} s  {rate:8,.0f} items/s, {cpu_seconds:.1f} s of processor time")
        total = read_seconds + fill_seconds + seconds
        print(f"  in all   {total:7.2f} s  {filled.turns / total:8,.0f} turns/s")
    indexer = Indexer(
        log=log, truth=truth, indexes=indexes, lock=partial(file_lock_if_free, root / ".indexing.lock")
    )
    indexer.run()  # what the other process has written
    print(f"  a run with nothing new: {indexer.run(files=files).duration_ms:.1f} ms")


def show_redaction(truth: SearchFeed) -> None:
    """What of filling goes into making items, and of that into looking for secrets."""
    turns, after = [], 0
    while page := truth.turns(after, 1000):
        turns += page
        after = page[-1].id
    begun = time.perf_counter()
    items = [item for turn in turns if (item := turn_item(turn))]
    material = time.perf_counter() - begun
    begun = time.perf_counter()
    for turn in turns:
        redact(turn.text)
    redaction = time.perf_counter() - begun
    print(f"  of that  {material:7.2f} s  material of {len(items):,} items, {redaction:.2f} s of it redaction")


def measure_import(root: Path, lines: int) -> None:
    """Time the import of a file of turns, and once more."""
    path = root / "turns.jsonl"
    chance = random.Random(11)
    with path.open("w") as file:
        for number in range(lines):
            turn = {
                "conversation_id": f"conv-{number // 600}",
                "id": f"D{number % 600}",
                "role": "assistant" if number % 2 else "user",
                "author": "Ann" if number % 2 else "Bob",
                "text": " ".join(chance.choices(WORDS, k=30)),
                "timestamp": 1_700_000_000 + number,
            }
            file.write(json.dumps(turn) + "\n")
    with Database.open(root / "memory.db", KEY) as database:
        log = SourceProgress(database, SystemClock(), "desk")
        for label in ("import", "again"):
            begun = time.perf_counter()
            report = import_turns(path, log)
            seconds = time.perf_counter() - begun
            rate = lines / seconds
            print(f"{label:7} {lines:,} lines in {seconds:.1f} s, {rate:,.0f} a second; {report.turns:,} new")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
