"""Probes: questions about a conversation whose answers either stand in a digest or do not.

The questions and their answers come from the conversation (`said.py`, `done.py`), never from the digest that is
judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, get_args

from dualmem_mcp.handoff.fidelity.done import (
    CallMade,
    agents_launched,
    calls_made,
    files_changed,
    last_test,
    open_tasks,
)
from dualmem_mcp.handoff.fidelity.marked_lines import MarkedLine
from dualmem_mcp.handoff.fidelity.said import Said
from dualmem_mcp.handoff.quoting import clean, defuse
from dualmem_mcp.handoff.redact import redact
from dualmem_mcp.model.conversation import AgentRun

ProbeKind = Literal["requests", "files", "tests", "tasks", "agents", "last_request", "branch"]
KINDS: Final[tuple[ProbeKind, ...]] = get_args(ProbeKind)

# Characters by which a request, a task and an agent are recognised: a digest may shorten them.
_RECOGNISED: Mapping[ProbeKind, int] = {"requests": 80, "tasks": 50, "agents": 40}
_SHORT_REQUEST = 24
"""A shorter request ("yes") stands in any text: it counts only where a line begins with it."""

_MOST_OF_A_KIND = 400

# Characters that make a word before or after them a longer one.
_JOINS = re.compile(r"[A-Za-z0-9_/-]")
_GOES_ON = re.compile(r"[A-Za-z0-9_-]|[./][A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Probe:
    """One question: what it asks for, the uuid of the turn that it comes from, and the answers of which one must
    stand in the digest; in lines that lead to `turns`, where there are any."""

    kind: ProbeKind
    uuid: str
    answers: tuple[str, ...]
    turns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Held:
    """A digest as probes look at it: its whole text, and its lines."""

    text: str
    lines: Sequence[MarkedLine]

    @cached_property
    def plain(self) -> str:
        """The text with single spaces; that it is cleaned and defused is the digest's duty."""
        return _single_spaced(self.text)

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """The lines of the text as it stands."""
        return tuple(self.text.split("\n"))

    @cached_property
    def plain_lines(self) -> tuple[tuple[str, str], ...]:
        """Label and single-spaced text of each line."""
        return tuple((line.label, _single_spaced(line.text)) for line in self.lines)

    @cached_property
    def by_turn(self) -> Mapping[int, str]:
        """What the lines that lead to a turn say, by its position."""
        found: dict[int, str] = {}
        for line in self.lines:
            for turn in line.turns:
                found[turn] = f"{found.get(turn, '')}\n{line.text}"
        return found


def plain(text: str) -> str:
    """A text of the conversation as a brief quotes it, cleaned and defused, with single spaces."""
    return _single_spaced(defuse(clean(text)))


def _single_spaced(text: str) -> str:
    return " ".join(text.split())


def ask(said: Said, *, agents: Sequence[AgentRun], cwd: str) -> list[Probe]:
    """The probes of a conversation: every distinct request, changed file, open task and launched agent, the last
    test result, the last request, the branch.

    Of a kind at most 400 are asked, spread evenly over the conversation.
    """
    calls = calls_made(said.turns)
    kinds: tuple[Iterable[Probe], ...] = (
        _requests(said),
        (Probe("files", uuid, (path,)) for path, uuid in files_changed(calls, agents, cwd).items()),
        _last_test(calls),
        (Probe("tasks", uuid, (subject,)) for subject, uuid in open_tasks(calls) if plain(subject)),
        (Probe("agents", uuid, (name,)) for name, uuid in agents_launched(calls) if plain(name)),
        (Probe("last_request", one.uuid, (one.text,)) for one in said.requests[-1:]),
        _branch(said),
    )
    return [probe for probes in kinds for probe in _spread(list(probes))]


def _spread(probes: list[Probe]) -> list[Probe]:
    if len(probes) <= _MOST_OF_A_KIND:
        return probes
    return [probes[at * len(probes) // _MOST_OF_A_KIND] for at in range(_MOST_OF_A_KIND)]


def _requests(said: Said) -> Iterator[Probe]:
    seen: set[str] = set()
    for one in (*said.requests, *said.queued):
        text = plain(one.text)
        if text and text.casefold() not in seen:
            seen.add(text.casefold())
            yield Probe("requests", one.uuid, (one.text,))


def _last_test(calls: Sequence[CallMade]) -> Iterator[Probe]:
    run = last_test(calls)
    if run:
        yield Probe("tests", run.uuid, run.outcomes, run.turns)


def _branch(said: Said) -> Iterator[Probe]:
    for turn in reversed(said.turns):
        if turn.git_branch:
            yield Probe("branch", turn.uuid, (turn.git_branch,))
            return


def is_held(probe: Probe, held: Held) -> bool:
    """Whether one of the probe's answers stands in the digest, as it is or with its secrets redacted."""
    holds = _RULES[probe.kind]
    if any(holds(probe, answer, held) for answer in probe.answers):
        return True
    hidden = ((answer, redact(answer)) for answer in probe.answers)
    return any(holds(probe, shown, held) for answer, shown in hidden if shown != answer)


def _holds_request(probe: Probe, answer: str, held: Held) -> bool:
    text = plain(answer)
    if len(text) < _SHORT_REQUEST:
        return any(line.startswith(text) for _, line in held.plain_lines)
    return text[: _RECOGNISED[probe.kind]].rstrip() in held.plain


def _holds_file(_: Probe, answer: str, held: Held) -> bool:
    """A path, or its folder and its name on one line: `src/ a.py, b.py`."""
    if _stands(held.text, answer):
        return True
    folder, _slash, name = answer.rpartition("/")
    return bool(folder) and any(f"{folder}/ " in row and _stands(row, name) for row in held.rows)


def _holds_test(probe: Probe, answer: str, held: Held) -> bool:
    return any(_stands(held.by_turn.get(turn, ""), answer) for turn in probe.turns)


def _holds_task(probe: Probe, answer: str, held: Held) -> bool:
    """The subject in a line that does not tick it off."""
    text = plain(answer)[: _RECOGNISED[probe.kind]].rstrip()
    return any(text in line and "[x]" not in label + line[:6] for label, line in held.plain_lines)


def _holds_agent(probe: Probe, answer: str, held: Held) -> bool:
    return plain(answer)[: _RECOGNISED[probe.kind]].rstrip() in held.plain


def _holds_whole(_: Probe, answer: str, held: Held) -> bool:
    return plain(answer) in held.plain


def _holds_branch(_: Probe, answer: str, held: Held) -> bool:
    return _stands(held.plain, plain(answer))


_RULES: Mapping[ProbeKind, Callable[[Probe, str, Held], bool]] = {
    "requests": _holds_request,
    "files": _holds_file,
    "tests": _holds_test,
    "tasks": _holds_task,
    "agents": _holds_agent,
    "last_request": _holds_whole,
    "branch": _holds_branch,
}


def _stands(text: str, needle: str) -> bool:
    """Whether a text holds a name as a whole: not as a part of a longer word or path."""
    at = text.find(needle)
    while at >= 0:
        end = at + len(needle)
        if not _JOINS.match(text[max(at - 1, 0) : at]) and not _GOES_ON.match(text, end):
            return True
        at = text.find(needle, at + 1)
    return False
