"""Search side by side with mcp-memory-service: the same texts, the same questions, both over stdio, in one run.

    python benchmarks/rival.py                                  on the dialogues in benchmarks/data/dialogues
    python benchmarks/rival.py --devmembench DIR                on DevMemBench, too
    python benchmarks/rival.py --locomo FILE                    on LoCoMo's locomo10.json, too
    python benchmarks/rival.py --rival-venv DIR [--json]

mcp-memory-service is installed from PyPI into a venv of its own, in its ONNX mode (no torch), with the weights that
this project uses, the same that it would fetch: all-MiniLM-L6-v2. Each turn is one memory, stored through its
tool `memory_store` as "speaker: text", and tagged with its conversation. It is asked in both modes that fit:
`semantic` (its default) and `hybrid` (words and vectors). Its other settings are as they come, but for two that are
off: the removal of near duplicates, which would lose turns, and quality scores, which need a second model, as does
its reranker. Where it keeps only one of two equal texts, finding that counts as finding both.

The two servers take turns, question by question; "processor ms" is what a search costs both cores together, which
a busy machine changes less than elapsed time. Tables: over all conversations, and within the one that a question is
about. The claims: recall@10 above the better of its modes, and a median search at least 5 times faster than its
`hybrid`; exit status 1 if one is missed. DevMemBench's questions name up to twelve whole sessions, and any ten good
turns reach about the same share of them; so there the claim is on MRR: the rank of the first right session.
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
from retrieval_data import (
    SHIPPED_DIALOGUES,
    Conversation,
    Dataset,
    Question,
    Turn,
    load_devmembench,
    load_locomo,
)
from retrieval_metrics import average, distinct, percentile
from rival_model import write_rival_model
from search_home import SERVER, SearchHome, wait_until_embedded
from stdio_server import Server, running, structured, text

RIVAL = "mcp-memory-service"
VERSION = "12.4.0"
# What its base install and its extra [sqlite] ask for, as pip resolved it in November 2026. Given apart from the
# package, because that asks for a certificate bundle of its own day, which not every index has.
NEEDS = (
    "aiofiles==25.1.0",
    "aiohttp==3.14.5",
    "aiosqlite==0.22.1",
    "APScheduler==3.11.3",
    "Authlib==1.9.9",
    "build==1.6.1",
    "certifi",
    "chardet==7.7.0",
    "click==8.5.1",
    "cryptography==50.0.2",
    "fastapi==0.165.0",
    "httpx==0.28.1",
    "mcp==1.30.0",
    "numpy==2.4.6",
    "psutil==7.2.2",
    "PyJWT[crypto]==2.15.1",
    "pypdf==7.1.0",
    "python-dotenv==1.2.4",
    "python-multipart==0.0.34",
    "PyYAML==6.0.3",
    "requests==2.34.2",
    "sqlite-vec==0.1.9",
    "sse-starlette==3.7.0",
    "uvicorn==0.54.0",
    "zeroconf==0.154.0",
    "huggingface-hub==2.4.0",
    "onnxruntime==1.32.0",
    "tokenizers==0.23.3",
)
SQLITE = "pysqlite3==0.6.1"
CLAIMED_SPEEDUP = 5.0
LENGTH = 10
FIGURES = {"recall_at_10": "recall@10", "mrr": "MRR"}

_HASH_STORED = re.compile(r"\(hash: ([0-9a-f]{64})\)")
_HASH_FOUND = re.compile(r"^ +Hash: ([0-9a-f]{64})$", re.MULTILINE)

Search = Callable[[str, str], list[str]]
"""Question and conversation id (or "") to the ids found, `<conversation>/<turn>`."""


@dataclass
class System:
    """One way of searching, its answers and their times, in order of the questions."""

    name: str
    server: Server
    search: Search
    found: list[list[str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    processor_seconds: float = 0.0


def main() -> int:
    """Install, fill both, ask both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(platformdirs.user_cache_dir("dualmem-benchmarks"))
    parser.add_argument("--rival-venv", type=Path, default=cache / f"{RIVAL}-{VERSION}")
    parser.add_argument("--dialogues", type=Path, default=SHIPPED_DIALOGUES)
    parser.add_argument("--locomo", type=Path)
    parser.add_argument("--devmembench", type=Path)
    parser.add_argument("--weights", type=Path, help="all-MiniLM-L6-v2 as a folder, file or wheel")
    parser.add_argument("--conversations", type=int, help="only so many of the dialogues, and of LoCoMo")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    datasets = [
        first(load_locomo(path), options.conversations) for path in (options.dialogues, options.locomo) if path
    ]
    if options.devmembench:
        datasets.append(load_devmembench(options.devmembench))
    install_rival(options.rival_venv)
    model = options.rival_venv / "model"
    write_rival_model(options.weights, model)
    results = []
    for dataset in datasets:
        with tempfile.TemporaryDirectory(prefix="dualmem-benchmark-") as folder:
            results.append(compare(dataset, options.rival_venv, model, Path(folder)))
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            print_table(result)
    return 0 if all(claim["met"] for result in results for claim in result["claims"]) else 1


