"""What is said twice in sessions, and what it saves to embed and store it once.

    python benchmarks/duplicates.py                 over the sample session that comes with the program
    python benchmarks/duplicates.py ~/.claude       over session files, wherever they lie below a folder
    python benchmarks/duplicates.py DIR --forked    and each session once more, as a fork has it
    python benchmarks/duplicates.py DIR --json

The sessions are read and indexed as `dualmem index` does it, twice: once with vectors of its own for each item, and
once as the product does, where items that are alike (`search.likeness`) share them. *Equal* are items of which
exactly the same texts are embedded; *alike* those that differ in capitals, white space, quotes or a last stop;
*overlapping* those that are neither, but have 95 % of their runs of three words in common with another. These are
only counted: the product embeds each. What is shared is compared with what each item's own vectors are.

Times are of the processor. No text is printed, only counts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from dualmem_mcp.embedding.factory import open_embedder
from dualmem_mcp.model.index_scope import IndexScope
from dualmem_mcp.model.search import Collection
from dualmem_mcp.model.words import words
from dualmem_mcp.ports import Embedder, SystemClock
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.search.filling import fill_indexes
from dualmem_mcp.search.indexing import BATCH_TEXTS, IndexReport, embed_items
from dualmem_mcp.search.likeness import likeness
from dualmem_mcp.search.passages import passages
from dualmem_mcp.search.reading import read_sessions
from dualmem_mcp.settings import load_settings
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.search_feed import SearchFeed
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index
from dualmem_mcp.stores.source_progress import SourceProgress
from dualmem_mcp.transcripts.local_sessions import LocalSessions

KEY = bytes(32)
OVERLAP = 0.95
RUN_WORDS = 3

Indexes = Mapping[Collection, SqliteSearchIndex]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="session files are looked for below it")
    parser.add_argument("--forked", action="store_true", help="each session has a fork that repeats all of it")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    embedder, missing = open_embedder(load_settings().model_dir)
    if embedder is None:
        raise SystemExit(f"the benchmark needs the model: {missing}")
    with tempfile.TemporaryDirectory(prefix="dualmem-benchmark-") as place:
        claude = Path(place) / "claude"
        if options.folder is None:
            write_sample_session(claude, cwd="/home/dev/tollgate")
        else:
            gather(options.folder, claude)
        if options.forked:
            fork(claude)
        figures = measure(Path(place), claude, embedder)
    print(json.dumps(figures, indent=2) if options.json else table(figures))


def gather(folder: Path, claude: Path) -> None:
    """Copy all sessions below a folder, with what lies beside them, to where one of Claude Code has them."""
    names: Counter[str] = Counter()
    for session in sorted(folder.rglob("*.jsonl")):
        if "subagents" in session.parts or session.stem.startswith("agent-"):
            continue
        names[session.stem] += 1
        name = session.stem if names[session.stem] == 1 else f"{session.stem}-{names[session.stem]}"
        project = claude / "projects" / (session.parent.name or "-")
        project.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(session, project / f"{name}.jsonl")
        if (beside := session.with_suffix("")).is_dir():
            shutil.copytree(beside, project / name, copy_function=shutil.copyfile)


def fork(claude: Path) -> None:
    """A second file for each session, which holds the same turns."""
    for session in sorted((claude / "projects").glob("*/*.jsonl")):
        shutil.copyfile(session, session.with_name(f"fork-{session.name}"))


def measure(place: Path, claude: Path, embedder: Embedder) -> dict[str, Any]:
    """Fill two sets of indexes and compare them."""
    with Database.open(place / "memory.db", KEY) as database, ExitStack() as opened:
        log = SourceProgress(database, SystemClock(), "desk")
        read_sessions(LocalSessions(claude, IndexScope("all"), ""), log)

        def filled(name: str) -> Indexes:
            indexes = {
                collection: opened.enter_context(
                    closing(open_search_index(place / name / collection, KEY, collection))
                )
                for collection in Collection
            }
            fill_indexes(SearchFeed(database), indexes)
            for index in indexes.values():
                index.use_model(embedder.model_id, embedder.dimensions)
            return indexes

        apart, together = filled("apart"), filled("together")
        counts: Counter[str] = Counter()
        for index in apart.values():
            counts.update(duplicates(index))
        embedder.embed(["the first takes longer"])
        report = IndexReport()
        apart_s = seconds(lambda: embed_apart(apart, embedder))
        together_s = seconds(lambda: embed_items(together, embedder, report))
        least = least_cosine(apart, together)
        bytes_apart, bytes_together = size_bytes(apart), size_bytes(together)
    return {
        **counts,
        "shared": report.deduplicated,
        "index_bytes": bytes_apart,
        "bytes_saved": bytes_apart - bytes_together,
        "seconds": round(apart_s, 2),
        "seconds_saved": round(apart_s - together_s, 2),
        "least_cosine": None if least is None else round(least, 4),
    }


def duplicates(index: SqliteSearchIndex) -> dict[str, int]:
    """How many items there are in an index without vectors, and how many of them another one makes needless."""
    texts = [passages(one.item, one.previous) for one in index.unembedded(index.counts().items)]
    kept = {likeness(one): one for one in texts}
    embeddings = sum(map(len, texts))
    return {
        "items": len(texts),
        "equal": len(texts) - len(set(texts)),
        "alike": len(set(texts)) - len(kept),
        "overlapping": overlapping(list(kept.values())),
        "embeddings": embeddings,
        "embeddings_saved": embeddings - sum(map(len, kept.values())),
    }


def overlapping(texts: Sequence[Sequence[str]]) -> int:
    """How many of the texts have a Jaccard coefficient of OVERLAP or more, over runs of words, with one before.

    Two such sets have one in common of their rarest runs: of each set as many as it may have alone, and one more.
    Source: R. Bayardo et al., "Scaling up all pairs similarity search", WWW 2007.
    """
    sets = [runs(one) for one in texts]
    rarity = Counter(run for one in sets for run in one)
    holding: defaultdict[tuple[str, ...], list[frozenset[tuple[str, ...]]]] = defaultdict(list)
    count = 0
    for one in sorted(sets, key=len):
        rarest = sorted(one, key=lambda run: (rarity[run], run))[: int(len(one) * (1 - OVERLAP)) + 1]
        count += any(
            len(one & other) >= OVERLAP * len(one | other) for run in rarest for other in holding.get(run, ())
        )
        for run in rarest:
            holding[run].append(one)
    return count


def runs(texts: Sequence[str]) -> frozenset[tuple[str, ...]]:
    """The runs of three words of an item's texts; of fewer words, all of them."""
    read = [word for text in texts for word in words(text)]
    return frozenset(zip(*(read[start:] for start in range(RUN_WORDS)), strict=False)) or frozenset([tuple(read)])


