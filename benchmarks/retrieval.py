"""How well search finds what answers a question, beside words alone, vectors alone and plain fusion of the two.

    python benchmarks/retrieval.py                          on the dialogues in benchmarks/data/dialogues
    python benchmarks/retrieval.py --locomo locomo10.json   on LoCoMo, too (https://github.com/snap-research/locomo)
    python benchmarks/retrieval.py --devmembench DIR        on DevMemBench, too
    python benchmarks/retrieval.py --no-captions --json

The turns are imported into a fresh data home by `dualmem import`, which indexes them; each question
goes the way of the tool `search_memory`, in this process. The other systems work on the very same index in the same
run: BM25 over stemmed words without stop words; cosine of the question's vector; and reciprocal rank fusion of the
first 100 of each, k = 60.

Turn level (dialogues, LoCoMo): a question is asked within its conversation, and once more over all of them.
recall@10 is the share of a question's evidence turns among ten results, averaged over the questions with evidence.
Session level (DevMemBench): the sessions that the ten results come from, in the order of their best.

Aims, with one set of weights: LoCoMo recall@10 ≥ .72 over categories 1 to 4 and ≥ .80 over category 5, above BM25
alone and above the fusion; DevMemBench hit@1 ≥ .90, MRR ≥ .94. Exit status 1 if one is missed there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines import Embed, Search, baselines
from retrieval_data import (
    CATEGORY_NAMES,
    SHIPPED_DIALOGUES,
    Dataset,
    Question,
    load_devmembench,
    load_locomo,
)
from retrieval_metrics import Figures, average, distinct, percentile
from search_home import SearchHome, opened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dualmem_mcp.app import App

LENGTH = 10
OURS, WORDS, VECTORS, FUSION = "dualmem-mcp", "BM25", "vectors", "RRF, k = 60"
LOCOMO_AIM, LOCOMO_ADVERSARIAL_AIM = 0.72, 0.80
DEVMEMBENCH_HIT_AIM, DEVMEMBENCH_MRR_AIM = 0.90, 0.94


@dataclass
class Answers:
    """What one system found for every question, and in how many seconds."""

    found: list[list[str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def main() -> int:
    """Measure and print each set, then the aims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=Path, default=SHIPPED_DIALOGUES)
    parser.add_argument("--locomo", type=Path)
    parser.add_argument("--devmembench", type=Path)
    parser.add_argument("--no-captions", action="store_true", help="leave out what pictures show")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    captions = not options.no_captions
    results = []
    if any(options.dialogues.glob("*.json")):
        results.append(measure(load_locomo(options.dialogues, captions=captions), "dialogues"))
    if options.locomo:
        results.append(measure(load_locomo(options.locomo, captions=captions), "locomo"))
    if options.devmembench:
        results.append(measure(load_devmembench(options.devmembench), "devmembench"))
    if options.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        for result in results:
            print_result(result)
    return 0 if all(aim["met"] for result in results for aim in result["aims"] if aim["binding"]) else 1


def measure(dataset: Dataset, kind: str) -> dict[str, Any]:
    """Import, index, ask every question of every system, and average."""
    with tempfile.TemporaryDirectory(prefix="dualmem-benchmark-") as folder:
        home = SearchHome(Path(folder))
        home.import_turns(dataset)
        with opened(home) as app, closing(home.open_index()) as index:
            systems: dict[str, Search] = {OURS: product_search(app), **baselines(index, model_of(app), LENGTH)}
            tables = tables_of(dataset, systems, by_session=kind == "devmembench")
    return {
        "dataset": dataset.name,
        "conversations": len(dataset.conversations),
        "turns": dataset.turns,
        "questions": len(dataset.questions),
        "left_out": dict(dataset.left_out),
        "tables": tables,
        "aims": aims_of(tables[0], kind),
    }


def tables_of(dataset: Dataset, systems: Mapping[str, Search], *, by_session: bool) -> list[dict[str, Any]]:
    """Within the question's conversation and over all; questions about sessions have but the second."""
    tables = []
    for within in (False,) if by_session else (True, False):
        answers = ask_all(dataset.questions, systems, within=within)
        tables.append(table_of(dataset, answers, within=within, by_session=by_session))
    return tables


