"""The digest of whole sessions: made up, and real ones where they are at hand."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from dualmem_mcp.errors import MalformedError
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.handoff.quoting import one_line, without_link_targets
from dualmem_mcp.model.conversation import PullRequest, Session
from dualmem_mcp.model.digest import Digest, Entry
from dualmem_mcp.transcripts.claude_code import read_session
from tests.handoff.dialogue import Dialogue, agent


def entries_of(entry: Entry) -> list[Entry]:
    found = [entry]
    for name in entry.__dataclass_fields__:
        value = getattr(entry, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Entry):
                found += entries_of(one)
    return found


def test_where_a_session_stands() -> None:
    dialogue = Dialogue(branch="feature/x")
    dialogue.user("make the parser faster")
    dialogue.model("Done: 3 times as fast.")
    asked = dialogue.user("now\nthe printer")
    dialogue.model("Let me look at the printer.")
    dialogue.edit("printer.py")
    replied = dialogue.model("I am halfway through.")
    dialogue.call("Bash", {"command": "pytest -q"})
    digest = build_digest(dialogue.session())
    now = digest.resumption
    assert (now.last_request.text, now.last_request.uuid) == ("now\nthe printer", asked)
    assert (now.last_reply.text, now.last_reply.uuid) == ("I am halfway through.", replied)
    assert [(one.name, one.input) for one in now.pending_tools] == [("Bash", "pytest -q")]
    assert now.git.branch == "feature/x"
    assert [one.text for one in now.steps] == ["Let me look at the printer.", "Edit printer.py"]
    assert not now.interrupted


def test_what_the_user_said_on_refusing_is_the_last_request() -> None:
    dialogue = Dialogue()
    dialogue.user("push it")
    uuid = dialogue.refuse("Bash", {"command": "git push"}, "wait, run the tests first")
    digest = build_digest(dialogue.session())
    assert (digest.resumption.last_request.text, digest.resumption.last_request.uuid) == (
        "wait, run the tests first",
        uuid,
    )
    assert digest.resumption.pending_tools == ()


def test_a_call_left_open_before_the_last_request_is_not_pending() -> None:
    dialogue = Dialogue()
    dialogue.user("one")
    dialogue.call("Bash", {"command": "make"})
    dialogue.user("two")
    assert build_digest(dialogue.session()).resumption.pending_tools == ()


def test_an_interruption_without_a_word_is_said() -> None:
    dialogue = Dialogue()
    dialogue.user("go")
    dialogue.model("Going.")
    dialogue.user("[Request interrupted by user]")
    assert build_digest(dialogue.session()).resumption.interrupted
    dialogue.user("go on, but slower")
    assert not build_digest(dialogue.session()).resumption.interrupted


def test_the_latest_compaction_summary_is_kept_and_requests_before_it_too() -> None:
    dialogue = Dialogue()
    dialogue.user("never touch main")
    dialogue.compact("first summary")
    dialogue.user("go on")
    dialogue.compact("second summary")
    dialogue.user("and on")
    digest = build_digest(dialogue.session())
    assert digest.compaction_summary.text == "second summary"
    assert [one.text for one in digest.requests] == ["never touch main", "go on", "and on"]


def test_each_request_has_what_came_of_it() -> None:
    dialogue = Dialogue()
    dialogue.user("fix the parser")
    dialogue.model("Let me look.")
    end = dialogue.model("Fixed `parse()` in `a.py`: it dropped the last 3 bytes.\n\nAnything else?")
    dialogue.user("thanks")
    request = build_digest(dialogue.session()).requests[0]
    assert (request.outcome, request.outcome_uuid) == (
        "Fixed `parse()` in `a.py`: it dropped the last 3 bytes.",
        end,
    )
    assert request.reply.startswith("Fixed")


def test_agents_are_there_in_order_with_status_and_outcome() -> None:
    dialogue = Dialogue()
    dialogue.user("go")
    agents = (
        agent(1, "write tests", "interrupted", last_message="I was about to run them."),
        agent(0, "explore", result="I searched.\n\nThe parser lives in `src/parse.py` and has 3 callers."),
    )
    first, second = build_digest(dialogue.session(agents=agents)).agents
    assert (first.description, first.status) == ("explore", "completed")
    assert first.outcome == "The parser lives in `src/parse.py` and has 3 callers."
    assert (second.status, second.outcome) == ("interrupted", "I was about to run them.")


def test_the_calling_models_words_never_replace_what_was_extracted() -> None:
    dialogue = Dialogue()
    dialogue.user("go")
    dialogue.edit("a.py")
    dialogue.bash("pytest -q", "== 1 failed, 2 passed in 0.1s ==")
    plain = build_digest(dialogue.session())
    told = build_digest(
        dialogue.session(),
        summary="All tests pass; b.py was edited.",
        decisions=["ship it", " "],
        next_steps=["push to main"],
        open_questions=["why?"],
    )
    assert (told.files, told.tests, told.resumption) == (plain.files, plain.tests, plain.resumption)
    assert [(one.text, one.origin) for one in told.decisions if one not in plain.decisions] == [
        ("ship it", "model")
    ]
    assert (told.summary, told.next_steps, told.open_questions) == (
        "All tests pass; b.py was edited.",
        ("push to main",),
        ("why?",),
    )


@pytest.mark.parametrize("turns", ["none", "one question", "no tools", "model alone", "meta alone"])
def test_small_sessions_give_a_digest(turns: str) -> None:
    dialogue = Dialogue()
    if turns == "one question":
        dialogue.user("hello?")
    elif turns == "no tools":
        dialogue.user("سؤال؟ 🫣")
        dialogue.model("回答です。")
    elif turns == "model alone":
        dialogue.model("Hello.")
    elif turns == "meta alone":
        dialogue.user("caveat", is_meta=True)
    digest = build_digest(dialogue.session())
    assert Digest.from_json(digest.to_json()) == digest
    assert bool(digest.requests) == (turns in ("one question", "no tools"))


def test_everything_traces_to_a_turn() -> None:
    dialogue = Dialogue()
    dialogue.user("go")
    dialogue.edit("a.py")
    dialogue.bash("make", "Exit code 2\nfatal error", error=True)
    dialogue.bash("pytest", "== 1 passed in 0.1s ==")
    dialogue.bash("git commit -am x", "[main 1a2b3c4] x")
    dialogue.tool("TodoWrite", {"todos": [{"content": "a", "status": "pending"}]})
    dialogue.model("The root cause is `x` in `a.py`, because 3 rows are missing.")
    session = dialogue.session(agents=(agent(0, "look", launched_by=dialogue.turns[0].uuid),))
    digest = build_digest(session)
    uuids = {turn.uuid for turn in session.all_turns()}
    listed = [
        one
        for group in (digest.requests, digest.files, digest.commands, digest.tests, digest.errors, digest.commits)
        for one in group
    ]
    listed += [*digest.tasks, *digest.agents, *digest.decisions]
    assert len(listed) >= 9
    assert all(one.uuid in uuids for one in listed)


def test_linked_pull_requests_are_there() -> None:
    dialogue = Dialogue()
    dialogue.user("go")
    linked = PullRequest(4, "https://github.com/ada/engine/pull/4", "ada/engine")
    assert build_digest(dialogue.session(pull_requests=(linked,))).pull_requests[0].number == 4


# --- real sessions ------------------------------------------------------------------------------------------


def real_sessions(folder: Path) -> list[Session]:
    found = []
    for path in sorted(folder.rglob("*.jsonl")):
        if path.parent.name != "subagents":
            with contextlib.suppress(MalformedError):  # one file of the collection holds no session
                found.append(read_session(path))
    return found


def test_every_real_session_gives_a_digest_whose_entries_all_trace(shared_transcripts: Path) -> None:
    sessions = real_sessions(shared_transcripts)
    assert len(sessions) > 20
    for session in sessions:
        digest = build_digest(session)
        # Linked pull requests, undelivered prompts and agents launched by agents have no turn of this thread.
        uuids = {turn.uuid for turn in session.all_turns()} | {one.uuid for one in digest.agents} | {""}
        assert not [one.uuid for one in entries_of(digest) if one.uuid not in uuids]
        assert Digest.from_json(json.loads(json.dumps(digest.to_json()))) == digest


def test_quotes_of_real_sessions_stand_in_the_turns_that_they_name(shared_transcripts: Path) -> None:
    """Nothing is invented: requests stand there as they are, findings word for word."""
    checked = 0
    for session in real_sessions(shared_transcripts / "claude"):
        said = {
            turn.uuid: one_line("\n\n".join(block.text for block in turn.blocks)) for turn in session.all_turns()
        }
        digest = build_digest(session)
        for request in digest.requests:
            if request.uuid and request.kind != "command" and request.text != "[image]":
                assert one_line(request.text) in said[request.uuid]
                checked += 1
        for finding in digest.decisions:
            if finding.origin == "extracted":
                words = [word.strip("…[]()*/—") for word in finding.text.split()]
                plain = without_link_targets(said[finding.uuid])
                assert not [word for word in words if word not in plain]
                checked += 1
    assert checked > 300
