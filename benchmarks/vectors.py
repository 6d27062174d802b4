"""What protecting vectors costs in recall and time, and what it is worth against somebody who knows some texts.

    python benchmarks/vectors.py [--turns N] [--dialogues PATH] [--vectors FILE]

Embeds made-up turns (`synthetic_turns.py`) with the real model and asks the questions of labelled dialogues. By
the width β of the scheme: recall@10 of the protected vectors alone and after scoring 100 or 200 candidates
exactly, both against the exact vectors; and the known-plaintext attack: from so many pairs of a text's vector and
its protected one the best rotation is found (Schönemann 1966), and each of 500 other points is then looked for
among 2,000 texts that its text is one of. --vectors keeps the embedded vectors in a file for the next run.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from retrieval_data import SHIPPED_DIALOGUES, load_locomo
from synthetic_turns import synthetic_dataset

from dualmem_mcp.crypto.obfuscation import BETA
from dualmem_mcp.crypto.vector_payload import VectorPayload, open_payload, seal_payload
from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.embedding.factory import open_embedder
from dualmem_mcp.model.ids import VaultId
from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.settings import load_settings

BETAS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
CANDIDATES = (100, 200)
PAIRS = (25, 50, 100, 200, 400)
FOUND = 10
QUESTIONS = 300
TARGETS, TEXTS = 500, 2_000
TIMED = 26_000

Vectors = NDArray[np.float32]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20_000)
    parser.add_argument(
        "--dialogues", type=Path, default=SHIPPED_DIALOGUES, help="a file or folder in LoCoMo's layout"
    )
    parser.add_argument("--vectors", type=Path, help="where to keep the embedded vectors (.npz)")
    options = parser.parse_args()
    turns, questions = embedded(options.turns, options.dialogues, options.vectors)
    print(f"{len(turns):,} turns, {len(questions)} questions, {turns.shape[1]} dimensions\n")
    print_recall(turns, questions)
    print_attack(turns)
    print_tiers(turns, questions)
    print_precision(turns, questions)
    print_times(turns)


def embedded(count: int, dialogues: Path, kept: Path | None) -> tuple[Vectors, Vectors]:
    """The vectors of the turns and of the questions."""
    if kept is not None and kept.exists():
        with np.load(kept) as arrays:
            return arrays["turns"], arrays["questions"]
    embedder, missing = open_embedder(load_settings().model_dir)
    if embedder is None:
        raise SystemExit(missing)
    dataset = synthetic_dataset(load_locomo(dialogues), count)
    texts = [f"{turn.author}: {turn.text}" for conversation in dataset.conversations for turn in conversation.turns]
    turns = np.concatenate([embedder.embed(texts[start : start + 256]) for start in range(0, len(texts), 256)])
    questions = embedder.embed([question.text for question in dataset.questions][:QUESTIONS])
    if kept is not None:
        np.savez(kept, turns=turns, questions=questions)
    return turns, questions


def keys_for(beta: float) -> VectorKeys:
    """Keys of some vault, the same in each run: others give figures that differ by some thousandths."""
    return VectorKeys(bytes(range(32)), VaultId("0a" * 16), 1, beta=beta)


def protected(keys: VectorKeys, vectors: Vectors) -> Vectors:
    """The vectors as points of items 0, 1, …."""
    return keys.protect(vectors, [keys.point_id(f"turn/{number}", 0) for number in range(len(vectors))])


def best(scores: Vectors, count: int) -> NDArray[np.intp]:
    """The columns with the highest scores of each row, in any order."""
    return np.argpartition(-scores, count, axis=1)[:, :count]


def recall(candidates: NDArray[np.intp], wanted: NDArray[np.intp]) -> float:
    """The share of what is wanted that is among the candidates, which is what exact scoring then finds."""
    return float(np.mean([len(np.intersect1d(*pair)) / FOUND for pair in zip(candidates, wanted, strict=True)]))


def print_recall(turns: Vectors, questions: Vectors) -> None:
    """Recall by β."""
    wanted = best(questions @ turns.T, FOUND)
    print(
        "| β | recall@10 alone | " + " | ".join(f"{count} candidates scored exactly" for count in CANDIDATES) + " |"
    )
    print("|---|---|" + "---|" * len(CANDIDATES))
    for beta in BETAS:
        keys = keys_for(beta)
        scores = np.stack([keys.protect_query(question) for question in questions]) @ protected(keys, turns).T
        shares = [recall(best(scores, count), wanted) for count in (FOUND, *CANDIDATES)]
        print(f"| {beta:g} | " + " | ".join(f"{share:.3f}" for share in shares) + " |", flush=True)


def print_attack(turns: Vectors) -> None:
    """How many points' texts are found, by β and the number of known pairs."""
    print("\n| known pairs | " + " | ".join(f"β {beta:g}" for beta in BETAS) + " |")
    print("|---|" + "---|" * len(BETAS))
    chance = np.random.default_rng(1)
    order = chance.permutation(len(turns))
    texts, known = order[:TEXTS], order[TEXTS : TEXTS + max(PAIRS)]
    points = {beta: protected(keys_for(beta), turns) for beta in BETAS}
    for pairs in PAIRS:
        shares = []
        for beta in BETAS:
            left, _, right = np.linalg.svd(turns[known[:pairs]].T @ points[beta][known[:pairs]])
            guesses = np.argmax(points[beta][texts[:TARGETS]] @ (turns[texts] @ (left @ right)).T, axis=1)
            shares.append(float(np.mean(guesses == np.arange(TARGETS))))
        print(f"| {pairs} | " + " | ".join(f"{share:.0%}" for share in shares) + " |", flush=True)