def model_of(app: App) -> Embed:
    """The product's model for queries. Raises RuntimeError without one: there would be nothing to compare."""

    def embed(text: str) -> NDArray[np.float32]:
        vector, missing = app.local_edge.model.query_vector(text, 60)
        if vector is None:
            raise RuntimeError(f"the benchmark needs the model: {missing}")
        return vector

    return embed


def product_search(app: App) -> Search:
    """What the tool `search_memory` does with its arguments."""

    def search(question: str, conversation_id: str) -> list[str]:
        found = app.local_edge.search(question, conversation_id=conversation_id or None, limit=LENGTH)
        if found["partial"]:
            raise RuntimeError(f"a search was partial: {found['warnings']}")
        return [f"{result['conversation_id']}/{result['turn_id']}" for result in found["results"]]

    return search


def ask_all(questions: Sequence[Question], systems: Mapping[str, Search], *, within: bool) -> dict[str, Answers]:
    """Put every question to each system in turn; the first three come once more before, to warm up."""
    answers = {name: Answers() for name in systems}
    for place, question in enumerate([*questions[:3], *questions], start=-3):
        for name, search in systems.items():
            began = time.perf_counter()
            found = search(question.text, question.conversation_id if within else "")
            seconds = time.perf_counter() - began
            if place >= 0:
                answers[name].found.append(found)
                answers[name].seconds.append(seconds)
    return answers


def table_of(dataset: Dataset, answers: Mapping[str, Answers], *, within: bool, by_session: bool) -> dict[str, Any]:
    """Figures of each system for each group of questions, and their times."""
    groups = groups_of(dataset.questions, by_session=by_session)
    systems = {}
    for name, answer in answers.items():
        pairs = [
            wanted_of(question, found, by_session=by_session)
            for question, found in zip(dataset.questions, answer.found, strict=True)
        ]
        systems[name] = {
            "groups": {
                group: figures_of([pairs[number] for number in members], by_session=by_session)
                for group, members in groups.items()
            },
            "p50_ms": round(percentile(answer.seconds, 0.5) * 1e3, 2),
            "p95_ms": round(percentile(answer.seconds, 0.95) * 1e3, 2),
            "short_answers": sum(len(found) < LENGTH for found in answer.found),
        }
    where = "sessions" if by_session else "the question's conversation" if within else "all conversations"
    return {"where": where, "systems": systems}


def groups_of(questions: Sequence[Question], *, by_session: bool) -> dict[str, list[int]]:
    """The questions' numbers by category; of turns also those of categories 1 to 4 together, of sessions all."""
    groups: dict[str, list[int]] = {}
    for number, question in enumerate(questions):
        groups.setdefault(question.category, []).append(number)
    if by_session:
        return {"all": list(range(len(questions))), **dict(sorted(groups.items()))}
    together = [number for number, question in enumerate(questions) if question.category in {"1", "2", "3", "4"}]
    return {"1-4": together, **dict(sorted(groups.items()))}


def wanted_of(question: Question, found: list[str], *, by_session: bool) -> tuple[list[str], frozenset[str]]:
    """What was found and what should have been: turns, or the sessions they are in."""
    if by_session:
        return distinct(name.partition("/")[0] for name in found), question.evidence
    return found, frozenset(f"{question.conversation_id}/{turn}" for turn in question.evidence)


def figures_of(pairs: Sequence[tuple[list[str], frozenset[str]]], *, by_session: bool) -> dict[str, float]:
    """The figures that are reported of a group."""
    figures: Figures = average(pairs, LENGTH)
    reported = {
        "questions": figures.questions,
        "recall_at_10": round(figures.recall, 4),
        "hit_at_10": round(figures.hit, 4),
        "hit_at_1": round(figures.hit_at_1, 4),
        "mrr": round(figures.mrr, 4),
    }
    if by_session:
        reported["recall_at_5"] = round(average(pairs, 5).recall, 4)
    return reported


