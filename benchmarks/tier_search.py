"""What a device finds that has nothing of its own and asks the tiers, beside one that has the whole index.

    python benchmarks/tier_search.py                          on the dialogues in benchmarks/data/dialogues
    python benchmarks/tier_search.py --devmembench DIR        on DevMemBench, too
    python benchmarks/tier_search.py --locomo locomo10.json   on LoCoMo, too
    python benchmarks/tier_search.py --among 20000            with so many made-up turns beside the labelled ones
    python benchmarks/tier_search.py --engine sqlite          tiers in files instead of Qdrant's own engine
    python benchmarks/tier_search.py --weak                   how the strength of answers is distributed, too

The turns are imported and indexed as `dualmem import` does it. Every passage is protected, sealed and put into the
three tiers, a third of the conversations each, words included. Then each question is asked three times: of the full
index, of the tiers by a device whose index is empty, and of the tiers without words. recall@10 is the share of a
question's evidence among ten results (for DevMemBench of its sessions among those of the results).

Aim: the tiers find at least .97 of what the full index does, words included. Exit status 1 if it is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from retrieval import model_of
from retrieval_data import SHIPPED_DIALOGUES, Conversation, Dataset, Question, load_devmembench, load_locomo
from retrieval_metrics import percentile
from search_home import SearchHome, opened
from synthetic_turns import synthetic_dataset

from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.model.ids import VaultId, parse_conversation_id
from dualmem_mcp.model.search import Collection, Filter
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports import SearchIndex
from dualmem_mcp.ports.tiers import VectorTier
from dualmem_mcp.search.beyond import WEAK, Beyond, strength
from dualmem_mcp.search.query import read_query
from dualmem_mcp.search.ranking import candidates, rank
from dualmem_mcp.search.search import Embed, search
from dualmem_mcp.stores.stems import Stemmer
from dualmem_mcp.stores.vector_tier import SqliteVectorTier
from dualmem_mcp.tiers.asking import TierAsker
from dualmem_mcp.tiers.at_hand import embedded_items
from dualmem_mcp.tiers.points import PointMaker

if TYPE_CHECKING:
    from numpy.typing import NDArray

LENGTH = 10
AIM = 0.97
TIERS: tuple[TierName, ...] = ("critical", "context", "historical")
MODEL = "benchmark"
PATIENCE = 60.0
"""Recall is to be that of the tiers and not of this machine; how long a search takes is printed."""
ENOUGH_TOKENS = 1_000_000
OFF_TOPIC = (
    "How do I tune a carburettor on a 1967 Triumph?",
    "What is the boiling point of tungsten?",
    "Which opera did Verdi write last?",
    "best recipe for sourdough bread",
    "Who won the 1998 world cup final?",
    "kubernetes ingress tls certificate rotation",
    "How tall is mount Kilimanjaro?",
    "What did the ambassador of Peru say about lithium?",
    "flights from Oslo to Reykjavik in march",
    "mortgage interest rates fixed for ten years",
    "why do cats purr",
    "quantum entanglement explained",
    "how to remove wine stains from a carpet",
    "the treaty of Westphalia",
    "asdf qwer zxcv",
    "Which database index suits geospatial queries?",
    "What was the dosage of ibuprofen prescribed?",
    "When does the museum open on Sundays?",
)

Ask = Callable[[Question, bool], tuple[list[str], float]]
"""A question, and whether within its conversation; turns found and seconds."""


def main() -> int:
    """Measure each set and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=Path, default=SHIPPED_DIALOGUES)
    parser.add_argument("--devmembench", type=Path)
    parser.add_argument("--locomo", type=Path)
    parser.add_argument("--among", type=int, default=0, metavar="TURNS")
    parser.add_argument("--engine", choices=["qdrant", "sqlite"], default="qdrant")
    parser.add_argument("--weak", action="store_true")
    options = parser.parse_args()
    sets = [(load_locomo(options.dialogues), False)]
    if options.devmembench:
        sets.append((load_devmembench(options.devmembench), True))
    if options.locomo:
        sets.append((load_locomo(options.locomo), False))
    met = True
    for dataset, by_session in sets:
        met &= measure(dataset, options.engine, among=options.among, by_session=by_session)
    if options.weak:
        print_strengths(sets[0][0])
    return 0 if met else 1


