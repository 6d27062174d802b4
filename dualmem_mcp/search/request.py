"""What a caller asks of a search, checked: where to look, from when to when, for what kinds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, get_args

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.ids import parse_conversation_id
from dualmem_mcp.model.search import COLLECTION_OF, SCOPES, Filter, ItemKind

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 100

_AGO: Final = re.compile(r"(\d{1,5})\s*([hdwmy])", re.IGNORECASE)
_HOURS: Final = {"h": 1, "d": 24, "w": 7 * 24, "m": 30 * 24, "y": 365 * 24}
_KINDS: Final[tuple[ItemKind, ...]] = get_args(ItemKind)


def read_filter(
    *,
    now: datetime,
    scope: str = "all",
    conversation_id: str | None = None,
    kinds: Sequence[str] = (),
    author: str = "",
    since: str = "",
    until: str = "",
) -> Filter:
    """The filter that these arguments mean. Raises UsageError that names the one that does not fit."""
    collections = next((found for name, found in SCOPES.items() if name == scope), None)
    if collections is None:
        raise _unfit("scope", scope, f"Use one of: {', '.join(SCOPES)}.")
    wanted = tuple(kind for kind in _KINDS if kind in kinds)
    if unknown := sorted(set(kinds) - set(_KINDS)):
        raise _unfit("kind", unknown[0], f"Use one of: {', '.join(_KINDS)}.")
    if wanted:
        holding = {COLLECTION_OF[kind] for kind in wanted}
        collections = tuple(collection for collection in collections if collection in holding)
    earliest = read_time("since", since, now=now) if since else None
    latest = read_time("until", until, now=now) if until else None
    if earliest and latest and earliest >= latest:
        raise _unfit("since", since, f"Give a time before until, which is {until!r}.")
    return Filter(
        collections=collections,
        conversation_id=parse_conversation_id(conversation_id) if conversation_id else None,
        kinds=wanted,
        author=author.strip(),
        since=earliest,
        until=latest,
    )


def read_time(name: str, text: str, *, now: datetime) -> datetime:
    """The instant that a date, a time of ISO 8601 or an age such as `7d` names; without a zone it is UTC.

    Ages count h(ours), d(ays), w(eeks), m(onths of 30 days), y(ears of 365). Raises UsageError.
    """
    stripped = text.strip()
    if age := _AGO.fullmatch(stripped):
        try:
            return now - timedelta(hours=int(age[1]) * _HOURS[age[2].lower()])
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    try:
        instant = datetime.fromisoformat(stripped)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _unfit(name, text, "Give a date or time such as 2026-05-31, or an age such as 7d or 12h.") from None


def _unfit(name: str, value: str, hint: str) -> UsageError:
    shown = value if len(value) <= 40 else value[:40] + "…"
    return UsageError(f"{name} {shown!r} does not fit", operation="search", subject=shown, hint=hint)
