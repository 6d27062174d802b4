"""Which time a query speaks of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.search.time_spans import read_spans

NOW = datetime(2026, 3, 10, 15, 30, tzinfo=UTC)


def day(year: int, month: int, date: int) -> datetime:
    return datetime(year, month, date, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("What happened in May 2023?", day(2023, 5, 1), day(2023, 6, 1)),
        ("in December, 2023", day(2023, 12, 1), day(2024, 1, 1)),
        ("on the 8th of May, 2023", day(2023, 5, 8), day(2023, 5, 9)),
        ("on May 8, 2023", day(2023, 5, 8), day(2023, 5, 9)),
        ("on 2024-03-05", day(2024, 3, 5), day(2024, 3, 6)),
        ("the report of 2024-02", day(2024, 2, 1), day(2024, 3, 1)),
        ("in 2022", day(2022, 1, 1), day(2023, 1, 1)),
        ("yesterday", day(2026, 3, 9), day(2026, 3, 10)),
        ("Today?", day(2026, 3, 10), day(2026, 3, 11)),
        ("three weeks ago", day(2026, 2, 14), day(2026, 2, 21)),
        ("last week", day(2026, 2, 24), day(2026, 3, 11)),
        ("this month", day(2026, 2, 8), day(2026, 3, 11)),
    ],
)
def test_one_span(text: str, since: datetime, until: datetime) -> None:
    assert read_spans(text, NOW) == ((since, until),)


@pytest.mark.parametrize(
    "text",
    ["", "Who may go?", "the 31 June 2020", "9999-12-31", "0000-01", "2024-13", "999 years too late", "999 years"],
)
def test_no_span(text: str) -> None:
    assert read_spans(text, NOW) == ()


def test_a_month_without_a_year_is_that_of_any_year() -> None:
    spans = read_spans("What did Ana do in June?", NOW)
    assert (day(2023, 6, 1), day(2023, 7, 1)) in spans
    assert all(since.month == 6 for since, _ in spans)


def test_the_29th_of_february_is_in_leap_years_alone() -> None:
    assert {since.year % 4 for since, _ in read_spans("on 29 February", NOW)} == {0}


def test_days_are_those_of_utc() -> None:
    late = datetime(2026, 3, 9, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    assert read_spans("today", late) == ((day(2026, 3, 10), day(2026, 3, 11)),)


@given(
    st.lists(
        st.sampled_from(
            ["May", "8", "31", "February", "2023", "last", "week", "999", "years", "ago", "in", "-", "th", "0"]
        )
    ),
    st.datetimes(timezones=st.just(UTC)),
)
def test_anything_gives_spans_that_begin_before_they_end(words: list[str], now: datetime) -> None:
    assert all(since < until for since, until in read_spans(" ".join(words), now))
