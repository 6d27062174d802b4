"""Files of turns: what is kept, what is told of, and that a second import changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.errors import MalformedError, NotFoundError, StoreUnreachableError
from dualmem_mcp.model.source import ImportedTurn, StoredTurn
from dualmem_mcp.ports import Clock
from dualmem_mcp.search import turns_file
from dualmem_mcp.search.turns_file import import_turns, is_turns_file, read_timestamp
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.search_feed import SearchFeed
from dualmem_mcp.stores.source_progress import SourceProgress


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "memory.db", bytes(32)) as opened:
        yield opened


@pytest.fixture
def log(database: Database, clock: Clock) -> SourceProgress:
    return SourceProgress(database, clock, "desk")


def line(**members: Any) -> dict[str, Any]:
    return {"conversation_id": "conv-1", "id": "D1:1", "role": "user", "text": "hello", **members}


def write(path: Path, *lines: dict[str, Any] | bytes) -> Path:
    data = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in lines]
    path.write_bytes(b"\n".join(data) + b"\n")
    return path


def kept(database: Database) -> list[StoredTurn]:
    return list(SearchFeed(database).turns(0, 1000))


def test_turns_are_kept_in_the_order_of_the_file(tmp_path: Path, log: SourceProgress, database: Database) -> None:
    path = write(
        tmp_path / "t.jsonl",
        line(id="D1:10", author="Ann", timestamp="2023-05-08T13:56:00"),
        line(id="D1:9", role="assistant", author="Bob", text="hi\nthere", extra={"a": [1]}),
        line(conversation_id="conv-2", id=7, role="Assistant"),
    )
    report = import_turns(path, log)
    assert (report.turns, report.skipped, report.conversations, report.warnings) == (3, 0, 2, [])
    assert [(one.conversation_id, one.uuid, one.author, one.role, one.text) for one in kept(database)] == [
        ("conv-1", "D1:10", "Ann", "user", "hello"),
        ("conv-1", "D1:9", "Bob", "assistant", "hi\nthere"),
        ("conv-2", "7", "", "assistant", "hello"),
    ]
    assert kept(database)[0].timestamp == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)


def test_importing_again_changes_nothing(tmp_path: Path, log: SourceProgress, database: Database) -> None:
    path = write(tmp_path / "t.jsonl", *(line(id=f"t{number}") for number in range(450)))
    assert import_turns(path, log).turns == 450
    before = kept(database)
    report = import_turns(path, log)
    assert (report.turns, report.skipped, report.warnings) == (0, 0, [])
    assert kept(database) == before


def test_a_known_id_with_another_text_is_told_of(tmp_path: Path, log: SourceProgress, database: Database) -> None:
    path = write(tmp_path / "t.jsonl", line(), line(id="b"), line(text="another"))
    report = import_turns(path, log)
    assert (report.turns, report.skipped) == (2, 1)
    assert report.warnings == ["line 3: a turn of this id is known with another text; that one stays"]
    assert [one.text for one in kept(database)] == ["hello", "hello"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"{", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b'{"conversation_id": "c"', "not a JSON object"),
        (line(id=None), "no id"),
        (line(id=""), "no id"),
        (line(id="x" * 2000), "no id"),
        (line(id=True), "no id"),
        (line(conversation_id=None, role=3.5), "no conversation_id and no role"),
        (line(text=None), "no text"),
        (line(text="  "), "no text"),
        (line(text=["a"]), "no text"),
    ],
)
def test_a_bad_line_is_told_of_and_the_others_are_kept(
    tmp_path: Path, log: SourceProgress, database: Database, bad: dict[str, Any] | bytes, why: str
) -> None:
    report = import_turns(write(tmp_path / "t.jsonl", line(id="a"), bad, b"", line(id="b")), log)
    assert (report.turns, report.skipped) == (2, 1)
    assert report.warnings == [f"line 2: {why}; skipped"]
    assert [one.uuid for one in kept(database)] == ["a", "b"]


def test_odd_members_beside_the_text_do_not_cost_the_turn(
    tmp_path: Path, log: SourceProgress, database: Database
) -> None:
    odd = (
        line(id="a", author=["Ann"]),
        line(id="b", timestamp="last week"),
        line(id="c", role="narrator"),
        json.dumps(line(id="d", text="caf\xe9"), ensure_ascii=False).encode("latin-1"),
        line(id="e", author=None, timestamp=None),
    )
    report = import_turns(write(tmp_path / "t.jsonl", *odd), log)
    assert (report.turns, report.skipped) == (5, 0)
    assert report.warnings == [
        "line 1: an author that is no name; not taken",
        "line 2: a timestamp that is neither ISO 8601 nor a number of seconds; not taken",
        "line 4: bytes that are not UTF-8; replaced",
    ]
    assert [one.role for one in kept(database)] == ["user", "user", "narrator", "user", "user"]


def test_names_that_cannot_be_conversation_ids_get_one_of_their_own(
    tmp_path: Path, log: SourceProgress, database: Database
) -> None:
    names = ["with space", "with-space", "../../x", "..", "ü", "a/b", "a:b"]
    path = write(tmp_path / "t.jsonl", *(line(conversation_id=name) for name in names))
    report = import_turns(path, log)
    assert (report.turns, report.conversations, len(report.warnings)) == (len(names), len(names), len(names) - 1)
    found = [one.conversation_id for one in kept(database)]
    assert found[1] == "with-space"
    assert found[0].startswith("with-space-")
    assert import_turns(path, log).turns == 0


def test_warnings_are_few_and_say_how_many_more(tmp_path: Path, log: SourceProgress) -> None:
    report = import_turns(write(tmp_path / "t.jsonl", line(), *(b"x" for _ in range(100))), log)
    assert report.skipped == 100
    assert len(report.warnings) == 21
    assert report.warnings[-1] == "and 80 more like these"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"x\n", b'{"type":"entity","name":"a"}\n'])
def test_a_file_without_a_turn_is_malformed(tmp_path: Path, log: SourceProgress, content: bytes) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(MalformedError, match=r"no line of t\.jsonl is a turn"):
        import_turns(path, log)


def test_what_is_no_file(tmp_path: Path, log: SourceProgress) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        import_turns(tmp_path / "gone", log)
    with pytest.raises(MalformedError, match="folder, a pipe or a device"):
        import_turns(tmp_path, log)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MalformedError, match="folder, a pipe or a device"):
        import_turns(tmp_path / "pipe", log)
    assert not is_turns_file(tmp_path / "pipe")


def test_a_disk_that_fails_half_way_says_what_was_kept(
    tmp_path: Path, log: SourceProgress, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t.jsonl", *(line(id=f"t{number}") for number in range(450)))

    class Failing:
        def __init__(self) -> None:
            self.file = path.open("rb")
            self.left = 300

        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def tell(self) -> int:
            return self.file.tell()

        def readline(self, size: int) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise OSError(5, "Input/output error")
            return self.file.readline(size)

    monkeypatch.setattr(turns_file, "_opened", lambda _: Failing())
    with pytest.raises(StoreUnreachableError, match="after 200 turns, which were kept"):
        import_turns(path, log)
    assert len(kept(database)) == 200
    monkeypatch.undo()
    assert import_turns(path, log).turns == 250


def test_a_line_too_long_is_skipped_without_being_held(
    tmp_path: Path, log: SourceProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns_file, "_MAX_LINE_BYTES", 200)
    path = write(tmp_path / "t.jsonl", line(id="a"), line(text="x" * 1000), line(id="b"))
    report = import_turns(path, log)
    assert (report.turns, report.warnings) == (2, ["line 2: longer than 32 MiB; skipped"])


def test_long_turns_are_not_gathered_in_memory(
    tmp_path: Path, log: SourceProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns_file, "_CHARACTERS_AT_ONCE", 1_000)
    add, sizes = log.add_imported, []

    def counted(turns: Sequence[ImportedTurn]) -> tuple[int, Sequence[ImportedTurn]]:
        sizes.append(len(turns))
        return add(turns)

    monkeypatch.setattr(log, "add_imported", counted)
    path = write(tmp_path / "t.jsonl", *(line(id=number, text="x" * 600) for number in range(5)))
    assert import_turns(path, log).turns == 5
    assert sizes == [2, 2, 1]


def test_marks_and_line_ends_of_other_systems(tmp_path: Path, log: SourceProgress) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(line(id="a")).encode() + b"\r\n" + json.dumps(line()).encode())
    assert is_turns_file(path)
    assert import_turns(path, log).turns == 2


@pytest.mark.parametrize(
    ("content", "turns"),
    [
        (b'\n\nbroken\n{"conversation_id":"c","id":"1","role":"user","text":"x"}\n', True),
        (b'{"type":"entity","name":"a","entityType":"t","observations":[]}\n', False),
        (b'{"entities":[],"relations":[]}', False),
        (b'{"conversation_id":"c"}', False),
        (b"", False),
    ],
)
def test_turns_are_told_from_graphs(tmp_path: Path, content: bytes, turns: bool) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    assert is_turns_file(path) is turns


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2023-05-08T13:56:00Z", datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        ("2023-05-08T15:56:00+02:00", datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        ("2023-05-08 13:56", datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        ("2023-05-08", datetime(2023, 5, 8, tzinfo=UTC)),
        ("20230508", datetime(2023, 5, 8, tzinfo=UTC)),
        (1683554160, datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        ("1683554160", datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        (1683554160000, datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        (1683554160.5, datetime(2023, 5, 8, 13, 56, 0, 500000, tzinfo=UTC)),
        (1683554160000000, datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_timestamps(value: object, expected: datetime) -> None:
    assert read_timestamp(value) == expected


@given(value=st.one_of(st.floats(), st.integers(), st.text(), st.booleans(), st.none(), st.lists(st.integers())))
def test_no_value_of_a_timestamp_is_a_fault(value: object) -> None:
    moment = read_timestamp(value)
    assert moment is None or moment.utcoffset() == timedelta(0)


@given(seconds=st.floats(1e8, 7e9), hours=st.integers(-12, 14))
def test_an_instant_is_the_same_in_each_form(seconds: float, hours: int) -> None:
    moment = datetime.fromtimestamp(seconds, timezone(timedelta(hours=hours)))
    assert read_timestamp(moment.isoformat()) == moment
    whole = moment.replace(microsecond=0)
    assert read_timestamp(str(int(whole.timestamp()))) == whole
    assert read_timestamp(int(whole.timestamp())) == whole
