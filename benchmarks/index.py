"""The search index by itself: time of each operation, size on disk, recall of the coarse search, memory.

    python benchmarks/index.py                          5,000 and 50,000 items
    python benchmarks/index.py --sizes 500000           one size; building it takes some minutes
    python benchmarks/index.py --long 1.0               every item has a second passage

Items are turns of 150 characters on average, in conversations of 500, with words by Zipf's law; vectors lie in
clusters, as those of texts do. The index is built in batches of 100 as indexing builds it. A query has six words
that are no stop words; the vector lies near that of an item. Times are of a warm index, by the clock; where other
programs run, the time that the processor worked (p50) tells more.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.search import Collection, Filter, SearchItem, item_key
from dualmem_mcp.search.ranking import CONTEXT_LIMIT, LEXICAL_LIMIT, NEAREST_LIMIT, SCORED_LIMIT
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index

DIMENSIONS = 384
MODEL = "benchmark"
BATCH = 100
TURNS = 500
START = datetime(2024, 1, 1, tzinfo=UTC)
SCOPE = ConversationId("00000000-0000-4000-8000-000000000003")


def main() -> None:
    """Build and measure each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument(
        "--long", type=float, default=0.0, help="passages beyond the first, of each item on average"
    )
    parser.add_argument("--folder", type=Path, help="keep the index here, and use it again")
    arguments = parser.parse_args()
    for size in arguments.sizes:
        folder = arguments.folder and arguments.folder / f"{size}-{arguments.long}"
        with tempfile.TemporaryDirectory() as temporary:
            measure(size, arguments.runs, arguments.long, folder or Path(temporary))


