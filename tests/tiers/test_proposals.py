"""What the tiers propose to save, from a plan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from dualmem_mcp.cost.estimate import MonthlyUse, Rates
from dualmem_mcp.cost.objects import BucketContents
from dualmem_mcp.cost.optimize import Facts, Proposal, propose
from dualmem_mcp.cost.prices import list_prices
from dualmem_mcp.model.sync_timing import SyncTiming
from dualmem_mcp.model.tier_plan import NO_COLLECTION, Action, Move, Plan
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.tiers.proposals import tier_proposer

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PRICES = list_prices()


def facts(**prices: float) -> Facts:
    rates = Rates(PRICES.region("us-east-1"), {**PRICES.vectors_usd_1k_month, **prices}, 10.0)
    return Facts([], BucketContents({}, None), MonthlyUse(), rates, [], SyncTiming(), NOW, "")


def move(action: Action, source: TierName, target: TierName, points: int, collection: int = 0) -> Move:
    some = np.zeros(2, np.int64)
    return Move(action, source, target, "reason", np.full(2, collection, np.uint8), some, some, points)


def plan(*moves: Move, latencies: tuple[float | None, float | None] = (80.0, 160.4)) -> Plan:
    return Plan(NOW, moves, 900, 0, 7, {}, {}, 0.0, 0.0, *latencies)


def proposed(given: Plan | None, **prices: float) -> Sequence[Proposal]:
    return propose(facts(**prices), [tier_proposer(lambda: given)])


def test_without_tiers_or_moves_nothing_is_proposed() -> None:
    assert proposed(None) == []
    assert proposed(plan()) == []
    assert proposed(plan(move("promote", "historical", "critical", 900), move("place", "edge", "context", 9))) == []


def test_colder_tiers_save_the_difference_of_prices_and_say_what_they_cost_in_latency() -> None:
    (found,) = proposed(
        plan(
            move("demote", "critical", "historical", 1_000),
            move("evict", "critical", "historical", 500),
            move("demote", "context", "edge", 2_000),
            move("promote", "historical", "context", 100),
            move("renew", "context", "context", 10_000),
        )
    )
    assert found.kind == "tier moves"
    assert found.saves_usd_month == pytest.approx(1.5 * (0.75 - 0.12) + 2 * 0.35)
    assert found.once_usd == 0
    assert "3,500 vectors" in found.title
    assert "1,500 from critical to historical, 50 ms to 300 ms" in found.latency
    assert "2,000 from context to edge" in found.latency
    assert "80 ms now, 160 ms after" in found.latency
    assert any("100 vectors into warmer tiers, for $0.0230 more" in note for note in found.notes)


def test_prices_are_those_of_the_vault() -> None:
    (found,) = proposed(plan(move("demote", "context", "historical", 1_000)), context=2.0, historical=0.5)
    assert found.saves_usd_month == pytest.approx(1.5)
    assert found.notes == ("`dualmem tiers apply`, or the next sync, does it.",)


def test_what_is_there_twice_and_what_was_deleted_are_proposals_of_their_own() -> None:
    found = {
        one.kind: one
        for one in proposed(
            plan(
                move("remove", "context", "edge", 2_000),
                move("remove", "critical", "edge", 1_000),
                move("remove", "historical", "edge", 5_000, NO_COLLECTION),
            )
        )
    }
    assert found["deduplication"].saves_usd_month == pytest.approx(2 * 0.35 + 0.75)
    assert "3,000 vectors" in found["deduplication"].title
    assert any("7 of 900 items" in note for note in found["deduplication"].notes)
    assert found["deleted items"].saves_usd_month == pytest.approx(5 * 0.12)
    assert set(found) == {"deduplication", "deleted items"}


@pytest.mark.parametrize("latencies", [(None, None), (None, 50.0), (50.0, None)])
def test_a_service_that_nobody_asked_lately_has_no_mean_latency(latencies: Any) -> None:
    (found,) = proposed(plan(move("demote", "critical", "context", 1_000), latencies=latencies))
    assert "asked for lately" in found.latency


def test_a_proposal_is_json() -> None:
    (found,) = proposed(plan(move("demote", "critical", "context", 1_000)))
    assert found.to_json()["saves_usd_month"] == pytest.approx(0.4)
    assert isinstance(found.to_json()["notes"], list)
