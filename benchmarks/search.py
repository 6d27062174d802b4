"""Time, memory and disk of search in the real server, over many turns.

    python benchmarks/search.py                          5,000 and 50,000 turns
    python benchmarks/search.py --sizes 5000 500000      other sizes
    python benchmarks/search.py --sizes 5000 500000 --keep D   keep the data homes in D; import none that is there
    python benchmarks/search.py --embed-all --json       every vector computed, which takes hours for 500,000 turns

The turns are made up but look like talk (`synthetic_turns`). `dualmem import` imports and indexes them, the
smallest size with all its vectors, which gives the rate of indexing. Larger sizes are indexed by words and then get
vectors of two thousand turns, slightly turned, which a search cannot tell from computed ones; `--embed-all`
computes theirs, too.

The questions are those of the labelled dialogues, each asked once of all conversations, through `search_memory`
over stdio; times are from writing the request to reading the whole answer, embedding included. Memory is that of
the server with all its processes. Graph writes are measured in a second server while it indexes the first size.

Aims: p50 < 12 ms at 5,000 turns; p95 < 40 ms at 50,000 and < 400 ms at 500,000; indexing ≥ 100 turns a second on
two cores, graph writes meanwhile < 50 ms (p95); the server at rest < 120 MB, with the model and 50,000 turns
< 400 MB; the index ≤ 2.2 KB a turn above its text. Exit status 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_data import SHIPPED_DIALOGUES, Dataset, load_locomo
from retrieval_metrics import percentile
from search_home import SERVER, SearchHome, wait_until_embedded
from stdio_server import Server, running, structured
from synthetic_turns import synthetic_dataset

from dualmem_mcp.embedding.factory import open_embedder
from dualmem_mcp.search.passages import passages
from dualmem_mcp.settings import load_settings
from dualmem_mcp.stores.search_index import SqliteSearchIndex

REST_MB, LOADED_MB, LOADED_TURNS = 120.0, 400.0, 50_000
TURNS_A_SECOND = 100.0
WRITE_P95_MS = 50.0
INDEX_BYTES_A_TURN = 2_200.0
SEARCH_MS = {5_000: ("p50_ms", 12.0), 50_000: ("p95_ms", 40.0), 500_000: ("p95_ms", 400.0)}
WRITES = 100
LENT_VECTORS = 2_000
MADE = "made"
"""Lies beside a data home that was filled to the end."""


def main() -> int:
    """Measure each size and print it beside the aims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--dialogues", type=Path, default=SHIPPED_DIALOGUES)
    parser.add_argument("--embed-all", action="store_true", help="compute the vectors of larger sizes, too")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep data homes; import none that is there")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    source = load_locomo(options.dialogues)
    results = []
    with tempfile.TemporaryDirectory(prefix="dualmem-benchmark-") as folder:
        homes = options.keep or Path(folder)
        for number, size in enumerate(sorted(options.sizes)):
            dataset = synthetic_dataset(source, size)
            embed = number == 0 or options.embed_all
            results.append(measure(dataset, homes / str(size), options.queries, embed=embed))
            print(f"measured {size:,} turns", file=sys.stderr)
        writes = measure_writes(synthetic_dataset(source, min(options.sizes)), Path(folder) / "writes")
    aims = [aim for result in results for aim in aims_of(result)] + write_aims(writes)
    if options.json:
        print(json.dumps({"sizes": results, "writes_while_indexing": writes, "aims": aims}, indent=2))
    else:
        print_tables(results, writes)
        for aim in aims:
            print(f"{'met   ' if aim['met'] else 'MISSED'}  {aim['aim']}: {aim['value']}")
    return 0 if all(aim["met"] for aim in aims) else 1


