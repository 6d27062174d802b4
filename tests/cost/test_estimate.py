"""What a month costs, by component."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dualmem_mcp.cost.estimate import (
    Holdings,
    MonthlyUse,
    Rates,
    components,
    per_conversation_usd,
    standing,
    total_usd,
)
from dualmem_mcp.cost.objects import BucketContents, Stored
from dualmem_mcp.cost.prices import GB, list_prices

PRICES = list_prices()
RATES = Rates(PRICES.region("us-east-1"), PRICES.vectors_usd_1k_month, endpoint_usd_month=10.0)
HOLDINGS = Holdings(
    vectors={"critical": 1_000, "context": 5_000, "historical": 20_000, "edge": 100_000},
    contents=BucketContents(
        {"packages": Stored(10, 2 * GB), "log": Stored(5, GB)}, datetime(2026, 3, 1, tzinfo=UTC)
    ),
    conversations=40,
    conversations_month=20,
    devices=2,
    served=True,
)
USE = MonthlyUse(reads=1_000_000, writes=10_000, bytes_out=GB, bytes_in=GB)


def test_every_component_is_its_quantity_at_its_price() -> None:
    usd = {part.name: part.usd_month for part in components(HOLDINGS, USE, RATES)}
    assert usd == {
        "vectors: critical": pytest.approx(0.75),
        "vectors: context": pytest.approx(1.75),
        "vectors: historical": pytest.approx(2.40),
        "vectors: edge": 0,
        "storage: packages": pytest.approx(0.046),
        "storage: log": pytest.approx(0.023),
        "endpoint": 10.0,
        "requests: reads": pytest.approx(0.40),
        "requests: writes": pytest.approx(0.05),
        "transfer out": pytest.approx(0.09),
    }


def test_without_tiers_and_endpoint_there_is_storage_and_use_alone() -> None:
    plain = replace(HOLDINGS, vectors={"edge": 9}, served=False)
    assert total_usd(components(plain, USE, RATES)) == pytest.approx(0.069 + 0.54)
    assert total_usd(standing(plain, RATES)) == pytest.approx(0.069)


def test_users_share_a_machine() -> None:
    shared = replace(RATES, endpoint_users=4)
    endpoint = next(part for part in components(HOLDINGS, USE, shared) if part.name == "endpoint")
    assert (endpoint.quantity, endpoint.usd_month) == (0.25, 2.5)


def test_a_folder_costs_nothing() -> None:
    free = replace(RATES, region=RATES.region.free())
    plain = replace(HOLDINGS, vectors={}, served=False)
    assert total_usd(components(plain, USE, free)) == 0


def test_a_conversation_costs_its_share() -> None:
    parts = components(HOLDINGS, USE, RATES)
    assert per_conversation_usd(parts, HOLDINGS) == pytest.approx(total_usd(parts) / 20)
    assert per_conversation_usd(parts, replace(HOLDINGS, conversations_month=0)) == pytest.approx(
        total_usd(parts) / 40
    )
    assert per_conversation_usd(parts, replace(HOLDINGS, conversations=0, conversations_month=0)) is None
