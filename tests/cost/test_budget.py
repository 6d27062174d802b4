"""Budgets: what counts towards them, when they warn, when they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

import pytest
from pydantic import TypeAdapter, ValidationError

from dualmem_mcp.cost.budget import BudgetGate, use_usd
from dualmem_mcp.cost.meter import BYTES_OUT, READS, WRITES, Meter
from dualmem_mcp.cost.prices import GB, list_prices
from dualmem_mcp.errors import BudgetSpentError, OverBudgetError, StoreUnreachableError
from dualmem_mcp.model.budget import Budget, CostSettings
from tests.conftest import SteppingClock

REGION = list_prices().region("us-east-1")


class Days:
    """Daily use, kept in memory; the real one is tried in tests/stores."""

    def __init__(self) -> None:
        self.days: dict[date, dict[str, int]] = {}
        self.asked = 0

    def add_use(self, day: date, counts: Mapping[str, int]) -> None:
        kept = self.days.setdefault(day, {})
        for component, number in counts.items():
            kept[component] = kept.get(component, 0) + number

    def use(self, since: date) -> Mapping[date, Mapping[str, int]]:
        self.asked += 1
        return {day: counts for day, counts in self.days.items() if day >= since}


class Place:
    """A gate with all it hangs on."""

    def __init__(self, clock: SteppingClock, budget: Budget, standing_usd: float = 0.0) -> None:
        self.days, self.clock, self.seconds = Days(), clock, 0.0
        self.meter = Meter(self.days, clock, steady=lambda: self.seconds)  # type: ignore[arg-type]
        self.gate = BudgetGate(
            budget,
            counts=self.days,  # type: ignore[arg-type]
            meter=self.meter,
            clock=clock,
            prices=lambda: REGION,
            standing_usd=lambda: standing_usd,
            steady=lambda: self.seconds,
        )


def test_use_has_its_list_price() -> None:
    assert use_usd({READS: 1_000, WRITES: 1_000, BYTES_OUT: GB, "other": 9}, REGION) == pytest.approx(0.0954)


def test_a_hard_budget_refuses_as_soon_as_it_is_reached_and_the_error_is_both_kinds(clock: SteppingClock) -> None:
    place = Place(clock, Budget(hard_usd=0.05))
    place.meter.count(WRITES, 9_999)
    place.gate.check()
    place.meter.count(WRITES)
    with pytest.raises(BudgetSpentError) as raised:
        place.gate.check()
    assert isinstance(raised.value, OverBudgetError)
    assert isinstance(raised.value, StoreUnreachableError)
    assert raised.value.exit_code == 8
    assert "Nothing is lost" in raised.value.hint
    assert "reached the hard budget ($0.05): the bucket is left alone" in place.gate.warnings()[0]


def test_counts_mean_the_same_whether_written_down_or_not(clock: SteppingClock) -> None:
    place = Place(clock, Budget(hard_usd=1.0))
    place.meter.count(WRITES, 1_000)
    before = place.gate.spent()
    place.meter.flush()
    assert place.gate.spent() == before
    place.meter.count(WRITES, 1_000)
    assert place.gate.spent().use_usd == pytest.approx(2 * before.use_usd)


def test_the_month_begins_anew_and_what_stands_counts_whole(clock: SteppingClock) -> None:
    place = Place(clock, Budget(soft_usd=0.5, hard_usd=2.0), standing_usd=0.4)
    place.days.add_use(clock.now().date() - timedelta(days=1), {WRITES: 10**9})  # last month
    place.days.add_use(clock.now().date() + timedelta(days=1), {WRITES: 10**9})  # by a clock that was ahead
    assert place.gate.spent().usd == pytest.approx(0.4)
    assert place.gate.warnings() == []
    place.meter.count(WRITES, 40_000)
    assert "above the soft budget ($0.50)" in place.gate.warnings()[0]
    place.gate.check()


def test_use_of_other_processes_is_seen_within_a_minute_and_asked_for_seldom(clock: SteppingClock) -> None:
    place = Place(clock, Budget(hard_usd=0.05))
    for _ in range(1_000):
        place.gate.check()
    assert place.days.asked == 1
    place.days.add_use(clock.now().date(), {WRITES: 10_000})
    place.gate.check()
    place.seconds = 60.0
    with pytest.raises(BudgetSpentError):
        place.gate.check()


def test_without_a_budget_nothing_is_asked(clock: SteppingClock) -> None:
    place = Place(clock, Budget())
    place.meter.count(WRITES, 10**12)
    place.gate.check()
    assert place.gate.warnings() == []
    assert place.days.asked == 0


@pytest.mark.parametrize(
    "given",
    [
        {"soft_usd": -1},
        {"hard_usd": float("nan")},
        {"hard_usd": float("inf")},
        {"soft_usd": 2, "hard_usd": 1},
        {"sofd_usd": 1},
    ],
)
def test_a_budget_that_is_none_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Budget).validate_python(given)


@pytest.mark.parametrize(
    "given",
    [{"endpoint_users": 0}, {"endpoint_usd_month": -1}, {"vectors_usd_1k_month": {"warm": 1}}, {"regoin": ""}],
)
def test_prices_of_ones_own_are_checked(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(CostSettings).validate_python(given)
    assert TypeAdapter(CostSettings).validate_python({"vectors_usd_1k_month": {"context": 0.2}}).region == ""