def measure(dataset: Dataset, place: Path, queries: int, *, embed: bool) -> dict[str, Any]:
    """One size: import, indexing, search, memory, disk."""
    home = SearchHome(place)
    made = place / MADE
    if made.exists():
        import_s, import_processor_s, embed = 0.0, 0.0, False
    else:
        import_s, import_processor_s = fill(home, dataset, embed=embed)
        made.touch()
    questions = [question.text for question in dataset.questions]
    asked = [questions[number % len(questions)] for number in range(0, queries * 7, 7)]
    with running(SERVER, home.environment) as server:
        server.call("read_graph", {})
        rest_mb = server.resident_mb()
        began = time.perf_counter()
        server.call("search_memory", {"query": "the first search of all"})
        first_s = time.perf_counter() - began
        wait_until_embedded(server)
        took = server.processor_seconds()
        everywhere = [ask(server, question) for question in asked]
        took = server.processor_seconds() - took
        conversation_id = dataset.conversations[0].id
        within = [ask(server, question, conversation_id=conversation_id) for question in asked]
        loaded_mb = server.resident_mb()
    text_bytes = sum(len(turn.text.encode()) for one in dataset.conversations for turn in one.turns)
    return {
        "turns": dataset.turns,
        "import_seconds": round(import_s, 1),
        "embedded": embed,
        "turns_a_second": round(dataset.turns / import_s) if embed else None,
        "index_processor_ms_a_turn": round(import_processor_s / dataset.turns * 1e3, 1) if embed else None,
        "first_search_ms": round(first_s * 1e3),
        "p50_ms": round(percentile(everywhere, 0.5) * 1e3, 1),
        "p95_ms": round(percentile(everywhere, 0.95) * 1e3, 1),
        "processor_ms": round(took / len(asked) * 1e3, 1),
        "within_p50_ms": round(percentile(within, 0.5) * 1e3, 1),
        "within_p95_ms": round(percentile(within, 0.95) * 1e3, 1),
        "rest_mb": round(rest_mb),
        "loaded_mb": round(loaded_mb),
        "index_mb": round(home.index_bytes() / 1e6, 1),
        "index_bytes_a_turn_above_text": round((home.index_bytes() - text_bytes) / dataset.turns),
    }


def fill(home: SearchHome, dataset: Dataset, *, embed: bool) -> tuple[float, float]:
    """Import the dataset; seconds, and seconds of processor time, that it took."""
    began, took = time.perf_counter(), processor_seconds_of_commands()
    (home if embed else home.without_model()).import_turns(dataset)
    import_s, import_processor_s = time.perf_counter() - began, processor_seconds_of_commands() - took
    if not embed:
        with closing(home.open_index()) as index:
            lend_vectors(index, dataset)
    return import_s, import_processor_s


def processor_seconds_of_commands() -> float:
    """Processor time of the commands that have ended so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def lend_vectors(index: SqliteSearchIndex, dataset: Dataset) -> None:
    """Vectors for all that have none, as many as its text would get: each is that of one of 2,000 turns with noise
    of half its length."""
    turns = [turn for conversation in dataset.conversations for turn in conversation.turns]
    embedder, missing = open_embedder(load_settings().model_dir)
    if embedder is None:
        raise RuntimeError(f"the benchmark needs the model: {missing}")
    lent = embedder.embed([turn.text for turn in turns[:LENT_VECTORS]])
    chance = np.random.default_rng(5)
    index.use_model(embedder.model_id, embedder.dimensions)
    while waiting := index.unembedded(1_000):
        counts = [len(passages(one.item, one.previous)) for one in waiting]
        noise = chance.standard_normal((sum(counts), embedder.dimensions), dtype=np.float32)
        vectors = lent[chance.integers(0, len(lent), len(noise))] + noise * (0.5 / embedder.dimensions**0.5)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        parts = np.split(vectors, np.cumsum(counts)[:-1])
        index.put_vectors(embedder.model_id, [(one.id, part) for one, part in zip(waiting, parts, strict=True)])


def ask(server: Server, question: str, **given: str) -> float:
    """Seconds of one search. Raises RuntimeError if it was partial: without the model it would be a fast one."""
    began = time.perf_counter()
    answer = server.call("search_memory", {"query": question, **given})
    seconds = time.perf_counter() - began
    if structured(answer)["partial"]:
        raise RuntimeError(f"a search was partial: {structured(answer)['warnings']}")
    return seconds


def measure_writes(dataset: Dataset, place: Path) -> dict[str, Any]:
    """`create_entities` in a server that indexes at the same time, and again when it has nothing to do."""
    home = SearchHome(place)
    home.without_model().import_turns(dataset)
    with running(SERVER, home.environment) as server:
        server.call("search_memory", {"query": "begin to index"})
        meanwhile = [write(server, f"entity {number}") for number in range(WRITES)]
        still_indexing = structured(server.call("search_memory", {"query": "is it done"}))["partial"]
        searches = [ask_partially(server, question.text) for question in dataset.questions[:50]]
        wait_until_embedded(server)
        time.sleep(2)
        after = [write(server, f"later entity {number}") for number in range(WRITES)]
    return {
        "writes": WRITES,
        "still_indexing_after_them": still_indexing,
        "p50_ms": round(percentile(meanwhile, 0.5) * 1e3, 1),
        "p95_ms": round(percentile(meanwhile, 0.95) * 1e3, 1),
        "search_p95_ms": round(percentile(searches, 0.95) * 1e3, 1),
        "idle_p50_ms": round(percentile(after, 0.5) * 1e3, 1),
        "idle_p95_ms": round(percentile(after, 0.95) * 1e3, 1),
    }


def write(server: Server, name: str) -> float:
    """Seconds of one `create_entities`, then a pause as between two calls of a client."""
    entity = {"name": name, "entityType": "test", "observations": ["one thing", "and another"]}
    began = time.perf_counter()
    server.call("create_entities", {"entities": [entity]})
    seconds = time.perf_counter() - began
    time.sleep(0.05)
    return seconds


def ask_partially(server: Server, question: str) -> float:
    """Seconds of one search while the index is being made."""
    began = time.perf_counter()
    server.call("search_memory", {"query": question})
    return time.perf_counter() - began


def aims_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What this size was to reach."""
    turns = result["turns"]
    aims = [
        below(f"server at rest, {turns:,} turns on disk, MB < {REST_MB:.0f}", result["rest_mb"], REST_MB),
        below(
            f"index above its text, {turns:,} turns, bytes a turn ≤ {INDEX_BYTES_A_TURN:,.0f}",
            result["index_bytes_a_turn_above_text"],
            INDEX_BYTES_A_TURN + 1,
        ),
    ]
    if turns in SEARCH_MS:
        key, limit = SEARCH_MS[turns]
        aims.append(below(f"search of {turns:,} turns, {key[:3]}, ms < {limit:.0f}", result[key], limit))
    if turns == LOADED_TURNS:
        aims.append(
            below(f"server with model and {turns:,} turns, MB < {LOADED_MB:.0f}", result["loaded_mb"], LOADED_MB)
        )
    if result["turns_a_second"] is not None:
        value = result["turns_a_second"]
        text = f"indexing {turns:,} turns, turns a second ≥ {TURNS_A_SECOND:.0f}"
        aims.append({"aim": text, "value": value, "met": value >= TURNS_A_SECOND})
    return aims


