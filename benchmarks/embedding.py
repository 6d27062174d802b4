"""Speed, memory and faithfulness of the embedding model, and of the graph's other form.

    python benchmarks/embedding.py [--models FOLDER] [--weights FOLDER_OR_WHEEL] [--texts FILE]

Without --texts (one text a line) it makes up turns of 60 to 120 tokens. Every figure comes from a process of its
own, so that memory is that of what is measured. With --weights, also builds the float32 graph and compares:
cosines, and whether both find the same of all turns for a query.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dualmem_mcp.embedding import pull
from dualmem_mcp.embedding.model_files import verified_model
from dualmem_mcp.embedding.onnx_embedder import OnnxEmbedder
from dualmem_mcp.embedding.tokens import Tokenizer
from dualmem_mcp.settings import load_settings

TURNS = 1000
QUERIES = 200
QUERY_WORDS = 12

# Stop words and syllables, to make turns of: the tokenizer then works as hard as on what people write.
_COMMON = "the of to and a in that it is was for on with as we have this not are be by from or at"
_SYLLABLES = "con ver sa tion mem o ry hand off ses sion key vault ex port sync in dex ta ble er ror"


def made_up_turns(count: int) -> list[str]:
    """Turns of 60 to 120 tokens: common words, names put together from syllables, numbers."""
    source = random.Random(5)
    common, syllables = _COMMON.split(), _SYLLABLES.split()
    turns = []
    for _ in range(count):
        words = []
        for _ in range(source.randint(40, 80)):
            kind = source.random()
            if kind < 0.55:
                words.append(source.choice(common))
            elif kind < 0.95:
                words.append("".join(source.choices(syllables, k=source.randint(1, 2))))
            else:
                words.append(str(source.randint(0, 999)))
        turns.append(" ".join(words) + ".")
    return turns


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="the folder of models (default: as the settings say)")
    parser.add_argument("--weights", type=Path, help="the published weights, to compare with float32")
    parser.add_argument("--texts", type=Path, help="a file with one text a line")
    parser.add_argument("--measure", choices=list(MEASURES), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    models = arguments.models or _models_of_settings()
    texts = arguments.texts.read_text().splitlines() if arguments.texts else made_up_turns(TURNS)
    if arguments.measure:
        print(json.dumps(MEASURES[arguments.measure](models, texts, arguments.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        _report("8 bits", models, arguments)
        if arguments.weights:
            _report("float32", _float_models(arguments.weights, Path(folder)), arguments)
            _compare(models, Path(folder), texts)


def _report(label: str, models: Path, arguments: argparse.Namespace) -> None:
    given = ["--texts", str(arguments.texts)] if arguments.texts else []

    def measured(name: str, threads: int = 1) -> dict[str, Any]:
        command = [sys.executable, __file__, "--models", str(models), "--measure", name, "--threads", str(threads)]
        done = subprocess.run([*command, *given], check=True, stdout=subprocess.PIPE, text=True)
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures

    loading, queries = measured("loading"), measured("queries")
    print(f"{label}")
    print(
        f"  load {loading['seconds']:.2f} s, of it {loading['hash_seconds']:.3f} s for the digests; "
        f"memory {loading['before_mb']:.0f} MB before, {loading['loaded_mb']:.0f} loaded, "
        f"{loading['busy_mb']:.0f} after 1,000 turns by two threads, {loading['unloaded_mb']:.0f} after unload"
    )
    print(f"  a query of {QUERY_WORDS} words: p50 {queries['p50_ms']:.1f} ms, p95 {queries['p95_ms']:.1f} ms")
    for threads in (1, 2):
        turns = measured("turns", threads)
        print(
            f"  turns of {turns['tokens']:.0f} tokens, {threads} thread{'s' * (threads > 1)}: "
            f"{turns['per_second']:.0f} a second, {turns['per_cpu_second']:.0f} for each second of a processor"
        )


def measure_loading(models: Path, texts: list[str], _: int) -> dict[str, float]:
    """Seconds to load, of which for digests, and resident megabytes at each stage."""
    embedder = OnnxEmbedder(models, threads=2)
    started = time.perf_counter()
    verified_model(models)
    hashed = time.perf_counter()
    before = _resident_mb()
    embedder.load()
    figures = {"seconds": time.perf_counter() - hashed, "hash_seconds": hashed - started, "before_mb": before}
    figures["loaded_mb"] = _resident_mb()
    embedder.embed(texts)
    figures["busy_mb"] = _resident_mb()
    embedder.unload()
    return {**figures, "unloaded_mb": _resident_mb()}


def measure_queries(models: Path, texts: list[str], threads: int) -> dict[str, float]:
    """Milliseconds for one query, tokenisation included."""
    embedder = OnnxEmbedder(models, threads=threads)
    queries = [" ".join(text.split()[:QUERY_WORDS]) for text in texts[:QUERIES]]
    embedder.embed(queries[:5])
    taken = []
    for query in queries:
        started = time.perf_counter()
        embedder.embed([query])
        taken.append((time.perf_counter() - started) * 1000)
    return {"p50_ms": statistics.median(taken), "p95_ms": statistics.quantiles(taken, n=20)[-1]}


def measure_turns(models: Path, texts: list[str], threads: int) -> dict[str, float]:
    """Turns a second, tokenisation included."""
    embedder = OnnxEmbedder(models, threads=threads)
    embedder.embed(texts[:50])
    started, processor = time.perf_counter(), time.process_time()
    embedder.embed(texts)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    numbers = Tokenizer(verified_model(models).tokenizer).token_numbers(texts)
    return {
        "per_second": len(texts) / seconds,
        "per_cpu_second": len(texts) / processor,
        "tokens": statistics.mean(map(len, numbers)),
    }


MEASURES = {"loading": measure_loading, "queries": measure_queries, "turns": measure_turns}


def _float_models(weights: Path, folder: Path) -> Path:
    """A folder of models with the float32 graph in the place of the built one."""
    build = pull.build_graph
    pull.build_graph = lambda tensors: build(tensors, quantized=False)
    try:
        pull.pull_model(folder, source=weights)
    finally:
        pull.build_graph = build
    return folder


def _compare(models: Path, float_models: Path, texts: list[str]) -> None:
    queries = [" ".join(text.split()[:QUERY_WORDS]) for text in texts[:QUERIES]]
    ours, exact = OnnxEmbedder(models), OnnxEmbedder(float_models)
    turns, exact_turns = ours.embed(texts), exact.embed(texts)
    cosines = np.sum(turns * exact_turns, axis=1)
    print(f"8 bits against float32: cosine mean {cosines.mean():.4f}, least {cosines.min():.4f}")
    best, exact_best = (
        np.argsort(-(asked @ kept.T), axis=1)[:, :10]
        for asked, kept in ((ours.embed(queries), turns), (exact.embed(queries), exact_turns))
    )
    same = statistics.mean(
        len({*one} & {*other}) / 10 for one, other in zip(best.tolist(), exact_best.tolist(), strict=True)
    )
    first = float(np.mean(best[:, 0] == exact_best[:, 0]))
    print(f"  of the best ten of {len(texts)} turns {same:.3f} are the same, of the best one {first:.3f}")


def _models_of_settings() -> Path:
    return load_settings().model_dir


def _resident_mb() -> float:
    """Resident memory; on systems without /proc the most there ever was."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        import resource  # noqa: PLC0415  (Windows has none)

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


if __name__ == "__main__":
    main()
