"""What a session file gained: read on from a mark, never twice, never in half."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.model.source import ReadMark, SessionChunk
from dualmem_mcp.transcripts import tail
from dualmem_mcp.transcripts.claude_code import read_session
from dualmem_mcp.transcripts.tail import CHUNK_LINES, read_tail
from tests.transcripts.conftest import SessionWriter, tool_use


def read(path: Path, mark: ReadMark | None = None) -> tuple[list[str], ReadMark | None]:
    chunks = list(read_tail(path, mark))
    return texts(chunks), chunks[-1].mark if chunks else mark


def texts(chunks: list[SessionChunk]) -> list[str]:
    return [turn.text for chunk in chunks for turn in chunk.turns]


@pytest.fixture
def writer(tmp_path: Path) -> SessionWriter:
    return SessionWriter(tmp_path / "-home-dev-app")


def test_only_what_came_after_the_mark_is_read(writer: SessionWriter) -> None:
    writer.user("one")
    first, mark = read(writer.write())
    assert first == ["one"]
    assert read(writer.path, mark) == ([], mark)
    writer.assistant("two")
    second, mark = read(writer.write(), mark)
    assert second == ["two"]
    assert mark is not None
    assert (mark.offset, mark.lines, mark.messages) == (writer.path.stat().st_size, 2, 2)


def test_turns_are_messages_with_a_text(writer: SessionWriter) -> None:
    writer.user("asked")
    writer.assistant({"type": "thinking", "thinking": "not said"})
    writer.assistant("said", tool_use("t1"))
    writer.result("t1", "what a tool returned")
    writer.user("for the model alone", isMeta=True)
    writer.user("to an agent", isSidechain=True)
    writer.record(type="attachment", attachment={"type": "queued_command", "prompt": "typed meanwhile"})
    writer.beside("ai-title", aiTitle="A title")
    chunks = list(read_tail(writer.write(), None))
    assert texts(chunks) == ["asked", "said", "typed meanwhile"]
    assert chunks[-1].mark.title == "A title"
    assert chunks[-1].mark.cwd == "/home/dev/app"


def test_a_torn_last_line_waits_until_it_is_whole(writer: SessionWriter) -> None:
    writer.user("one")
    writer.user("two")
    whole = writer.write().read_bytes()
    for cut in range(len(writer.lines[0]), len(whole) - 2):
        writer.path.write_bytes(whole[:cut])
        first, mark = read(writer.path)
        assert first == ["one"]
        assert mark is not None
        assert mark.offset <= len(writer.lines[0])
    writer.path.write_bytes(whole)
    assert read(writer.path, mark)[0] == ["two"]


def test_a_last_record_without_a_line_break_is_whole(writer: SessionWriter) -> None:
    writer.user("one")
    whole = writer.write().read_bytes()
    writer.path.write_bytes(whole.rstrip(b"\n"))
    first, mark = read(writer.path)
    assert first == ["one"]
    writer.user("two")
    assert read(writer.write(), mark)[0] == ["two"]


@pytest.mark.parametrize("change", ["shorter", "other beginning", "other end"])
def test_a_file_that_was_rewritten_is_read_from_its_beginning(writer: SessionWriter, change: str) -> None:
    for number in range(5):
        writer.user(f"turn {number}")
    _, mark = read(writer.write())
    lines = list(writer.lines)
    if change == "shorter":
        del lines[3:]
    else:
        at = 0 if change == "other beginning" else 4
        lines[at] = lines[at].replace(b"turn", b"TURN")
        lines.append(writer.lines[0].replace(b'"u1"', b'"u9"'))
    writer.path.write_bytes(b"".join(lines))
    again, after = read(writer.path, mark)
    assert len(again) == len(lines)
    assert after is not None
    assert after.lines == after.messages == len(lines)


def test_a_copy_in_place_of_the_file_is_read_on(writer: SessionWriter) -> None:
    writer.user("one")
    _, mark = read(writer.write())
    writer.path.unlink()
    writer.user("two")
    assert read(writer.write(), mark)[0] == ["two"]


def test_a_file_that_grew_while_it_was_read_is_looked_at_again(writer: SessionWriter) -> None:
    writer.user("one")
    chunks = read_tail(writer.write(), None)
    next(chunks)
    writer.user("two")
    writer.write()
    rest = list(chunks)
    writer.user("three")
    assert read(writer.write(), rest[-1].mark)[0] + texts(rest) == ["three", "two"]


def test_every_chunk_can_be_gone_on_from(writer: SessionWriter) -> None:
    expected = [f"turn {number}" for number in range(2 * CHUNK_LINES + 7)]
    for text in expected:
        writer.user(text)
    chunks = list(read_tail(writer.write(), None))
    assert [len(chunk.turns) for chunk in chunks] == [CHUNK_LINES, CHUNK_LINES, 7, 0]
    for number in range(len(chunks)):
        rest = list(read_tail(writer.path, chunks[number].mark))
        assert texts(chunks[: number + 1]) + texts(rest) == expected
        if rest:
            assert rest[-1].mark == chunks[-1].mark


def test_records_without_an_id_are_named_by_their_line_in_the_file(writer: SessionWriter) -> None:
    writer.user("one", uuid=None)
    chunks, mark = list(read_tail(writer.write(), None)), None
    mark = chunks[-1].mark
    writer.user("two", uuid=None)
    chunks += read_tail(writer.write(), mark)
    assert [turn.uuid for chunk in chunks for turn in chunk.turns] == ["line-1", "line-2"]


def test_lines_that_are_no_record_are_counted_and_passed_over(writer: SessionWriter) -> None:
    writer.raw(b"\x00\x01 no json\n")
    writer.raw(b"\n")
    writer.raw(b'{"no": "type"}\n')
    writer.user("one")
    chunks = list(read_tail(writer.write(), None))
    assert texts(chunks) == ["one"]
    assert sum(chunk.skipped for chunk in chunks) == 2


def test_a_line_too_long_is_passed_over_once_it_has_ended(
    writer: SessionWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "MAX_LINE_BYTES", 1000)
    writer.user("one")
    long = b'{"type":"user","message":{"content":"' + b"x" * 5000
    writer.write()
    writer.path.write_bytes(b"".join(writer.lines) + long)
    first, mark = read(writer.path)
    assert first == ["one"]
    writer.raw(long + b'"}}\n')
    writer.user("two")
    assert read(writer.write(), mark)[0] == ["two"]


def test_what_has_gone_or_is_no_file_holds_nothing(tmp_path: Path) -> None:
    assert list(read_tail(tmp_path / "gone.jsonl", None)) == []
    (tmp_path / "folder.jsonl").mkdir()
    assert list(read_tail(tmp_path / "folder.jsonl", None)) == []


def test_calls_that_decide_make_findings_due_with_their_results(writer: SessionWriter) -> None:
    writer.user("ask me")
    writer.assistant("hm", tool_use("t0"))
    writer.result("t0")
    (chunk, last) = read_tail(writer.write(), None)
    assert not chunk.findings_due
    writer.assistant("which?", tool_use("t1", "AskUserQuestion", questions=[]))
    (chunk, last) = read_tail(writer.write(), last.mark)
    assert chunk.findings_due
    assert last.mark.open_calls == ("t1",)
    writer.user("something else")
    (chunk, last) = read_tail(writer.write(), last.mark)
    assert not chunk.findings_due
    writer.result("t1", "answered")
    (chunk, last) = read_tail(writer.write(), last.mark)
    assert chunk.findings_due
    assert last.mark.open_calls == ()


@given(cuts=st.lists(st.integers(0, 5000), max_size=6))
def test_however_a_file_grows_each_turn_is_read_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    writer = SessionWriter(tmp_path_factory.mktemp("grown"))
    expected = [f"number {number}: ünïcode €" for number in range(12)]
    for text in expected:
        writer.user(text)
    whole = b"".join(writer.lines)
    found: list[str] = []
    mark = None
    for cut in [*sorted(cut for cut in cuts if cut < len(whole)), len(whole)]:
        writer.path.write_bytes(whole[:cut])
        gained, mark = read(writer.path, mark)
        found += gained
    assert found == expected


def test_real_sessions_are_read_to_their_end(shared_transcripts: Path) -> None:
    for path in sorted((shared_transcripts / "claude").glob("projects/*/*.jsonl")):
        chunks = list(read_tail(path, None))
        assert chunks[-1].mark.offset == path.stat().st_size
        read_at_once = {turn.uuid: turn.text for turn in read_session(path).all_turns() if turn.text}
        tailed = {turn.uuid: turn.text for chunk in chunks for turn in chunk.turns}
        meta = {turn.uuid for turn in read_session(path).all_turns() if turn.is_meta}
        # All of the thread, and besides what was left when the user went back to an earlier turn.
        assert {**tailed, **{uuid: read_at_once[uuid] for uuid in meta & read_at_once.keys()}} == {
            **tailed,
            **read_at_once,
        }


def test_unusual_files_are_read_without_a_fault(shared_transcripts: Path) -> None:
    paths = sorted((shared_transcripts / "edge_cases").rglob("*.jsonl"))
    assert paths
    for path in paths:
        for chunk in read_tail(path, None):
            json.dumps(chunk.mark.title)
            assert replace(chunk.mark, path="").conversation_id


def test_a_message_follows_on_the_message_before_the_records_between(writer: SessionWriter) -> None:
    writer.user("one")
    writer.assistant("two")
    writer.record(type="system", subtype="turn_duration")
    _, mark = read(writer.write())
    writer.record(type="attachment", attachment={"type": "hook_success"})
    _, mark = read(writer.write(), mark)
    writer.user("three")
    chunks = list(read_tail(writer.write(), mark))
    assert [(turn.text, turn.parent_uuid) for chunk in chunks for turn in chunk.turns] == [("three", "u2")]
    whole = read_session(writer.path)
    assert [turn.parent_uuid for turn in whole.turns] == [None, "u1", "u2"]


@given(st.lists(st.sampled_from(["user", "assistant", "system", "attachment"]), max_size=12), st.data())
def test_however_a_file_is_read_its_messages_follow_on_the_same(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], data: st.DataObject
) -> None:
    writer = SessionWriter(tmp_path_factory.mktemp("p") / "-home-dev-app")
    writer.user("first")
    parents: dict[str, str | None] = {}
    mark = None
    for kind in (*kinds, "user"):
        if kind in ("user", "assistant"):
            writer.user("x") if kind == "user" else writer.assistant("x")
        else:
            writer.record(type=kind)
        if data.draw(st.booleans()) or kind == "user":
            chunks = list(read_tail(writer.write(), mark))
            mark = chunks[-1].mark
            parents.update({turn.uuid: turn.parent_uuid for chunk in chunks for turn in chunk.turns})
    whole = read_session(writer.path)
    assert parents == {turn.uuid: turn.parent_uuid for turn in whole.turns}
