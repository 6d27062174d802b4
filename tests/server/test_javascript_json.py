"""The writer of JavaScript's JSON, beside the standard library's, which is right but for half pairs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.server.javascript_json import stringify

# Characters without surrogates: there the standard library and JavaScript agree.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    texts | st.booleans() | st.none() | st.integers(-(2**53), 2**53),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_agrees_with_the_standard_library(value: object) -> None:
    assert stringify(value) == json.dumps(value, indent=2, ensure_ascii=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("\ud800", '"\\ud800"'),
        ("a\udfffb", '"a\\udfffb"'),
        ("\U0001f600", '"\U0001f600"'),
        ({"\ud83d": ["\udc00"]}, '{\n  "\\ud83d": [\n    "\\udc00"\n  ]\n}'),
        ("\u2028\u007f\u0000\b\f", '"\u2028\u007f\\u0000\\b\\f"'),
    ],
)
def test_half_pairs_are_escaped_and_nothing_else(value: object, text: str) -> None:
    assert stringify(value) == text
