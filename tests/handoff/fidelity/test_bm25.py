"""BM25 over lines."""

from __future__ import annotations

from dualmem_mcp.handoff.fidelity.bm25 import Bm25, terms


def index(*texts: str) -> Bm25:
    lines = [terms(text) for text in texts]
    return Bm25(lines, frozenset(term for line in lines for term in line))


def test_terms_are_folded_words_without_single_characters() -> None:
    assert terms("A Straße, the X-ray of getPath() in 2024…") == [
        "strasse", "the", "ray", "of", "getpath", "in", "2024"
    ]  # fmt: skip
    assert terms("") == terms("? — !") == []


def test_where_words_are_not_set_apart_pairs_of_characters_are_compared() -> None:
    assert terms("修复解析器 fix x") == ["修复", "复解", "解析", "析器", "fix"]
    assert terms("ก็") == ["ก็"]
    assert terms("字") == ["字"]


def test_the_line_that_holds_the_rarest_words_comes_first() -> None:
    found = index("the parser is slow", "the parser is fast", "the cache is cold", "nothing here")
    assert found.best(terms("why is the cache slow or cold"), 5)[:2] == [2, 0]
    assert found.best(terms("the parser"), 1) == [0]
    assert found.best(terms("unknown words"), 5) == []
    assert found.best([], 5) == []


def test_a_shorter_line_with_the_same_words_comes_first() -> None:
    assert index("cache " + "word " * 50, "cache cold", "other line").best(["cache"], 5) == [1, 0]


def test_without_lines_nothing_is_found() -> None:
    assert Bm25([], frozenset({"a"})).best(["a"], 5) == []
    assert Bm25([[], []], frozenset({"a"})).best(["a"], 5) == []


def test_terms_outside_the_vocabulary_are_not_looked_up() -> None:
    assert Bm25([["cache", "cold"]], frozenset({"cold"})).best(["cache"], 5) == []


def test_words_that_carry_their_particles_are_compared_by_pairs_too() -> None:
    assert terms("파서를 고쳐 x1") == ["파서", "서를", "고쳐", "x1"]
