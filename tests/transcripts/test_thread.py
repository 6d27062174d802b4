"""The active thread and its earlier segments, on small files that show one rule each, and on real sessions."""

from __future__ import annotations

import pytest

from dualmem_mcp.transcripts.claude_code import read_session


def texts(turns):
    return [turn.text or "+".join(f"{block.kind}:{block.tool_use_id}" for block in turn.blocks) for turn in turns]


def test_a_plain_chain_is_read_from_root_to_leaf(writer):
    writer.user("first")
    writer.assistant("answer")
    writer.user("second")
    session = read_session(writer.write())
    assert texts(session.turns) == ["first", "answer", "second"]
    assert session.earlier == ()


def test_a_rewound_prompt_leaves_its_old_branch(writer):
    root = writer.user("first")
    writer.assistant("answer to first")
    fork = writer.parent
    writer.user("wrong way")
    writer.assistant("wrong answer")
    writer.user("better way", parentUuid=fork)
    assert root
    assert texts(read_session(writer.write()).turns) == ["first", "answer to first", "better way"]


def test_a_prompt_rewound_to_the_start_leaves_all_of_the_first_attempt(writer):
    writer.user("first attempt")
    writer.assistant("answer one")
    writer.user("second attempt", parentUuid=None)
    writer.assistant("answer two")
    assert texts(read_session(writer.write()).turns) == ["second attempt", "answer two"]


def test_parallel_calls_and_their_results_are_all_in_the_thread(writer, use):
    writer.user("look at three files")
    calls = {name: writer.assistant(use(name, "Read"), message_id="m1") for name in ("a", "b", "c")}
    for name in ("b", "a", "c"):
        writer.result(name, f"text of {name}", parentUuid=calls[name])
    writer.assistant("seen")
    session = read_session(writer.write())
    assert texts(session.turns) == [
        "look at three files",
        "tool_use:a",
        "tool_use:b",
        "tool_use:c",
        "tool_result:b",
        "tool_result:a",
        "tool_result:c",
        "seen",
    ]


def test_a_call_beside_the_chain_comes_with_its_result(writer, use):
    writer.user("go")
    first = writer.assistant(use("a"), message_id="m1")
    second = writer.assistant(use("b"), message_id="m1")
    writer.result("b", parentUuid=second)
    # The walk up from here passes the record of `a` only.
    writer.result("a", parentUuid=first)
    writer.assistant("seen")
    assert texts(read_session(writer.write()).turns) == [
        "go",
        "tool_use:a",
        "tool_use:b",
        "tool_result:b",
        "tool_result:a",
        "seen",
    ]


def test_results_on_an_abandoned_branch_stay_there(writer, use):
    writer.user("go")
    writer.assistant(use("a"), message_id="m1")
    writer.result("a", "first run")
    fork = writer.assistant("one")
    writer.assistant(use("b"), message_id="m2")
    writer.result("b", "lost")
    writer.user("differently", parentUuid=fork)
    assert "tool_result:b" not in texts(read_session(writer.write()).turns)


def test_messages_repeated_by_a_resumed_session_count_once(writer):
    writer.user("say it")
    writer.assistant("it", message_id="m1")
    writer.assistant("it", message_id="m1", parentUuid=None)
    writer.user("again")
    assert texts(read_session(writer.write()).turns) == ["say it", "it", "again"]


def test_thinking_without_text_is_no_repetition(writer):
    writer.user("think")
    for _ in range(2):
        writer.assistant({"type": "thinking", "thinking": "", "signature": "s"}, message_id="m1")
    assert len(read_session(writer.write()).turns) == 3


def test_a_trimmed_parent_is_bridged_by_file_order(writer):
    writer.user("first")
    writer.assistant("answer")
    writer.user("second", parentUuid="gone")
    assert texts(read_session(writer.write()).turns) == ["first", "answer", "second"]


