"""The measures of a handoff's fidelity, taken together: probes, facts, pointers.

What each number says, and what it does not, is in docs/fidelity.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from statistics import fmean
from typing import Any

from dualmem_mcp.handoff.fidelity.bm25 import terms
from dualmem_mcp.handoff.fidelity.chance import Seen
from dualmem_mcp.handoff.fidelity.facts import FactReader
from dualmem_mcp.handoff.fidelity.marked_lines import MarkedLine, TurnNames, marked_lines
from dualmem_mcp.handoff.fidelity.pointers import Recall, questions, recall
from dualmem_mcp.handoff.fidelity.probes import KINDS, Held, Probe, ask, is_held
from dualmem_mcp.handoff.fidelity.said import Said
from dualmem_mcp.model.conversation import Session

MOST_DRAWS = 5
FEWEST_DRAWS = 2
_DRAWN_CHARACTERS = 90_000
"""How much is drawn at random in all, about: the longer a random digest, the less it differs from the next one."""
_EXAMPLES = 5
"""Probes without an answer that are named."""


def measure_fidelity(session: Session, brief: str, *, device_brief: str) -> dict[str, Any]:
    """How much of a session its brief holds, and how much is left of that on the target device.

    `brief` is the brief at its natural size, `device_brief` the target device's. The result holds `probes_asked`,
    `probes_held` and `probes_held_on_device` (by kind, and `all`), `probes_missing` and
    `probes_missing_on_device` (kind and turn's uuid), `facts` and `pointers`. Shares are 0 to 1, rounded to 3
    digits; None stands where there is nothing to ask or to compare with. The same input gives the same result.
    """
    said = Said(session)
    names = TurnNames([turn.uuid for turn in said.turns])
    lines = marked_lines(brief, names)
    probes = ask(said, agents=session.agents, cwd=session.cwd)
    natural = Held(brief, lines)
    on_device = natural if device_brief == brief else Held(device_brief, marked_lines(device_brief, names))
    passages = said.passages()
    reader = FactReader()
    facts = reader.weigh(passages)
    seed = str(session.conversation_id)
    asked = questions(said, passages, facts, seed)
    seen, size = Seen(said.turns), len(brief)
    at_random = [seen.draw(size, f"{seed}/{draw}") for draw in range(draws_of(size))]

    def judged(digest: Sequence[MarkedLine]) -> tuple[float | None, Recall | None]:
        words = [terms(line.text) for line in digest]
        text = "\n".join(line.text for line in digest)
        # No fact is a single character, and what is no ASCII has other words than terms.
        known = chain.from_iterable(words) if text.isascii() else None
        return reader.coverage(facts, text, words=known), recall(asked, digest, said, words=words)

    held, led = judged(lines)
    by_chance = [judged(digest) for digest in at_random if digest]
    led_at_random = [one for _, one in by_chance if one]
    return {
        **_probed(probes, natural, on_device),
        "facts": {
            "known": len(facts.weights),
            **_against_chance(
                held=held,
                random=_mean([covered for covered, _ in by_chance]),
            ),
        },
        "pointers": {
            "asked": len(asked),
            **_against_chance(
                held=led.part if led else None,
                random=_mean([one.part for one in led_at_random]),
                near=led.near if led else None,
                random_near=_mean([one.near for one in led_at_random]),
            ),
        },
    }


def draws_of(characters: int) -> int:
    """Random digests that a digest of that size is compared with; the mean over them is reported."""
    return max(FEWEST_DRAWS, min(MOST_DRAWS, _DRAWN_CHARACTERS // max(characters, 1)))


def _probed(probes: Sequence[Probe], natural: Held, device: Held) -> dict[str, Any]:
    """Shares of the probes that are held, by kind, and where stands what is missing."""
    held = [is_held(probe, natural) for probe in probes]
    on_device = held if device is natural else [is_held(probe, device) for probe in probes]

    def shares(answers: Sequence[bool]) -> dict[str, float | None]:
        by_kind = {
            kind: [float(yes) for probe, yes in zip(probes, answers, strict=True) if probe.kind == kind]
            for kind in KINDS
        }
        return {"all": _rounded(_mean(answers)), **{kind: _rounded(_mean(one)) for kind, one in by_kind.items()}}

    def missing(answers: Sequence[bool]) -> list[str]:
        found = [probe for probe, yes in zip(probes, answers, strict=True) if not yes]
        return [f"{probe.kind} {probe.uuid}".strip() for probe in found[:_EXAMPLES]]

    asked = {kind: sum(probe.kind == kind for probe in probes) for kind in KINDS}
    return {
        "probes_asked": {"all": len(probes), **asked},
        "probes_held": shares(held),
        "probes_held_on_device": shares(on_device),
        "probes_missing": missing(held),
        "probes_missing_on_device": missing(on_device),
    }


def _against_chance(
    *, held: float | None, random: float | None, **further: float | None
) -> dict[str, float | None]:
    """The digest's figure, that of chance, the first as a multiple of the second, and further figures."""
    ratio = held / random if held is not None and random else None
    figures = {"held": held, "random": random, "ratio": ratio, **further}
    return {name: _rounded(value) for name, value in figures.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
