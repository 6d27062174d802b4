"""Values of lines that others wrote."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.transcripts.json_values import is_blank, json_line

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    json_values, st.booleans(), st.sampled_from(["", "\n", "\r\n", " \t\n"]), st.sampled_from(["", " ", "\ufeff"])
)
def test_a_line_has_the_value_that_was_written(value: object, ascii_only: bool, end: str, start: str) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    read = json_line((start + text + end).encode("utf-8", "replace"))
    assert read == json.loads(text.encode("utf-8", "replace").decode())
    assert repr(read) == repr(json.loads(text.encode("utf-8", "replace").decode()))  # 1 is not 1.0, nor True


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'"\\ud83d\\ude00 \\ud800"', "\U0001f600 \ud800"),
        (b'"\xff"', "\ufffd"),
        (b"[" * 300 + b"]" * 300, json.loads("[" * 300 + "]" * 300)),
        (b"1e999", float("inf")),
        (b"12345678901234567890123", 12345678901234567890123),
        (b" \r\n", None),
        (b"", None),
    ],
)
def test_odd_values_are_those_of_the_standard_library(line: bytes, value: object) -> None:
    assert json_line(line) == value


@pytest.mark.parametrize(
    "line", [b"{", b'{"a": 1} {"b": 2}', b'{"a": 1,}', b"01", b'"\x01"', b"9" * 5_000, b"[" * 100_000, b"x", b"'a'"]
)
def test_what_is_no_json_has_no_value(line: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        json_line(line)


def test_a_blank_line_is_none_of_a_value() -> None:
    assert is_blank(b"\xef\xbb\xbf \t\r\n")
    assert not is_blank(b"null")
    assert not is_blank(b"\xff")
