"""Checkpoints: any of the last five comes back, each travels once, and most only as what changed."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.errors import NotFoundError, TamperedError
from dualmem_mcp.handoff.checkpoints import CHAIN, EVERY_SECONDS, KEPT, MAX_STATE_BYTES, Checkpoints
from dualmem_mcp.handoff.patches import make_patch
from dualmem_mcp.model.ids import ConversationId, DeviceId
from dualmem_mcp.ports import Records
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.record_store import RecordStore
from tests.conftest import SteppingClock

CONVERSATION = ConversationId("0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10")


@pytest.fixture
def checkpoints(tmp_path: Path, clock) -> Iterator[Checkpoints]:
    with Database.open(tmp_path / "memory.db", bytes(32)) as database:
        device = DeviceId("a" * 32)
        yield Checkpoints(RecordStore(database, clock, device), device, clock)


def _state(step: int) -> bytes:
    words = random.Random(7)
    agents = [{"id": f"a{n}", "prompt": f"{words.random():.12f}" * 30, "status": "completed"} for n in range(40)]
    return json.dumps({"agents": agents, "step": step}).encode()


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=24))
def test_each_of_the_last_five_comes_back(tmp_path_factory, states: list[bytes]) -> None:
    clock = SteppingClock(step_seconds=1)
    with Database.open(tmp_path_factory.mktemp("home") / "memory.db", bytes(32)) as database:
        device = DeviceId("a" * 32)
        checkpoints = Checkpoints(RecordStore(database, clock, device), device, clock)
        made = [(one.checkpoint_id, state) for state in states if (one := checkpoints.save(CONVERSATION, state))]
        kept = checkpoints.find(CONVERSATION)
        assert min(len(made), KEPT) <= len(kept) < KEPT + CHAIN
        assert [one.checkpoint_id for one in kept] == [checkpoint_id for checkpoint_id, _ in made[-len(kept) :]]
        for checkpoint_id, state in made[-len(kept) :]:
            assert checkpoints.restore(CONVERSATION, checkpoint_id) == state
        assert checkpoints.restore(CONVERSATION) == made[-1][1]


def test_a_checkpoint_is_as_large_as_what_changed(checkpoints: Checkpoints, clock) -> None:
    sizes = []
    for step in range(4):
        made = checkpoints.save(CONVERSATION, _state(step))
        assert made is not None
        sizes.append(made.stored_bytes)
        clock.advance(300)
    assert max(sizes[1:]) < sizes[0] / 20
    assert [one.whole for one in checkpoints.find(CONVERSATION)] == [True, False, False, False]


def test_one_in_five_is_whole_and_none_is_written_twice(checkpoints: Checkpoints, clock) -> None:
    made = []
    for step in range(4 * CHAIN + 2):
        clock.advance(300)
        one = checkpoints.save(CONVERSATION, _state(step))
        assert one is not None
        made.append(one.whole)
        known = checkpoints.records.find(conversation_id=CONVERSATION)
        assert all(record.created == record.changed for record in known)
        assert len(known) == len(made) if len(made) < KEPT + CHAIN else KEPT <= len(known) < KEPT + CHAIN
    assert made == [step % CHAIN == 0 for step in range(4 * CHAIN + 2)]


class Watched:
    """Records that show a reader's view after each single change."""

    def __init__(self, records: Records, look: Callable[[], None]) -> None:
        self._records, self._look = records, look
        self.changes = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._records, name)

    def put(self, *arguments: object, **named: object) -> bool:
        return self._and_look(self._records.put(*arguments, **named))

    def delete(self, *arguments: object) -> bool:
        return self._and_look(self._records.delete(*arguments))

    def _and_look(self, done: bool) -> bool:
        self.changes += 1
        self._look()
        return done


def test_at_any_moment_each_that_is_there_can_be_restored(checkpoints: Checkpoints, clock) -> None:
    """So that a kill between two writes loses none."""

    def restore_all() -> None:
        there = checkpoints.find(CONVERSATION)
        steps = [json.loads(checkpoints.restore(CONVERSATION, one.checkpoint_id))["step"] for one in there]
        assert steps[-KEPT:] == list(range(steps[-1] + 1))[-KEPT:]

    watched = Watched(checkpoints.records, restore_all)
    writer = replace(checkpoints, records=watched)
    for step in range(3 * CHAIN):
        clock.advance(300)
        assert writer.save(CONVERSATION, _state(step)) is not None
    assert watched.changes == 3 * CHAIN + 2 * CHAIN  # two chains were let go


def test_a_state_that_did_not_change_makes_none(checkpoints: Checkpoints) -> None:
    assert checkpoints.save(CONVERSATION, b"state") is not None
    assert checkpoints.save(CONVERSATION, b"state") is None
    assert len(checkpoints.find(CONVERSATION)) == 1


def test_a_state_that_is_too_long_makes_none(checkpoints: Checkpoints) -> None:
    assert checkpoints.save(CONVERSATION, bytes(MAX_STATE_BYTES + 1)) is None


