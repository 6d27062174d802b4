"""Halves of surrogate pairs are told from whole characters, and JSON that holds them has a UTF-8 form."""

import json

from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.model.half_pairs import compact_json, escape_half_pairs, has_half_pair

texts = st.text(st.characters(codec=None, categories=None))


def test_half_of_a_surrogate_pair_is_told_from_a_whole_character() -> None:
    assert has_half_pair("cut \ud83d")
    assert not has_half_pair("whole 😀 \uffff")


def test_only_halves_are_escaped() -> None:
    assert escape_half_pairs('"é😀\ud83d\udfff"') == '"é😀\\ud83d\\udfff"'


@given(st.dictionaries(texts, texts | st.lists(texts) | st.integers() | st.none()))
def test_compact_json_has_a_utf8_form_and_comes_back(value: dict[str, object]) -> None:
    text = compact_json(value)
    assert json.loads(text.encode()) == value
    assert not has_half_pair(text)
