"""A session written back: byte for byte, in another place, beside another of its id, or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
import uuid
from pathlib import Path

import pytest

from dualmem_mcp.errors import DiskFullError, StoreUnreachableError, TamperedError, UsageError
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.transcripts import restore
from dualmem_mcp.transcripts.claude_code import ClaudeCode, read_session
from dualmem_mcp.transcripts.restore import write_session


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    path = write_sample_session(tmp_path_factory.mktemp("desk") / "claude", cwd="/home/dev/tollgate", turns=300)
    return read_session(path)


@pytest.fixture
def files(session):
    return {file.name: Path(file.path).read_bytes() for file in session.files}


@pytest.fixture
def claude_dir(tmp_path):
    return tmp_path / "claude"


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put_back(session, files, claude_dir, **arguments):
    return write_session(
        files, claude_dir=claude_dir, conversation_id=session.conversation_id, project=session.project, **arguments
    )


def test_nothing_asked_is_the_same_bytes(session, files, claude_dir):
    restored = put_back(session, files, claude_dir)
    main = files[f"{session.conversation_id}.jsonl"]
    assert restored.path.read_bytes() == main
    assert restored.session_id == session.conversation_id
    assert restored.sha256 == hashlib.sha256(main).hexdigest()
    assert restored.records == session.record_count
    assert (restored.rewritten, restored.written) == (False, True)
    assert tree(claude_dir / "projects" / session.project) == files


def test_what_was_restored_reads_like_what_was_handed_over(session, files, claude_dir):
    again = read_session(put_back(session, files, claude_dir).path)
    assert (again.turns, again.earlier, again.agents) == (session.turns, session.earlier, session.agents)
    assert [file.name for file in again.files] == [file.name for file in session.files]


def test_files_and_folders_are_the_users_alone(session, files, claude_dir):
    restored = put_back(session, files, claude_dir)
    for path in (claude_dir, restored.path.parent, *restored.path.parent.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_the_same_session_is_left_alone(session, files, claude_dir):
    put_back(session, files, claude_dir)
    before = {path: path.stat().st_mtime_ns for path in claude_dir.rglob("*")}
    again = put_back(session, files, claude_dir)
    assert not again.written
    assert "already" in again.warnings[-1]
    assert {path: path.stat().st_mtime_ns for path in claude_dir.rglob("*")} == before


def test_a_missing_part_of_the_same_session_is_added(session, files, claude_dir):
    restored = put_back(session, files, claude_dir)
    lost = next(restored.path.parent.rglob("agent-*.jsonl"))
    data = lost.read_bytes()
    lost.unlink()
    assert put_back(session, files, claude_dir).written
    assert lost.read_bytes() == data


def chain_holds(data, agent=False):
    """An independent check: every record but roots hangs below one that the file holds."""
    records = [json.loads(line) for line in data.splitlines()]
    uuids = {record["uuid"] for record in records if "uuid" in record}
    parents = [record["parentUuid"] for record in records if "uuid" in record]
    return all(parent is None or parent in uuids for parent in parents) and len(uuids) == len(parents)


def test_another_working_directory_is_written_into_every_record(session, files, claude_dir, tmp_path):
    there = tmp_path / "phone" / "tollgate"
    there.mkdir(parents=True)
    restored = put_back(session, files, claude_dir, cwd=str(there))
    assert restored.rewritten
    assert restored.session_id == session.conversation_id
    assert restored.path.parent.name == "".join(char if char.isalnum() else "-" for char in str(there))
    old = files[f"{session.conversation_id}.jsonl"].splitlines()
    new = restored.path.read_bytes().splitlines()
    assert len(old) == len(new)
    for before, after in zip(map(json.loads, old), map(json.loads, new), strict=True):
        if "cwd" in before:
            before["cwd"] = str(there)
        assert before == after
    agent = next(restored.path.parent.rglob("agent-*.jsonl"))
    assert {json.loads(line).get("cwd", str(there)) for line in agent.read_bytes().splitlines()} == {str(there)}
    assert chain_holds(restored.path.read_bytes())
    again = read_session(restored.path)
    assert (again.cwd, again.project) == (str(there), restored.path.parent.name)
    assert ClaudeCode(claude_dir).find(project_dir=str(there)) == restored.path


def test_another_session_of_the_id_keeps_its_place(session, files, claude_dir):
    taken = claude_dir / "projects" / session.project / f"{session.conversation_id}.jsonl"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b'{"type":"user","uuid":"x","message":{"content":"mine"}}\n')
    restored = put_back(session, files, claude_dir)
    assert taken.read_bytes().endswith(b'"mine"}}\n')
    assert restored.session_id != session.conversation_id
    assert uuid.UUID(restored.session_id).version == 4
    assert restored.rewritten
    assert "another session holds the id" in restored.warnings[0]
    names = {name.replace(session.conversation_id, restored.session_id) for name in files}
    assert set(tree(taken.parent)) == names | {taken.name}
    for path in restored.path.parent.rglob("*.jsonl"):
        if path != taken:
            ids = {json.loads(line)["sessionId"] for line in path.read_bytes().splitlines()}
            assert ids == {restored.session_id}
            assert chain_holds(path.read_bytes())
    again = read_session(restored.path)
    assert [turn.text for turn in again.all_turns()] == [turn.text for turn in session.all_turns()]
    assert [agent.id for agent in again.agents] == [agent.id for agent in session.agents]


def test_a_conflict_restored_twice_is_found_again(session, files, claude_dir):
    taken = claude_dir / "projects" / session.project / f"{session.conversation_id}.jsonl"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"other")
    first, second = put_back(session, files, claude_dir), put_back(session, files, claude_dir)
    assert first.session_id == second.session_id
    assert not second.written
    with first.path.open("ab") as file:  # the user went on with it
        file.write(b'{"type":"mode"}\n')
    third = put_back(session, files, claude_dir)
    assert third.session_id not in {first.session_id, session.conversation_id}


def test_an_id_held_by_another_project_is_a_conflict(session, files, claude_dir, tmp_path):
    put_back(session, files, claude_dir)
    moved = put_back(session, files, claude_dir, cwd=str(tmp_path))
    assert moved.session_id != session.conversation_id
    assert ClaudeCode(claude_dir).find(session.conversation_id).parent.name == session.project


def test_an_agent_file_of_other_content_is_a_conflict(session, files, claude_dir):
    name = next(name for name in files if "/" in name)
    path = claude_dir / "projects" / session.project / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other")
    assert put_back(session, files, claude_dir).session_id != session.conversation_id
    assert path.read_bytes() == b"other"


@pytest.mark.parametrize("part", ["", "subagents"])
def test_links_in_the_way_are_not_written_through(session, files, claude_dir, tmp_path, part):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = claude_dir / "projects" / session.project / session.conversation_id / part
    link.parent.mkdir(parents=True)
    Path(str(link).rstrip("/")).symlink_to(outside)
    restored = put_back(session, files, claude_dir)
    assert restored.session_id != session.conversation_id
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["../../evil.txt", "/tmp/evil", r"..\evil", "C:/evil", "x/../../evil"])
def test_hostile_names_are_refused_before_anything_is_written(session, files, claude_dir, name):
    with pytest.raises(TamperedError):
        put_back(session, {**files, name: b"evil"}, claude_dir)
    assert not claude_dir.exists()


def test_a_name_given_twice_is_refused(session, files, claude_dir):
    pairs = [*files.items(), next(iter(files.items()))]
    with pytest.raises(TamperedError):
        write_session(iter(pairs), claude_dir=claude_dir, conversation_id=session.conversation_id)


@pytest.mark.parametrize("project", ["..", "a/b", "../x", "a\0b", "C:x"])
def test_a_hostile_project_is_refused(session, files, claude_dir, project):
    with pytest.raises(TamperedError):
        write_session(files, claude_dir=claude_dir, conversation_id=session.conversation_id, project=project)


def test_a_hostile_id_is_refused(session, files, claude_dir):
    with pytest.raises(UsageError):
        write_session(files, claude_dir=claude_dir, conversation_id="../../x")


def test_a_working_directory_that_no_system_can_have_is_only_warned_of(session, files, claude_dir):
    restored = put_back(session, files, claude_dir, cwd="/" + "long" * 100)
    assert "not on this machine" in restored.warnings[0]
    assert restored.path.is_file()


def test_without_a_project_the_records_lead_to_the_folder(session, files, claude_dir):
    restored = write_session(files.items(), claude_dir=claude_dir, conversation_id=session.conversation_id)
    assert restored.path.parent.name == "-home-dev-tollgate"
    assert "not on this machine" in restored.warnings[0]


def test_a_session_that_names_no_folder_needs_one(claude_dir):
    files = {"s.jsonl": b'{"type":"user","uuid":"a","message":{"content":"hi"}}\n'}
    with pytest.raises(UsageError, match="no working directory") as caught:
        write_session(files, claude_dir=claude_dir, conversation_id="s")
    assert "--cwd" in caught.value.hint


def test_a_place_that_cannot_be_used_is_named(session, files, claude_dir):
    claude_dir.write_text("a file stands here")
    with pytest.raises(StoreUnreachableError, match="nothing was changed"):
        put_back(session, files, claude_dir)


def test_a_full_disk_leaves_nothing_behind(session, files, claude_dir, monkeypatch):
    written = []

    def full(descriptor):
        written.append(descriptor)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="no space left") as caught:
        put_back(session, files, claude_dir)
    assert caught.value.hint
    assert tree(claude_dir) == {}


def test_a_failure_while_files_are_put_in_place_takes_them_back(session, files, claude_dir, monkeypatch):
    move = restore._move_unless_there
    moved = []

    def broken(source, target):
        if len(moved) == 4:
            raise PermissionError(errno.EACCES, "Permission denied")
        move(source, target)
        moved.append(target)

    monkeypatch.setattr(restore, "_move_unless_there", broken)
    with pytest.raises(StoreUnreachableError, match="Permission denied"):
        put_back(session, files, claude_dir)
    assert tree(claude_dir) == {}


def test_what_a_restore_left_that_was_killed_is_removed_a_day_later(session, files, claude_dir):
    folder = claude_dir / "projects" / session.project
    for name, age in ((".restore-old", 25), (".restore-new", 1)):
        (folder / name).mkdir(parents=True)
        (folder / name / "0").write_bytes(b"half")
        then = time.time() - age * 3600
        os.utime(folder / name, (then, then))
    put_back(session, files, claude_dir)
    assert sorted(path.name for path in folder.glob(".restore-*")) == [".restore-new"]


def test_torn_and_unknown_lines_stay_as_they_are(session, claude_dir):
    name = f"{session.conversation_id}.jsonl"
    data = (
        b'{"type":"user","uuid":"a","parentUuid":null,"cwd":"/old","sessionId":"s","message":{"content":"hi"}}\n'
        b"\xff\x00 junk\n"
        b'{"type":"brand-new","nested":{"cwd":"/old"},"cwd":"/old/sub"}\n'
        b'{"type":"assistant","uuid":"b","cwd":"/old","mess'
    )
    restored = put_back(session, {name: data}, claude_dir, cwd="/new")
    lines = restored.path.read_bytes().split(b"\n")
    assert json.loads(lines[0])["cwd"] == "/new"
    assert lines[1] == b"\xff\x00 junk"
    assert json.loads(lines[2]) == {"type": "brand-new", "nested": {"cwd": "/old"}, "cwd": "/new/sub"}
    assert lines[3] == b'{"type":"assistant","uuid":"b","cwd":"/old","mess'
    assert restored.records == 2


def test_real_sessions_come_back_byte_for_byte(shared_transcripts, claude_dir):
    for path in sorted(shared_transcripts.glob("claude/projects/*/*.jsonl")):
        real = read_session(path)
        files = {file.name: Path(file.path).read_bytes() for file in real.files}
        restored = put_back(real, files, claude_dir)
        assert {name: (restored.path.parent / name).read_bytes() for name in files} == files
