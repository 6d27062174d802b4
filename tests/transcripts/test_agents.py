"""Subagents: from files of their own, from sidechains inside the session, from progress records."""

from __future__ import annotations

import json

import pytest

from dualmem_mcp.transcripts.claude_code import read_session

PROMPT = "Find every caller of open_pool and say which of them never close it."


def launch(writer, use, call="t1", tool="Agent", **given):
    given = {"description": "Find callers", "prompt": PROMPT, "subagent_type": "Explore", **given}
    return writer.assistant(use(call, tool, **given))


def agent_file(writer, agent_id="a1", *, meta=None, messages=(), folder="subagents"):
    path = writer.folder / folder / f"agent-{agent_id}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (kind, content) in enumerate(messages):
        message = {"role": kind, "content": content}
        if kind == "assistant":
            message |= {
                "model": "claude-small",
                "usage": {"input_tokens": 5, "cache_read_input_tokens": 900 + number},
            }
        record = {
            "type": kind,
            "uuid": f"{agent_id}-{number}",
            "parentUuid": f"{agent_id}-{number - 1}" if number else None,
            "isSidechain": True,
            "agentId": agent_id,
            "sessionId": writer.path.stem,
            "timestamp": f"2026-03-01T11:00:{number:02d}Z",
            "message": message,
        }
        lines.append(json.dumps(record) + "\n")
    path.write_text("".join(lines))
    if meta is not None:
        path.with_suffix("").with_suffix(".meta.json").write_text(json.dumps(meta))
    return path


WORK = (
    ("user", PROMPT),
    ("assistant", [{"type": "tool_use", "id": "x", "name": "Grep", "input": {"pattern": "open_pool"}}]),
    ("user", [{"type": "tool_result", "tool_use_id": "x", "content": "a.py:3"}]),
    ("assistant", [{"type": "text", "text": "Only a.py never closes it."}]),
)


def test_an_agent_that_reported_back_is_completed(writer, use):
    writer.user("who leaks?")
    turn = launch(writer, use)
    writer.result("t1", "Only a.py never closes it.", toolUseResult={"status": "completed", "agentId": "a1"})
    agent_file(
        writer, meta={"agentType": "Explore", "description": "Find callers", "toolUseId": "t1"}, messages=WORK
    )
    (agent,) = read_session(writer.write()).agents
    assert (agent.id, agent.agent_type, agent.status, agent.order) == ("a1", "Explore", "completed", 0)
    assert agent.prompt == PROMPT
    assert agent.launched_by == turn
    assert agent.result == agent.last_message == "Only a.py never closes it."
    assert (agent.context_tokens, agent.message_count, agent.tool_uses) == (908, 4, 1)
    assert agent.model == "claude-small"
    assert agent.started_at < agent.ended_at


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("The user doesn't want to proceed with this tool use.", "interrupted"),
        ("[Request interrupted by user for tool use]", "interrupted"),
        ("API Error: 529 overloaded", "failed"),
    ],
)
def test_an_agent_whose_call_failed_says_how(writer, use, content, status):
    launch(writer, use, tool="Task")
    writer.result("t1", content, is_error=True)
    (agent,) = read_session(writer.write()).agents
    assert (agent.status, agent.result) == (status, "")


def test_an_agent_that_the_session_still_waited_for_is_interrupted(writer, use):
    writer.user("go")
    launch(writer, use)
    agent_file(writer, meta={"toolUseId": "t1"}, messages=WORK[:3])
    (agent,) = read_session(writer.write()).agents
    assert agent.status == "interrupted"
    assert agent.message_count == 3


def async_launch(writer, use):
    launch(writer, use, run_in_background=True)
    detail = {"isAsync": True, "status": "async_launched", "agentId": "a1", "description": "Find callers"}
    writer.result(
        "t1", [{"type": "text", "text": "Async agent launched successfully.\nagentId: a1"}], toolUseResult=detail
    )


def notice(status="completed", result="Only a.py.", agent="a1"):
    return (
        f"<task-notification>\n<task-id>{agent}</task-id>\n<status>{status}</status>\n"
        f"<summary>Agent done</summary>\n<result>{result}</result>\n</task-notification>"
    )


@pytest.mark.parametrize(
    ("stated", "status"), [("completed", "completed"), ("failed", "failed"), ("killed", "interrupted")]
)
def test_a_notification_brings_the_end_of_a_background_agent(writer, use, stated, status):
    async_launch(writer, use)
    writer.user(notice(stated, "It says </result> itself."))
    (agent,) = read_session(writer.write()).agents
    assert agent.status == status
    assert agent.result == "It says </result> itself."


def test_a_notification_states_the_size_of_an_agent_whose_file_is_missing(writer, use):
    async_launch(writer, use)
    usage = "<usage><total_tokens>22365</total_tokens><tool_uses>4</tool_uses></usage>"
    writer.user(notice(result="I read <usage>none</usage>.").replace("</task-notification>", usage))
    (agent,) = read_session(writer.write()).agents
    assert (agent.context_tokens, agent.tool_uses) == (22365, 4)


def test_a_notification_delivered_between_two_calls_counts(writer, use):
    async_launch(writer, use)
    writer.record(type="attachment", attachment={"type": "queued_command", "prompt": notice()})
    (agent,) = read_session(writer.write()).agents
    assert (agent.status, agent.result) == ("completed", "Only a.py.")


