"""The brief: a digest fitted to a token budget, in the order of worth, with what was left out named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dualmem_mcp.handoff.brief import talk, work
from dualmem_mcp.handoff.brief.frame import footer, footer_room, frame, record_tag
from dualmem_mcp.handoff.brief.sections import SECTIONS, cursor_of, flat, left_out, section_items
from dualmem_mcp.handoff.brief.tally import Tally
from dualmem_mcp.handoff.brief.view import LEVELS, Line, View, short_names
from dualmem_mcp.handoff.quoting import clean, cut, defuse, one_line, without_link_targets
from dualmem_mcp.model.conversation import estimate_tokens
from dualmem_mcp.model.digest import Digest

__all__ = ["Brief", "BriefSection", "build_brief", "device_budget", "natural_budget"]

LARGE_SESSION_TOKENS = 20_000
NATURAL_SHARE = 0.042
"""Share of the visible tokens that a brief takes by itself: 95 % less, also where less is counted as visible.
Without what the client put in (skills, reminders) and the names of tools' arguments it is up to 16 % less."""
LEAST_NATURAL_BUDGET = 1_000
"""Tokens without which a brief cannot say where things stand; for conversations too short to be reduced."""

_SINCE_SHARE = 0.3
"""Share of a brief for what came after the handoff; more of it is shown where the rest leaves room."""

_ALIKE = 80
"""Characters after which a finding that is shown already is taken to be the same."""

_TITLES = {
    "resumption": "",
    "since": "Since the handoff",
    "notes": "Notes of the model that handed over (not checked)",
    "tasks": "Tasks",
    "requests": "The user's requests, oldest first",
    "files": "Files",
    "commands": "Tests and commands",
    "errors": "Errors",
    "commits": "Commits, pull requests, changes elsewhere",
    "plan": "Plan",
    "agents": "Agents",
    "decisions": "Decisions, and findings quoted from the model (candidates)",
    "compaction_summary": "From Claude Code's own compaction summary",
}
_TERSE_TITLES = _TITLES | {
    "notes": "Model's notes (not checked)",
    "requests": "Requests",
    "commits": "Commits and elsewhere",
    "decisions": "Findings (candidates)",
    "compaction_summary": "Compaction summary",
}


@dataclass(frozen=True, slots=True)
class BriefSection:
    """A section of the digest: its name, the tokens of the whole of it, the cursor by which `load_context` gives
    what the brief has not, and how many entries that are; the cursor is empty where the brief has every word."""

    name: str
    tokens: int
    cursor: str
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Brief:
    """A brief as Markdown of `tokens` estimated tokens.

    `shown` are the entries of the digest that its lines show, by list and index. `completeness` counts what
    it holds of what there is; `cut` says in words what was left out of which section.
    """

    text: str
    tokens: int
    sections: tuple[BriefSection, ...] = ()
    completeness: dict[str, Any] = field(default_factory=dict)
    cut: tuple[str, ...] = ()
    shown: frozenset[tuple[str, int]] = frozenset()


def natural_budget(digest: Digest) -> int:
    """Tokens that a brief takes when nobody asks for another size: 4.2 % of all that the model saw, and at least
    1,000 for a conversation of less than 20,000.

    The whole conversation counts, what compactions replaced included: all of it is what the brief stands for.
    """
    share = int(digest.visible_tokens * NATURAL_SHARE)
    return share if digest.visible_tokens >= LARGE_SESSION_TOKENS else max(share, LEAST_NATURAL_BUDGET)


def device_budget(digest: Digest, context_tokens: int) -> int:
    """Tokens of a brief for a device that takes `context_tokens`: not more than the conversation is worth, where
    it is long enough (20,000 tokens) that a brief has to be short at all."""
    if digest.visible_tokens < LARGE_SESSION_TOKENS:
        return context_tokens
    return min(context_tokens, natural_budget(digest))


