"""Probes: what is asked, and when an answer stands in a digest."""

from __future__ import annotations

import pytest

from dualmem_mcp.handoff.fidelity.marked_lines import TurnNames, marked_lines
from dualmem_mcp.handoff.fidelity.probes import Held, Probe, ask, is_held
from dualmem_mcp.handoff.fidelity.said import Said
from dualmem_mcp.model.conversation import QueuedPrompt, Session
from tests.handoff.dialogue import Dialogue, agent
from tests.handoff.fidelity.whole import whole_brief


def working_session() -> Session:
    dialogue = Dialogue(branch="feature/parser")
    dialogue.user("Please make the parser of configuration files accept comments, as TOML has them")
    dialogue.tool("Task", {"description": "map the parser", "prompt": "look"}, "it is one file")
    states = {"read comments": "completed", "write the changelog": "pending"}
    dialogue.tool("TodoWrite", {"todos": [{"content": name, "status": state} for name, state in states.items()]})
    dialogue.edit("src/parser.py")
    dialogue.create("src/comments.py")
    dialogue.bash("pytest -q", "1 failed, 30 passed in 2s", error=True)
    dialogue.user("yes")
    dialogue.bash("pytest -q", "31 passed in 2s")
    dialogue.model("All green.")
    dialogue.user("now write the changelog")
    return dialogue.session(agents=(agent(0, "map the parser"),), queued=(QueuedPrompt("then push it all"),))


def probes_of(session: Session) -> list[Probe]:
    return ask(Said(session), agents=session.agents, cwd=session.cwd)


def held(text: str, session: Session) -> Held:
    names = TurnNames([turn.uuid for turn in Said(session).turns])
    return Held(text, marked_lines(text, names))


def missing(text: str, session: Session) -> list[str]:
    return [f"{one.kind}: {one.answers[0]}" for one in probes_of(session) if not is_held(one, held(text, session))]


def test_every_kind_is_asked_about() -> None:
    session = working_session()
    found = [(one.kind, one.answers[0]) for one in probes_of(session)]
    assert found == [
        ("requests", "Please make the parser of configuration files accept comments, as TOML has them"),
        ("requests", "yes"),
        ("requests", "now write the changelog"),
        ("requests", "then push it all"),
        ("files", "src/parser.py"),
        ("files", "src/comments.py"),
        ("tests", "31 passed"),
        ("tasks", "write the changelog"),
        ("agents", "map the parser"),
        ("last_request", "now write the changelog"),
        ("branch", "feature/parser"),
    ]
    uuids = {turn.uuid for turn in session.all_turns()}
    assert all(one.uuid in uuids for one in probes_of(session) if one.answers != ("then push it all",))


def test_the_whole_conversation_answers_all_and_nothing_answers_none() -> None:
    session = working_session()
    assert missing(whole_brief(session), session) == []
    assert len(missing("", session)) == len(probes_of(session)) == 11


def test_each_request_left_out_is_missed() -> None:
    session = working_session()
    for request in Said(session).requests[:2]:
        lost = missing(whole_brief(session, without=frozenset({request.uuid})), session)
        assert lost == [f"requests: {request.text}"]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("- src/ parser.py, comments.py", "files"),
        ("- src/parser.py — edited\n- src/comments.py — created", "files"),
        ("- [ ] write the changelog", "tasks"),
        ("- completed: map the parser", "agents"),
        ("branch `feature/parser`; last commit", "branch"),
        ("- [0000000c] → ok (31 passed)", "tests"),
        ("- [0000000d] `pytest -q` → ok (31 passed)", "tests"),
    ],
)
def test_an_answer_may_stand_in_any_of_the_forms_of_a_brief(line: str, kind: str) -> None:
    session = working_session()
    asked = [one for one in probes_of(session) if one.kind == kind]
    assert asked
    assert all(is_held(one, held(f"## Where it stands\n{line}", session)) for one in asked)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("- src/myparser.py, src/comments.pyc", "files"),
        ("- lib/src/parser.py and src/comments.py.bak", "files"),
        ("- lib/ parser.py, comments.py", "files"),
        ("- [x] write the changelog", "tasks"),
        ("- [x] [00000001] read; write the changelog", "tasks"),
        ("branch `feature/parser-2`", "branch"),
        ("- [00000009] → failed (31 passed)", "tests"),
        ("- [0000000d] → ok (131 passed)", "tests"),
        ("31 passed", "tests"),
        ("map the pars", "agents"),
    ],
)
def test_what_only_looks_like_an_answer_is_none(line: str, kind: str) -> None:
    session = working_session()
    asked = [one for one in probes_of(session) if one.kind == kind]
    assert asked
    assert not any(is_held(one, held(f"## Where it stands\n{line}", session)) for one in asked)


def test_a_short_request_counts_only_where_a_line_begins_with_it() -> None:
    session = working_session()
    short = next(one for one in probes_of(session) if one.answers == ("yes",))
    assert not is_held(short, held("## Where it stands\n- [00000000] and yes, he said yes", session))
    assert is_held(short, held("## Where it stands\n- [00000000] yes (×2)", session))
    assert is_held(short, held("## Where it stands\n- [00000000]\n```\nyes\n```", session))


def test_a_long_request_may_be_shortened_but_not_to_nothing() -> None:
    dialogue = Dialogue()
    text = "Rename the method " + "and every caller of it, " * 20
    dialogue.user(text)
    session = dialogue.session()
    request, last = probes_of(session)[:2]
    cut = held(f"## Where it stands\n- [00000000] {text[:100]}…", session)
    assert (is_held(request, cut), is_held(last, cut)) == (True, False)
    assert not is_held(request, held(f"## Where it stands\n- [00000000] {text[:60]}…", session))


def test_the_same_request_said_again_is_one_question() -> None:
    dialogue = Dialogue()
    for text in ("go on", "Go  on", "go on!"):
        dialogue.user(text)
    assert [one.answers[0] for one in probes_of(dialogue.session()) if one.kind == "requests"] == [
        "go on",
        "go on!",
    ]


def test_of_very_many_requests_some_are_asked_about_from_all_over_the_conversation() -> None:
    dialogue = Dialogue()
    for number in range(3_000):
        dialogue.user(f"wish number {number} of very many that were made in this conversation")
    session = dialogue.session()
    asked = [one for one in probes_of(session) if one.kind == "requests"]
    assert len(asked) == 400
    numbers = [int(one.answers[0].split()[2]) for one in asked]
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1] > 2_980) == (0, True)
    assert not any(is_held(one, held("", session)) for one in asked)


def test_a_secret_in_a_request_is_held_where_the_digest_has_it_redacted() -> None:
    dialogue = Dialogue()
    dialogue.user("call it with the key AKIAIOSFODNN7EXAMPLE, please")
    session = dialogue.session()
    shown = "## Where it stands\n- [00000000] call it with the key [redacted"
    from dualmem_mcp.handoff.redact import redact

    hidden = redact("call it with the key AKIAIOSFODNN7EXAMPLE, please")
    assert "AKIA" not in hidden
    assert all(is_held(one, held(f"## Where it stands\n- [00000000] {hidden}", session))
               for one in probes_of(session) if one.kind != "branch")  # fmt: skip
    assert not is_held(probes_of(session)[0], held(shown, session))


def test_a_conversation_in_which_nothing_was_done_is_asked_nothing() -> None:
    assert probes_of(Dialogue().session()) == []
    dialogue = Dialogue(branch="")
    dialogue.model("Hello.")
    assert probes_of(dialogue.session()) == []