def print_tiers(turns: Vectors, questions: Vectors) -> None:
    """Recall of the candidates that Qdrant's engine gives, by how a collection is set up."""
    if importlib.util.find_spec("qdrant_edge") is None:
        print("\nQdrant's engine is not here: pip install qdrant-edge-py")
        return
    from vector_engine import searched  # noqa: PLC0415

    keys = keys_for(BETA)
    ids = [keys.point_id(f"turn/{number}", 0) for number in range(len(turns))]
    queries = np.stack([keys.protect_query(question) for question in questions])
    wanted = best(questions @ turns.T, FOUND)
    print(
        "\n| set up as | " + " | ".join(f"{count} candidates" for count in CANDIDATES) + " | placed in | a search |"
    )
    print("|---|" + "---|" * (len(CANDIDATES) + 2))
    for found in searched(keys.protect(turns, ids), ids, queries, CANDIDATES):
        shares = " | ".join(f"{recall(found.candidates[count], wanted):.3f}" for count in CANDIDATES)
        print(f"| {found.name} | {shares} | {found.placed_seconds:.1f} s | {found.median_ms:.1f} ms |", flush=True)


def print_precision(turns: Vectors, questions: Vectors) -> None:
    """What the exact vector costs in a payload, and whether fewer bits change the order."""
    wanted = best(questions @ turns.T, FOUND)
    halved = turns.astype(np.float16).astype(np.float32)
    share = recall(best(questions @ halved.T, FOUND), wanted)
    print(f"\nexact vectors as float16, {turns.shape[1] * 2} bytes: recall@10 {share:.4f} of float32's")


def print_times(turns: Vectors) -> None:
    """Seconds to protect, seal and open."""
    keys = keys_for(BETA)
    many = np.resize(turns, (TIMED, turns.shape[1]))
    begun = time.perf_counter()
    points = protected(keys, many)
    print(f"{len(points):,} vectors protected in {time.perf_counter() - begun:.1f} s")
    payloads = [
        VectorPayload(SearchItem(f"turn/{number}", "turn", "We moor at the north quay. " * 8), 0, "model", vector)
        for number, vector in enumerate(many)
    ]
    begun = time.perf_counter()
    sealed = [seal_payload(keys, payload) for payload in payloads]
    print(f"{len(sealed):,} payloads of {len(sealed[0]):,} bytes sealed in {time.perf_counter() - begun:.1f} s")
    begun = time.perf_counter()
    for payload, data in zip(payloads[:200], sealed[:200], strict=True):
        open_payload(keys, keys.point_id(payload.item.key, 0), data)
    print(f"200 payloads opened in {(time.perf_counter() - begun) * 1000:.0f} ms")
    begun = time.perf_counter()
    for vector in many[:100]:
        keys.protect_query(vector)
    print(f"a query protected in {(time.perf_counter() - begun) * 10:.2f} ms")


if __name__ == "__main__":
    main()