def test_a_report_that_never_reached_the_session_is_no_result(writer, use):
    async_launch(writer, use)
    writer.beside("queue-operation", operation="enqueue", content=notice())
    agent_file(writer, messages=WORK)
    session = read_session(writer.write())
    (agent,) = session.agents
    assert (agent.status, agent.result) == ("completed", "")
    assert agent.last_message == "Only a.py never closes it."
    assert session.queued_prompts == ()


def test_an_agent_asked_for_its_output_brings_its_report(writer, use):
    async_launch(writer, use)
    for call, status in (("t8", "running"), ("t9", "completed")):
        writer.assistant(use(call, "TaskOutput", task_id="a1", block=True))
        writer.result(
            call,
            f"<retrieval_status>success</retrieval_status>\n\n<task_id>a1</task_id>\n\n<status>{status}</status>\n\n"
            "<output>\nOnly a.py.\n</output>",
        )
    (agent,) = read_session(writer.write()).agents
    assert (agent.status, agent.result) == ("completed", "Only a.py.")


@pytest.mark.parametrize(("is_error", "status"), [(False, "interrupted"), (True, "running")])
def test_an_agent_that_was_stopped_is_interrupted(writer, use, is_error, status):
    async_launch(writer, use)
    writer.assistant(use("t9", "TaskStop", task_id="a1"))
    writer.result("t9", "Successfully stopped task: a1", is_error=is_error)
    assert read_session(writer.write()).agents[0].status == status


def test_a_background_agent_without_an_end_is_running(writer, use):
    async_launch(writer, use)
    agent_file(writer, messages=WORK[:3])
    assert read_session(writer.write()).agents[0].status == "running"


def test_sidechains_inside_the_session_are_matched_by_their_prompt(writer, use):
    writer.user("both")
    launch(writer, use, "t1", tool="Task", prompt="ask one")
    launch(writer, use, "t2", tool="Task", prompt="ask two")
    main = writer.parent
    for name in ("two", "one"):
        writer.user(f"ask {name}", isSidechain=True, parentUuid=None)
        writer.assistant(f"did {name}", isSidechain=True)
    writer.result("t2", "two done", parentUuid=main)
    writer.result("t1", "one done")
    session = read_session(writer.write())
    assert [(agent.prompt, agent.last_message, agent.result) for agent in session.agents] == [
        ("ask one", "did one", "one done"),
        ("ask two", "did two", "two done"),
    ]
    assert all("did" not in turn.text for turn in session.turns)


def test_progress_of_older_clients_stands_for_a_missing_file(writer, use):
    launch(writer, use, tool="Task")
    call = writer.parent
    message = {
        "type": "assistant",
        "message": {"content": [{"type": "text", "text": "half way"}], "model": "claude-small"},
    }
    writer.record(
        type="progress", parentToolUseID="t1", data={"type": "agent_progress", "agentId": "a9", "message": message}
    )
    writer.result("t1", "whole way", parentUuid=call)
    (agent,) = read_session(writer.write()).agents
    assert (agent.last_message, agent.result, agent.message_count) == ("half way", "whole way", 1)
    assert agent.id == "a9"


def test_agents_of_agents_are_listed_with_who_launched_them(writer, use):
    launch(writer, use, "t1")
    writer.result("t1", "all done", toolUseResult={"agentId": "outer"})
    inner_call = {
        "type": "tool_use",
        "id": "t2",
        "name": "Agent",
        "input": {"prompt": "inner work", "description": "In"},
    }
    answer = {"type": "tool_result", "tool_use_id": "t2", "content": "inner done"}
    agent_file(
        writer,
        "outer",
        meta={"toolUseId": "t1", "spawnDepth": 1},
        messages=(("user", PROMPT), ("assistant", [inner_call]), ("user", [answer])),
    )
    agent_file(
        writer,
        "inner",
        folder="subagents/workflows/run-1",
        meta={"toolUseId": "t2", "spawnDepth": 2},
        messages=(("user", "inner work"), ("assistant", [{"type": "text", "text": "inner done"}])),
    )
    outer, inner = read_session(writer.write()).agents
    assert (outer.id, outer.status) == ("outer", "completed")
    assert (inner.id, inner.status, inner.launched_by, inner.result) == (
        "inner",
        "completed",
        "outer-1",
        "inner done",
    )


def test_an_agent_whose_launch_is_unknown_is_listed_from_its_file(writer):
    writer.user("hello")
    agent_file(writer, "lost", meta={"agentType": "dev", "description": "Unlaunched"}, messages=WORK)
    (agent,) = read_session(writer.write()).agents
    assert (agent.agent_type, agent.description, agent.status) == ("dev", "Unlaunched", "completed")
    assert agent.launched_by == ""


def test_an_unreadable_agent_file_is_a_warning(writer):
    writer.user("hello")
    (writer.folder / "subagents").mkdir(parents=True)
    (writer.folder / "subagents" / "agent-x.jsonl").write_bytes(b"")
    session = read_session(writer.write())
    assert session.agents == ()
    assert "agent-x.jsonl is empty" in session.warnings[0]


def test_real_sessions_name_every_agent_with_its_outcome(shared_transcripts):
    found = {}
    for path in shared_transcripts.glob("claude/projects/*/*.jsonl"):
        agents = read_session(path).agents
        if agents:
            found[path.stem[:8]] = [
                (agent.status, bool(agent.prompt), bool(agent.last_message)) for agent in agents
            ]
    done = ("completed", True, True)
    assert found == {
        "03a1382e": [done],
        "1284c080": [done] * 2,
        "1e0816ef": [done] * 6,
        "0ccf1a04": [done] * 5,
        "4a07cdcd": [done] * 3,
        "fe5e1c67": [done] * 5,
    }
