"""The local session with all that travels: which one is meant, and what is newer here than a handoff."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualmem_mcp.errors import MalformedError, NotFoundError
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.transcripts.claude_code import read_session
from dualmem_mcp.transcripts.safe_names import split_session_names
from dualmem_mcp.transcripts.source import SessionSource


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    return project


@pytest.fixture
def session(tmp_path: Path, project: Path) -> Path:
    return write_sample_session(tmp_path / "claude", cwd=str(project))


def source(session: Path, **fields: object) -> SessionSource:
    return SessionSource(session.parents[2], **fields)  # type: ignore[arg-type]


def test_all_files_of_the_session_travel_byte_for_byte(session: Path) -> None:
    local = source(session).read()
    names = [name for name, _ in local.thread]
    assert names[0] == session.name
    assert any("/subagents/" in name for name in names)
    for name, data in local.thread:
        assert (session.parent / name).read_bytes() == data


@pytest.mark.parametrize("name", ["copy", "session.jsonl.bak", "a: b.jsonl", "two\nlines.jsonl", "old.txt"])
def test_a_file_of_any_name_travels_under_its_sessions_id(session: Path, tmp_path: Path, name: str) -> None:
    copy = session.with_name(name)
    session.with_suffix("").rename(copy.with_suffix("") if copy.suffix else tmp_path / "elsewhere")
    session.rename(copy)
    local = source(session).read(transcript=copy)
    split_session_names(name for name, _ in local.thread)
    assert local.thread[0] == (f"{local.session.conversation_id}.jsonl", copy.read_bytes())
    assert len(local.thread) > 1 or not copy.suffix
    assert local.session.warnings == ()


@pytest.mark.parametrize("name", ["agent-a1b2.jsonl", "con.jsonl"])
def test_a_file_that_could_not_be_restored_is_refused(session: Path, name: str) -> None:
    copy = session.rename(session.with_name(name))
    with pytest.raises(MalformedError, match="could not be restored") as caught:
        source(session).read(transcript=copy)
    assert caught.value.hint


def test_project_files_are_those_of_the_sessions_folder(session: Path, project: Path) -> None:
    (project / "CLAUDE.md").write_text("Rules.", encoding="utf-8")
    (project / "keep.txt").write_text("kept", encoding="utf-8")
    local = source(session, protected_globs=("keep.*",)).read()
    assert [
        (file.kind, file.name) for file in local.snapshot.files if file.kind in ("instructions", "protected")
    ] == [
        ("instructions", "CLAUDE.md"),
        ("protected", "keep.txt"),
    ]


def test_protected_files_may_lie_elsewhere(session: Path, tmp_path: Path) -> None:
    (tmp_path / "sacred").mkdir()
    (tmp_path / "sacred" / "a.md").write_text("a", encoding="utf-8")
    local = source(session, protected_globs=("*.md",), protected_root=tmp_path / "sacred").read()
    assert [file.name for file in local.snapshot.of_kind("protected")] == ["a.md"]


@pytest.mark.parametrize("cwd", ["/nowhere/at/all", "/" + "long" * 1000])
def test_a_project_folder_that_is_not_here_is_no_error(tmp_path: Path, cwd: str) -> None:
    path = write_sample_session(tmp_path / "claude", cwd=cwd)
    assert source(path, protected_globs=("*.md",)).read().session.cwd == cwd


def test_newer_turns_are_counted_from_the_one_handed_over(session: Path) -> None:
    read = read_session(session)
    uuids = [turn.uuid for turn in read.all_turns() if not turn.is_meta]
    here = source(session)
    ask = {"last_turn_uuid": uuids[-4], "known_bytes": 10}
    assert [turn.uuid for turn in here.newer_turns(read.conversation_id, **ask)] == uuids[-3:]
    assert here.newer_turns(read.conversation_id, **{**ask, "last_turn_uuid": uuids[-1]}) == ()
    assert len(here.newer_turns(read.conversation_id, **{**ask, "last_turn_uuid": "gone"})) == len(uuids)
    assert here.newer_turns(read.conversation_id, last_turn_uuid="", known_bytes=session.stat().st_size) == ()
    assert here.newer_turns("00000000-0000-4000-8000-000000000000", **ask) == ()


def test_an_id_that_the_file_does_not_have_is_refused(session: Path) -> None:
    with pytest.raises(NotFoundError, match="holds session"):
        source(session).read("00000000-0000-4000-8000-000000000000", transcript=session)