def build_brief(
    digest: Digest,
    *,
    token_budget: int,
    max_agents: int = 50,
    since: Sequence[talk.News] = (),
    since_title: str = _TITLES["since"],
) -> Brief:
    """The brief of a digest in at most `token_budget` tokens.

    The last request stands in it verbatim unless it alone exceeds the budget. Then, as far as the budget
    goes: git, unfinished calls, prompts that still wait, corrections and rules, `since` (what came after the
    handoff, under that title), the last reply, open tasks, the other requests, edited files, the last test, agents
    (at most `max_agents`), commits; then findings, errors, outcomes, commands and the compaction summary.
    """
    budget = max(token_budget, 0) * 4
    names, tag = short_names(digest), record_tag(digest, [one.text for one in since])
    for detail in LEVELS:
        view = View(digest, detail, names)
        page = _Page(view, budget, tag, since_title)
        pressing, rest = _split(talk.since_handoff(view, since), int(budget * _SINCE_SHARE))
        required = _required(view, pressing, max_agents)
        if page.fits(required) or detail is LEVELS[-1]:
            break
    for tier in required:
        page.add(tier)
    page.add(rest)
    for tier in _extras(view, page):
        page.add(tier)
    return page.brief()


def _split(lines: Sequence[Line], room: int) -> tuple[list[Line], list[Line]]:
    """The first lines, as far as they fit into so many characters, at least one; and the others."""
    for taken, line in enumerate(lines):
        room -= len(line.text) + 1
        if taken and room < 0:
            return list(lines[:taken]), list(lines[taken:])
    return list(lines), []


def _required(view: View, since: Sequence[Line], max_agents: int) -> list[list[Line]]:
    """What a brief must hold, in the order of worth; within a tier the first is given up last."""
    requests = talk.requests(view)
    is_rule = [view.digest.requests[line.entries[0][1]].constraint for line in requests]
    waiting = talk.waiting(view)
    rules = [line for line, rule in zip(requests, is_rule, strict=True) if rule]
    others = [line for line, rule in zip(requests, is_rule, strict=True) if not rule]
    return [
        [*talk.git(view), *talk.unfinished(view), *waiting],
        rules[::-1],
        list(since),
        [*others[:1], *talk.last_reply(view)],
        work.open_tasks(view),
        talk.notes(view),
        others[:0:-1],
        work.edited_files(view)[::-1],
        work.last_tests(view)[:1],
        work.agents(view, max_agents),
        work.done_tasks(view),
        work.changes(view)[: 2 if view.detail.bare else 5 if view.detail.terse else 10],
        work.last_tests(view)[1:],
    ]


def _extras(view: View, page: _Page) -> Iterator[list[Line]]:
    """What a brief holds beyond that, while there is room."""
    findings = talk.findings(view)
    outcomes = talk.outcomes(view)[::-1]
    failed, fixed = work.errors(view, resolved=False), work.errors(view, resolved=True)
    commands = work.commands(view)
    yield talk.choices(view, page.shown_requests())
    yield outcomes[:3]
    if not view.detail.terse:
        page.enlarge(talk.replies(view)[:3], share=0.25)
    yield page.unseen(findings[:6])
    yield work.task_details(view)[:4]
    yield [*failed[:2], *fixed[:3]]
    yield outcomes[3:6]
    yield [] if view.detail.bare else work.plan(view)
    yield page.unseen(findings[6:14])
    yield work.changes(view)
    yield [*failed[2:4], *fixed[3:6], *commands[:4]]
    yield outcomes[6:]
    yield talk.compaction(view)[:3]
    yield page.unseen(findings[14:30])
    yield [*work.task_details(view), *talk.steps(view)[-8:]]
    yield talk.compaction(view)
    page.enlarge(talk.replies(view))
    yield page.unseen(findings[30:])
    yield [*work.other_tests(view), *failed, *fixed, *commands[:16]]
    yield [*talk.steps(view), *work.read_files(view)[:12]]


