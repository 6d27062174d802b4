"""Arguments of a search, checked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.search import Collection, Filter
from dualmem_mcp.search.request import read_filter, read_time

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_nothing_given_looks_everywhere() -> None:
    assert read_filter(now=NOW) == Filter()


def test_scope_and_kinds_name_collections() -> None:
    assert read_filter(now=NOW, scope="conversations").collections == (Collection.CONVERSATIONS,)
    assert Collection.CONVERSATIONS not in read_filter(now=NOW, scope="memory").collections
    decisions = read_filter(now=NOW, kinds=["decision"])
    assert (decisions.collections, decisions.kinds) == ((Collection.CONTEXT,), ("decision",))
    assert read_filter(now=NOW, scope="conversations", kinds=["entity"]).collections == ()


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-02-01", datetime(2026, 2, 1, tzinfo=UTC)),
        ("2026-02-01T10:30", datetime(2026, 2, 1, 10, 30, tzinfo=UTC)),
        ("2026-02-01T10:30:00Z", datetime(2026, 2, 1, 10, 30, tzinfo=UTC)),
        (" 2026-02-01T10:30+02:00 ", datetime(2026, 2, 1, 10, 30, tzinfo=timezone(timedelta(hours=2)))),
        ("7d", NOW - timedelta(days=7)),
        ("12H", NOW - timedelta(hours=12)),
        ("99999y", datetime.min.replace(tzinfo=UTC)),
    ],
)
def test_times(text: str, instant: datetime) -> None:
    assert read_time("since", text, now=NOW) == instant


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"scope": "everything"}, "scope"),
        ({"kinds": ["turn", "dream"]}, "kind"),
        ({"since": "yesterdayish"}, "since"),
        ({"until": "9999-99-99"}, "until"),
        ({"since": "0001-01-01T00:00+14:00"}, "since"),
        ({"conversation_id": "../../x"}, "conversation id"),
    ],
)
def test_what_does_not_fit_is_named(given: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named) as raised:
        read_filter(now=NOW, **given)
    assert raised.value.hint
