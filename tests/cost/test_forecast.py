"""Forecasts from recorded days, and what many users come to."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from dualmem_mcp.cost.estimate import Component, Rates
from dualmem_mcp.cost.forecast import MOST_DAYS, forecast, projection, recorded
from dualmem_mcp.cost.meter import BYTES_IN, BYTES_OUT, READS, WRITES
from dualmem_mcp.cost.prices import DAYS_A_MONTH, GB, list_prices

TODAY = date(2026, 3, 30)
REGION = list_prices().region("us-east-1")


def days(*reads: int) -> dict[date, dict[str, int]]:
    """Reads of the last days, yesterday's last."""
    return {TODAY - timedelta(days=len(reads) - at): {READS: count} for at, count in enumerate(reads)}


def test_a_week_of_use_makes_a_forecast_with_the_quietest_and_busiest_week() -> None:
    record = recorded(days(*[1_000] * 7, *[3_000] * 7), TODAY)
    assert not record.is_early
    ahead = forecast(record, standing_usd=1.0, region=REGION)
    month = DAYS_A_MONTH / 1000 * REGION.read_usd_1k
    assert ahead.low_usd == pytest.approx(1 + 1_000 * month)
    assert ahead.usd_month == pytest.approx(1 + 2_000 * month)
    assert ahead.high_usd == pytest.approx(1 + 3_000 * month)
    assert ahead.method.startswith("the mean of 14 days")


def test_other_devices_count_as_this_one() -> None:
    record = recorded(days(*[1_000] * 7), TODAY)
    one, three = forecast(record, 0.5, REGION), forecast(record, 0.5, REGION, devices=3)
    assert three.usd_month - 0.5 == pytest.approx(3 * (one.usd_month - 0.5))


@pytest.mark.parametrize("number", [1, 3, 6])
def test_below_a_week_it_is_too_early_and_only_the_range_means_anything(number: int) -> None:
    ahead = forecast(recorded(days(*range(100, 100 * number + 1, 100)), TODAY), 0.0, REGION)
    assert ahead.is_early
    assert ahead.method.startswith(f"too early: {number} of 7 days")
    assert ahead.low_usd <= ahead.usd_month <= ahead.high_usd
    assert ahead.high_usd == pytest.approx(number * ahead.low_usd)


def test_today_counts_only_where_there_is_nothing_else() -> None:
    record = recorded({TODAY: {READS: 5}}, TODAY)
    assert (record.days, record.is_early) == ([{READS: 5}], True)
    with_yesterday = recorded({TODAY - timedelta(days=1): {READS: 7}, TODAY: {READS: 5}}, TODAY)
    assert with_yesterday.days == [{READS: 7}]


def test_days_without_use_count_as_days() -> None:
    record = recorded({TODAY - timedelta(days=8): {READS: 800}, TODAY - timedelta(days=1): {READS: 800}}, TODAY)
    assert len(record.days) == 8
    assert record.a_month.reads == pytest.approx(200 * DAYS_A_MONTH)


def test_the_record_goes_back_four_weeks_and_never_into_the_future() -> None:
    long_ago = days(*[1] * 60)
    record = recorded({**long_ago, TODAY + timedelta(days=700): {READS: 10**9}}, TODAY)
    assert len(record.days) == MOST_DAYS
    assert record.first_day == TODAY - timedelta(days=MOST_DAYS)
    assert record.a_month.reads == pytest.approx(DAYS_A_MONTH)


def test_nothing_recorded_is_too_early() -> None:
    ahead = forecast(recorded({}, TODAY), 2.0, REGION)
    assert (ahead.is_early, ahead.low_usd, ahead.usd_month, ahead.high_usd) == (True, 2.0, 2.0, 2.0)


def test_what_is_written_is_stored_half_the_month_and_what_is_read_is_sent_out() -> None:
    day = {WRITES: 1_000, BYTES_IN: GB, BYTES_OUT: GB}
    record = recorded({TODAY - timedelta(days=back): day for back in range(1, 8)}, TODAY)
    a_day = 0.005 + 0.09 + 0.023 / 2
    assert forecast(record, 0.0, REGION).usd_month == pytest.approx(a_day * DAYS_A_MONTH)


def test_many_users_share_machines_and_each_pays_their_own() -> None:
    rates = Rates(REGION, list_prices().vectors_usd_1k_month, endpoint_usd_month=10.0)
    parts = [Component("storage", 1, "bytes", 0.5), Component("endpoint", 1, "machines", 10.0)]
    found = projection(parts, rates, (1, 100, 101, 100_000))
    assert [one.machines for one in found] == [1, 1, 2, 1_000]
    assert [one.usd_month for one in found] == [10.5, 60.0, 70.5, 60_000.0]
    assert found[3].usd_user == pytest.approx(0.6)
