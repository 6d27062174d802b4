"""Commits, pull requests, changes elsewhere, and the state of git."""

from __future__ import annotations

from dualmem_mcp.handoff.digest.files import change_log
from dualmem_mcp.handoff.digest.git_history import (
    extract_actions,
    extract_commits,
    extract_pull_requests,
    git_state,
)
from dualmem_mcp.handoff.digest.tool_calls import tool_calls
from dualmem_mcp.model.conversation import PullRequest
from dualmem_mcp.model.digest import GitState
from tests.handoff.dialogue import CWD, Dialogue


def state_of(dialogue: Dialogue, branch: str = "main") -> GitState:
    calls = tool_calls(dialogue.turns)
    commits, changes = extract_commits(calls), change_log(calls, CWD)
    return git_state(dialogue.turns, calls, commits=commits, changes=changes, branch=branch)


def test_commits_are_read_from_gits_own_lines() -> None:
    dialogue = Dialogue()
    first = dialogue.bash("git init && git commit -m start", "[main (root-commit) 1a2b3c4] start\n 1 file changed")
    dialogue.bash(
        "git commit -m x && git push",
        "Exit code 1\n[feature/a 9f8e7d6c5] add the parser\n ! [rejected] feature/a -> feature/a (fetch first)",
        error=True,
    )
    dialogue.bash("cat log.txt", "[main 0000000] not a commit of this session")
    commits = extract_commits(tool_calls(dialogue.turns))
    assert [(one.hash, one.subject, one.branch) for one in commits] == [
        ("1a2b3c4", "start", "main"),
        ("9f8e7d6c5", "add the parser", "feature/a"),
    ]
    assert commits[0].uuid == first


def test_pull_requests_are_those_made_and_those_linked() -> None:
    dialogue = Dialogue()
    dialogue.bash("gh pr create --title 'Add parser' --body x", "https://github.com/ada/engine/pull/7")
    linked = (
        PullRequest(7, "https://github.com/ada/engine/pull/7", "ada/engine"),
        PullRequest(9, "https://github.com/ada/engine/pull/9", "ada/engine"),
    )
    found = extract_pull_requests(tool_calls(dialogue.turns), linked)
    assert [(one.number, one.title) for one in found] == [(7, "Add parser"), (9, "")]


def test_changes_elsewhere_are_named_with_their_result() -> None:
    dialogue = Dialogue()
    result = '{"identifier":"ENG-4","title":"Parser","url":"https://tracker.test/ENG-4"}'
    dialogue.tool("mcp__tracker__create_issue", {"title": "Parser is slow", "team": "x"}, result)
    dialogue.tool("mcp__tracker__list_issues", {"query": "x"}, "[]")
    dialogue.tool("mcp__tracker__create_issue", {"title": "Again"}, "Argument Validation Error", error=True)
    dialogue.refuse("mcp__tracker__update_issue", {"id": "ENG-4"}, "no")
    dialogue.bash('gh pr comment 7 --body "done in 1a2b3c4"', "https://github.com/ada/engine/pull/7#c")
    dialogue.bash("gh api repos/ada/engine/pulls/7/comments/5/replies -f body='fixed'", "{}")
    dialogue.bash("gh api repos/ada/engine/pulls/7/comments", "[]")
    dialogue.bash("git push", "   1a2b3c4..9f8e7d6  main -> main")
    found = extract_actions(tool_calls(dialogue.turns))
    assert [(one.action, one.subject, one.result) for one in found] == [
        ("tracker create_issue", "title: Parser is slow", "ENG-4 https://tracker.test/ENG-4"),
        ("pr comment 7", "done in 1a2b3c4", ""),
        ("comment on pull request 7", "fixed", ""),
        ("git push", "main", "pushed"),
    ]


def test_only_the_last_push_of_a_branch_counts() -> None:
    dialogue = Dialogue()
    dialogue.bash("git push", " ! [rejected]        main -> main (fetch first)\nerror: failed to push", error=True)
    assert extract_actions(tool_calls(dialogue.turns))[0].result == "rejected: fetch first"
    dialogue.bash("git push", "   1a2b3c4..9f8e7d6  main -> main")
    [push] = extract_actions(tool_calls(dialogue.turns))
    assert push.result == "pushed"


def test_the_branch_is_that_of_the_last_turn() -> None:
    dialogue = Dialogue(branch="main")
    dialogue.user("go")
    dialogue.branch = "feature/b"
    dialogue.model("done")
    assert state_of(dialogue).branch == "feature/b"


def test_files_edited_after_the_last_commit_are_named() -> None:
    dialogue = Dialogue()
    dialogue.edit("a.py")
    dialogue.bash("git commit -am x", "[main 1a2b3c4] x")
    dialogue.edit("b.py")
    state = state_of(dialogue)
    assert (state.last_commit, state.uncommitted) == ("1a2b3c4 x", ("b.py",))


def test_without_a_commit_nothing_is_called_uncommitted() -> None:
    dialogue = Dialogue()
    dialogue.edit("a.py")
    assert state_of(dialogue).uncommitted == ()


def test_restored_files_are_not_called_uncommitted() -> None:
    dialogue = Dialogue()
    dialogue.bash("git commit -m start", "[main 1a2b3c4] start")
    for path in ("a.py", "b.py", "c.py"):
        dialogue.edit(path)
    dialogue.bash("git restore b.py")
    assert state_of(dialogue).uncommitted == ("a.py", "c.py")
    dialogue.bash("git reset --hard", "error: no", error=True)
    assert state_of(dialogue).uncommitted == ("a.py", "c.py")
    dialogue.bash("git reset --hard && make clean")
    dialogue.edit("c.py")
    assert state_of(dialogue).uncommitted == ("c.py",)


def test_a_status_counts_until_something_follows_it() -> None:
    dialogue = Dialogue()
    dialogue.bash("git status", "nothing to commit, working tree clean")
    assert state_of(dialogue).status == "nothing to commit, working tree clean"
    dialogue.edit("a.py")
    assert state_of(dialogue).status == ""


def test_a_status_is_forgotten_when_the_user_has_asked_twice_since() -> None:
    dialogue = Dialogue()
    dialogue.bash("git status", "rebase in progress")
    dialogue.user("one")
    assert state_of(dialogue).status == "rebase in progress"
    dialogue.user("two")
    assert state_of(dialogue).status == ""


def test_a_command_of_very_many_words_takes_little_time() -> None:
    dialogue = Dialogue()
    dialogue.bash("git " * 100_000 + "\n( cd a && git -C b commit -m x )", "[main 1a2b3c4] x")
    assert [commit.hash for commit in extract_commits(tool_calls(dialogue.turns))] == ["1a2b3c4"]
