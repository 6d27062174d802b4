"""Times, sizes and numbers as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dualmem_mcp.remote.pages.wording import age_text, count_text, cut_text, instant, size_text, time_text

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(), "just now"),
        (timedelta(seconds=-30), "just now"),
        (timedelta(seconds=59), "just now"),
        (timedelta(seconds=60), "1 minute ago"),
        (timedelta(hours=2.9), "2 hours ago"),
        (timedelta(days=6.9), "6 days ago"),
        (timedelta(days=7), "22 February 2026"),
        (timedelta(days=-2), "3 March 2026"),
    ],
)
def test_ages(ago: timedelta, text: str) -> None:
    assert age_text(NOW - ago, NOW) == text


def test_instants() -> None:
    assert instant("2026-03-01T13:00+01:00") == NOW
    assert instant(datetime(2026, 3, 1, 12)) == NOW  # noqa: DTZ001 - a time that came without a zone
    assert instant("yesterday") is instant(None) is instant("") is None
    assert instant("0001-01-01T00:00+14:00") is None
    assert time_text(NOW) == "1 March 2026, 12:00 UTC"


def test_sizes_and_counts() -> None:
    sizes = (0, 999, 1_000, 296_700, 1_500_000, 2_000_000_000)
    assert [*map(size_text, sizes)] == ["0 bytes", "999 bytes", "1.0 KB", "296.7 KB", "1.5 MB", "2.0 GB"]
    assert count_text(1, "message") == "1 message"
    assert count_text(1_200, "message") == "1,200 messages"
    assert count_text(0, "entity", "entities") == "0 entities"
    assert cut_text("abcdef", 6) == "abcdef"
    assert cut_text("abcde fgh", 7) == "abcde…"
