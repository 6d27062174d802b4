"""Texts and times in columns."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.stores.columns import from_column, from_time, text_digest, to_column, to_time

texts = st.text(st.characters(codec=None, categories=None))


@given(texts)
def test_a_text_comes_back(text: str) -> None:
    assert from_column(to_column(text)) == text
    assert isinstance(to_column(text), bytes) == any("\ud800" <= character <= "\udfff" for character in text)


@given(texts, texts)
def test_digests_tell_texts_apart(one: str, other: str) -> None:
    assert (text_digest(one) == text_digest(other)) == (one == other)


@given(st.datetimes(), st.datetimes(), st.integers(-12, 12))
def test_times_sort_as_text(one: datetime, other: datetime, hours: int) -> None:
    a, b = one.replace(tzinfo=UTC), other.replace(tzinfo=UTC)
    assert (a < b) == (to_time(a) < to_time(b))
    assert from_time(to_time(a)) == a
    if 2 <= a.year < 9999:
        assert to_time(a.astimezone(timezone(timedelta(hours=hours)))) == to_time(a)
