"""Labelled conversations for the retrieval benchmarks, read into one plain form.

Three sources: LoCoMo's `locomo10.json`, which everyone gets for themselves (its licence forbids shipping it);
dialogues of our own in the same layout, in `benchmarks/data/dialogues/`; and DevMemBench's two files. What a
question asks for are ids of turns, or for DevMemBench ids of conversations.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

SHIPPED_DIALOGUES = Path(__file__).resolve().parent / "data" / "dialogues"

CATEGORY_NAMES = {
    "1": "multi-hop",
    "2": "temporal",
    "3": "inference",
    "4": "single fact",
    "5": "adversarial",
}
"""LoCoMo's categories. Source: the numbering of its `task_eval`; 5 asks one person for what the other did."""

# Evidence is written in several ways: "D1:3", "D8:6; D9:17", "D9:1 D4:4", "D:11:26", "D30:05".
_EVIDENCE = re.compile(r"D:?(\d+):(\d+)")
_SESSION = re.compile(r"session_(\d+)")
_SESSION_TIME = "%I:%M %p on %d %B, %Y"


@dataclass(frozen=True)
class Turn:
    """One message: the fields of a line of a turns file, but for its conversation. `timestamp` has a time zone."""

    id: str
    role: str
    author: str
    text: str
    timestamp: datetime | None


@dataclass(frozen=True)
class Conversation:
    """Turns in the order in which they were said."""

    id: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Question:
    """A question and what holds its answer: turns of the conversation, or whole conversations where
    `conversation_id` is empty. `category` is one of LoCoMo's digits or a word."""

    text: str
    category: str
    conversation_id: str
    evidence: frozenset[str]


@dataclass(frozen=True)
class Dataset:
    """Conversations with the questions that count; `left_out` says how many do not, and why."""

    name: str
    conversations: tuple[Conversation, ...]
    questions: tuple[Question, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def turns(self) -> int:
        """How many turns there are in all conversations."""
        return sum(len(conversation.turns) for conversation in self.conversations)


def load_locomo(path: Path, *, captions: bool = True) -> Dataset:
    """A file in LoCoMo's layout, one sample or a list of them, or all `*.json` files of a folder.

    A picture's caption ends the text of its turn, as `[photo: …]`; `captions=False` leaves it out. Evidence that
    names no turn is dropped, and a question without evidence is left out. Raises ValueError for another layout.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    samples: list[Any] = []
    for file in files:
        document = json.loads(file.read_text(encoding="utf-8"))
        samples += document if isinstance(document, list) else [document]
    if not samples or not all(isinstance(sample, dict) and "conversation" in sample for sample in samples):
        raise ValueError(f"{path}: not in LoCoMo's layout, a list of objects with `conversation` and `qa`")
    conversations: list[Conversation] = []
    questions: list[Question] = []
    left_out: Counter[str] = Counter()
    for number, sample in enumerate(samples):
        conversation = _conversation(sample, str(sample.get("sample_id") or f"sample-{number}"), captions=captions)
        conversations.append(conversation)
        questions += _questions(sample.get("qa") or [], conversation, left_out)
    return Dataset(path.stem, tuple(conversations), tuple(questions), dict(left_out))


def _conversation(sample: Mapping[str, Any], conversation_id: str, *, captions: bool) -> Conversation:
    body = sample["conversation"]
    sessions = sorted(int(match[1]) for key in body if (match := _SESSION.fullmatch(key)))
    first = body.get("speaker_a")
    turns = []
    for session in sessions:
        time = read_session_time(body.get(f"session_{session}_date_time"))
        for place, turn in enumerate(body[f"session_{session}"] or [], start=1):
            text = str(turn.get("text") or "").strip()
            if captions and turn.get("blip_caption"):
                text = f"{text} [photo: {turn['blip_caption']}]".strip()
            author = str(turn.get("speaker") or "")
            turns.append(
                Turn(
                    id=str(turn.get("dia_id") or f"D{session}:{place}"),
                    # Two people talk; the first of them stands where the user does.
                    role="user" if author == first else "assistant",
                    author=author,
                    text=text,
                    timestamp=time,
                )
            )
    return Conversation(conversation_id, tuple(turns))


def read_session_time(text: object) -> datetime | None:
    """The time of "1:56 pm on 8 May, 2023", taken as UTC, or None for anything else."""
    try:
        return datetime.strptime(" ".join(str(text).split()), _SESSION_TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def _questions(
    labelled: Iterable[Mapping[str, Any]], conversation: Conversation, left_out: Counter[str]
) -> Iterator[Question]:
    known = {_plain_id(turn.id): turn.id for turn in conversation.turns}
    for entry in labelled:
        named = entry.get("evidence") or []
        text = " ".join(map(str, named)) if isinstance(named, list) else str(named)
        wanted = {(int(session), int(turn)) for session, turn in _EVIDENCE.findall(text)}
        evidence = frozenset(known[place] for place in wanted if place in known)
        if evidence:
            category = str(entry.get("category", ""))
            yield Question(str(entry["question"]), category, conversation.id, evidence)
        else:
            left_out["evidence names no turn" if wanted else "no evidence"] += 1


def _plain_id(turn_id: str) -> tuple[int, int] | str:
    match = _EVIDENCE.fullmatch(turn_id)
    return (int(match[1]), int(match[2])) if match else turn_id


def load_devmembench(folder: Path) -> Dataset:
    """DevMemBench: each session a conversation, each question labelled with the sessions that hold its answer.

    The questions labelled with none ask for what was never said; they are left out.
    """
    sessions = json.loads((folder / "sessions.json").read_text(encoding="utf-8"))
    conversations = []
    for session in sessions:
        began = datetime.fromisoformat(session["metadata"]["date"]).replace(hour=9, tzinfo=UTC)
        turns = tuple(
            Turn(
                id=f"{session['sessionId']}:{number}",
                role=message["role"],
                author="",
                text=message["content"],
                timestamp=began + timedelta(minutes=number),
            )
            for number, message in enumerate(session["messages"], start=1)
        )
        conversations.append(Conversation(session["sessionId"], turns))
    questions = []
    left_out: Counter[str] = Counter()
    for entry in json.loads((folder / "questions.json").read_text(encoding="utf-8")):
        if evidence := frozenset(entry["haystackSessionIds"]):
            questions.append(Question(entry["question"], entry["questionType"], "", evidence))
        else:
            left_out["no evidence"] += 1
    return Dataset("DevMemBench", tuple(conversations), tuple(questions), dict(left_out))


def write_turns_file(dataset: Dataset, path: Path) -> None:
    """The dataset's turns as the product imports them: one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for conversation in dataset.conversations:
            for turn in conversation.turns:
                line = {
                    "conversation_id": conversation.id,
                    "id": turn.id,
                    "role": turn.role,
                    "author": turn.author or None,
                    "text": turn.text,
                    "timestamp": turn.timestamp.isoformat() if turn.timestamp else None,
                }
                known = {name: value for name, value in line.items() if value is not None}
                file.write(json.dumps(known, ensure_ascii=False) + "\n")
