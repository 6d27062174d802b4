"""A digest seen at one level of detail: how long entries may be, and by what short name turns go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dualmem_mcp.handoff.quoting import one_line, short_id
from dualmem_mcp.model.digest import Digest, Request


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of an entry is shown, in characters: a request, the last reply, an outcome.

    `terse` puts files of a folder and finished tasks on one line and drops what only helps; `bare` also
    does without outcomes and puts agents of one status on one line.
    """

    request: int
    reply: int
    outcome: int
    terse: bool = False
    bare: bool = False


# From the richest to the barest; a brief takes the first at which its indispensable lines fit.
LEVELS: tuple[Detail, ...] = (
    Detail(request=4_000, reply=4_000, outcome=700),
    Detail(request=2_000, reply=3_000, outcome=500),
    Detail(request=1_200, reply=2_000, outcome=400),
    Detail(request=800, reply=1_600, outcome=300),
    Detail(request=500, reply=1_200, outcome=240),
    Detail(request=320, reply=900, outcome=200),
    Detail(request=240, reply=700, outcome=160),
    Detail(request=240, reply=600, outcome=160, terse=True),
    Detail(request=180, reply=500, outcome=120, terse=True),
    Detail(request=140, reply=400, outcome=90, terse=True),
    Detail(request=110, reply=300, outcome=60, terse=True),
    *(Detail(request=size, reply=size * 3, outcome=0, terse=True, bare=True) for size in range(100, 28, -4)),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One item of a section, possibly of several lines of text; `order` places it within its section.

    `entries` names what it shows of the digest (list and index), so that what was left out can be counted;
    `whole` says whether it shows that in full.
    """

    section: str
    order: tuple[int, ...]
    text: str
    entries: tuple[tuple[str, int], ...] = ()
    whole: bool = True


class View:
    """One digest at one level of detail."""

    def __init__(self, digest: Digest, detail: Detail, names: Mapping[str, str] | None = None) -> None:
        self.digest = digest
        self.detail = detail
        self._names = (short_names(digest) if names is None else names) if detail.terse else {}

    def mark(self, uuid: str, flag: str = "") -> str:
        """`[1a2b3c4d]`, the turn that a line comes from; the flag alone where there is none.

        8 characters of the uuid; in a terse brief as few as tell the turns of the digest apart, at least 4.
        """
        name = self._names.get(uuid) or short_id(uuid)
        return f"[{name}{flag}]" if name or flag else ""

    def is_last(self, request: Request) -> bool:
        """Whether it is the last request, which stands at the head of the brief."""
        last = self.digest.resumption.last_request
        return request.text == last.text and request.uuid == last.uuid


def short_names(digest: Digest) -> dict[str, str]:
    """For each turn that the digest names, as few characters as tell it from the others, at least 4."""
    uuids = {uuid: one_line(uuid)[:12] for uuid in sorted({uuid for uuid in _uuids(digest) if uuid})}
    for length in range(4, 13):
        names = {uuid: shown[:length].replace("]", "") for uuid, shown in uuids.items()}
        if len(set(names.values())) == len(uuids):
            return names
    return {}


def _uuids(digest: Digest) -> Iterator[str]:
    now = digest.resumption
    yield from (
        now.last_request.uuid,
        now.last_reply.uuid,
        now.git.uuid,
        digest.plan.uuid,
        digest.compaction_summary.uuid,
    )
    yield from (one.outcome_uuid for one in digest.requests)
    yield from (one.fix_uuid for one in digest.errors)
    for group in (
        now.steps, now.pending_tools, digest.requests, digest.files, digest.commands, digest.tests, digest.errors,
        digest.commits, digest.pull_requests, digest.actions, digest.tasks, digest.agents, digest.decisions,
    ):  # fmt: skip
        yield from (one.uuid for one in group)
