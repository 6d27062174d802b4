"""Whatever devices do, and whenever one of them is ended or the service is away: what was placed is never in no
tier, and after a check all is as planned."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.failpoints import watched
from dualmem_mcp.stores.qdrant import QdrantService
from dualmem_mcp.stores.qdrant_collections import Cluster
from tests.conftest import SteppingClock
from tests.crypto.conftest import MemoryObjectStore
from tests.tiers.home import SharedService, TierDevice

CHATS = ("one", "two", "three")
DAY = 86_400


class _Ended(BaseException):
    """The process ends here."""


class TierMachine(RuleBasedStateMachine):
    """Two devices of a vault and one service."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.qdrant = QdrantService.open(":memory:")
        self.service = SharedService(self.qdrant)
        self.objects = MemoryObjectStore()
        self.devices = [
            TierDevice(
                self.folder / name, self.objects, SteppingClock(), self.connect, name=name, joins=name != "desk"
            )
            for name in ("desk", "phone")
        ]
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
        self.learn()

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

    @rule(days=st.sampled_from([1, 8, 31]))
    def time_goes_on(self, days: int) -> None:
        for device in self.devices:
            device.clock.advance(days * DAY)

    @rule(who=st.integers(0, 1), times=st.integers(1, 5))
    def ask(self, who: int, times: int) -> None:
        """What was said first is asked for."""
        device = self.devices[who]
        keys = sorted(row.key for row in device.rows())[:2]
        device.ask_for(*keys, times=times)

    @rule(who=st.integers(0, 1), take_over=st.booleans(), end=st.integers(0, 40), fault=st.integers(0, 12))
    def apply(self, who: int, take_over: bool, end: int, fault: int) -> None:
        """A device brings all where it belongs; it may be ended at a point, or find the service away."""
        self.during(end, fault, lambda: self.devices[who].apply(take_over=take_over))

    @rule(who=st.integers(0, 1), chat=st.sampled_from(CHATS), end=st.integers(0, 20))
    def place(self, who: int, chat: str, end: int) -> None:
        self.during(end, 0, lambda: self.devices[who].tiers.place(chat, max_seconds=60))

    @rule(who=st.integers(0, 1), end=st.integers(0, 30), fault=st.integers(0, 12))
    def check(self, who: int, end: int, fault: int) -> None:
        self.during(end, fault, lambda: self.devices[who].tiers.check(repair=True))

    @precondition(lambda self: self.number > 3)
    @rule(who=st.integers(0, 1), chat=st.sampled_from(CHATS[1:]), end=st.integers(0, 10))
    def erase(self, who: int, chat: str, end: int) -> None:
        device = self.devices[who]
        device.erased.add(chat)
        self.placed = {key for key in self.placed if f"/{chat}/" not in key}
        self.during(end, 0, lambda: device.tiers.forget(chat))
        self.forget_erased(device)

    def forget_erased(self, device: TierDevice) -> None:
        for index in device.indexes.values():
            items = index.items(index.columns().ids.tolist())
            index.remove([item.key for item in items if item.conversation_id in device.erased])

    def during(self, end: int, fault: int, work: Any) -> None:
        """Do it, ended at the point of that number, or with the service away from that request on; 0 for never."""
        points, requests = 0, 0

        def reached(name: str) -> None:
            nonlocal points
            if name.startswith(("tiers:", "moving:", "forgetting:", "mover: ")):
                points += 1
                if points == end:
                    raise _Ended

        def ask(tier: str, request: str) -> None:
            nonlocal requests
            requests += 1
            if fault and requests >= fault:
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
TestMachine.settings = settings(max_examples=12, stateful_step_count=12)
TestMachine = pytest.mark.usefixtures("no_waiting")(TestMachine)