def measure(dataset: Dataset, engine: str, *, among: int, by_session: bool) -> bool:
    """Print one set; whether the aim is met."""
    others = synthetic_dataset(load_locomo(SHIPPED_DIALOGUES), among).conversations if among else ()
    whole = Dataset(dataset.name, dataset.conversations + others, dataset.questions)
    with filled(whole) as (index, embed), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        systems: dict[str, Ask] = {"index": by_index(index, embed)}
        for name, words in (("tiers with words", True), ("tiers without", False)):
            tiers = {tier: stack.enter_context(tier_in(engine, Path(folder) / name / tier, tier)) for tier in TIERS}
            points, seconds = place(index, tiers, words=words)
            systems[name] = stack.enter_context(by_tiers(tiers, embed, words=words))
            print(f"{points:,} points placed in {seconds:.1f} s", file=sys.stderr)
        print(f"\n{dataset.name}: {whole.turns:,} turns, {len(dataset.questions)} questions, {engine}")
        print("| recall@10 | " + " | ".join(systems) + " | of the index's | p50 / p95 ms of a search |")
        print("|---|" + "---|" * (len(systems) + 2))
        met = True
        for within in (False,) if by_session else (True, False):
            shares, times = ask_all(dataset.questions, systems, within=within, by_session=by_session)
            figures = [float(np.mean(shares[name])) for name in systems]
            of_index = [figure / figures[0] for figure in figures]
            met &= of_index[1] >= AIM
            where = "sessions" if by_session else "the question's conversation" if within else "all conversations"
            print(
                f"| {where} | "
                + " | ".join(f"{figure:.3f}" for figure in figures)
                + " | "
                + ", ".join(f"{share:.3f}" for share in of_index[1:])
                + " | "
                + ", ".join(
                    f"{percentile(times[name], 0.5) * 1e3:.0f} / {percentile(times[name], 0.95) * 1e3:.0f}"
                    for name in systems
                )
                + " |",
                flush=True,
            )
    return met


@contextmanager
def filled(dataset: Dataset) -> Iterator[tuple[SearchIndex, Embed]]:
    """The index of the dataset's turns, and the product's model."""
    with tempfile.TemporaryDirectory(prefix="dualmem-benchmark-") as folder:
        home = SearchHome(Path(folder))
        home.import_turns(dataset)
        with opened(home) as app, closing(home.open_index()) as index:
            yield index, model_of(app)


@contextmanager
def tier_in(engine: str, folder: Path, name: TierName) -> Iterator[VectorTier]:
    """An empty tier in the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if engine == "sqlite":
        with closing(
            SqliteVectorTier.open(folder, bytes(range(32)), name=name, model_id=MODEL, dimensions=384)
        ) as tier:
            yield tier
        return
    from engine_tier import engine_tier  # noqa: PLC0415

    with engine_tier(folder, name, 384) as made:
        yield made


def place(index: SearchIndex, tiers: Mapping[TierName, VectorTier], *, words: bool) -> tuple[int, float]:
    """Put all of the index into the tiers, conversations in turn; points, and seconds that it took."""
    began = time.perf_counter()
    columns = index.columns()
    maker = PointMaker(keys_of_epoch(1), MODEL, Stemmer() if words else None)
    count = 0
    for place, name in enumerate(tiers):
        ids = columns.ids[columns.conversations % len(tiers) == place].tolist()
        for start in range(0, len(ids), 500):
            items = list(embedded_items(index, ids[start : start + 500]).values())
            points = [point for made in maker.points(items) for point in made]
            tiers[name].upsert(points)
            count += len(points)
    return count, time.perf_counter() - began


def keys_of_epoch(epoch: int) -> VectorKeys:
    """Keys of some vault."""
    return VectorKeys(bytes(range(32)), VaultId("0a" * 16), epoch)


def by_index(index: SearchIndex, embed: Embed) -> Ask:
    """A device that has all."""
    return asking({Collection.CONVERSATIONS: index}, embed, None)


@contextmanager
def by_tiers(tiers: Mapping[TierName, VectorTier], embed: Embed, *, words: bool) -> Iterator[Ask]:
    """A device that has nothing."""
    keys = [keys_of_epoch(1)]
    patience = dict.fromkeys(TIERS, PATIENCE)
    asker = TierAsker(
        tier=tiers.__getitem__,
        keys=lambda: keys,
        words=lambda: words,
        passages_here=lambda: 0,
        patience=patience,
    )
    with closing(asker):
        beyond = Beyond(asker, Stemmer(), lambda _: frozenset(), eager=True, patience=patience)
        yield asking({}, embed, beyond)


def asking(indexes: Mapping[Collection, SearchIndex], embed: Embed, beyond: Beyond | None) -> Ask:
    """A search as the product makes it."""

    def ask(question: Question, within: bool) -> tuple[list[str], float]:
        conversation = parse_conversation_id(question.conversation_id) if within else None
        began = time.perf_counter()
        found = search(
            question.text,
            Filter(conversation_id=conversation),
            limit=LENGTH,
            token_budget=ENOUGH_TOKENS,
            indexes=indexes,
            working_set=None,
            embed=embed,
            now=datetime.now(UTC),
            beyond=beyond,
        )
        seconds = time.perf_counter() - began
        if problems := [f"{tier.name}: {tier.problem}" for tier in found.tiers if tier.problem]:
            raise RuntimeError(f"a search was partial: {problems}")
        return [f"{one.item.conversation_id}/{one.item.turn_id}" for one in found.results], seconds

    return ask


def ask_all(
    questions: Sequence[Question], systems: Mapping[str, Ask], *, within: bool, by_session: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Recall of each question, and seconds, by system."""
    shares: dict[str, list[float]] = {name: [] for name in systems}
    times: dict[str, list[float]] = {name: [] for name in systems}
    for number, question in enumerate([questions[0], *questions]):
        for name, ask in systems.items():
            found, seconds = ask(question, within)
            if not number:
                continue  # warming up
            if by_session:
                sessions = {one.partition("/")[0] for one in found}
                shares[name].append(len(sessions & question.evidence) / len(question.evidence))
            else:
                wanted = {f"{question.conversation_id}/{turn}" for turn in question.evidence}
                shares[name].append(len(wanted.intersection(found)) / len(wanted))
            times[name].append(seconds)
    return shares, times


