"""Times, sizes and names as the pages show them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def instant(value: datetime | str | None) -> datetime | None:
    """The time in UTC of a datetime or an ISO 8601 text; None for what is neither."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        return None if time is None else (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def age_text(time: datetime, now: datetime) -> str:
    """How long ago it was, up to a week; else the date."""
    seconds = (now - time).total_seconds()
    if seconds >= 7 * 86_400 or seconds < -60:
        return f"{time.day} {time:%B %Y}"
    for size, unit in _UNITS:
        if (count := int(seconds // size)) >= 1:
            return f"{count} {unit}{'s' * (count != 1)} ago"
    return "just now"


def time_text(time: datetime) -> str:
    """The date and the time of day."""
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def size_text(size_bytes: float) -> str:
    """A size in units of a thousand."""
    for unit in ("bytes", "KB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:,.0f} {unit}" if unit == "bytes" else f"{size_bytes:,.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} GB"


def count_text(number: int, what: str, several: str = "") -> str:
    """`3 messages`, `1 message`; `several` where it is not the word with an s."""
    return f"{number:,} {what if number == 1 else several or f'{what}s'}"


def cut_text(text: str, limit: int) -> str:
    """The text's beginning where it has more characters than that."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
