"""The weights that are documented are those that rank."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dualmem_mcp.search.weights import WEIGHTS, Weights

DOCUMENT = Path(__file__).parents[2] / "docs" / "ranking.md"
ROW = {"lexical": "words", "span": "time"}
"""What the table calls a weight, where that is not its name."""


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Weights)])
def test_the_document_names_each_weight(name: str) -> None:
    value = getattr(WEIGHTS, name)
    shown = ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"
    sign = "−" if name == "question" else ""
    assert f"| {ROW.get(name, name)} | {sign}{shown} |" in DOCUMENT.read_text(encoding="utf-8")


def test_a_bonus_is_less_than_a_perfect_match() -> None:
    match = WEIGHTS.lexical + WEIGHTS.vector
    assert WEIGHTS.length < match
    assert WEIGHTS.author + WEIGHTS.answer + WEIGHTS.span + WEIGHTS.question < match
    assert WEIGHTS.recency <= 0.05
    assert sorted(WEIGHTS.context, reverse=True) == list(WEIGHTS.context)