@dataclass(frozen=True)
class Strong:
    """An answer: its strength, and the score that is shown of its best."""

    strength: float
    score: float


def print_strengths(dataset: Dataset) -> None:
    """How strong answers are where the answer is, where it is not, and to questions about something else."""
    with filled(dataset) as (index, embed):
        there = [answer_to(question.text, index, embed) for question in dataset.questions]
        off_topic = [answer_to(text, index, embed) for text in OFF_TOPIC]
    absent: list[Strong] = []
    for left_out in dataset.conversations:
        others: tuple[Conversation, ...] = tuple(one for one in dataset.conversations if one is not left_out)
        asked = [question.text for question in dataset.questions if question.conversation_id == left_out.id]
        with filled(Dataset(dataset.name, others, ())) as (index, embed):
            absent += [answer_to(text, index, embed) for text in asked]
    groups = {"where the answer is": there, "where it is not": absent, "about something else": off_topic}
    print("\n| strength | 5 % | 25 % | 50 % | 75 % | 95 % | below " + f"{WEAK} | shown score, 5 % | 50 % | 95 % |")
    print("|---|" + "---|" * 9)
    for name, answers in groups.items():
        strengths = [answer.strength for answer in answers]
        scores = [answer.score for answer in answers]
        row = [f"{value:.3f}" for value in np.percentile(strengths, [5, 25, 50, 75, 95])]
        row.append(f"{np.mean(np.array(strengths) < WEAK):.0%}")
        row += [f"{value:.3f}" for value in np.percentile(scores, [5, 50, 95])]
        print(f"| {name} | " + " | ".join(row) + " |")
    for name, of in (("strength", "strength"), ("shown score", "score")):
        values = [np.array([getattr(answer, of) for answer in answers]) for answers in (there, absent)]
        above = float(np.mean(values[0][:, None] > values[1]) + np.mean(values[0][:, None] == values[1]) / 2)
        print(f"area under the curve of the {name}, there or not: {above:.3f}")


def answer_to(text: str, index: SearchIndex, embed: Embed) -> Strong:
    """How strong the index's answer is."""
    stemmer = Stemmer()
    query = read_query(text, known_authors=index.authors(Filter()), now=datetime.now(UTC))
    vector: NDArray[np.float32] | None = embed(query.embedded)
    found = candidates(index, query, vector, Filter())
    if found is None:
        return Strong(0.0, 0.0)
    ranked = rank(query, (found,))
    best = index.items([one.id for one in ranked[:LENGTH]])
    stems = stemmer.stems_of(query.terms)
    rarities = index.statistics(stems, Filter()).rarities
    return Strong(strength((found,), best, stems, rarities, stemmer), ranked[0].score)


if __name__ == "__main__":
    sys.exit(main())