def aims_of(table: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Each aim with what was reached; those on our own dialogues bind nobody."""
    groups = {name: system["groups"] for name, system in table["systems"].items()}
    ours = groups[OURS]

    def aim(text: str, value: float, at_least: float, *, above: bool = False) -> dict[str, Any]:
        met = value > at_least if above else value >= at_least
        return {"aim": text, "value": value, "met": met, "binding": kind != "dialogues"}

    if kind == "devmembench":
        return [
            aim(f"hit@1 ≥ {DEVMEMBENCH_HIT_AIM:.2f}", ours["all"]["hit_at_1"], DEVMEMBENCH_HIT_AIM),
            aim(f"MRR ≥ {DEVMEMBENCH_MRR_AIM:.2f}", ours["all"]["mrr"], DEVMEMBENCH_MRR_AIM),
        ]
    recall = ours["1-4"]["recall_at_10"]
    aims = [aim(f"recall@10, categories 1-4, ≥ {LOCOMO_AIM:.2f}", recall, LOCOMO_AIM)]
    if "5" in ours:
        reached = ours["5"]["recall_at_10"]
        aims.append(aim(f"recall@10, category 5, ≥ {LOCOMO_ADVERSARIAL_AIM:.2f}", reached, LOCOMO_ADVERSARIAL_AIM))
    for other in (WORDS, VECTORS, FUSION):
        theirs = groups[other]["1-4"]["recall_at_10"]
        aims.append(aim(f"recall@10, categories 1-4, above {theirs:.3f} of {other}", recall, theirs, above=True))
    return aims


def print_result(result: Mapping[str, Any]) -> None:
    """One set, for people."""
    print(
        f"\n{result['dataset']}: {result['conversations']} conversations, {result['turns']:,} turns, "
        f"{result['questions']:,} questions"
        + "".join(f"; {count} left out: {reason}" for reason, count in result["left_out"].items())
    )
    for table in result["tables"]:
        print_table(table)
    for aim in result["aims"]:
        state = "met   " if aim["met"] else "MISSED" if aim["binding"] else "below "
        print(f"{state}  {aim['aim']}: {aim['value']:.3f}")


def print_table(table: Mapping[str, Any]) -> None:
    """The chief figure of each group, then more of the first group, and times."""
    systems = table["systems"]
    groups = next(iter(systems.values()))["groups"]
    by_session = table["where"] == "sessions"
    chief = "hit_at_1" if by_session else "recall_at_10"
    print(f"\n| {('hit@1' if by_session else 'recall@10') + ' over ' + table['where']:42} | questions | ", end="")
    print(" | ".join(f"{name:>12}" for name in systems) + " |")
    print(f"|{'-' * 44}|{'-' * 11}|" + f"{'-' * 14}|" * len(systems))
    for group, figures in groups.items():
        name = f"category {group}, {CATEGORY_NAMES[group]}" if group in CATEGORY_NAMES else group
        values = " | ".join(f"{system['groups'][group][chief]:12.3f}" for system in systems.values())
        print(f"| {name:42} | {figures['questions']:9} | {values} |")
    whole = next(iter(groups))
    rows = {"recall@5": "recall_at_5"} if by_session else {"hit@10": "hit_at_10", "hit@1": "hit_at_1"}
    for name, key in {**rows, "MRR": "mrr"}.items():
        values = " | ".join(f"{system['groups'][whole][key]:12.3f}" for system in systems.values())
        print(f"| {name + ', ' + whole:42} | {groups[whole]['questions']:9} | {values} |")
    for name, key in (("p50 ms", "p50_ms"), ("p95 ms", "p95_ms")):
        print(f"| {name:42} | {'':9} | " + " | ".join(f"{system[key]:12.1f}" for system in systems.values()) + " |")
    if short := systems[OURS]["short_answers"]:
        print(f"{short} answers of {OURS} had fewer than {LENGTH} results")


if __name__ == "__main__":
    sys.exit(main())
