"""Title, folder, branch, queue and links of a session."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from dualmem_mcp.model.conversation import PullRequest
from dualmem_mcp.transcripts.claude_code import read_session

TITLES = (
    ("custom-title", {"customTitle": "mine"}, "mine"),
    ("ai-title", {"aiTitle": "the model's"}, "the model's"),
    ("last-prompt", {"lastPrompt": "asked last", "leafUuid": "u1"}, "asked last"),
    ("summary", {"summary": "in short", "leafUuid": "u1"}, "in short"),
)


@pytest.mark.parametrize("dropped", range(5))
def test_the_title_is_the_best_that_there_is(writer, dropped):
    writer.user("asked  first\nof all")
    for kind, members, _ in reversed(TITLES[dropped:]):
        writer.beside(kind, **members)
    expected = TITLES[dropped][2] if dropped < 4 else "asked first of all"
    assert read_session(writer.write()).title == expected


def test_a_summary_of_this_session_goes_before_one_of_another(writer):
    writer.user("hello")
    writer.beside("summary", summary="this one", leafUuid="u1")
    writer.beside("summary", summary="another", leafUuid="elsewhere")
    assert read_session(writer.write()).title == "this one"


def test_the_first_prompt_as_a_title_is_neither_command_nor_meta(writer):
    writer.user("caveat", isMeta=True)
    writer.user("<command-name>/clear</command-name>")
    writer.user("x" * 500)
    assert read_session(writer.write()).title == "x" * 199 + "…"


def test_the_newest_title_counts(writer):
    writer.user("hello")
    for title in ("early", "late"):
        writer.beside("ai-title", aiTitle=title)
    assert read_session(writer.write()).title == "late"


def test_the_folder_is_the_project_even_from_a_subfolder(writer):
    writer.user("hello")
    writer.assistant("hi", cwd="/home/dev/app/src/deep", gitBranch="feature/x")
    session = read_session(writer.write())
    assert session.cwd == "/home/dev/app"
    assert session.git_branch == "feature/x"
    assert session.project == "-home-dev-app"


def test_without_a_match_the_newest_folder_counts(writer):
    writer.user("hello", cwd="/one")
    writer.user("hello", cwd="/two")
    assert read_session(writer.write()).cwd == "/two"


def test_facts_of_the_session_are_gathered(writer):
    writer.user("hello", permissionMode="default")
    writer.assistant("hi")
    writer.beside("permission-mode", permissionMode="acceptEdits")
    for _ in range(2):
        writer.beside("pr-link", prNumber=7, prUrl="https://example.org/pr/7", prRepository="o/r")
    session = read_session(writer.write())
    assert session.conversation_id == writer.path.stem
    assert session.permission_mode == "acceptEdits"
    assert session.pull_requests == (PullRequest(7, "https://example.org/pr/7", "o/r"),)
    assert (session.version, session.model) == ("2.1.217", "claude-x")
    assert session.started_at == datetime(2026, 3, 1, 10, 0, 1, tzinfo=UTC)
    assert session.ended_at == datetime(2026, 3, 1, 10, 0, 2, tzinfo=UTC)
    assert session.record_count == 5


def test_a_synthetic_message_names_no_model(writer):
    writer.user("hello")
    writer.assistant("hi")
    message = {"role": "assistant", "model": "<synthetic>", "content": [{"type": "text", "text": "API Error: 500"}]}
    writer.record(type="assistant", message=message, isApiErrorMessage=True)
    session = read_session(writer.write())
    assert session.model == "claude-x"
    assert session.turns[-1].is_api_error


def test_prompts_that_were_queued_and_never_became_turns_are_kept(writer):
    writer.user("hello")
    for text in (
        "not yet said",
        "said later as it is",
        "joined with another prompt",
        "/compact",
        "??",
        "not yet said",
    ):
        writer.beside("queue-operation", operation="enqueue", content=text)
    writer.beside("queue-operation", operation="remove")
    writer.beside("queue-operation", operation="popAll", content="popped")
    writer.user("said later as it is")
    writer.user("first part\njoined with another prompt")
    writer.user("<command-name>/compact</command-name>")
    writer.record(type="attachment", attachment={"type": "queued_command", "prompt": "really??"})
    prompts = read_session(writer.write()).queued_prompts
    # What is removed is the one that waits longest: the first "not yet said".
    assert [(prompt.text, prompt.state) for prompt in prompts] == [("??", "waiting"), ("not yet said", "waiting")]


def test_a_queued_prompt_whose_turn_hangs_off_the_thread_is_kept(writer):
    writer.beside("queue-operation", operation="enqueue", content="are they still at it?")
    first = writer.user("write two poems")
    writer.user("are they still at it?")
    writer.user("[Request interrupted by user]")
    writer.user("go on without them", parentUuid=first)
    writer.assistant("Done.")
    session = read_session(writer.write())
    assert "are they still at it?" not in [turn.text for turn in session.all_turns()]
    assert [prompt.text for prompt in session.queued_prompts] == ["are they still at it?"]


def test_the_id_is_the_file_name_else_what_records_say_else_made_of_the_name(writer, tmp_path):
    writer.user("hello")
    writer.write()
    odd = tmp_path / "my session (copy).jsonl"
    odd.write_bytes(writer.path.read_bytes())
    assert read_session(odd).conversation_id == writer.path.stem
    odd.write_bytes(b'{"type":"user","message":{"content":"hi"}}\n')
    assert read_session(odd).conversation_id == "session-my-session-copy-"


def test_every_combination_of_missing_facts_is_read(writer):
    for keys in itertools.combinations(("cwd", "gitBranch", "version", "timestamp", "sessionId"), 3):
        writer.user("hello", **dict.fromkeys(keys))
    session = read_session(writer.write())
    assert len(session.turns) == 10


def test_a_session_of_settings_alone_has_no_turns(writer):
    writer.beside("mode", mode="normal")
    session = read_session(writer.write())
    assert (session.turns, session.title, session.started_at) == ((), "", None)


def test_real_titles_and_folders(shared_transcripts):
    sessions = [read_session(path) for path in shared_transcripts.glob("claude/projects/*/*.jsonl")]
    assert all(session.title and session.cwd and session.version and session.model for session in sessions)
    assert all(session.started_at <= session.ended_at for session in sessions)
    assert {len(session.queued_prompts) for session in sessions} == {0, 1, 2, 3, 5}
