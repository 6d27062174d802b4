"""Conversations that come in packages: kept once, with the name of their device, whatever one of them is like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dualmem_mcp.errors import TamperedError
from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.digest import Decision
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.search import Collection
from dualmem_mcp.search.reading import read_carried
from tests.conftest import SteppingClock
from tests.handoff.dialogue import Dialogue
from tests.search.home import Memory


@dataclass
class Carried:
    conversation_id: str
    decisions: Sequence[Decision]
    session: Session | None


class Packages:
    """Packages by name; None stands for one that does not open."""

    def __init__(self, **packages: Carried | None) -> None:
        self.packages = packages
        self.reads: list[str] = []

    def sources(self) -> Sequence[tuple[str, str]]:
        return [(name, "phone") for name in self.packages]

    def read(self, source: str) -> Carried:
        self.reads.append(source)
        found = self.packages[source]
        if found is None:
            raise TamperedError("a package does not authenticate")
        return found


@pytest.fixture
def memory(tmp_path: Path, clock: SteppingClock) -> Iterator[Memory]:
    opened = Memory(tmp_path, clock)
    yield opened
    opened.close()


def session(conversation_id: str, *said: str) -> Session:
    talk = Dialogue()
    for number, text in enumerate(said):
        (talk.model if number % 2 else talk.user)(text)
    return replace(talk.session(), conversation_id=ConversationId(conversation_id))


def decided(text: str, uuid: str = "", origin: str = "model") -> Decision:
    return Decision(text=text, uuid=uuid, origin=origin)


def test_each_package_is_read_once(memory: Memory) -> None:
    packages = Packages(one=Carried("c1", [decided("paint it green")], session("c1", "the shed?", "Green, I say.")))
    report = memory.indexer.run(carried=packages)
    assert (report.turns_indexed, report.conversations) == (2, 1)
    (turn,) = memory.found("green")
    assert (turn.device, turn.conversation_id, turn.author) == ("phone", "c1", "assistant")
    (decision,) = memory.found("green", collection=Collection.CONTEXT)
    assert (decision.text, decision.device, decision.author) == ("paint it green", "phone", "assistant")
    assert memory.indexer.run(carried=packages).items_indexed == 0
    assert packages.reads == ["one"]


def test_a_later_package_adds_what_is_new(memory: Memory) -> None:
    talk = ["the shed?", "Green, I say.", "and the door?"]
    first = Carried("c1", [decided("green"), decided("old lead", "u1", "extracted")], session("c1", *talk[:2]))
    later = Carried("c1", [decided("red"), decided("new lead", "u1", "extracted")], session("c1", *talk))
    memory.indexer.run(carried=Packages(one=first))
    assert memory.indexer.run(carried=Packages(one=first, two=later)).turns_indexed == 1
    found = memory.texts("green", "red", "lead", collection=Collection.CONTEXT)
    assert sorted(found) == ["green", "new lead", "red"]


def test_a_package_that_does_not_open_is_told_of_and_the_others_are_read(memory: Memory) -> None:
    packages = Packages(bad=None, good=Carried("c1", [], session("c1", "the shed?")))
    read = read_carried(packages, memory.log)
    assert (read.changed, read.turns) == (1, 1)
    assert read.warnings == ["a conversation of another device was passed over: a package does not authenticate"]
    packages.packages["bad"] = Carried("c2", [], None)
    assert read_carried(packages, memory.log).changed == 1
    assert read_carried(packages, memory.log).unchanged == 2


def test_it_stops_between_two_packages(memory: Memory) -> None:
    packages = Packages(one=Carried("c1", [], None), two=Carried("c2", [], None))
    read_carried(packages, memory.log, should_stop=lambda: bool(packages.reads))
    assert packages.reads == ["one"]