def first(dataset: Dataset, count: int | None) -> Dataset:
    """The first conversations and the questions about them."""
    if count is None:
        return dataset
    kept = dataset.conversations[:count]
    names = {conversation.id for conversation in kept}
    questions = tuple(question for question in dataset.questions if question.conversation_id in names)
    return Dataset(dataset.name, kept, questions, dataset.left_out)


def install_rival(folder: Path) -> None:
    """A venv with the rival in the pinned version, made once.

    Where this Python's sqlite3 cannot load extensions, without which the rival gives up, pysqlite3 stands in.
    """
    if (folder / "installed").exists():
        return
    print(f"installing {RIVAL} {VERSION} into {folder}", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *NEEDS], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*pip, "--no-deps", f"{RIVAL}=={VERSION}"], check=True, stdout=subprocess.DEVNULL)
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        subprocess.run([*pip, SQLITE], check=True, stdout=subprocess.DEVNULL)
        (packages,) = (folder / "lib").glob("python*/site-packages")
        (packages / "sqlite3_that_loads_extensions.pth").write_text(
            "import sys, pysqlite3, pysqlite3.dbapi2; "
            "sys.modules.update({'sqlite3': pysqlite3, 'sqlite3.dbapi2': pysqlite3.dbapi2})\n",
            encoding="ascii",
        )
    (folder / "installed").touch()


def compare(dataset: Dataset, rival_venv: Path, model: Path, place: Path) -> dict[str, Any]:
    """Both systems over one set: figures, times and claims."""
    home = SearchHome(place / "ours")
    began = time.perf_counter()
    home.import_turns(dataset)
    our_fill_s = time.perf_counter() - began
    rival = Rival(rival_venv, model, place / "rival")
    with rival.server() as server:
        began = time.perf_counter()
        turns_of = store_in_rival(server, dataset)
        their_fill_s = time.perf_counter() - began
    tables = []
    for within in (False, True):
        if within and not all(question.conversation_id for question in dataset.questions):
            continue  # questions about whole conversations are not asked within one
        # Each system has a process of its own for each table: the rival keeps the vectors of its last queries.
        with (
            running(SERVER, home.environment) as ours,
            rival.server() as hybrid,
            rival.server() as semantic,
        ):
            wait_until_embedded(ours)
            systems = [
                System("dualmem-mcp", ours, our_search(ours)),
                System(f"{RIVAL}, hybrid", hybrid, their_search(hybrid, "hybrid", turns_of)),
                System(f"{RIVAL}, semantic", semantic, their_search(semantic, "semantic", turns_of)),
            ]
            ask_all(dataset.questions, systems, within=within)
        tables.append(table_of(dataset, systems, within=within))
    return {
        "dataset": dataset.name,
        "turns": dataset.turns,
        "questions": len(dataset.questions),
        "rival": f"{RIVAL} {VERSION}",
        "fill_seconds": {"dualmem-mcp": round(our_fill_s, 1), RIVAL: round(their_fill_s, 1)},
        "tables": tables,
        "claims": [claim for table in tables for claim in claims_of(table)],
    }


def our_search(server: Server) -> Search:
    """`search_memory` over stdio."""

    def search(question: str, conversation_id: str) -> list[str]:
        given = {"query": question, "limit": LENGTH}
        if conversation_id:
            given["conversation_id"] = conversation_id
        answer = structured(server.call("search_memory", given))
        return [f"{result['conversation_id']}/{result['turn_id']}" for result in answer["results"]]

    return search


def their_search(server: Server, mode: str, turns_of: Mapping[str, list[str]]) -> Search:
    """`memory_search` over stdio, in one of its modes."""

    def search(question: str, conversation_id: str) -> list[str]:
        given: dict[str, Any] = {"query": question, "limit": LENGTH, "mode": mode}
        if conversation_id:
            given["tags"] = [conversation_id]
        answer = text(server.call("memory_search", given))
        return [turn for found in _HASH_FOUND.findall(answer) for turn in turns_of[found]]

    return search


class Rival:
    """The rival's database, and servers on it."""

    def __init__(self, rival_venv: Path, model: Path, place: Path) -> None:
        self._command = [str(rival_venv / "bin" / "memory"), "server"]
        looked_for = place / ".cache" / "mcp_memory" / "onnx_models" / "all-MiniLM-L6-v2" / "onnx"
        looked_for.parent.mkdir(parents=True)
        looked_for.symlink_to(model.absolute())
        self._environment = {
            "HOME": str(place),
            "MCP_MEMORY_STORAGE_BACKEND": "sqlite_vec",
            "MCP_MEMORY_BASE_DIR": str(place / "data"),
            "MCP_MEMORY_SQLITE_PATH": str(place / "data" / "memories.db"),
            "MCP_MEMORY_USE_ONNX": "1",
            "MCP_MEMORY_ONNX_ALLOW_DOWNLOAD": "0",
            "MCP_SEMANTIC_DEDUP_ENABLED": "false",
            "MCP_QUALITY_SYSTEM_ENABLED": "false",
            "HF_HUB_OFFLINE": "1",
        }

    def server(self) -> AbstractContextManager[Server]:
        """A stdio server, while it is needed."""
        return running(self._command, self._environment)