@pytest.mark.parametrize("members", [{}, {"parentUuid": None}])
def test_a_file_without_links_is_read_in_its_order(writer, members):
    import json

    for number, kind in enumerate(("user", "assistant", "user")):
        record = {
            "type": kind,
            "uuid": f"x{number}",
            "message": {"role": kind, "content": f"text {number}"},
            **members,
        }
        writer.raw(json.dumps(record).encode() + b"\n")
    assert texts(read_session(writer.write()).turns) == ["text 0", "text 1", "text 2"]


def test_a_file_with_hardly_a_link_is_read_in_its_order_too(writer):
    for text in ("one", "two", "three"):
        writer.user(text, parentUuid=None)
    writer.assistant("answer")
    writer.user("four", parentUuid=None)
    assert texts(read_session(writer.write()).turns) == ["one", "two", "three", "answer", "four"]


def test_a_parent_written_after_its_child_is_found(writer):
    writer.user("first")
    writer.record(type="attachment", attachment={"type": "hook_success"}, uuid="late-child", parentUuid="late")
    writer.assistant("answer", uuid="late", parentUuid="u1")
    writer.user("second", parentUuid="late-child")
    assert texts(read_session(writer.write()).turns) == ["first", "answer", "second"]


def test_cycles_end(writer):
    writer.user("a", uuid="a", parentUuid="b")
    writer.assistant("b", uuid="b", parentUuid="a")
    assert texts(read_session(writer.write()).turns) == ["a", "b"]


def test_a_record_that_is_its_own_parent_ends_the_walk(writer):
    writer.user("alone", uuid="a", parentUuid="a")
    assert texts(read_session(writer.write()).turns) == ["alone"]


def test_meta_records_are_no_leaf_but_keep_their_place(writer):
    writer.user("real")
    writer.user("inserted by the client", isMeta=True)
    writer.assistant("answer")
    writer.user("trailing meta", isMeta=True)
    session = read_session(writer.write())
    assert [(turn.text, turn.is_meta) for turn in session.turns] == [
        ("real", False),
        ("inserted by the client", True),
        ("answer", False),
    ]


def test_a_compaction_splits_the_thread(writer):
    writer.user("before")
    last = writer.assistant("answer before")
    writer.boundary(last)
    writer.summary("in short")
    writer.user("after")
    session = read_session(writer.write())
    assert texts(session.earlier) == ["before", "answer before"]
    assert texts(session.turns) == ["in short", "after"]
    assert session.turns[0].is_compact_summary
    assert session.active_tokens < session.visible_tokens


def test_without_the_logical_parent_the_file_order_finds_what_was_before(writer):
    writer.user("before")
    writer.assistant("answer before")
    writer.boundary("trimmed away")
    writer.summary()
    writer.boundary("trimmed away too")
    writer.summary("twice")
    writer.user("after")
    session = read_session(writer.write())
    assert texts(session.earlier) == ["before", "answer before", "what was before"]
    assert texts(session.turns) == ["twice", "after"]


def test_messages_kept_by_a_compaction_follow_its_summary(writer):
    writer.user("old")
    writer.assistant("old answer")
    kept = [writer.user("kept request"), writer.assistant("kept answer")]
    writer.boundary(kept[-1], preservedMessages={"anchorUuid": "sum", "uuids": kept, "allUuids": kept})
    writer.user("in short", isCompactSummary=True, uuid="sum")
    writer.user("new")
    session = read_session(writer.write())
    assert texts(session.turns) == ["in short", "kept request", "kept answer", "new"]
    assert texts(session.earlier) == ["old", "old answer"]


def test_a_kept_stretch_given_by_its_ends_is_followed_by_what_hangs_below_it(writer):
    writer.user("old")
    head = writer.user("kept request")
    tail = writer.assistant("kept answer")
    writer.boundary(tail, preservedSegment={"anchorUuid": "sum", "headUuid": head, "tailUuid": tail})
    writer.user("in short", isCompactSummary=True, uuid="sum")
    writer.user("new", parentUuid=tail)
    session = read_session(writer.write())
    assert texts(session.turns) == ["in short", "kept request", "kept answer", "new"]
    assert texts(session.earlier) == ["old"]


