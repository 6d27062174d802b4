"""A session read from bytes is the session that was read from files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dualmem_mcp.errors import MalformedError, TamperedError
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.transcripts.carried import parse_session
from dualmem_mcp.transcripts.claude_code import ClaudeCode, read_session


def carried(path: Path) -> dict[str, bytes]:
    return {file.name: Path(file.path).read_bytes() for file in read_session(path).files}


def test_the_sample_with_its_agents(tmp_path: Path) -> None:
    path = write_sample_session(tmp_path, cwd="/home/you/projects/tollgate")
    read = read_session(path)
    assert read.agents
    assert parse_session(carried(path), project=read.project) == replace(read, files=())


def test_real_sessions(shared_transcripts: Path) -> None:
    for entry in ClaudeCode(shared_transcripts / "claude").sessions():
        read = read_session(entry.path)
        assert parse_session(carried(entry.path), project=read.project) == replace(read, files=())


def test_an_agent_that_cannot_be_read_is_told_and_the_rest_is_there(tmp_path: Path) -> None:
    path = write_sample_session(tmp_path, cwd="/home/you/projects/tollgate")
    files = carried(path)
    agent = next(name for name in files if name.endswith(".jsonl") and "/" in name)
    session = parse_session({**files, agent: b"\x00\xff"})
    assert session.message_count == read_session(path).message_count
    assert any(agent in warning for warning in session.warnings)


@pytest.mark.parametrize(
    "names", [(), ("a.jsonl", "b.jsonl"), ("../a.jsonl",), ("/etc/a.jsonl",), ("a.jsonl", "../x")]
)
def test_names_that_no_session_has_are_tampering(names: tuple[str, ...]) -> None:
    with pytest.raises(TamperedError):
        parse_session(dict.fromkeys(names, b'{"type":"user"}\n'))


def test_a_session_file_without_a_record_is_malformed() -> None:
    with pytest.raises(MalformedError):
        parse_session({"a.jsonl": b"\n"})
