"""Costs as a person reads them."""

from __future__ import annotations

from typing import Any

import pytest

from dualmem_mcp.cost.wording import cost_text, proposals_text, usd_text

COST: dict[str, Any] = {
    "prices_date": "2026-08-16",
    "region": "eu-west-1",
    "is_folder": False,
    "components": [
        {"name": "storage: log", "quantity": 3 * 2**20, "unit": "bytes", "usd_month": 0.00001},
        {"name": "requests: reads", "quantity": 12_345.4, "unit": "requests", "usd_month": 0.0049},
        {"name": "endpoint", "quantity": 0.5, "unit": "machines", "usd_month": 4.89},
    ],
    "usd_month": 4.8949,
    "usd_conversation": 0.1224,
    "conversations": 90,
    "conversations_month": 40,
    "forecast": {"usd_month": 5.0, "low_usd": 4.5, "high_usd": 1234.5, "is_early": False, "method": "how"},
    "projection": [{"users": 1_000, "machines": 10, "usd_month": 100.0, "usd_user": 0.1}],
    "assumptions": ["one", "two"],
    "budget": {"soft_usd": None, "hard_usd": None, "spent_usd": 0.5},
}


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0.0, "$0"),
        (1e-9, "under $0.0001"),
        (0.0001, "$0.0001"),
        (0.12345, "$0.1235"),
        (1, "$1.00"),
        (1234.5, "$1,234.50"),
    ],
)
def test_dollars_are_as_exact_as_they_are_worth(usd: float, text: str) -> None:
    assert usd_text(usd) == text


def test_an_estimate_tells_quantities_sums_forecast_and_assumptions() -> None:
    told = cost_text(COST)
    for expected in (
        "S3 in eu-west-1; list prices of 2026-08-16",
        "3.0 MB   under $0.0001",
        "12,345 requests         $0.0049",
        "0.50 machines           $4.89",
        "for each of 40 conversations",
        "Next month: $5.00, between $4.50 and $1,234.50 (how).",
        "1,000        10",
        "  - two",
    ):
        assert expected in told
    assert "Budget" not in told


def test_where_it_is_too_early_only_the_range_is_told_and_a_budget_has_its_line() -> None:
    early = {
        **COST,
        "is_folder": True,
        "usd_conversation": None,
        "forecast": {**COST["forecast"], "is_early": True},
    }
    told = cost_text({**early, "budget": {"soft_usd": None, "hard_usd": 3, "spent_usd": 0.5}})
    assert "Next month: between $4.50 and" in told
    assert "a folder, which is free" in told
    assert "conversations" not in told
    assert told.endswith("Budget: hard $3.00; $0.5000 of this month spent.")


def test_a_proposal_has_its_saving_and_its_prices() -> None:
    one = {"title": "colder", "saves_usd_month": 2.0, "once_usd": 0.5, "latency": "later", "notes": ["because"]}
    told = proposals_text({"usd_month": 9.0, "proposals": [one, {**one, "once_usd": 0}]})
    assert told.count("colder: saves $2.00 a month.") == 2
    assert told.count("Costs $0.5000 once.") == 1
    assert told.count("  later") == told.count("  because") == 2
    assert "Nothing" in proposals_text({"usd_month": 9.0, "proposals": []})