class _Page:
    """Lines taken into a brief so far, and the room that is left."""

    def __init__(self, view: View, budget: int, tag: str, since_title: str) -> None:
        self._view = view
        self._budget = budget
        self._frame = frame(view, budget, tag)
        self._room = budget - len(self._frame.head) - len(self._frame.closing) - footer_room(view, budget)
        self._titles = (_TERSE_TITLES if view.detail.terse else _TITLES) | {"since": since_title}
        self._kept: list[Line] = []
        self._places: set[tuple[str, tuple[int, ...]]] = set()
        self._sections: set[str] = set()
        self._elsewhere: set[tuple[str, int]] = set()

    def fits(self, required: Sequence[Sequence[Line]]) -> bool:
        """Whether all of it fits and leaves a share for the rest; a bare brief need not leave any."""
        lines = [line for tier in required for line in tier]
        needed = sum(len(line.text) + 1 for line in lines) + sum(
            map(self._heading_size, {line.section for line in lines})
        )
        detail = self._view.detail
        return needed <= self._room * (1.0 if detail.bare else 0.8 if detail.terse else 0.65)

    def add(self, tier: Iterable[Line]) -> None:
        """Take the lines that fit, each in its turn; one that does not fit leaves its room to shorter ones."""
        for line in tier:
            place = (line.section, line.order)
            size = len(line.text) + 1 + (0 if line.section in self._sections else self._heading_size(line.section))
            if place in self._places or size > self._room:
                continue
            self._places.add(place)
            self._sections.add(line.section)
            self._kept.append(line)
            self._room -= size

    def enlarge(self, lines: Iterable[Line], share: float = 1.0) -> None:
        """Put longer lines in place of those that stand there, each in at most that share of the room left."""
        places = {(old.section, old.order): at for at, old in enumerate(self._kept)}
        for line in lines:
            at = places.get((line.section, line.order), -1)
            more = len(line.text) - len(self._kept[at].text) if at >= 0 else 0
            if 0 < more <= self._room * share:
                self._kept[at] = line
                self._room -= more

    def _heading_size(self, section: str) -> int:
        title = self._titles[section]
        return len(title) + 5 if title else 0

    def shown_requests(self) -> frozenset[str]:
        """The turns of the requests that are shown."""
        return self._tally().shown_requests

    def unseen(self, findings: Sequence[Line]) -> list[Line]:
        """Findings that are not part of what is shown already, as in the last reply or an outcome."""
        shown = one_line(without_link_targets("\n".join(line.text for line in self._kept)))
        new = [line for line in findings if line.text.partition("] ")[2][:_ALIKE] not in shown]
        self._elsewhere.update(entry for line in findings if line not in new for entry in line.entries)
        return new

    def _tally(self) -> Tally:
        return Tally(self._view, self._kept, self._elsewhere, request_whole=self._frame.request_whole)

    def brief(self) -> Brief:
        """The finished brief; the least worthy lines are given up should the text still be too long."""
        while True:
            tally = self._tally()
            cuts = tally.cuts()
            text = self._text(cuts)
            if len(text) <= self._budget or not self._kept:
                break
            self._kept.pop()
        text = cut(text, self._budget)
        digest = self._view.digest
        sections = []
        line = flat(text)
        for name in SECTIONS:
            items = section_items(digest, name)
            if items:
                tokens = estimate_tokens("\n".join(item.text for item in items))
                missing = left_out(items, line, tally.shown)
                sections.append(BriefSection(name, tokens, cursor_of(missing, len(items)), len(missing)))
        return Brief(
            text,
            estimate_tokens(text),
            tuple(sections),
            tally.completeness(),
            tuple(cuts.values()),
            tally.shown,
        )

    def _text(self, cuts: dict[str, str]) -> str:
        parts = [self._frame.head]
        for name, title in self._titles.items():
            chosen = sorted((line for line in self._kept if line.section == name), key=lambda line: line.order)
            if chosen and title:
                parts.append(f"\n## {title}\n")
            parts.extend(line.text + "\n" for line in chosen)
        body = "".join(parts)
        room = self._budget - len(body) - len(self._frame.closing)
        return defuse(clean(body + footer(self._view, cuts, room) + self._frame.closing))
