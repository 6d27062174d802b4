"""Whatever devices do, and whenever one of them is ended or the service is away: what was placed is never in no
tier, and after a check all is as planned."""

from __future__ import annotations

import atexit
import contextlib
import copy
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.failpoints import watched
from dualmem_mcp.model.tiers import Cluster
from dualmem_mcp.stores.qdrant import QdrantService
from tests.conftest import SteppingClock
from tests.crypto.conftest import MemoryObjectStore
from tests.tiers.home import SharedService, TierDevice, founded_homes

CHATS = ("one", "two", "three")
NAMES = ("desk", "phone")
DAY = 86_400
TROUBLE = st.one_of(
    st.tuples(st.just("end"), st.integers(3, 9)),
    st.tuples(st.just("away"), st.sampled_from([1, 2, 3, 4, 6, 9])),
    st.just(("", 0)),
)
"""A run that is ended at the point of that number, or finds the service away from the request of that number on."""


@cache
def _founded() -> tuple[Path, MemoryObjectStore]:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return founded_homes(folder, NAMES)


class _Ended(BaseException):
    """The process ends here."""


class TierMachine(RuleBasedStateMachine):
    """Two devices of a vault and one service."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.qdrant = QdrantService.open(":memory:")
        self.service = SharedService(self.qdrant)
        self.objects = copy.deepcopy(_founded()[1])
        self.devices = []
        for name in NAMES:
            shutil.copytree(_founded()[0] / name, self.folder / name)
            self.devices.append(
                TierDevice(self.folder / name, self.objects, SteppingClock(), self.connect, name=name)
            )
        for device in self.devices:
            device.tiers.init(Cluster())
            device.tiers.enable(words=False)
        self.devices[0].channel.vault.refresh(self.objects)
        self.number = 0
        self.placed: set[str] = set()

    def connect(self, _: object) -> SharedService:
        return self.service

    def teardown(self) -> None:
        for device in self.devices:
            device.close()
        self.qdrant.close()
        shutil.rmtree(self.folder)

    @initialize()
    def something(self) -> None:
        self.say(0, "one", 3)
        self.say(0, "two", 150)
        self.learn()
        self.apply(0, take_over=False, days=0, trouble=("", 0))

    @rule(who=st.integers(0, 1), chat=st.sampled_from(CHATS), words=st.sampled_from([3, 150]))
    def say(self, who: int, chat: str, words: int) -> None:
        """A turn is said on a device."""
        if chat in self.devices[who].erased:
            return
        self.number += 1
        self.devices[who].turn(self.number, " ".join(f"w{n}" for n in range(words)), chat=chat)

    @rule()
    def learn(self) -> None:
        """Both know what the other knows."""
        one, other = self.devices
        for device, source in ((one, other), (other, one)):
            device.erased |= source.erased
            device.take_from(source)
            self.forget_erased(device)
            for key, data in device.channel.vault.pending_epoch():
                self.objects.put(key, data)
            device.channel.vault.refresh(self.objects)

    def time_goes_on(self, days: int) -> None:
        for device in self.devices:
            device.clock.advance(days * DAY)

    @rule(who=st.integers(0, 1), trouble=TROUBLE)
    def ask_and_apply(self, who: int, trouble: tuple[str, int]) -> None:
        """What has cooled down is asked for on a device, and goes up again."""
        device = self.devices[who]
        rows = [row.key for row in device.rows() if row.tier != "critical"]
        device.ask_for(*sorted(rows)[:2], times=5)
        self.during(trouble, lambda: device.apply(take_over=True))

    @rule(who=st.integers(0, 1), take_over=st.booleans(), days=st.sampled_from([31, 8]), trouble=TROUBLE)
    def apply(self, who: int, take_over: bool, days: int, trouble: tuple[str, int]) -> None:
        """A device brings all where it belongs, some time later."""
        self.time_goes_on(days)
        self.during(trouble, lambda: self.devices[who].apply(take_over=take_over))

    @rule(who=st.integers(0, 1), chat=st.sampled_from(CHATS), trouble=TROUBLE)
    def place(self, who: int, chat: str, trouble: tuple[str, int]) -> None:
        self.during(trouble, lambda: self.devices[who].tiers.place(chat, max_seconds=60))

    @rule(who=st.integers(0, 1), trouble=TROUBLE)
    def check(self, who: int, trouble: tuple[str, int]) -> None:
        self.during(trouble, lambda: self.devices[who].tiers.check(repair=True))

    @precondition(lambda self: self.number > 3)
    @rule(who=st.integers(0, 1), chat=st.sampled_from(CHATS[1:]), trouble=TROUBLE)
    def erase(self, who: int, chat: str, trouble: tuple[str, int]) -> None:
        device = self.devices[who]
        device.erased.add(chat)
        self.placed = {key for key in self.placed if f"/{chat}/" not in key}
        self.during(trouble, lambda: device.tiers.forget(chat))
        self.forget_erased(device)

    def forget_erased(self, device: TierDevice) -> None:
        for index in device.indexes.values():
            items = index.items(index.columns().ids.tolist())
            index.remove([item.key for item in items if item.conversation_id in device.erased])

    def during(self, trouble: tuple[str, int], work: Any) -> None:
        """Do it, in trouble."""
        kind, at = trouble
        points, requests = 0, 0

        def reached(name: str) -> None:
            nonlocal points
            points += name.startswith(("tiers:", "moving:", "forgetting:", "mover: "))
            if kind == "end" and points == at:
                raise _Ended

        def ask(tier: str, request: str) -> None:
            nonlocal requests
            requests += 1
            if kind == "away" and requests >= at:
                raise StoreUnreachableError("away")

        self.service.fault = ask
        with contextlib.suppress(_Ended, StoreUnreachableError), watched(reached):
            work()
        self.service.fault = lambda tier, request: None

    @invariant()
    def what_was_placed_is_somewhere(self) -> None:
        where = self.devices[0].where() | self.devices[1].where()
        assert self.placed <= {*where}, f"in no tier: {self.placed - {*where}}"
        erased = self.devices[0].erased | self.devices[1].erased
        self.placed = {key for key in where if not any(f"/{chat}/" in key for chat in erased)}

    def settle(self) -> None:
        """With nobody disturbing, all is as planned."""
        self.learn()
        desk, phone = self.devices
        for device in self.devices:
            device.apply(take_over=True)
            device.tiers.check(repair=True)
        desk.apply(take_over=True)
        assert not desk.tiers.plan().moves
        checked = desk.tiers.check(repair=True)
        assert not any(checked[name] for name in ("missing", "changed", "doubled", "unwanted", "foreign")), checked
        where = desk.where()
        assert {row.key: [row.tier] for row in desk.rows()} == where
        phone.tiers.check(repair=True)
        assert phone.where() == where


class Settling(TierMachine):
    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            super().teardown()


TestMachine = Settling.TestCase
TestMachine.settings = settings(max_examples=20, stateful_step_count=12)
TestMachine = pytest.mark.usefixtures("no_waiting")(TestMachine)