def write_aims(writes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Graph writes while indexing; the measure counts only if indexing went on to their end."""
    aim = below(f"create_entities while indexing, p95, ms < {WRITE_P95_MS:.0f}", writes["p95_ms"], WRITE_P95_MS)
    if not writes["still_indexing_after_them"]:
        aim = {**aim, "aim": f"{aim['aim']} (indexing ended before them: give larger --sizes)", "met": False}
    return [aim]


def below(text: str, value: float, limit: float) -> dict[str, Any]:
    """An aim that is met below a limit."""
    return {"aim": text, "value": value, "met": value < limit}


def print_tables(results: Sequence[Mapping[str, Any]], writes: Mapping[str, Any]) -> None:
    """For people."""
    rows = {
        "turns": "turns",
        "search, p50 ms": "p50_ms",
        "search, p95 ms": "p95_ms",
        "processor time of a search, ms": "processor_ms",
        "within one conversation, p50 ms": "within_p50_ms",
        "within one conversation, p95 ms": "within_p95_ms",
        "first search of a server, ms": "first_search_ms",
        "server at rest, MB": "rest_mb",
        "server after searches, MB": "loaded_mb",
        "import, with indexing, s": "import_seconds",
        "indexing, turns a second": "turns_a_second",
        "processor time of indexing a turn, ms": "index_processor_ms_a_turn",
        "index, MB": "index_mb",
        "index above its text, bytes a turn": "index_bytes_a_turn_above_text",
    }
    for name, key in rows.items():
        values = " | ".join(
            f"{format(result[key], ',') if result[key] is not None else '':>12}" for result in results
        )
        print(f"| {name:37} | {values} |")
    busy = os.getloadavg()[0]
    if busy > 1.5:
        print(f"The machine was busy (load {busy:.1f}): the times are upper bounds.")
    print(
        f"create_entities while indexing: p50 {writes['p50_ms']} ms, p95 {writes['p95_ms']} ms; "
        f"idle: p50 {writes['idle_p50_ms']} ms, p95 {writes['idle_p95_ms']} ms; "
        f"searches while indexing: p95 {writes['search_p95_ms']} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
