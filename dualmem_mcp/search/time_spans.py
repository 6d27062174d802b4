"""Which time a query speaks of: "in May 2023", "on 8 May", "2024-03-05", "last week", "yesterday", "in 2022"."""

from __future__ import annotations

import re
from calendar import isleap, monthrange
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

_MONTHS: Final = (
    "january february march april may june july august september october november december".split()  # noqa: SIM905
)
_MONTH: Final = r"(?P<month>" + "|".join(month.title() for month in _MONTHS) + ")"
_DAY: Final = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR: Final = r"(?P<year>(?:19|20)\d\d)"

_ISO: Final = re.compile(rf"\b{_YEAR}-(?P<month>\d\d)(?:-(?P<day>\d\d))?\b")
_DAY_MONTH: Final = re.compile(rf"\b{_DAY} (?:of )?{_MONTH}\b(?:,? {_YEAR}\b)?")
_MONTH_DAY: Final = re.compile(rf"\b{_MONTH} (?:the )?{_DAY}\b(?:,? {_YEAR}\b)?")
_MONTH_YEAR: Final = re.compile(rf"\b{_MONTH}\b(?:,? (?:of )?{_YEAR}\b)?")
_ONLY_YEAR: Final = re.compile(rf"\b(?:in|of|during|since|year) {_YEAR}\b", re.IGNORECASE)
_RELATIVE: Final = re.compile(
    r"\b(?:(?P<near>today|yesterday)|(?P<which>last|this|past) (?P<unit>week|month|year)|"
    r"(?P<count>\d{1,3}|a|two|three|four|five|six|seven) (?P<units>day|week|month|year)s? ago)\b",
    re.IGNORECASE,
)
_COUNTS: Final = {"a": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}
_DAYS: Final = {"day": 1, "week": 7, "month": 30, "year": 365}

Span = tuple[datetime, datetime]


_YEARS_BACK: Final = 20
"""How many years a month without a year may lie back."""


def read_spans(text: str, now: datetime) -> tuple[Span, ...]:
    """The time that the text names first, in UTC: each from, and up to but without; empty if it names none.

    A month or day without a year is that of any year until now. English and ISO 8601; months are written with a
    capital, so that "may" is no month.
    """
    now = now.astimezone(UTC)
    try:
        for pattern in (_ISO, _DAY_MONTH, _MONTH_DAY, _MONTH_YEAR):
            if found := pattern.search(text):
                return tuple(_calendar(found, now))
        if found := _ONLY_YEAR.search(text):
            year = int(found["year"])
            return ((datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)),)
        return (_relative(found, now),) if (found := _RELATIVE.search(text)) else ()
    except (ValueError, OverflowError):  # the 31st of June, a thousand years ago
        return ()


def _calendar(found: re.Match[str], now: datetime) -> Iterator[Span]:
    parts = found.groupdict()
    named = parts["month"]
    month = int(named) if named.isdigit() else _MONTHS.index(named.lower()) + 1
    day = int(parts["day"]) if parts.get("day") else None
    years = [int(parts["year"])] if parts["year"] else range(now.year, now.year - _YEARS_BACK, -1)
    for year in years:
        if (month, day) == (2, 29) and not isleap(year):
            continue
        since = datetime(year, month, day or 1, tzinfo=UTC)
        yield since, since + timedelta(days=1 if day else monthrange(year, month)[1])


def _relative(found: re.Match[str], now: datetime) -> Span:
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if found["near"]:
        since = today - timedelta(days=found["near"].lower() == "yesterday")
        return since, since + timedelta(days=1)
    if found["units"]:
        days = _DAYS[found["units"].lower()]
        count = found["count"].lower()
        middle = today - timedelta(days=days * (_COUNTS.get(count) or int(count)))
        # "Three weeks ago" may be half a week more or less.
        return middle - timedelta(days=days // 2), middle + timedelta(days=days // 2 + 1)
    days = _DAYS[found["unit"].lower()]
    if found["which"].lower() == "last":
        # Said on a Monday, "last week" is the one that ended yesterday; said on a Friday, perhaps the last days.
        return today - timedelta(days=2 * days), today + timedelta(days=1)
    return today - timedelta(days=days), today + timedelta(days=1)