def test_kept_messages_of_two_compactions_lose_nothing(writer):
    first = writer.user("kept twice")
    writer.boundary(first, preservedMessages={"anchorUuid": "s1", "uuids": [first]})
    writer.user("summary one", isCompactSummary=True, uuid="s1")
    second = writer.assistant("between", parentUuid=first)
    writer.boundary(second, preservedMessages={"anchorUuid": "s2", "uuids": [first, second]})
    writer.user("summary two", isCompactSummary=True, uuid="s2")
    writer.user("new")
    session = read_session(writer.write())
    assert texts(session.turns) == ["summary two", "kept twice", "between", "new"]
    assert texts(session.earlier) == ["summary one"]


def test_a_microcompaction_is_no_break(writer):
    writer.user("before")
    writer.record(type="system", subtype="microcompact_boundary", microcompactMetadata={"tokensSaved": 10})
    writer.assistant("after")
    assert texts(read_session(writer.write()).turns) == ["before", "after"]


def test_a_prompt_delivered_while_working_is_a_turn_of_the_user(writer, use):
    writer.user("go")
    writer.assistant(use("a"))
    writer.result("a")
    writer.record(type="attachment", attachment={"type": "queued_command", "prompt": "and be quick"})
    turn = read_session(writer.write()).turns[-1]
    assert (turn.text, turn.role, turn.origin) == ("and be quick", "user", "queued_command")


def test_a_prompt_delivered_last_does_not_get_lost(writer, use):
    writer.user("go")
    call = writer.assistant(use("a"))
    writer.result("a", parentUuid=call)
    writer.record(type="attachment", attachment={"type": "queued_command", "prompt": "one more thing"})
    writer.record(type="system", subtype="turn_duration")
    assert read_session(writer.write()).turns[-1].text == "one more thing"


REAL = {
    "03a1382e-ecd5-42c4-b3d4-5c659e165904": (82, 481, 196),
    "1284c080-f9cd-45f8-9942-ff58f5c517e5": (111, 657, 248),
    "1e0816ef-6f89-4f05-b331-dab09bb14485": (123, 576, 208),
    "cde341db-b80a-44f5-b0f2-94db2ef7a164": (159, 0, 66),
    "47bf5f5c-9e11-4f51-8a29-7ad38ecdf17c": (14, 0, 2),
    "0ccf1a04-1b4c-43b6-8aa5-79e41db43a68": (47, 0, 7),
    "4a07cdcd-b417-4393-84b1-eb50b109af95": (119, 0, 38),
    "592b4ec7-7cdf-488f-b533-6896caff1619": (132, 0, 43),
    "fe5e1c67-53e7-4862-81ae-d0e013e3270b": (32, 0, 11),
}


@pytest.mark.parametrize(("name", "expected"), REAL.items())
def test_real_sessions_show_every_call_with_its_result(shared_transcripts, name, expected):
    (path,) = shared_transcripts.glob(f"claude/projects/*/{name}.jsonl")
    session = read_session(path)
    calls = [block.tool_use_id for turn in session.all_turns() for block in turn.blocks_of("tool_use")]
    answers = [block.tool_use_id for turn in session.all_turns() for block in turn.blocks_of("tool_result")]
    assert (len(session.turns), len(session.earlier), len(set(calls))) == expected
    assert set(answers) <= set(calls)
    assert len(answers) == len(set(answers))
    # One call of one session was cut off, and the two of another were made on a branch left later.
    assert len(set(calls) - set(answers)) <= 2
    uuids = [turn.uuid for turn in session.all_turns()]
    assert len(uuids) == len(set(uuids))
