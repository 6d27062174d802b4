"""What counts as a fact, and what share of them a text holds."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.handoff.fidelity.facts import FactReader
from dualmem_mcp.handoff.fidelity.said import Passage


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("it took 42 s, not 1,250.", {"42", "1250"}),
        ("at 97.5% of v2.1.36", {"97.5%", "v2.1.36"}),
        ("step 3 of 5", set()),
        ("see src/app/main.py:120 and ./run", {"main.py", "run"}),
        ("in C:\\work\\a.ini or ~/notes", {"a.ini", "notes"}),
        ("and/or either/or", set()),
        ("call getStagedFiles() on self.index_path", {"getstagedfiles", "self.index_path"}),
        ("MAX_RETRIES, max_retries", {"max_retries"}),
        ("ENT-242 raised E501 with ENOENT", {"ent-242", "e501", "enoent"}),
        ("commit 6d61daaa0f3c and 6d61daa", {"6d61daa"}),
        ("run it with --dry-run; a -- b", {"--dry-run"}),
        ("https://example.org/a/b. ok", {"https://example.org/a/b"}),
        ("a ValueError in HTTPServer", {"valueerror", "httpserver"}),
        ("修复 3个错误在parser.py里，端口8080", {"parser.py", "8080"}),
        ("just some plain words, nothing else.", set()),
        ("", set()),
    ],
)
def test_facts_are_the_words_that_cannot_be_guessed(text: str, facts: set[str]) -> None:
    assert FactReader().facts(text) == facts


def said(*texts: str, speaker: str = "model") -> list[Passage]:
    return [Passage(text, position, speaker) for position, text in enumerate(texts)]


def test_a_name_is_a_word_with_a_capital_inside_a_sentence_that_is_never_written_small() -> None:
    found = FactReader().weigh(
        said("Ask Melanie about Redis, not Blake2b. The Task is a task for Ольга", "Наша Ольга")
    )
    assert set(found.weights) == {"melanie", "redis", "blake2b", "ольга"}


def test_the_users_facts_weigh_most_and_what_only_calls_name_nothing() -> None:
    passages = [
        Passage("use port 8080", 0, "user"),
        Passage("port 8080 and 9090", 1, "model"),
        Passage("curl 9090 7070", 2, "call"),
    ]
    found = FactReader().weigh(passages)
    assert {fact: round(weight, 2) for fact, weight in found.weights.items()} == {"8080": 5.08, "9090": 3.39}
    assert found.in_passage == [1, 2, 2]


def test_coverage_is_the_share_of_the_weight() -> None:
    reader = FactReader()
    found = reader.weigh([Passage("port 8080", 0, "user"), Passage("Ask Melanie about 9090", 1, "model")])
    assert reader.coverage(found, "") == 0
    assert reader.coverage(found, "8080") == pytest.approx(3 / 7)
    assert reader.coverage(found, "18080 and 80") == 0
    assert reader.coverage(found, "melanie on 9090 and 8080") == 1
    assert reader.coverage(FactReader().weigh([]), "8080") is None


@given(st.lists(st.text(max_size=80), max_size=8))
def test_all_that_was_said_holds_every_fact_and_nothing_holds_none(texts: list[str]) -> None:
    reader = FactReader()
    found = reader.weigh(said(*texts))
    assert reader.coverage(found, "\n".join(texts)) in (1.0, None)
    assert reader.coverage(found, "") in (0.0, None)
    assert reader.coverage(found, "") == FactReader().coverage(found, "")


@given(st.lists(st.sampled_from(["port 8080", "a_b", "x.py", "v1.2", "no fact"]), min_size=1), st.data())
def test_more_text_never_holds_fewer_facts(texts: list[str], data: st.DataObject) -> None:
    reader = FactReader()
    found = reader.weigh(said(*texts))
    part = data.draw(st.lists(st.sampled_from(texts)))
    less, more = reader.coverage(found, "\n".join(part)), reader.coverage(found, "\n".join([*part, texts[0]]))
    assert (less is None and more is None) or (less is not None and more is not None and less <= more)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("a" * 200_000, set()),
        ("a." * 100_000, set()),
        ("/" * 200_000, set()),
        ("1:" * 100_000, set()),
        ("--" * 100_000, set()),
        ("A b" * 70_000, {"ba"}),
        ("x" * 100_000 + "_y", {"x" * 100_000 + "_y"}),
    ],
)
def test_hostile_text_takes_little_time(text: str, facts: set[str]) -> None:
    began = time.process_time()
    assert FactReader().weigh(said(text)).weights.keys() == facts
    assert time.process_time() - began < 5  # it takes a hundredth of that; with the square of the length, an hour