class Corpus:
    """Texts and vectors that are the same for every run."""

    def __init__(self, size: int) -> None:
        self.size = size
        chance = np.random.default_rng(7)
        letters = list("eeeaaiioonnrrttllssudpmhgbfywkvxzjq")
        lengths = chance.integers(2, 10, size=30_000)
        self.words = ["".join(chance.choice(letters, length)) for length in lengths]
        weights = 1 / (np.arange(len(self.words)) + 2.7)
        self.chances = weights / weights.sum()
        # As MiniLM's: a mean of half their length, and half of the variance in some 20 directions, which lie askew.
        scale = np.sqrt(1 / np.arange(1, DIMENSIONS + 1))
        scale /= np.linalg.norm(scale)
        askew = np.linalg.qr(chance.normal(size=(DIMENSIONS, DIMENSIONS)))[0]
        self.spread = (0.6 * scale[:, None] * askew).astype(np.float32)
        mean = chance.normal(size=DIMENSIONS)
        self.mean = (0.5 * mean / np.linalg.norm(mean)).astype(np.float32)
        self.centres = chance.normal(size=(max(size // 50, 20), DIMENSIONS)).astype(np.float32)
        rare = np.where(np.arange(len(self.words)) < 100, 0, self.chances)  # the most frequent ones: stop words
        self.query_chances = rare / rare.sum()

    def items(self, first: int) -> list[SearchItem]:
        """A batch of items, in their order."""
        chance = np.random.default_rng((1, first))
        found = []
        for number in range(first, min(first + BATCH, self.size)):
            conversation = f"00000000-0000-4000-8000-{number // TURNS:012}"
            words = chance.choice(len(self.words), size=int(np.clip(chance.normal(24, 10), 2, 80)), p=self.chances)
            text = " ".join(self.words[word] for word in words).capitalize() + chance.choice([".", ".", "?"])
            turn = f"0000{number:08x}-0000-4000-8000-000000000000"
            found.append(
                SearchItem(
                    item_key("turn", conversation, turn),
                    "turn",
                    text,
                    conversation,
                    turn,
                    "user" if number % 2 else "assistant",
                    START + timedelta(minutes=number),
                    "desk",
                )
            )
        return found

    def vectors(self, first: int, passages: int) -> np.ndarray:
        """Vectors of a batch, float32 (count, passages, DIMENSIONS)."""
        count = min(BATCH, self.size - first)
        return self._near_centres(np.random.default_rng((2, first)), (count, passages))

    def queries(self, runs: int) -> Iterator[tuple[list[str], np.ndarray]]:
        """Words and a vector, for each run."""
        chance = np.random.default_rng(3)
        for _ in range(runs):
            words = [self.words[word] for word in chance.choice(len(self.words), size=6, p=self.query_chances)]
            yield words, self._near_centres(chance, ())

    def _near_centres(self, chance: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        centres = self.centres[chance.integers(len(self.centres), size=shape)]
        away = chance.normal(size=(*shape, DIMENSIONS)).astype(np.float32)
        vectors = self.mean + (centres + away) @ self.spread
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def build(index: SqliteSearchIndex, corpus: Corpus, long: float) -> int:
    """Fill the index as indexing does; returns the bytes of the texts."""
    index.use_model(MODEL, DIMENSIONS)
    text_bytes = 0
    puts: list[float] = []
    stores: list[float] = []
    begun = time.perf_counter()
    for first in range(0, corpus.size, BATCH):
        items = corpus.items(first)
        text_bytes += sum(len(item.text.encode()) for item in items)
        started = time.perf_counter()
        index.put(items)
        puts.append(time.perf_counter() - started)
    for first in reversed(range(0, corpus.size, BATCH)):  # the newest first
        waiting = sorted(index.unembedded(BATCH), key=lambda entry: entry.id)
        vectors = corpus.vectors(first, passages_of(first, long))
        started = time.perf_counter()
        index.put_vectors(MODEL, [(entry.id, vectors[n]) for n, entry in enumerate(waiting)][::-1])
        stores.append(time.perf_counter() - started)
    print(f"  built in {time.perf_counter() - begun:.1f} s with the making of its texts and vectors")
    print(f"  {'put, 100 items':30}{summary(puts)}")
    print(f"  {'put_vectors, 100 items':30}{summary(stores)}")
    return text_bytes


def passages_of(first: int, long: float) -> int:
    """How many passages each item of a batch has."""
    return 1 + (first % 1000 < long * 1000)


def measure(size: int, runs: int, long: float, folder: Path) -> None:
    """Build, measure and print one size."""
    print(f"\n{size:,} items, {1 + long:.1f} passages each")
    corpus = Corpus(size)
    kept = (folder / "index.db").exists()
    index = open_search_index(folder, bytes(range(32)), Collection.CONVERSATIONS)
    before = rss_mb()
    text_bytes = 0 if kept else build(index, corpus, long)
    index.close()
    if not kept:
        report_size(folder, size, text_bytes)
    index = open_search_index(folder, bytes(range(32)), Collection.CONVERSATIONS)
    words, vector = next(corpus.queries(1))
    begun = time.perf_counter()
    index.lexical(words, Filter(), 200)
    print(f"  {'first search':30}{(time.perf_counter() - begun) * 1e3:8.2f} ms")
    scoped, late = Filter(conversation_id=SCOPE), Filter(since=START + timedelta(minutes=size * 0.9))
    operations: dict[str, Callable[[list[str], np.ndarray], object]] = {
        "lexical, 200": lambda words, _: index.lexical(words, Filter(), 200),
        "lexical, one conversation": lambda words, _: index.lexical(words, scoped, 200),
        "nearest, 200": lambda _, vector: index.nearest(vector, Filter(), 200),
        "nearest, one conversation": lambda _, vector: index.nearest(vector, scoped, 200),
        "nearest, last tenth": lambda _, vector: index.nearest(vector, late, 200),
        "cosines, 400": lambda _, vector: index.cosines(vector, ids_of(size)),
        "all of one search": lambda words, vector: search(index, words, vector, Filter()),
        "all, one conversation": lambda words, vector: search(index, words, vector, scoped),
        "all, after a put": lambda words, vector: (touch(index), search(index, words, vector, Filter())),
    }
    for name, operation in operations.items():
        times, processor = [], []
        for words, vector in corpus.queries(runs + 5):
            begun, worked = time.perf_counter(), time.thread_time()
            operation(words, vector)
            times.append(time.perf_counter() - begun)
            processor.append(time.thread_time() - worked)
        print(f"  {name:30}{summary(times[5:])}   processor {statistics.median(processor[5:]) * 1e3:7.2f} ms")
    compare_with_extensions(index, corpus, runs)
    found, by_bits = recall(index, corpus, long)
    print(f"  {'recall@10 of nearest':30}{found:8.3f}   of the 200 with the fewest bits that differ {by_bits:.3f}")
    print(
        f"  memory: {rss_mb() - before:.0f} MB more than before, with {len(corpus.words):,} words of this benchmark"
    )
    index.close()


def search(index: SqliteSearchIndex, words: list[str], vector: np.ndarray, where: Filter) -> None:
    """What one search asks of an index: the authors, both rankings, features of all they name and of what stands
    beside the best, cosines of those that were not near, and ten items."""
    with index.reading() as reader:
        reader.authors(where)
        lexical = reader.lexical(words, where, LEXICAL_LIMIT)
        nearest = reader.nearest(vector, where, NEAREST_LIMIT)
        beside = [
            ids[:CONTEXT_LIMIT] + distance for ids in (lexical.ids, nearest.ids) for distance in (-2, -1, 1, 2)
        ]
        features = reader.features(np.concatenate([lexical.ids, nearest.ids, *beside]), where)
        wanted = np.concatenate([lexical.ids[:SCORED_LIMIT], *beside])
        reader.cosines(vector, np.setdiff1d(np.intersect1d(wanted, features.ids), nearest.ids))
        reader.items(lexical.ids[:10].tolist())


def compare_with_extensions(index: SqliteSearchIndex, corpus: Corpus, runs: int) -> None:
    """The same questions to sqlite-vec and FTS5 themselves."""
    times: dict[str, list[float]] = {}

    def ask(name: str, sql: str, parameters: tuple[object, ...]) -> None:
        begun = time.thread_time()
        index._file.read(lambda connection: connection.execute(sql, parameters).fetchall())
        times.setdefault(name, []).append(time.thread_time() - begun)

    for words, vector in corpus.queries(min(runs, 20)):
        bits = np.packbits(vector > 0, bitorder="little").tobytes()
        ask("sqlite-vec's nearest 200", "SELECT passage FROM bits WHERE bits MATCH vec_bit(?) AND k = 200", (bits,))
        query = " OR ".join(f'"{word}"' for word in words)
        ask(
            "FTS5's bm25, best 200", "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT 200", (query,)
        )
    ask("all bits, by the table", "SELECT passage, bits FROM bits", ())
    for name, taken in times.items():
        print(f"  {name:30}{'':38}processor {statistics.median(taken) * 1e3:7.2f} ms")


def touch(index: SqliteSearchIndex) -> None:
    """A write, so that the next search has to look what has changed."""
    index.put([SearchItem("note/x", "note", str(time.perf_counter_ns()))])


def ids_of(size: int) -> np.ndarray:
    """400 ids from all over the index."""
    numbers = np.linspace(0, size - 1, 400).astype(np.int64)
    return ((numbers // TURNS + 1) << 24) | numbers % TURNS


def recall(index: SqliteSearchIndex, corpus: Corpus, long: float) -> tuple[float, float]:
    """Which share of the ten nearest of all items are among the ten that the index finds, and which among the 200
    with the fewest bits that differ, the plain way to search by bits."""
    queries = np.stack([vector for _, vector in corpus.queries(50)])
    best = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
    bits, owners = [], []
    for first in range(0, corpus.size, BATCH):
        vectors = corpus.vectors(first, passages_of(first, long))
        items = np.arange(first, first + len(vectors))
        bits.append(np.packbits(vectors.reshape(-1, DIMENSIONS) > 0, axis=1))
        owners.append(np.repeat(items, vectors.shape[1]))
        scores = np.einsum("npd,qd->qnp", vectors, queries).max(axis=2)
        for number, row in enumerate(scores):
            merged = np.concatenate([best[number][0], row])
            top = np.argsort(-merged)[:10]
            best[number] = (merged[top], np.concatenate([best[number][1], items])[top])
    all_bits, all_owners = np.concatenate(bits).view(np.uint64), np.concatenate(owners)
    found = by_bits = 0
    for query, (_, nearest) in zip(queries, best, strict=True):
        wanted = set(nearest.tolist())
        ids = index.nearest(query, Filter(), 10).ids
        found += len(wanted & set((((ids >> 24) - 1) * TURNS + (ids & 0xFFFFFF)).tolist()))
        differing = np.bitwise_count(all_bits ^ np.packbits(query > 0).view(np.uint64)).sum(axis=1, dtype=np.uint16)
        by_bits += len(wanted & set(all_owners[np.argsort(differing, kind="stable")[:200]].tolist()))
    return found / (10 * len(queries)), by_bits / (10 * len(queries))


def report_size(folder: Path, size: int, text_bytes: int) -> None:
    """Print what the closed index takes on disk."""
    disk = sum(path.stat().st_size for path in folder.iterdir())
    above = (disk - text_bytes) / size
    print(f"  {disk / 1e6:.1f} MB on disk, {disk / size:.0f} bytes an item, {above:.0f} above its text")


def summary(seconds: list[float]) -> str:
    """p50 and p95 in ms."""
    ordered = sorted(seconds)
    return f"p50 {statistics.median(ordered) * 1e3:8.2f} ms   p95 {ordered[int(len(ordered) * 0.95)] * 1e3:8.2f} ms"


def rss_mb() -> float:
    """Resident memory of this process at its highest."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
