"""How answers become figures and aims, on answers written by hand."""

from __future__ import annotations

import pytest
import retrieval
from retrieval import FUSION, OURS, VECTORS, WORDS, Answers
from retrieval_data import Dataset, Question


def answers(*found: list[str]) -> Answers:
    return Answers(list(found), [0.001 * (number + 1) for number in range(len(found))])


TURNS = Dataset(
    "dialogues",
    (),
    (
        Question("a", "1", "t", frozenset({"D1:1", "D1:2"})),
        Question("b", "4", "t", frozenset({"D1:3"})),
        Question("c", "5", "t", frozenset({"D1:4"})),
    ),
)
SESSIONS = Dataset(
    "DevMemBench",
    (),
    (Question("a", "tech-stack", "", frozenset({"S1"})), Question("b", "preference", "", frozenset({"S2", "S3"}))),
)


def test_recall_is_averaged_over_questions_of_each_category_and_of_the_first_four() -> None:
    found = answers(["t/D1:1", "t/D9:9"], ["t/D1:3"], ["u/D1:4"])
    table = retrieval.table_of(TURNS, {OURS: found}, within=True, by_session=False)
    groups = table["systems"][OURS]["groups"]
    assert {name: group["recall_at_10"] for name, group in groups.items()} == {
        "1-4": 0.75,
        "1": 0.5,
        "4": 1.0,
        "5": 0.0,
    }
    assert table["systems"][OURS]["p95_ms"] == 3.0
    assert table["systems"][OURS]["short_answers"] == 3


def test_sessions_are_ranked_by_their_best_turn() -> None:
    found = answers(["S2/3", "S2/1", "S1/2"], ["S3/1", "S1/1"])
    table = retrieval.table_of(SESSIONS, {OURS: found}, within=False, by_session=True)
    figures = table["systems"][OURS]["groups"]["all"]
    assert (figures["questions"], figures["hit_at_1"], figures["mrr"]) == (2, 0.5, 0.75)
    assert figures["recall_at_5"] == 0.75


@pytest.mark.parametrize(
    ("others", "met"),
    [
        ([["t/D1:1"], [], []], [True, True, True, True, True]),
        ([["t/D1:1", "t/D1:2"], ["t/D1:3"], []], [True, True, False, False, False]),
    ],
)
def test_what_only_equals_a_baseline_is_not_above_it(others: list[list[str]], met: list[bool]) -> None:
    ours = answers(["t/D1:1", "t/D1:2"], ["t/D1:3"], ["t/D1:4"])
    systems = {OURS: ours, **{name: answers(*others) for name in (WORDS, VECTORS, FUSION)}}
    table = retrieval.table_of(TURNS, systems, within=True, by_session=False)
    aims = retrieval.aims_of(table, "locomo")
    assert [aim["met"] for aim in aims] == met
    assert all(aim["binding"] for aim in aims)
    assert not any(aim["binding"] for aim in retrieval.aims_of(table, "dialogues"))


def test_the_aims_of_devmembench_are_hit_and_mean_reciprocal_rank() -> None:
    found = answers(["S2/3", "S1/2"], ["S3/1"])
    table = retrieval.table_of(SESSIONS, {OURS: found}, within=False, by_session=True)
    assert [(aim["value"], aim["met"]) for aim in retrieval.aims_of(table, "devmembench")] == [
        (0.5, False),
        (0.75, False),
    ]
