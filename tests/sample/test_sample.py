"""The sample session: the same in every run, and everything in it that a handoff has to carry."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.transcripts.claude_code import ClaudeCode, read_session

CWD = "/home/dev/tollgate"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_sample_session(tmp_path_factory.mktemp("sample"), cwd=CWD)


@pytest.fixture(scope="module")
def session(path):
    return read_session(path)


def test_it_is_large_enough_to_mean_something(path, session):
    assert path.stat().st_size > 10**6
    assert session.message_count >= 500
    assert session.visible_tokens >= 60_000
    assert session.active_tokens >= 20_000


def test_it_is_the_same_in_every_run(path, tmp_path):
    again = write_sample_session(tmp_path, cwd=CWD)
    assert again.name == path.name
    assert again.read_bytes() == path.read_bytes()


def test_it_is_found_like_a_session_of_claude_code(path):
    root = path.parents[2]
    assert ClaudeCode(root).find(project_dir=CWD) == path


def test_it_is_read_without_a_remark(session):
    assert session.warnings == ()
    assert session.title == "Shared storage backends for tollgate"
    assert session.cwd == CWD
    assert session.git_branch == "feature/shared-storage"
    assert len(session.pull_requests) == 1
    assert len(session.queued_prompts) == 1


def test_its_agents_end_in_three_ways(session):
    assert [(agent.agent_type, agent.status, bool(agent.result)) for agent in session.agents] == [
        ("Explore", "completed", True),
        ("limits-reviewer", "completed", True),
        ("general-purpose", "interrupted", False),
    ]
    assert all(agent.message_count > 5 and agent.launched_by for agent in session.agents)


def test_it_holds_what_a_digest_looks_for(session):
    turns = list(session.all_turns())
    names = Counter(block.tool_name for turn in turns for block in turn.blocks_of("tool_use"))
    assert {"Read", "Grep", "Edit", "Write", "Bash", "Agent", "TaskCreate", "TaskUpdate", "Glob"} <= names.keys()
    assert names["AskUserQuestion"] == names["ExitPlanMode"] == 1
    assert sum(turn.is_compact_summary for turn in turns) == 1
    assert sum(any(turn.blocks_of("thinking")) for turn in turns) > 10
    assert any(turn.text.startswith("no, not like that:") for turn in turns)
    assert any(turn.origin == "queued_command" for turn in turns)
    results = [block for turn in turns for block in turn.blocks_of("tool_result")]
    failed = [block for block in results if block.is_error and "1 failed" in block.text]
    assert len(failed) > 3
    assert len({block.text for block in failed}) == len(failed)


def test_it_ends_in_the_middle_of_things(session):
    turns = list(session.all_turns())
    calls = {block.tool_use_id for turn in turns for block in turn.blocks_of("tool_use")}
    answers = {block.tool_use_id for turn in turns for block in turn.blocks_of("tool_result")}
    assert len(calls - answers) == 1
    last = [turn.text for turn in turns if turn.role == "user" and turn.text][-1]
    assert last.startswith("CI is red")


def test_its_text_varies(session):
    requests = [turn.text for turn in session.all_turns() if turn.role == "user" and turn.text and not turn.origin]
    assert len(set(requests)) > 0.8 * len(requests)
    edits = [
        block.tool_input["new_string"]
        for turn in session.all_turns()
        for block in turn.blocks_of("tool_use")
        if block.tool_name == "Edit"
    ]
    assert len(set(edits)) > 0.8 * len(edits)  # the same slip is repaired in several backends


def test_its_chain_holds_and_its_edits_fit_the_files(path):
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    uuids = {record["uuid"] for record in records if "uuid" in record}
    assert all(record["parentUuid"] in uuids | {None} for record in records if "uuid" in record)
    for record in records:
        detail = record.get("toolUseResult")
        if isinstance(detail, dict) and "oldString" in detail:
            assert detail["oldString"] in detail["originalFile"]
            assert detail["structuredPatch"]


@pytest.mark.parametrize("turns", [300, 1500])
def test_it_grows_as_asked(tmp_path, turns):
    path = write_sample_session(tmp_path, cwd=CWD, turns=turns)
    session = read_session(path)
    assert turns * 0.95 < session.message_count < turns * 1.1
    assert session.warnings == ()


def test_it_writes_what_lies_around_a_session(path, session):
    root = path.parents[2]
    assert sorted(file.relative_to(root).as_posix() for file in root.rglob("*.md")) == [
        "agents/limits-reviewer.md",
        "plans/patient-counting-heron.md",
        f"projects/{session.project}/memory/MEMORY.md",
    ]
    assert len(session.files) == 7
    assert all(Path(file.path).is_file() for file in session.files)
