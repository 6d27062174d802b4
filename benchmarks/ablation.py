"""What each view and each weight of ranking is worth, on the labelled dialogues.

    python benchmarks/ablation.py                       the dialogues in benchmarks/data/dialogues
    python benchmarks/ablation.py --devmembench DIR     DevMemBench too, by session
    python benchmarks/ablation.py --locomo FILE         any file in LoCoMo's layout instead
    python benchmarks/ablation.py --models DIR          where `dualmem model pull` put the model, if elsewhere

An index is built from the texts, as the product builds it; each question is read and its candidates are collected
once, within its conversation and once more over all of them; then they are ranked with each set of weights. BM25
alone, vectors alone and reciprocal rank fusion (k = 60) stand on the same candidates. Figures are recall@10 over
categories 1 to 4, for each of them, and over the adversarial category 5.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from retrieval_data import SHIPPED_DIALOGUES, Dataset, load_devmembench, load_locomo
from retrieval_metrics import average, distinct, recall

from dualmem_mcp.embedding.factory import open_embedder
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.search import Collection, Filter, SearchItem, item_key
from dualmem_mcp.ports import Embedder, SystemClock
from dualmem_mcp.search.passages import passages
from dualmem_mcp.search.query import Query, read_query
from dualmem_mcp.search.ranking import Pool, collect, rank
from dualmem_mcp.search.weights import WEIGHTS, Weights
from dualmem_mcp.settings import load_settings
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index

LENGTH = 10
BATCH = 128
Order = Callable[[Query, Pool], Sequence[int]]


@dataclass(frozen=True)
class Asked:
    """A question with its candidates, and the ids of what it asks for."""

    query: Query
    pool: Pool
    category: str
    group: str
    wanted: frozenset[str]


def main() -> None:
    """Build, ask, rank in every way, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locomo", type=Path, default=SHIPPED_DIALOGUES)
    parser.add_argument("--devmembench", type=Path)
    parser.add_argument("--models", type=Path, default=load_settings().model_dir)
    options = parser.parse_args()
    embedder, _ = open_embedder(options.models)
    if embedder is None:
        raise SystemExit("error: no model\nhint: Run `dualmem model pull`, or name its folder by --models.")
    dialogues = load_locomo(options.locomo)
    within, names = questions(dialogues, embedder, pooled=False)
    over, _ = questions(dialogues, embedder, pooled=True)
    developer: list[Asked] = []
    if options.devmembench:
        developer, developer_names = questions(load_devmembench(options.devmembench), embedder, pooled=True)
    groups = sorted({one.group for one in within})
    print(
        f"{'recall@10':34}   1-4     1     2     3     4     5  pooled  5  "
        + " ".join(f"{group[:7]:>7}" for group in groups)
        + ("  session hit@1 MRR" if developer else "")
    )
    for label, order in ORDERS.items():
        figures = [share(within, names, order, "1234"), *(share(within, names, order, one) for one in "12345")]
        figures += [share(over, names, order, "1234"), share(over, names, order, "5")]
        line = f"{label:34} " + " ".join(f"{value:.3f}" for value in figures) + "  "
        for group in groups:
            mine = [one for one in within if one.group == group]
            line += f"{share(mine, names, order, '1234'):8.3f}"
        if developer:
            found = average(
                (
                    (
                        distinct(developer_names[place].partition("/")[0] for place in order(one.query, one.pool)),
                        one.wanted,
                    )
                    for one in developer
                ),
                LENGTH,
            )
            line += f"      {found.hit_at_1:.3f} {found.mrr:.3f}"
        print(line, flush=True)


def questions(dataset: Dataset, embedder: Embedder, *, pooled: bool) -> tuple[list[Asked], dict[int, str]]:
    """Every question with its candidates; and `conversation/turn` of each id."""
    with tempfile.TemporaryDirectory() as folder:
        index = open_search_index(Path(folder), bytes(32), Collection.CONVERSATIONS)
        with closing(index):
            fill(index, dataset, embedder)
            asked = []
            for question in dataset.questions:
                inside = (
                    ConversationId(question.conversation_id) if question.conversation_id and not pooled else None
                )
                where = Filter(collections=(Collection.CONVERSATIONS,), conversation_id=inside)
                query = read_query(question.text, known_authors=index.authors(where), now=SystemClock().now())
                pool = collect([index], query, embedder.embed([query.embedded])[0], where)
                prefix = f"{question.conversation_id}/" if question.conversation_id else ""
                wanted = frozenset(prefix + one for one in question.evidence)
                asked.append(Asked(query, pool, question.category, question.conversation_id, wanted))
            ids = sorted({int(place) for one in asked for found in one.pool for place in found.features.ids})
            names = {
                place: f"{item.conversation_id}/{item.turn_id}"
                for place, item in zip(ids, index.items(ids), strict=True)
            }
    return asked, names


