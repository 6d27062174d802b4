"""How much of conversations a handoff keeps: the measures of docs/fidelity.md over every session of a folder.

    python benchmarks/fidelity.py                      the sample session that the package makes
    python benchmarks/fidelity.py --claude-dir DIR     every session of a Claude Code configuration folder
    python benchmarks/fidelity.py --device pwa         with the brief of another device (default: ios)
    python benchmarks/fidelity.py --gold DIR           and what of summaries written by others (ID.json) is kept

One row for each session, numbered, and the mean of those that are longer than their digest; nothing is quoted.
`held` is the digest's share, `chance` that of as much of the conversation drawn at random, `talk` that of as much
of what was said and called alone, the harder opponent: it is spared the results of tools, most of a conversation.
`gold` is the share of the facts of a summary that someone else wrote of the session. `cosine` shows why the cosine
of mean vectors is no measure: that of the words' counts of the digest and of the conversation, beside that of a
random digest.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from dualmem_mcp.handoff.brief import build_brief, device_budget, natural_budget
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.handoff.fidelity import measure_fidelity
from dualmem_mcp.handoff.fidelity.bm25 import terms
from dualmem_mcp.handoff.fidelity.chance import Seen
from dualmem_mcp.handoff.fidelity.facts import FactReader
from dualmem_mcp.handoff.fidelity.marked_lines import MarkedLine
from dualmem_mcp.handoff.fidelity.measure import draws_of
from dualmem_mcp.handoff.fidelity.pointers import questions, recall
from dualmem_mcp.handoff.fidelity.said import Passage, Said
from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.device import profile_named
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.transcripts.claude_code import ClaudeCode, read_session

LINE_OVERHEAD = len("- [1a2b3c4d] \n")
COLUMNS = (
    "tokens", "brief", "asked", "held", "device",
    "facts", "held", "chance", "ratio", "talk",
    "asked", "held", "chance", "ratio", "talk", "near", "chance", "gold", "chance", "cosine", "chance", "ms",
)  # fmt: skip


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claude-dir", type=Path)
    parser.add_argument("--device", default="ios")
    parser.add_argument("--gold", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dualmem-benchmark-") as folder:
        claude_dir = arguments.claude_dir
        if claude_dir is None:
            claude_dir = Path(folder)
            write_sample_session(claude_dir, cwd="/home/you/projects/tollgate")
        rows = []
        print(f"{'':8}{'probes':>29}{'facts':>30}{'pointers':>31}")
        print("session " + "".join(f"{name:>7}" for name in COLUMNS))
        for number, entry in enumerate(ClaudeCode(claude_dir).sessions(), start=1):
            rows.append(row_of(read_session(entry.path), arguments.device, arguments.gold))
            print(f"{number:<8}" + "".join(map(cell, rows[-1])))
        compared = [row for row in rows if row[COLUMNS.index("chance")] is not None]
        if len(compared) > 1:
            print(f"{'mean':<8}" + "".join(cell(mean_of(column)) for column in zip(*compared, strict=True)))


def row_of(session: Session, device: str, gold: Path | None) -> list[float | None]:
    """The figures of one session, in the order of COLUMNS."""
    profile = profile_named(device)
    digest = build_digest(session)
    brief = build_brief(digest, token_budget=natural_budget(digest))
    budget = device_budget(digest, profile.context_tokens)
    on_device = build_brief(digest, token_budget=budget, max_agents=profile.max_agents)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        found = measure_fidelity(session, brief.text, device_brief=on_device.text)
        times.append(time.perf_counter() - start)
    facts, pointers = found["facts"], found["pointers"]
    talk_facts, talk_pointers = against_talk(session, len(brief.text))
    return [
        session.visible_tokens, brief.tokens,
        found["probes_asked"]["all"], found["probes_held"]["all"], found["probes_held_on_device"]["all"],
        facts["known"], facts["held"], facts["random"], facts["ratio"], talk_facts,
        pointers["asked"], pointers["held"], pointers["random"], pointers["ratio"], talk_pointers,
        pointers["near"], pointers["random_near"],
        *gold_held(session, brief.text, gold), *cosines(session, brief.text), min(times) * 1000,
    ]  # fmt: skip


def against_talk(session: Session, characters: int) -> tuple[float | None, float | None]:
    """Fact coverage and pointer recall of sentences and calls drawn at random, without any result of a tool."""
    said = Said(session)
    passages = said.passages()
    reader = FactReader()
    facts = reader.weigh(passages)
    asked = questions(said, passages, facts, str(session.conversation_id))
    covered, led = [], []
    for draw in range(draws_of(characters)):
        lines = draw_passages(passages, characters, f"{session.conversation_id}/{draw}")
        if lines:
            covered.append(reader.coverage(facts, "\n".join(line.text for line in lines)))
            found = recall(asked, lines, said)
            led.append(found.part if found else None)
    return mean_of(covered), mean_of(led)


def draw_passages(passages: Sequence[Passage], characters: int, seed: str) -> list[MarkedLine]:
    """Passages drawn without preference, in at most `characters`; none if all of them would fit."""
    if sum(len(one.text) + LINE_OVERHEAD for one in passages) <= characters:
        return []
    order = list(range(len(passages)))
    random.Random(seed).shuffle(order)
    room, misses, chosen = characters, 0, []
    for index in order:
        size = len(passages[index].text) + LINE_OVERHEAD
        if size <= room:
            chosen.append(index)
            room -= size
        elif (misses := misses + 1) >= 200:
            break
    return [MarkedLine(passages[index].text, (passages[index].position,)) for index in sorted(chosen)]


def gold_held(session: Session, brief: str, folder: Path | None) -> tuple[float | None, float | None]:
    """Shares of the facts of a summary written by others that the brief holds, and that random digests hold."""
    path = folder / f"{session.conversation_id}.json" if folder else None
    if path is None or not path.is_file():
        return None, None
    reader = FactReader()
    texts = list(strings(json.loads(path.read_text("utf-8"))))
    facts = reader.weigh([Passage(text, at, "model") for at, text in enumerate(texts)])
    seen = Seen(Said(session).turns)
    drawn = [seen.draw(len(brief), f"{session.conversation_id}/{draw}") for draw in range(draws_of(len(brief)))]
    chance = [reader.coverage(facts, "\n".join(line.text for line in lines)) for lines in drawn if lines]
    return reader.coverage(facts, brief), mean_of(chance)


def strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)


def cosines(session: Session, brief: str) -> tuple[float | None, float | None]:
    """Cosine of the words' counts of the conversation with those of the brief, and of random digests."""
    said = Said(session)
    whole = Counter(term for turn in said.turns for block in turn.blocks for term in terms(block.text))
    seen = Seen(said.turns)
    drawn = [seen.draw(len(brief), f"{session.conversation_id}/{draw}") for draw in range(draws_of(len(brief)))]
    chance = [
        cosine(whole, Counter(term for line in lines for term in terms(line.text))) for lines in drawn if lines
    ]
    return cosine(whole, Counter(terms(brief))), mean_of(chance)


def cosine(one: Counter[str], other: Counter[str]) -> float | None:
    """The cosine of two counts."""
    length = math.sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))
    return sum(count * other[term] for term, count in one.items()) / length if length else None


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of those that there are."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def cell(value: float | None) -> str:
    """A figure in its column."""
    return f"{'–':>7}" if value is None else f"{value:>7,.0f}" if value > 10 else f"{value:>7.3g}"


if __name__ == "__main__":
    main()
