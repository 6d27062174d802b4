"""Beside Node's own `JSON.stringify` the texts are compared in the differential test."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.server.javascript_json import stringify

any_text = st.text(st.characters(exclude_categories=()), max_size=8)
values = st.recursive(
    any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_the_text_is_that_of_the_standard_library_but_for_half_pairs(value: Any) -> None:
    text = stringify(value)
    assert json.loads(text) == value
    text.encode()  # has no half pair any more
    whole = json.dumps(value, indent=2, ensure_ascii=False)
    escaped = "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in whole)
    assert text == escaped


def test_empty_lists_and_objects_take_one_line() -> None:
    assert stringify({"entities": [], "further": {}}) == '{\n  "entities": [],\n  "further": {}\n}'


@pytest.mark.parametrize("value", [1, 1.5, True, None, ("a",), {"a": [1]}])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        stringify(value)
