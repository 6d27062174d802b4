"""Which session is meant, and which files belong to it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.transcripts.claude_code import ClaudeCode, read_session, session_files
from dualmem_mcp.transcripts.restore import write_session

ONE = "aaaaaaaa-0000-4000-8000-000000000001"
TWO = "aaaaaaaa-0000-4000-8000-000000000002"
RECORD = b'{"type":"user","uuid":"u","parentUuid":null,"timestamp":"%s","message":{"content":"%s"}}\n'
CLEAR = b"<command-name>/clear</command-name>"


@pytest.fixture
def claude(tmp_path):
    return ClaudeCode(tmp_path / "claude")


def put(claude, cwd_slug, name, *, at, text=b"hello", content=None):
    path = claude.root / "projects" / cwd_slug / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    moment = datetime(2026, 3, 1, 12, at, tzinfo=UTC)
    path.write_bytes(RECORD % (moment.isoformat().encode(), text) if content is None else content)
    os.utime(path, (moment.timestamp(), moment.timestamp()))
    return path


def test_sessions_are_listed_newest_first_without_agents_links_and_empty_files(claude):
    old = put(claude, "-home-a", ONE, at=1)
    new = put(claude, "-home-b", TWO, at=2)
    put(claude, "-home-b", "agent-x", at=3)
    put(claude, "-home-b", "empty", at=4, content=b"")
    (new.parent / "link.jsonl").symlink_to(old)
    assert [entry.path for entry in claude.sessions()] == [new, old]
    assert [entry.path for entry in claude.sessions("/home/a")] == [old]
    assert claude.sessions("/nowhere") == []
    assert claude.sessions()[0].mtime == datetime(2026, 3, 1, 12, 2, tzinfo=UTC)


def test_an_id_finds_its_session_in_any_project(claude):
    path = put(claude, "-home-a", ONE, at=1)
    put(claude, "-home-b", TWO, at=2)
    assert claude.find(ONE) == path
    assert claude.find(ONE, project_dir="/home/b") == path


def test_an_id_in_two_projects_is_taken_from_the_one_at_hand(claude):
    here = put(claude, "-home-a", ONE, at=1)
    newer = put(claude, "-home-b", ONE, at=2)
    assert claude.find(ONE, project_dir="/home/a") == here
    assert claude.find(ONE) == newer


@pytest.mark.parametrize("hostile", ["../../x", "/etc/passwd", "a/b", "..", "", "a\0b", "x" * 200, "*"])
def test_hostile_ids_never_become_paths(claude, hostile):
    put(claude, "-home-a", ONE, at=1)
    with pytest.raises(UsageError):
        claude.find(hostile)


def test_what_is_not_there_is_said_with_what_to_do(claude):
    with pytest.raises(NotFoundError) as caught:
        claude.find(ONE)
    assert "CLAUDE_CONFIG_DIR" in caught.value.hint
    with pytest.raises(NotFoundError, match="no Claude Code session"):
        claude.find()


def test_without_an_id_the_newest_of_the_project_then_of_all(claude):
    here = put(claude, "-home-a", ONE, at=1)
    newest = put(claude, "-home-b", TWO, at=2)
    assert claude.find(project_dir="/home/a") == here
    assert claude.find() == newest
    assert claude.find(project_dir="/home/none") == newest


def test_a_session_just_opened_is_not_the_newest_conversation(claude):
    talk = put(claude, "-home-a", ONE, at=1)
    put(claude, "-home-a", TWO, at=2, content=b'{"type":"mode","mode":"normal"}\n')
    assert claude.find(project_dir="/home/a") == talk


def test_the_current_session_wins_over_a_newer_one_of_another_window(claude):
    mine = put(claude, "-home-a", ONE, at=1)
    put(claude, "-home-a", TWO, at=2)
    assert claude.find(current_id=ONE, project_dir="/home/a") == mine


def test_a_current_session_that_was_cleared_is_followed(claude):
    put(claude, "-home-a", ONE, at=1)
    after = put(claude, "-home-a", TWO, at=5, text=CLEAR)
    assert claude.find(current_id=ONE, project_dir="/home/a") == after


def test_a_session_that_ends_with_the_clearing_is_followed(claude):
    put(claude, "-home-a", ONE, at=1, text=CLEAR)
    after = put(claude, "-home-a", TWO, at=5)
    assert claude.find(current_id=ONE) == after


def test_clearing_after_clearing_is_followed_to_the_end(claude):
    put(claude, "-home-a", ONE, at=1)
    put(claude, "-home-a", TWO, at=5, text=CLEAR)
    last = put(claude, "-home-a", ONE.replace("1", "3"), at=9, text=CLEAR)
    assert claude.find(current_id=ONE) == last


def test_a_message_that_quotes_the_command_is_no_clearing(claude):
    mine = put(claude, "-home-a", ONE, at=1)
    put(claude, "-home-a", TWO, at=5, text=b"what does " + CLEAR + b" mean?")
    assert claude.find(current_id=ONE) == mine


def test_a_clearing_before_the_last_record_was_another_window(claude):
    mine = put(claude, "-home-a", ONE, at=5)
    other = put(claude, "-home-a", TWO, at=2, text=CLEAR)
    os.utime(other, (datetime(2026, 3, 1, 13, tzinfo=UTC).timestamp(),) * 2)
    assert claude.find(current_id=ONE) == mine


@pytest.mark.parametrize("current", ["../../x", "aaaaaaaa-0000-4000-8000-00000000000f"])
def test_a_current_id_that_leads_nowhere_is_passed_over(claude, current):
    path = put(claude, "-home-a", ONE, at=1)
    assert claude.find(current_id=current) == path


def test_a_long_project_folder_is_found_by_its_first_characters(claude):
    cwd = "/" + "d" * 250
    path = put(claude, "-" + "d" * 199 + "-otherhash", ONE, at=1)
    assert claude.find(project_dir=cwd) == path


def test_files_of_a_session_are_found_and_links_are_not_followed(claude, tmp_path):
    path = put(claude, "-home-a", ONE, at=1)
    folder = path.with_suffix("")
    for name in ("subagents/agent-a.jsonl", "subagents/agent-a.meta.json", "subagents/workflows/r/agent-b.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")
    (folder / "tool-results").mkdir()
    (folder / "tool-results" / "big.txt").write_text("long")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("k")
    (folder / "tool-results" / "link.txt").symlink_to(secret / "key")
    (folder / "linked").symlink_to(secret)
    (path.parent / "agent-mine.jsonl").write_text(f'{{"sessionId":"{ONE}"}}\n')
    (path.parent / "agent-other.jsonl").write_text(f'{{"sessionId":"{TWO}"}}\n')
    (path.parent / "agent-junk.jsonl").write_bytes(b"\xff\n")
    files = session_files(path)
    assert [file.name for file in files] == [
        f"{ONE}.jsonl",
        f"{ONE}/subagents/agent-a.jsonl",
        f"{ONE}/subagents/agent-a.meta.json",
        f"{ONE}/subagents/workflows/r/agent-b.jsonl",
        f"{ONE}/tool-results/big.txt",
        "agent-mine.jsonl",
    ]
    assert [file.size_bytes for file in files] == [Path(file.path).stat().st_size for file in files]


@pytest.mark.parametrize("name", ["a: b.txt", "con.txt", "tab\t.txt", "BIG.TXT", "dot."])
def test_a_file_that_could_not_be_restored_is_left_out_and_told(claude, tmp_path, name):
    """One such name in a package would make all of it impossible to restore."""
    path = put(claude, "-home-a", ONE, at=1)
    folder = path.with_suffix("") / "tool-results"
    folder.mkdir(parents=True)
    for each in ("big.txt", name):
        (folder / each).write_text("result")
    session = read_session(path)
    assert len(session.files) == 2
    assert [warning for warning in session.warnings if "is left out" in warning]
    files = {file.name: Path(file.path).read_bytes() for file in session.files}
    assert write_session(files, claude_dir=tmp_path / "new", conversation_id=ONE, cwd="/home/a").path.is_file()


def test_a_session_that_goes_while_it_is_read_is_said_to_be_gone(claude):
    with pytest.raises(NotFoundError, match="has gone while it was being read"):
        session_files(claude.root / "projects" / "-home-a" / f"{ONE}.jsonl")


def test_a_path_outside_the_root_is_refused(claude, tmp_path):
    path = put(claude, "-home-a", ONE, at=1)
    assert read_session(path, root=claude.root).project == "-home-a"
    with pytest.raises(UsageError, match="does not lie under"):
        read_session(path, root=tmp_path / "elsewhere")
