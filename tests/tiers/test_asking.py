"""Asking the tiers: what opens is a candidate, and nothing that a service does makes a search fail or wait."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualmem_mcp.crypto.vector_payload import VectorPayload, seal_payload
from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.errors import NotFoundError, StoreRefusedError, StoreUnreachableError
from dualmem_mcp.model.ids import VaultId
from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports.tier_search import TierAnswer
from dualmem_mcp.ports.tiers import SparseVector, TierHit, TierPoint, VectorTier
from dualmem_mcp.stores.qdrant import QdrantService
from dualmem_mcp.stores.vector_tier import SqliteVectorTier
from dualmem_mcp.tiers.asking import BUSY, CANDIDATES, RESTING, TierAsker
from dualmem_mcp.tiers.lane import MOST_AT_ONCE
from dualmem_mcp.tiers.question import LATE
from tests.stores.qdrant_server import QdrantServer

D = 16
KEY = bytes(range(32))
VAULT = VaultId("0a" * 16)
ALL: tuple[TierName, ...] = ("critical", "context", "historical")
OWN, OLDER = VectorKeys(KEY, VAULT, 2 << 32), VectorKeys(bytes(32), VAULT, 1 << 32)
QUERY = np.eye(D, dtype=np.float32)[0]
LONG = 20.0
"""Seconds that nothing takes which is not meant to hang, on however busy a machine."""


def unit(seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=D).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


def item(number: int) -> SearchItem:
    return SearchItem(f"turn/c/{number}", "turn", f"Text {number} of the cutter", "c", str(number), "Ada")


def point(
    number: int, keys: VectorKeys = OWN, *, words: Mapping[str, int] | None = None, **changes: Any
) -> TierPoint:
    payload = VectorPayload(item(number), 0, "m", unit(number), f"turn/c/{number - 1}")
    own = keys.point_id(payload.item.key, 0)
    made = TierPoint(
        own,
        keys.tenant,
        keys.protect(payload.vector[np.newaxis], [own])[0],
        seal_payload(keys, payload),
        SparseVector(*keys.word_weights(words)) if words else None,
    )
    return replace(made, **changes)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Behaving:
    """A tier that does something before it is asked."""

    def __init__(self, tier: VectorTier, before: Callable[[], None]) -> None:
        self._tier = tier
        self.before = before
        self.asked = 0
        self.words: list[SparseVector | None] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tier, name)

    def nearest(self, tenant: str, limit: int, **query: Any) -> Sequence[TierHit]:
        self.asked += 1
        self.words.append(query.get("words"))
        assert limit == CANDIDATES
        self.before()
        return self._tier.nearest(tenant, limit, **query)


@pytest.fixture
def tiers(tmp_path: Path) -> Iterator[dict[TierName, Behaving]]:
    opened = {
        name: SqliteVectorTier.open(tmp_path / f"{name}.db", KEY, name=name, model_id="m", dimensions=D)
        for name in ALL
    }
    yield {name: Behaving(tier, lambda: None) for name, tier in opened.items()}
    for tier in opened.values():
        tier.close()


Open = Callable[..., TierAsker]


@pytest.fixture
def ask_with(tiers: dict[TierName, Behaving]) -> Iterator[Open]:
    opened: list[TierAsker] = []

    def make(given: Callable[[TierName], Any] | None = None, **options: Any) -> TierAsker:
        usual: dict[str, Any] = {
            "tier": given or tiers.__getitem__,
            "keys": lambda: [OWN],
            "words": lambda: True,
            "passages_here": lambda: 0,
        }
        opened.append(TierAsker(**{**usual, **options}))
        return opened[-1]

    yield make
    for asker in opened:
        asker.close()


def answers(asker: TierAsker, stems: Sequence[str] = ()) -> Mapping[TierName, TierAnswer]:
    return asker.ask(QUERY, stems).wait(ALL, LONG)


def found(answer: TierAnswer) -> set[str]:
    return {candidate.item.key for candidate in answer.candidates}


def counted(asker: TierAsker) -> None:
    """Wait until the points are counted."""
    asker.warm_up()
    until = time.monotonic() + LONG
    while asker._counting._under_way:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_what_the_tiers_hold_comes_opened_with_its_exact_vectors(ask_with, tiers):
    for number, name in enumerate(ALL, 1):
        tiers[name].upsert([point(number, words={"cutter": 1, f"only{number}": 2})])
    got = answers(ask_with(), ["cutter", "only2"])
    assert {name: found(answer) for name, answer in got.items()} == {
        name: {f"turn/c/{number}"} for number, name in enumerate(ALL, 1)
    }
    (candidate,) = got["context"].candidates
    assert (candidate.item, candidate.passage, candidate.previous) == (item(2), 0, "turn/c/1")
    assert candidate.vector == pytest.approx(unit(2), abs=1e-3)
    assert np.linalg.norm(candidate.vector) == pytest.approx(1, abs=1e-6)
    assert {len(tier.words[0].indices) for tier in tiers.values()} == {2}
    assert all(answer.problem == "" and answer.passed_over == 0 for answer in got.values())


def test_words_are_asked_only_where_they_are_switched_on(ask_with, tiers):
    tiers["critical"].upsert([point(1, words={"cutter": 1})])
    assert found(answers(ask_with(words=lambda: False), ["cutter"])["critical"]) == {"turn/c/1"}
    assert tiers["critical"].words == [None]


def test_without_a_vector_words_alone_are_asked(ask_with, tiers):
    tiers["critical"].upsert([point(1, words={"cutter": 1}), point(2, words={"winch": 1})])
    assert found(ask_with().ask(None, ["winch"]).wait(ALL, LONG)["critical"]) == {"turn/c/2"}


def test_a_vector_of_another_model_is_not_compared(ask_with, tiers):
    tiers["critical"].upsert([point(1, words={"cutter": 1}), point(2, words={"winch": 1})])
    got = ask_with().ask(np.ones(D + 1, np.float32), ["winch"]).wait(ALL, LONG)
    assert found(got["critical"]) == {"turn/c/2"}


# Points that are not ours


def test_what_does_not_open_is_passed_over_and_counted(ask_with, tiers):
    foreign = VectorKeys(KEY, VaultId("0b" * 16), OWN.epoch)
    moved = point(3)
    tiers["critical"].upsert(
        [
            point(1),
            point(2, foreign, tenant=OWN.tenant),
            replace(moved, id=point(4).id),
            point(5, payload=b""),
            point(6, payload=b"\x07" * 3000),
            point(7, payload=b"\x01" * 3000),
        ]
    )
    answer = answers(ask_with())["critical"]
    assert (found(answer), answer.passed_over, answer.problem) == ({"turn/c/1"}, 5, "")


def test_a_flood_of_points_that_do_not_open_costs_one_answer_and_no_error(ask_with, tiers):
    junk = point(1, payload=b"\x01" * 2100)
    ids = [OWN.point_id(f"junk/{number}", 0) for number in range(10_000)]
    tiers["context"].upsert([replace(junk, id=own) for own in ids])
    got = answers(ask_with())
    assert (got["context"].candidates, got["context"].passed_over) == ((), CANDIDATES)
    assert got["critical"].problem == got["context"].problem == ""


def test_a_vector_of_another_length_or_of_none_is_passed_over(ask_with, tiers):
    for number, vector in ((1, np.ones(D + 1, np.float32)), (2, np.zeros(D, np.float32))):
        payload = VectorPayload(item(number), 0, "m", vector)
        tiers["critical"].upsert([point(number, payload=seal_payload(OWN, payload))])
    assert answers(ask_with())["critical"].passed_over == 2


# Epochs


def test_points_of_older_epochs_are_found_and_those_of_unknown_ones_are_not(ask_with, tiers):
    unknown = VectorKeys(bytes(reversed(range(32))), VAULT, 3 << 32)
    tiers["critical"].upsert([point(1), point(2, OLDER), point(3, unknown)])
    answer = answers(ask_with(keys=lambda: [OWN, OLDER]))["critical"]
    assert (found(answer), answer.passed_over) == ({"turn/c/1", "turn/c/2"}, 0)


def test_epochs_without_points_are_not_asked_once_that_is_known(ask_with, tiers):
    tiers["critical"].upsert([point(2, OLDER)])
    asker = ask_with(keys=lambda: [OWN, OLDER])
    counted(asker)
    for tier in tiers.values():
        tier.asked = 0
    assert found(answers(asker)["critical"]) == {"turn/c/2"}
    # The newest may have got some since.
    assert {name: tier.asked for name, tier in tiers.items()} == {"critical": 2, "context": 1, "historical": 1}


def test_whether_more_is_there_than_here_is_counted_now_and_then(ask_with, tiers):
    clock = Clock()
    tiers["critical"].upsert([point(1), point(2)])
    asker = ask_with(passages_here=lambda: 2, now=clock)
    counted(asker)
    assert not asker.holds_more()
    tiers["historical"].upsert([point(3, OWN)])
    counted(asker)
    assert not asker.holds_more()
    clock.seconds += 301
    counted(asker)
    assert asker.holds_more()


def test_no_keys_and_no_vault_are_told_as_a_problem(ask_with):
    def locked() -> list[VectorKeys]:
        raise NotFoundError("this device belongs to no vault")

    asker = ask_with(keys=locked)
    counted(asker)
    assert {answer.problem for answer in answers(asker).values()} == {"this device belongs to no vault"}
    assert not asker.holds_more()
    nothing = ask_with(keys=list)
    counted(nothing)
    assert all(answer.candidates == () for answer in answers(nothing).values())


# Slow, away, hanging


def test_who_is_late_is_not_waited_for_and_may_still_be_heard(ask_with, tiers):
    tiers["critical"].upsert([point(1)])
    tiers["context"].upsert([point(2)])
    free = threading.Event()
    tiers["context"].before = lambda: free.wait(LONG)
    asking = ask_with().ask(QUERY, ())
    got = asking.wait(("critical",), LONG)
    assert found(got["critical"]) == {"turn/c/1"}
    begun = time.monotonic()
    late = asking.wait(("critical", "context"), 0.01)
    assert time.monotonic() - begun < LONG / 2
    assert (late["context"].problem, late["context"].candidates) == (LATE, ())
    assert found(late["critical"]) == {"turn/c/1"}
    free.set()
    assert found(asking.wait(("context",), LONG)["context"]) == {"turn/c/2"}


def test_at_the_deadline_there_is_what_came_so_far(ask_with, tiers):
    tiers["historical"].upsert([point(1), point(2, OLDER)])
    first, free = threading.Event(), threading.Event()

    def second_hangs() -> None:
        if tiers["historical"].asked == 2:
            first.set()
            free.wait(LONG)

    tiers["historical"].before = second_hangs
    asking = ask_with(keys=lambda: [OWN, OLDER]).ask(QUERY, ())
    assert first.wait(LONG)
    answer = asking.wait(("historical",), 0.0)["historical"]
    free.set()
    assert (found(answer), answer.problem) == ({"turn/c/1"}, LATE)


def test_what_is_dropped_is_not_opened(ask_with, tiers):
    tiers["historical"].upsert([point(1), point(2, OLDER)])
    begun, free = threading.Event(), threading.Event()
    tiers["historical"].before = lambda: (begun.set(), free.wait(LONG))
    asking = ask_with(keys=lambda: [OWN, OLDER]).ask(QUERY, ())
    assert begun.wait(LONG)
    asking.drop()
    free.set()
    assert asking.wait(("historical",), LONG)["historical"].candidates == ()
    assert tiers["historical"].asked == 1


def test_what_is_dropped_before_it_was_late_is_no_failure(ask_with, tiers):
    clock = Clock()
    tiers["historical"].upsert([point(1)])
    asker = ask_with(now=clock)
    for _ in range(4):
        begun, free = threading.Event(), threading.Event()
        tiers["historical"].before = lambda begun=begun, free=free: (begun.set(), free.wait(LONG))
        asking = asker.ask(QUERY, ())
        assert begun.wait(LONG)
        asking.drop()
        free.set()
        assert asking.wait(("historical",), LONG)["historical"].problem == ""
    tiers["historical"].before = lambda: None
    assert found(answers(asker)["historical"]) == {"turn/c/1"}


def away() -> None:
    raise StoreUnreachableError("Qdrant cannot be reached")


def test_a_tier_that_is_away_is_asked_once_more_and_then_told_of(ask_with, tiers):
    tiers["critical"].upsert([point(1)])
    asker = ask_with(now=Clock())
    tiers["critical"].before = away
    got = answers(asker)
    assert (got["critical"].problem, tiers["critical"].asked) == ("Qdrant cannot be reached", 2)
    assert got["context"].problem == ""

    def once() -> None:
        if tiers["critical"].asked % 2:
            away()

    tiers["critical"].asked, tiers["critical"].before = 0, once
    assert found(answers(asker)["critical"]) == {"turn/c/1"}


def test_what_is_refused_is_not_asked_again(ask_with, tiers):
    def refuse() -> None:
        raise StoreRefusedError("Qdrant refuses this key (403)")

    tiers["critical"].before = refuse
    assert answers(ask_with())["critical"].problem == "Qdrant refuses this key (403)"
    assert tiers["critical"].asked == 1


def test_a_tier_that_keeps_failing_is_left_alone_until_a_trial_goes_well(ask_with, tiers):
    clock = Clock()
    tiers["critical"].upsert([point(1)])
    asker = ask_with(now=clock)
    tiers["critical"].before = away
    for _ in range(3):
        assert answers(asker)["critical"].problem == "Qdrant cannot be reached"
    asked = tiers["critical"].asked
    assert answers(asker)["critical"].problem == RESTING
    assert tiers["critical"].asked == asked
    assert answers(asker)["context"].problem == ""
    clock.seconds += 30
    tiers["critical"].before = lambda: None
    assert found(answers(asker)["critical"]) == {"turn/c/1"}
    assert found(answers(asker)["critical"]) == {"turn/c/1"}


def test_a_tier_that_hangs_takes_two_threads_and_is_left_alone(ask_with, tiers):
    free = threading.Event()
    asker = ask_with()
    answers(asker)  # connected
    tiers["context"].before = lambda: free.wait(LONG)
    before = threading.active_count()
    problems = []
    for _ in range(5):
        asking = asker.ask(QUERY, ())
        problems.append(asking.wait(("critical", "context"), 0.25)["context"].problem)
        assert asking.wait(("critical",), LONG)["critical"].problem == ""
    assert problems[:MOST_AT_ONCE] == [LATE] * MOST_AT_ONCE
    assert problems[MOST_AT_ONCE] == BUSY
    assert problems[-1] == RESTING
    assert threading.active_count() <= before + len(ALL) * MOST_AT_ONCE
    free.set()


def test_connecting_for_the_first_time_is_not_being_late(ask_with, tiers):
    free = threading.Event()
    clock = Clock()

    def slowly(name: TierName) -> VectorTier:
        free.wait(LONG)
        return tiers[name]

    asker = ask_with(slowly, now=clock)
    for _ in range(2):
        asking = asker.ask(QUERY, ())
        clock.seconds += 2.5
        assert {answer.problem for answer in asking.wait(ALL, 0.0).values()} == {LATE}
    free.set()
    asking.wait(ALL, 10_000.0)
    assert {answer.problem for answer in answers(asker).values()} == {""}


# Over a connection


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    made = QdrantServer()
    yield made
    made.close()


def test_a_service_that_answers_garbage_or_goes_away_is_a_problem_until_it_is_back(ask_with, server):
    service = QdrantService.open(server.url)
    opened = {name: service.create(name, dimensions=D, model_id="m") for name in ALL}
    for number, name in enumerate(ALL):
        opened[name].upsert([point(number)])
    clock = Clock()
    asker = ask_with(opened.__getitem__, now=clock)
    assert [len(answer.candidates) for answer in answers(asker).values()] == [1, 1, 1]
    for behave in (
        lambda exchange: exchange.reply(200, b"<html>Sign in</html>"),
        lambda exchange: exchange.reply(200, b'{"result": [{"points": [{"id": 5, "payload": null}]}]}'),
        lambda exchange: exchange.connection.shutdown(socket.SHUT_RDWR),
    ):
        server.behave = behave
        got = answers(asker)
        assert all(answer.problem and not answer.candidates for answer in got.values())
        server.behave = None
        clock.seconds += 1
        assert [len(answer.candidates) for answer in answers(asker).values()] == [1, 1, 1]
    service.close()


def test_a_forged_answer_holds_nothing_that_is_believed(ask_with, server):
    service = QdrantService.open(server.url)
    opened = {name: service.create(name, dimensions=D, model_id="m") for name in ALL}
    opened["critical"].upsert([point(1), point(2)])

    def swap(path: str, result: Any) -> Any:
        if path.endswith("query/batch"):
            for answer in result:
                points = answer["points"]
                if len(points) == 2:
                    points[0]["payload"], points[1]["payload"] = points[1]["payload"], points[0]["payload"]
        return result

    server.forge = swap
    answer = answers(ask_with(opened.__getitem__))["critical"]
    assert (answer.candidates, answer.passed_over) == ((), 2)
    service.close()
