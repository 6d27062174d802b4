"""Branches: who went on with a conversation, and where they parted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from dualmem_mcp.model.source import PROGRESS

_TYPED: Final = frozenset({"", "queued_command"})
"""Origins of what a user typed; the others name what the client wrote. Source: model/conversation.py, Turn."""

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TurnLink:
    """A turn's place in its conversation. `spoken` says that it has a text that belongs to the talk: it is no meta
    record and no compaction summary. `device` is the name of the device that it comes from."""

    uuid: str
    parent_uuid: str | None
    role: str
    timestamp: datetime | None
    device: str
    origin: str = ""
    spoken: bool = True

    @property
    def goes_on(self) -> bool:
        """Whether somebody went on with the conversation by it: a request, or what `save_progress` brought. The
        rest of an answer, as it follows on a handoff made in its middle, does not."""
        return self.origin == PROGRESS or (self.role == "user" and self.is_talk)

    @property
    def is_talk(self) -> bool:
        """Whether the user or the model said it; the rest is what the client wrote."""
        return self.spoken and (self.origin == PROGRESS or self.origin in _TYPED)


@dataclass(frozen=True, slots=True)
class HandoffPlace:
    """Where a handoff was made: its last turn, which need not be known here, its device and its time."""

    uuid: str
    device: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Branch:
    """What follows on the last turn that all branches have: uuids oldest first, and whose they are.

    `turns` counts those that have a text. `newest` is true of the branch with the latest turn.
    """

    uuids: tuple[str, ...]
    devices: tuple[str, ...]
    turns: int
    first_at: datetime | None
    last_at: datetime | None
    newest: bool

    def to_json(self) -> dict[str, Any]:
        """The branch as tools show it."""
        return {
            "devices": list(self.devices),
            "turns": self.turns,
            "first_at": self.first_at.isoformat() if self.first_at else None,
            "last_at": self.last_at.isoformat() if self.last_at else None,
            "last_turn": self.uuids[-1],
            "newest": self.newest,
        }


class TurnTree:
    """The turns of one conversation, each below the one that it answers.

    A turn may name a parent that is not known: a record without words, or one that never came here. It then hangs
    below the turn of its device before it; the first of its device below the newest one that is older.
    """

    def __init__(self, links: Iterable[TurnLink], handoffs: Iterable[HandoffPlace] = ()) -> None:
        self.links: dict[str, TurnLink] = {}
        times: dict[str, datetime] = {}
        newest: dict[str, datetime] = {}
        for link in links:
            if link.uuid not in self.links:
                self.links[link.uuid] = link
                times[link.uuid] = newest[link.device] = link.timestamp or newest.get(link.device, _LONG_AGO)
        self._unseen = {place.uuid: place for place in handoffs if place.uuid and place.uuid not in self.links}
        times.update({place.uuid: place.created_at for place in self._unseen.values()})
        # Stable: turns of one time stay in the order in which they came.
        self.order: tuple[str, ...] = tuple(sorted((*self.links, *self._unseen), key=times.__getitem__))
        self._place = {uuid: place for place, uuid in enumerate(self.order)}
        self.parents: Mapping[str, str | None] = self._parents()

    def _parents(self) -> dict[str, str | None]:
        parents: dict[str, str | None] = {}
        last_of: dict[str, str] = {}
        previous: str | None = None
        for uuid in self.order:
            link = self.links.get(uuid)
            device = link.device if link else self._unseen[uuid].device
            named = link.parent_uuid if link else None
            if named is not None and named in self._place and named != uuid:
                parents[uuid] = named
            elif link is not None and named is None and link.origin == PROGRESS:
                parents[uuid] = None  # a conversation that began there
            else:
                parents[uuid] = last_of.get(device, previous)
            last_of[device] = previous = uuid
        return parents

    def path(self, uuid: str) -> list[str]:
        """The turns from the first to this one; empty if it is not known. Ends where a circle would close."""
        found: dict[str, None] = {}
        at: str | None = uuid if uuid in self._place else None
        while at is not None and at not in found:
            found[at] = None
            at = self.parents[at]
        return [*reversed(found)]

    def ways(self) -> tuple[tuple[str, ...], ...]:
        """From the first turn to each end, that with the latest turn first; one, unless somebody went another way.

        A device counts by its newest turn: prompts that its user took back are no way.
        """
        return self._ways

    @cached_property
    def _ways(self) -> tuple[tuple[str, ...], ...]:
        paths = [self.path(tip) for tip in reversed(self._tips())]
        while len(paths) > 1:
            common = _common_length(paths)
            kept = [path for path in paths if any(self._goes_on(uuid) for uuid in path[common:])]
            if len(kept) == len(paths):
                break
            paths = kept or paths[:1]
        return tuple(map(tuple, paths))

    def branches(self) -> tuple[Branch, ...]:
        """The branches, the one with the latest turn first; none where there is but one way."""
        ways = self.ways()
        if len(ways) < 2:
            return ()
        common = _common_length(ways)
        return tuple(self._branch(way[common:], newest=number == 0) for number, way in enumerate(ways))

    def newest(self, below: str | None = None) -> str | None:
        """The last turn of the newest way; with `below`, of the newest that leads through that turn."""
        ends = (way[-1] for way in self.ways() if way and (below is None or below in way))
        return next(ends, None)

    def since(self, handed_over: HandoffPlace) -> list[str]:
        """The turns that a handoff does not have, in order: those that follow on its last turn, those that are
        younger than it, and all of other branches."""
        before = set(self.path(handed_over.uuid))
        follows: dict[str, bool] = dict.fromkeys(before, False)
        follows[handed_over.uuid] = True
        elsewhere = {uuid for branch in self.branches() for uuid in branch.uuids}
        new = []
        for uuid in self.order:
            link = self.links.get(uuid)
            if link is None or uuid in before:
                continue
            younger = link.timestamp is not None and link.timestamp > handed_over.created_at
            if younger or uuid in elsewhere or self._follows(uuid, follows):
                new.append(uuid)
        return new

    def _follows(self, uuid: str, known: dict[str, bool]) -> bool:
        passed: dict[str, None] = {}
        at: str | None = uuid
        while at is not None and at not in known and at not in passed:
            passed[at] = None
            at = self.parents[at]
        answer = at is not None and known.get(at, False)
        known.update(dict.fromkeys(passed, answer))
        return answer

    def _tips(self) -> list[str]:
        """Where devices stand: the newest end of what each wrote itself, every end of what progress brought."""
        answered: set[str] = set()
        answered_at_home: set[str] = set()
        for uuid, parent in self.parents.items():
            link, above = self.links.get(uuid), self.links.get(parent or "")
            if link is None or above is None:
                continue
            answered.add(above.uuid)
            if link.device == above.device and link.origin != PROGRESS:
                answered_at_home.add(above.uuid)
        tips: dict[str, str] = {}
        for uuid in self.order:
            link = self.links.get(uuid)
            if link is None:
                continue
            if link.origin == PROGRESS:
                if uuid not in answered:
                    tips[uuid] = uuid
            elif uuid not in answered_at_home:
                tips[f"device\0{link.device}"] = uuid
        found = set(tips.values())
        passed = {above for tip in found for above in self.path(tip)[:-1]}
        return sorted(found - passed, key=self._place.__getitem__)

    def _goes_on(self, uuid: str) -> bool:
        link = self.links.get(uuid)
        return link is not None and link.goes_on

    def _branch(self, path: Sequence[str], *, newest: bool) -> Branch:
        links = [link for uuid in path if (link := self.links.get(uuid)) is not None]
        times = [link.timestamp for link in links if link.timestamp]
        return Branch(
            uuids=tuple(link.uuid for link in links),
            devices=tuple(dict.fromkeys(link.device for link in links)),
            turns=sum(link.spoken for link in links),
            first_at=min(times, default=None),
            last_at=max(times, default=None),
            newest=newest,
        )


def _common_length(paths: Sequence[Sequence[str]]) -> int:
    """How many turns all paths begin with."""
    length = 0
    for turns in zip(*paths, strict=False):
        if len(set(turns)) > 1:
            break
        length += 1
    return length


def branches_text(branches: Sequence[Mapping[str, Any]]) -> str:
    """That there are branches, of the form of `Branch.to_json`, and whose, in one line:
    `2 branches, each with …: pocket, 3 turns to 2026-03-01 12:00 (newest); desk, …`."""
    return f"{len(branches)} branches, each with turns that the others lack: {'; '.join(map(_words, branches))}"


def _words(branch: Mapping[str, Any]) -> str:
    who = " and ".join(device or "a device without a name" for device in branch["devices"])
    until = f" to {branch['last_at'][:16].replace('T', ' ')}" if branch["last_at"] else ""
    newest = " (newest)" if branch["newest"] else ""
    return f"{who}, {branch['turns']} turn{'' if branch['turns'] == 1 else 's'}{until}{newest}"