def store_in_rival(rival: Server, dataset: Dataset) -> dict[str, list[str]]:
    """Store each turn as a memory; content hash to the turns that say just that.

    The rival keeps one memory for equal texts; finding it counts as finding each of them.
    """
    said: dict[str, list[tuple[Conversation, Turn]]] = {}
    for conversation in dataset.conversations:
        for turn in conversation.turns:
            said.setdefault(f"{turn.author or turn.role}: {turn.text}", []).append((conversation, turn))
    turns_of = {}
    for content, turns in said.items():
        tags = distinct(conversation.id for conversation, _ in turns)
        given = {"content": content, "conversation_id": tags[0], "metadata": {"tags": tags, "type": "note"}}
        stored = _HASH_STORED.search(text(rival.call("memory_store", given)))
        if stored is None:
            raise RuntimeError(f"{RIVAL} did not say under which hash it stored a turn")
        turns_of[stored[1]] = [f"{conversation.id}/{turn.id}" for conversation, turn in turns]
    return turns_of


def ask_all(questions: tuple[Question, ...], systems: list[System], *, within: bool) -> None:
    """Put every question to each system in turn; the first three warm them up and are asked again."""
    for question in questions[:3]:
        for system in systems:
            system.search(question.text, question.conversation_id if within else "")
    before = [system.server.processor_seconds() for system in systems]
    for question in questions:
        for system in systems:
            began = time.perf_counter()
            found = system.search(question.text, question.conversation_id if within else "")
            system.seconds.append(time.perf_counter() - began)
            system.found.append(found)
    for system, earlier in zip(systems, before, strict=True):
        system.processor_seconds = system.server.processor_seconds() - earlier


def table_of(dataset: Dataset, systems: list[System], *, within: bool) -> dict[str, Any]:
    """Recall and times of each system."""
    by_session = not all(question.conversation_id for question in dataset.questions)
    rows = []
    for system in systems:
        answers = []
        for question, found in zip(dataset.questions, system.found, strict=True):
            if by_session:
                wanted = set(question.evidence)
                ranked = distinct(name.partition("/")[0] for name in found)
            else:
                wanted = {f"{question.conversation_id}/{turn}" for turn in question.evidence}
                ranked = found
            answers.append((ranked, wanted))
        figures = average(answers, LENGTH)
        rows.append(
            {
                "system": system.name,
                "recall_at_10": round(figures.recall, 4),
                "hit_at_1": round(figures.hit_at_1, 4),
                "mrr": round(figures.mrr, 4),
                "median_ms": round(statistics.median(system.seconds) * 1e3, 2),
                "p95_ms": round(percentile(system.seconds, 0.95) * 1e3, 2),
                "processor_ms": round(system.processor_seconds / len(system.seconds) * 1e3, 2),
            }
        )
    where = "the question's conversation" if within else "all conversations"
    return {"where": where, "by_session": by_session, "rows": rows}


def claims_of(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Better than the better of the rival's modes; median at least 5 times below its hybrid's."""
    ours, hybrid, semantic = table["rows"]
    speedup = hybrid["median_ms"] / ours["median_ms"]
    figure = "mrr" if table["by_session"] else "recall_at_10"
    best = max(hybrid[figure], semantic[figure])
    return [
        {
            "claim": f"{FIGURES[figure]} above {best:.3f}, {table['where']}",
            "value": ours[figure],
            "met": ours[figure] > best,
        },
        {
            "claim": f"at least {CLAIMED_SPEEDUP:.0f} times faster, {table['where']}",
            "value": round(speedup, 1),
            "met": speedup >= CLAIMED_SPEEDUP,
        },
    ]


def print_table(result: Mapping[str, Any]) -> None:
    """One set, for people."""
    print(f"\n{result['dataset']}: {result['turns']:,} turns, {result['questions']:,} questions; {result['rival']}")
    print("filled in " + ", ".join(f"{seconds} s ({name})" for name, seconds in result["fill_seconds"].items()))
    for table in result["tables"]:
        print(f"\n| over {table['where']:30} | recall@10 | hit@1 |  MRR  | median ms | p95 ms | processor ms |")
        print(f"|{'-' * 37}|{'-' * 11}|{'-' * 7}|{'-' * 7}|{'-' * 11}|{'-' * 8}|{'-' * 14}|")
        for row in table["rows"]:
            print(
                f"| {row['system']:35} | {row['recall_at_10']:9.3f} | {row['hit_at_1']:5.3f} | {row['mrr']:5.3f} "
                f"| {row['median_ms']:9.1f} | {row['p95_ms']:6.1f} | {row['processor_ms']:12.1f} |"
            )
    for claim in result["claims"]:
        print(f"{'met   ' if claim['met'] else 'MISSED'}  {claim['claim']}: {claim['value']}")


if __name__ == "__main__":
    sys.exit(main())
