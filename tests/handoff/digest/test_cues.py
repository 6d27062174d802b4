from __future__ import annotations

import pytest

from dualmem_mcp.handoff.digest.cues import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It failed. Then it passed.", ["It failed.", "Then it passed."]),
        (
            "Use a tool, e.g. Ruff or approx. Three of them. Done.",
            ["Use a tool, e.g. Ruff or approx. Three of them.", "Done."],
        ),
        ("See J. R. Smith. Read on.", ["See J. R. Smith.", "Read on."]),
        ("A flag. An agent. A bug.", ["A flag.", "An agent.", "A bug."]),
        ("终わり。次に行く。", ["终わり。", "次に行く。"]),
        ("| file | state |\n|---|---|\n| a.py | done |", ["file — state", "a.py — done"]),
    ],
)
def test_sentences_end_where_they_end(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_a_long_run_of_abbreviations_is_one_sentence_and_takes_little_time() -> None:
    assert sentences("A. " * 300_000) == ["A. " * 299_999 + "A."]