def embed_apart(indexes: Indexes, embedder: Embedder) -> None:
    """Vectors of its own for each item, in batches as large as the product's are at first."""
    for index in indexes.values():
        while waiting := index.unembedded(BATCH_TEXTS):
            texts = [passages(one.item, one.previous) for one in waiting]
            vectors = embedder.embed([text for several in texts for text in several])
            parts = np.split(vectors, np.cumsum([len(several) for several in texts])[:-1])
            index.put_vectors(embedder.model_id, [(one.id, part) for one, part in zip(waiting, parts, strict=True)])


def least_cosine(apart: Indexes, together: Indexes) -> float | None:
    """The least cosine of a vector that an item shares with what it would have of its own; None if none does."""
    least = []
    for collection, index in together.items():
        columns = index.columns()
        _, places, counts = np.unique(columns.likenesses, return_inverse=True, return_counts=True)
        ids = columns.ids[counts[places] > 1].tolist()
        ours, theirs = index.vectors(ids), apart[collection].vectors(ids)
        least += [float((ours[one] * theirs[one]).sum(axis=1).min()) for one in ids]
    return min(least, default=None)


def seconds(work: Callable[[], object]) -> float:
    """How long the processor works for it: what the clock says depends on what else runs."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def size_bytes(indexes: Indexes) -> int:
    """Size on disk, with the logs written into the files."""
    for index in indexes.values():
        index.release()
    return sum(index.counts().size_bytes for index in indexes.values())


def table(figures: Mapping[str, Any]) -> str:
    """What is printed for people."""

    def share(part: str, whole: str) -> str:
        return f"{figures[part] / figures[whole]:.1%} of {figures[whole]:,}" if figures[whole] else "of none"

    least = "-" if figures["least_cosine"] is None else f"{figures['least_cosine']:.4f}"
    return "\n".join(
        [
            f"items              {figures['items']:>12,}",
            f"  equal            {figures['equal']:>12,}  {share('equal', 'items')}",
            f"  alike            {figures['alike']:>12,}",
            f"  overlapping      {figures['overlapping']:>12,}  embedded each for itself",
            f"embeddings saved   {figures['embeddings_saved']:>12,}  {share('embeddings_saved', 'embeddings')}",
            f"bytes saved        {figures['bytes_saved']:>12,}  {share('bytes_saved', 'index_bytes')}",
            f"seconds saved      {figures['seconds_saved']:>12,.2f}  {share('seconds_saved', 'seconds')}",
            f"least cosine of what is shared with what would be its own: {least}",
        ]
    )


if __name__ == "__main__":
    main()
