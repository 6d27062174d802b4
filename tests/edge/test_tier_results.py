"""What stands in the place of a placement or a move that was not made."""

from __future__ import annotations

import time

import pytest

from dualmem_mcp.edge.tier_results import nothing_moved, nothing_placed, problem_text
from dualmem_mcp.errors import (
    BudgetSpentError,
    DualmemError,
    NotFoundError,
    StoreRefusedError,
    StoreUnreachableError,
)


@pytest.mark.parametrize(
    ("error", "flags"),
    [
        (StoreUnreachableError("x"), (True, False, False)),
        (StoreRefusedError("x"), (False, True, False)),
        (BudgetSpentError("x"), (False, False, True)),
        (NotFoundError("x"), (False, False, False)),
        (None, (False, False, False)),
    ],
)
def test_why_nothing_moved_is_one_thing(error: DualmemError | None, flags: tuple[bool, ...]) -> None:
    moved = nothing_moved("why", error=error, began=time.monotonic() - 1)
    assert (moved["away"], moved["refused"], moved["over_budget"]) == flags
    assert (moved["problem"], moved["done"], moved["points_written"]) == ("why", {}, 0)
    assert 1000 <= moved["duration_ms"] < 60_000


def test_a_placement_that_was_not_made_says_why() -> None:
    assert nothing_placed(ok=True)["warnings"] == []
    placed = nothing_placed("the service is away")
    assert (placed["ok"], placed["points"], placed["warnings"]) == (False, 0, ["the service is away"])


def test_a_problem_names_what_to_do() -> None:
    assert problem_text("no", StoreUnreachableError("it is away", hint="Wait.")) == "no: it is away (Wait.)"
    assert problem_text("no", StoreUnreachableError("it is away")) == "no: it is away"
