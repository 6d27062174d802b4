"""Canonical JSON: one encoding of each content; fields checked before use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.crypto.canonical import Fields, canonical_json, time_text
from dualmem_mcp.errors import TamperedError

VALUES = st.dictionaries(
    st.text(max_size=10),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    ),
    max_size=5,
)


@given(VALUES)
def test_round_trip(values):
    data = canonical_json(values)
    assert data.isascii()
    assert Fields.parse(data, subject="x").values == values


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}',
        b'{"a":1} ',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        '{"a":"é"}'.encode(),
        b'{"a":1e2}',
        b'{"a":1E999}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":"\\u00E9"}',
        b"[]",
        b"1",
        b"null",
        b"",
        b"\xff\xfe",
        b"{" * 60_000,
        b"[" * 60_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b" " * 65_537,
    ],
    ids=lambda data: repr(data[:24]),
)
def test_anything_else_is_refused(data):
    with pytest.raises(TamperedError):
        Fields.parse(data, subject="vault.json")


@given(st.binary(max_size=200))
def test_junk_is_refused(data):
    try:
        fields = Fields.parse(data, subject="x")
    except TamperedError:
        return
    assert canonical_json(fields.values) == data


def test_fields_of_the_wrong_type_or_size():
    values = {"text": "x" * 300, "number": 2**53, "true": True, "hex": "AB", "list": [], "time": "2026-03-01"}
    fields = Fields(values, subject="x")
    for read in (
        lambda: fields.text("number"),
        lambda: fields.text("text"),
        lambda: fields.text("missing"),
        lambda: fields.integer("number"),
        lambda: fields.integer("true"),
        lambda: fields.integer("text"),
        lambda: fields.binary("hex", length=1),
        lambda: fields.binary("hex", length=2),
        lambda: fields.binary("list", length=0),
        lambda: fields.time("time"),
        lambda: fields.time("list"),
        lambda: fields.nested("list"),
    ):
        with pytest.raises(TamperedError) as caught:
            read()
        assert "xxx" not in str(caught.value)


def test_times_are_utc_to_the_second():
    there = datetime(2026, 3, 1, 14, 0, 5, 999_999, tzinfo=timezone(timedelta(hours=2)))
    text = time_text(there)
    assert text == "2026-03-01T12:00:05Z"
    assert Fields({"at": text}, subject="x").time("at") == datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
