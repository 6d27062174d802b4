"""Loaders: every way in which LoCoMo's files are odd, and DevMemBench's two files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import retrieval_data
from retrieval_data import SHIPPED_DIALOGUES, Dataset, load_devmembench, load_locomo, write_turns_file


def sample(qa: list[dict[str, Any]], sample_id: str | None = "talk-1") -> dict[str, Any]:
    """A conversation of two sessions; the tenth session stands before the second in the file."""
    body = {
        "speaker_a": "Mira",
        "speaker_b": "Odd",
        "session_10_date_time": "12:09 am on 13 September, 2023",
        "session_10": [{"speaker": "Odd", "dia_id": "D10:1", "text": "It snowed."}],
        "session_2_date_time": "1:56 pm on 8 May, 2023",
        "session_2": [
            {"speaker": "Mira", "dia_id": "D2:1", "text": "Look!", "img_url": ["x"], "blip_caption": "a red boat"},
            {"speaker": "Odd", "dia_id": "D2:2", "text": "Nice."},
        ],
        "session_3_date_time": "1:56 pm on 9 May, 2023",
    }
    return {**({"sample_id": sample_id} if sample_id else {}), "conversation": body, "qa": qa}


def load(tmp_path: Path, document: object, **options: bool) -> Dataset:
    file = tmp_path / "some.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return load_locomo(file, **options)


def test_turns_come_in_the_order_of_the_sessions_numbers_with_times_and_captions(tmp_path: Path) -> None:
    (conversation,) = load(tmp_path, [sample([])]).conversations
    assert conversation.id == "talk-1"
    assert [(turn.id, turn.role, turn.author, turn.text) for turn in conversation.turns] == [
        ("D2:1", "user", "Mira", "Look! [photo: a red boat]"),
        ("D2:2", "assistant", "Odd", "Nice."),
        ("D10:1", "assistant", "Odd", "It snowed."),
    ]
    assert conversation.turns[0].timestamp == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert conversation.turns[2].timestamp == datetime(2023, 9, 13, 0, 9, tzinfo=UTC)


def test_captions_can_be_left_out(tmp_path: Path) -> None:
    (conversation,) = load(tmp_path, sample([]), captions=False).conversations
    assert conversation.turns[0].text == "Look!"


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (["D2:1"], {"D2:1"}),
        (["D2:1; D10:1"], {"D2:1", "D10:1"}),
        (["D2:1 D2:2", "D10:1"], {"D2:1", "D2:2", "D10:1"}),
        (["D:10:1"], {"D10:1"}),
        (["D2:02"], {"D2:2"}),
        (["D2:1", "D99:1", "D"], {"D2:1"}),
        ("D2:1", {"D2:1"}),
    ],
)
def test_evidence_is_read_however_it_is_written(tmp_path: Path, evidence: object, expected: set[str]) -> None:
    asked = {"question": "What colour is the boat?", "evidence": evidence, "category": 4}
    (question,) = load(tmp_path, [sample([asked])]).questions
    assert question.evidence == expected
    assert (question.category, question.conversation_id) == ("4", "talk-1")


def test_questions_without_evidence_are_counted_and_left_out(tmp_path: Path) -> None:
    qa = [
        {"question": "a", "evidence": [], "category": 3},
        {"question": "b", "category": 3, "answer": "x"},
        {"question": "c", "evidence": ["D99:1"], "category": 1},
        {"question": "d", "evidence": ["D2:2"], "category": 5, "adversarial_answer": "red"},
    ]
    dataset = load(tmp_path, [sample(qa)])
    assert [question.text for question in dataset.questions] == ["d"]
    assert dataset.left_out == {"no evidence": 2, "evidence names no turn": 1}


def test_a_folder_and_samples_without_ids_load_too(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(sample([], "first")), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps([sample([], None), sample([], "third")]), encoding="utf-8")
    dataset = load_locomo(tmp_path)
    assert [conversation.id for conversation in dataset.conversations] == ["first", "sample-1", "third"]
    assert dataset.turns == 9


@pytest.mark.parametrize("document", [[], {}, [1], [{"qa": []}]])
def test_another_layout_is_refused(tmp_path: Path, document: object) -> None:
    with pytest.raises(ValueError, match="not in LoCoMo's layout"):
        load(tmp_path, document)


@pytest.mark.parametrize("text", ["", None, "yesterday", "25:00 pm on 8 May, 2023", "1:56 pm on 31 June, 2023"])
def test_a_time_that_cannot_be_read_is_none(text: object) -> None:
    assert retrieval_data.read_session_time(text) is None


def test_devmembench_sessions_are_conversations_and_unlabelled_questions_are_left_out(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Use PostgreSQL."}, {"role": "assistant", "content": "Done."}]
    session = {"sessionId": "S01", "metadata": {"date": "2025-01-15", "project": "shop"}, "messages": messages}
    (tmp_path / "sessions.json").write_text(json.dumps([session]), encoding="utf-8")
    asked = {"questionId": "Q1", "questionType": "tech-stack", "groundTruth": "PostgreSQL"}
    questions = [
        {**asked, "question": "Which database?", "haystackSessionIds": ["S01"]},
        {**asked, "question": "Which cloud?", "haystackSessionIds": []},
    ]
    (tmp_path / "questions.json").write_text(json.dumps(questions), encoding="utf-8")
    dataset = load_devmembench(tmp_path)
    (conversation,) = dataset.conversations
    assert [(turn.id, turn.role, turn.text) for turn in conversation.turns] == [
        ("S01:1", "user", "Use PostgreSQL."),
        ("S01:2", "assistant", "Done."),
    ]
    assert [(question.text, question.evidence) for question in dataset.questions] == [
        ("Which database?", frozenset({"S01"}))
    ]
    assert dataset.left_out == {"no evidence": 1}


def test_a_turns_file_holds_what_is_known_and_no_more(tmp_path: Path) -> None:
    dataset = load(tmp_path, [sample([])])
    write_turns_file(dataset, tmp_path / "turns.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "turns.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {
        "conversation_id": "talk-1",
        "id": "D2:1",
        "role": "user",
        "author": "Mira",
        "text": "Look! [photo: a red boat]",
        "timestamp": "2023-05-08T13:56:00+00:00",
    }
    assert len(lines) == 3


def test_shipped_dialogues_are_labelled_completely() -> None:
    dataset = load_locomo(SHIPPED_DIALOGUES)
    assert not dataset.left_out
    assert {question.category for question in dataset.questions} == {"1", "2", "3", "4", "5"}
    for conversation in dataset.conversations:
        ids = [turn.id for turn in conversation.turns]
        assert len(set(ids)) == len(ids)
        assert all(turn.text and turn.author and turn.timestamp for turn in conversation.turns)
    assert len({conversation.id for conversation in dataset.conversations}) == len(dataset.conversations)