def test_one_is_due_when_the_last_is_old_enough(checkpoints: Checkpoints, clock) -> None:
    assert checkpoints.is_due(CONVERSATION)
    checkpoints.save(CONVERSATION, b"state")
    clock.advance(EVERY_SECONDS - 1)
    assert not checkpoints.is_due(CONVERSATION)
    clock.advance(1)
    assert checkpoints.is_due(CONVERSATION)


def test_each_device_has_a_chain_of_its_own(checkpoints: Checkpoints, clock) -> None:
    records = checkpoints.records
    other = Checkpoints(RecordStore(records._database, clock, DeviceId("b" * 32)), DeviceId("b" * 32), clock)
    for step in range(KEPT + 2):
        clock.advance(300)
        checkpoints.save(CONVERSATION, _state(step))
    clock.advance(300)
    other.save(CONVERSATION, b"elsewhere")
    found = checkpoints.find(CONVERSATION)
    assert [one.device_id[0] for one in found] == ["a"] * (KEPT + 2) + ["b"]
    assert [one.whole for one in found if one.device_id[0] == "b"] == [True]
    assert checkpoints.restore(CONVERSATION) == b"elsewhere"
    assert checkpoints.restore(CONVERSATION, found[2].checkpoint_id) == _state(2)


def test_one_that_there_is_not_is_told(checkpoints: Checkpoints) -> None:
    for name in ("", "nope"):
        with pytest.raises(NotFoundError, match="no checkpoint"):
            checkpoints.restore(CONVERSATION, name)


@pytest.mark.parametrize(
    "hostile",
    [
        {"data": "%"},
        {"data": 3},
        {"size": 2**60},
        {"sha256": "0" * 64},
        {"base": "nope"},
        {"at": "never"},
        {"at": "2026-03-01"},
    ],
)
def test_one_that_was_changed_is_told(checkpoints: Checkpoints, hostile: dict[str, object]) -> None:
    made = checkpoints.save(CONVERSATION, b"state")
    assert made is not None
    checkpoints.records.put("checkpoint", made.checkpoint_id, hostile)
    with pytest.raises(TamperedError):
        checkpoints.find(CONVERSATION) if "at" in hostile else checkpoints.restore(CONVERSATION, made.checkpoint_id)


def test_a_chain_that_is_a_circle_is_told(checkpoints: Checkpoints, clock) -> None:
    first = checkpoints.save(CONVERSATION, b"one")
    clock.advance(300)
    second = checkpoints.save(CONVERSATION, b"two")
    assert first is not None
    assert second is not None
    checkpoints.records.put("checkpoint", first.checkpoint_id, {"base": second.checkpoint_id})
    with pytest.raises(TamperedError):
        checkpoints.restore(CONVERSATION, second.checkpoint_id)


def test_a_chain_that_another_device_began_is_gone_on_with(checkpoints: Checkpoints, clock) -> None:
    """After a data home took a new id, what it had sent is another device's."""
    before = Checkpoints(
        RecordStore(checkpoints.records._database, clock, DeviceId("b" * 32)), DeviceId("b" * 32), clock
    )
    first = before.save(CONVERSATION, _state(0))
    assert first is not None
    clock.advance(300)
    fields = {"base": first.checkpoint_id}
    second = checkpoints.save(CONVERSATION, _state(1))
    assert second is not None
    patch = base64.b64encode(make_patch(_state(0), _state(1))).decode()
    checkpoints.records.put("checkpoint", second.checkpoint_id, {**fields, "data": patch})
    assert checkpoints.restore(CONVERSATION) == _state(1)
    clock.advance(300)
    third = checkpoints.save(CONVERSATION, _state(2))
    assert third is not None
    assert third.whole  # the other device may let its part go at any moment
    checkpoints.records.delete("checkpoint", first.checkpoint_id)
    for step in range(3, KEPT + 2):
        clock.advance(300)
        assert checkpoints.save(CONVERSATION, _state(step)) is not None
    kept = checkpoints.find(CONVERSATION)
    assert [checkpoints.restore(CONVERSATION, one.checkpoint_id) for one in kept] == [
        _state(n) for n in range(2, KEPT + 2)
    ]


def test_after_one_that_cannot_be_restored_the_next_is_whole(checkpoints: Checkpoints, clock) -> None:
    first = checkpoints.save(CONVERSATION, _state(0))
    assert first is not None
    checkpoints.records.put("checkpoint", first.checkpoint_id, {"base": "nope"})
    for step in range(1, KEPT + 2):
        clock.advance(300)
        made = checkpoints.save(CONVERSATION, _state(step))
        assert made is not None
        assert made.whole == (step in (1, 1 + CHAIN))
        assert checkpoints.restore(CONVERSATION, made.checkpoint_id) == _state(step)
    assert len(checkpoints.find(CONVERSATION)) == KEPT + 1