def fill(index: SqliteSearchIndex, dataset: Dataset, embedder: Embedder) -> None:
    """Put the turns into the index, with their vectors."""
    for conversation in dataset.conversations:
        index.put(
            [
                SearchItem(
                    key=item_key("turn", conversation.id, turn.id),
                    kind="turn",
                    text=turn.text,
                    conversation_id=conversation.id,
                    turn_id=turn.id,
                    author=turn.author or turn.role,
                    timestamp=turn.timestamp,
                )
                for turn in conversation.turns
            ]
        )
    index.use_model(embedder.model_id, embedder.dimensions)
    while waiting := index.unembedded(BATCH):
        texts = [passages(one.item, one.previous) for one in waiting]
        vectors = embedder.embed([text for several in texts for text in several])
        ends = np.cumsum([len(several) for several in texts])
        index.put_vectors(
            embedder.model_id,
            [
                (one.id, vectors[end - len(several) : end])
                for one, several, end in zip(waiting, texts, ends, strict=True)
            ],
        )


def share(asked: Sequence[Asked], names: dict[int, str], order: Order, categories: str) -> float:
    """Average recall@10 over the questions of these categories."""
    values = [
        recall([names[place] for place in order(one.query, one.pool)[:LENGTH]], one.wanted)
        for one in asked
        if one.category in set(categories)
    ]
    return statistics.fmean(values) if values else float("nan")


def weighted(weights: Weights) -> Order:
    """Our ranking with these weights."""
    return lambda query, pool: [one.id for one in rank(query, pool, weights=weights)]


def by_words(_: Query, pool: Pool) -> list[int]:
    """BM25 alone."""
    return pool[0].features.ids[np.argsort(-pool[0].lexical, kind="stable")].tolist()


def by_vectors(_: Query, pool: Pool) -> list[int]:
    """Cosine alone."""
    return pool[0].features.ids[np.argsort(-pool[0].cosines, kind="stable")].tolist()


def fused(query: Query, pool: Pool) -> list[int]:
    """Reciprocal rank fusion. Source: Cormack, Clarke, Büttcher (2009), k = 60."""
    scores: dict[int, float] = {}
    for ranking in (by_words(query, pool), by_vectors(query, pool)):
        for position, place in enumerate(ranking, start=1):
            scores[place] = scores.get(place, 0.0) + 1 / (60 + position)
    return sorted(scores, key=lambda place: -scores[place])


def _variants() -> dict[str, Order]:
    none = Weights(context=(), length=0, question=0, author=0, answer=0, span=0, recency=0)
    found: dict[str, Order] = {
        "BM25": by_words,
        "vectors": by_vectors,
        "RRF, k = 60": fused,
        "BM25 + vectors": weighted(none),
        "all": weighted(WEIGHTS),
        "all without vectors": weighted(replace(WEIGHTS, vector=0)),
        "all without words": weighted(replace(WEIGHTS, lexical=0)),
    }
    for name, values in {
        "vector": (0.75, 1.0, 1.5, 2.0),
        "context": ((), (0.25,), (0.5,), (0.4, 0.2), (0.6, 0.3), (0.5, 0.4)),
        "length": (0.0, 0.5, 1.0, 1.5, 2.0),
        "question": (0.0, 0.15, 0.5, 0.7),
        "author": (0.0, 0.15, 0.5, 0.7, 1.0),
        "answer": (0.0, 0.1, 0.4),
        "span": (0.0, 0.6),
        "recency": (0.0, 0.1),
    }.items():
        for value in values:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            found[f"{name} {shown or 'none'}" if value else f"without {name}"] = weighted(
                replace(WEIGHTS, **{name: value})
            )
    return found


ORDERS = _variants()

if __name__ == "__main__":
    main()
