"""When vectors move by themselves: after ten minutes, for a bounded time, never twice at once, never for those who
have not switched it on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.edge.moving import BACKGROUND_SECONDS, EVERY, MOST_SECONDS, VectorMoves
from dualmem_mcp.edge.tier_results import nothing_moved
from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.ports.placements import Placement
from dualmem_mcp.stores.blob_cache import DatabaseBlobCache
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.placements import DatabasePlacements
from dualmem_mcp.tiers.state import TierState
from tests.conftest import SteppingClock

SERVICE = "http://127.0.0.1:1"


class Moves:
    """A real data home's memory of moves over an edge that notes what it is asked, and answers as told."""

    def __init__(self, database: Database, clock: SteppingClock) -> None:
        self.blobs = DatabaseBlobCache(database)
        self.placements = DatabasePlacements(database)
        self.clock = clock
        self.asked: list[float] = []
        self.answer = nothing_moved()
        self.wait = threading.Event()
        self.wait.set()
        self.failure: BaseException | None = None

    def move_vectors(self, *, max_seconds: float) -> dict[str, Any]:
        self.asked.append(max_seconds)
        assert self.wait.wait(10)
        if self.failure is not None:
            raise self.failure
        return self.answer

    def opened(self, url: str | None = SERVICE) -> VectorMoves:
        return VectorMoves(
            url=url,
            blobs=self.blobs,
            placements=self.placements,
            clock=self.clock,
            edge=lambda: self,  # type: ignore[arg-type, return-value]
        )

    def switch(self, *, on: bool) -> None:
        TierState(self.blobs).switch(SERVICE, enabled=on, words=False, now=self.clock.now())


@pytest.fixture
def moves(tmp_path: Path, clock: SteppingClock) -> Iterator[Moves]:
    database = Database.open(tmp_path / "memory.db", bytes(32))
    yield Moves(database, clock)
    database.close()


def test_nothing_moves_before_it_is_switched_on(moves: Moves) -> None:
    vectors = moves.opened()
    assert vectors.move() is None
    vectors.move_in_background()
    moves.switch(on=True)
    assert moves.opened(None).move() is None
    # Whoever agreed to one service has not agreed to another.
    assert moves.opened("https://elsewhere.example.org").move() is None
    assert moves.asked == []
    assert vectors.move() == nothing_moved()
    moves.switch(on=False)
    assert vectors.move() is None
    assert moves.asked == [MOST_SECONDS]


def test_every_ten_minutes_whichever_process_it_was(moves: Moves, clock: SteppingClock) -> None:
    moves.switch(on=True)
    vectors, other = moves.opened(), moves.opened()
    assert vectors.move_if_due(max_seconds=7) is not None
    assert other.move_if_due() is None
    clock.advance(EVERY.total_seconds() - 1)
    assert vectors.move_if_due() is None
    assert vectors.move() is not None  # by hand it does not wait
    clock.advance(EVERY.total_seconds())
    assert other.move_if_due() is not None
    assert moves.asked == [7, MOST_SECONDS, MOST_SECONDS]
    clock.advance(-86_400)  # a clock that was put right
    assert vectors.move_if_due() is not None


def test_what_the_time_was_too_short_for_goes_on_at_the_next_sync(moves: Moves) -> None:
    moves.switch(on=True)
    vectors = moves.opened()
    too_short = {**nothing_moved(), "left": 5, "duration_ms": MOST_SECONDS * 1000}
    moves.answer = too_short
    assert vectors.move_if_due() is not None
    moves.answer = {**too_short, "problem": "away", "away": True}
    assert vectors.move_if_due() is not None
    assert vectors.move_if_due() is None  # a service that is away is not asked at every sync


def test_what_is_left_to_another_device_is_not_looked_at_at_every_sync(moves: Moves) -> None:
    moves.switch(on=True)
    vectors = moves.opened()
    moves.answer = {**nothing_moved(), "left": 5, "mover": "phone", "duration_ms": 800.0}
    assert vectors.move_if_due() is not None
    assert vectors.move_if_due() is None


def test_a_move_that_ends_the_process_is_not_begun_again_at_once(moves: Moves) -> None:
    moves.switch(on=True)
    moves.failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        moves.opened().move_if_due()
    assert moves.opened().move_if_due() is None


def test_in_the_background_one_at_a_time(moves: Moves) -> None:
    moves.switch(on=True)
    moves.wait.clear()
    vectors = moves.opened()
    vectors.move_in_background()
    (thread,) = [one for one in threading.enumerate() if one.name == "vectors"]
    vectors.move_in_background()
    moves.wait.set()
    vectors.close()
    assert not thread.is_alive()
    assert moves.asked == [BACKGROUND_SECONDS]
    vectors.move_in_background()  # closed
    assert moves.asked == [BACKGROUND_SECONDS]


def test_a_problem_in_the_background_is_told_once_and_ends_nothing(
    moves: Moves, clock: SteppingClock, caplog: pytest.LogCaptureFixture
) -> None:
    moves.switch(on=True)

    def told() -> list[str]:
        vectors.move_in_background()
        for thread in threading.enumerate():
            if thread.name == "vectors":
                thread.join(10)
        clock.advance(EVERY.total_seconds())
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    vectors = moves.opened()
    moves.answer = {**nothing_moved("the service is away"), "away": True}
    assert told() == ["vectors: the service is away"]
    assert told() == []
    moves.failure = StoreUnreachableError("the database is locked")
    assert told() == ["vectors: the database is locked"]
    moves.failure = ZeroDivisionError("with the user's words")
    assert told() == ["vectors: a fault (ZeroDivisionError)"]
    moves.failure, moves.answer = None, nothing_moved()
    assert told() == []
    assert len(moves.asked) == 5


def test_status_is_known_without_asking(moves: Moves) -> None:
    vectors = moves.opened()
    assert vectors.status() == {"enabled": False, "points": 0, "problem": None}
    assert moves.opened(None).status() is None
    moves.placements.put([Placement("turn/a/1", "critical", 1, 3, 7), Placement("turn/a/2", "context", 1, 2, 8)])
    TierState(moves.blobs).note_problem("the service is away")
    moves.switch(on=True)
    assert vectors.status() == {"enabled": True, "points": 5, "problem": "the service is away"}
    assert vectors.points() == {"critical": 3, "context": 2}
    # Without the address they are still there, and still cost.
    assert moves.opened(None).status() == {
        "enabled": False,
        "points": 5,
        "problem": "the service is away",
    }
    assert moves.asked == []
