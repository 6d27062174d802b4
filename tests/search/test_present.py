"""What a conversation is at, as the items that its index has."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.handoff.preload import OWN_TURNS
from dualmem_mcp.model.conversation import Block, Session, Turn
from dualmem_mcp.model.digest import Decision, Digest
from dualmem_mcp.model.source import StoredTurn
from dualmem_mcp.search.findings import GIVEN, QUOTED, decision_findings, session_findings
from dualmem_mcp.search.material import finding_item, turn_item
from dualmem_mcp.search.present import is_quoted, present_items

NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)


def turn(number: int, text: str, **given: object) -> Turn:
    blocks = (Block("text", text),) if text else (Block("thinking", "hm"),)
    role = "user" if number % 2 == 0 else "assistant"
    return Turn(f"t{number}", None, role, NOW, blocks, **given)  # type: ignore[arg-type]


def session(*turns: Turn) -> Session:
    return Session(
        conversation_id="boat",  # type: ignore[arg-type]
        cwd="/boat",
        project="boat",
        git_branch="",
        version="",
        model="",
        permission_mode="",
        title="",
        started_at=None,
        ended_at=None,
        turns=turns,
        earlier=(),
        agents=(),
        files=(),
    )


def decision(text: str, origin: str, uuid: str = "") -> Decision:
    return Decision(text=text, origin=origin, uuid=uuid)


def items(of: Session, *decisions: Decision, limit: int = 50) -> list:
    return present_items(of, Digest(decisions=decisions), device="desk", limit=limit)


def test_the_last_turns_with_something_said_come_first_the_newest_first() -> None:
    said = [turn(number, f"words {number}") for number in range(15)]
    unsaid = [turn(15, ""), turn(16, "meta", is_meta=True), turn(17, "429", is_api_error=True)]
    found = items(session(*said, *unsaid))
    assert [item.text for item in found] == [f"words {14 - number}" for number in range(OWN_TURNS)]


def test_what_a_compaction_took_from_the_model_still_counts() -> None:
    talk = replace(session(turn(2, "words 2")), earlier=(turn(0, "words 0"), turn(1, "words 1")))
    assert [item.text for item in items(talk)] == ["words 2", "words 1", "words 0"]


def test_turns_are_the_items_that_the_index_has() -> None:
    made = turn(3, "the token is ghp_16C7e42F292c6912E7710c838347Ae178B4a, keep it")
    (found,) = items(session(made))
    stored = StoredTurn(9, "boat", made.uuid, made.role, made.text, made.timestamp, device="desk")
    assert found == turn_item(stored)
    assert "ghp_" not in found.text


def test_decisions_follow_the_users_before_the_models_before_quoted_ones() -> None:
    found = items(
        session(turn(0, "hello")),
        decision("given one", "model"),
        decision("given two", "model"),
        decision("chosen one", "user", "u1"),
        decision("chosen two", "user", "u1"),
        *(decision(f"quoted {number}", "extracted", f"q{number}") for number in range(12)),
    )
    texts = [item.text for item in found]
    assert texts[:5] == ["hello", "chosen two", "chosen one", "given two", "given one"]
    assert texts[5:] == [f"quoted {number}" for number in range(10)]
    assert [is_quoted(item) for item in found] == [False] * 5 + [True] * 10


def test_decisions_are_the_items_that_the_index_has() -> None:
    ask = Block(
        "tool_use",
        tool_name="AskUserQuestion",
        tool_use_id="a",
        tool_input={"questions": [{"question": "Which winch?", "options": []}]},
    )
    answer = Block("tool_result", text='"Which winch?"="The blue one"', tool_use_id="a")
    talk = session(
        turn(0, "we need a winch for the boat"),
        Turn("t1", "t0", "assistant", NOW, (ask,)),
        Turn("t2", "t1", "user", NOW, (answer,), detail={"answers": {"Which winch?": "The blue one"}}),
    )
    digest = build_digest(talk, decisions=["Paint it in spring."])
    found = [one for one in present_items(talk, digest, device="desk", limit=50) if one.kind == "decision"]
    read = [finding_item(one) for one in session_findings(talk) if one.kind == "decision"]
    given = decision_findings("boat", [one for one in digest.decisions if one.origin == "model"], GIVEN)
    quoted = decision_findings("boat", [one for one in digest.decisions if one.origin == "extracted"], QUOTED)
    indexed = {one.key: one.text for one in [*read, *map(finding_item, [*given, *quoted])] if one}
    assert read
    assert {one.key: one.text for one in found} == indexed
    assert {"Which winch?\nThe blue one", "Paint it in spring."} <= set(indexed.values())


def test_no_more_than_there_is_room_for() -> None:
    said = [turn(number, f"words {number}") for number in range(15)]
    assert [item.turn_id for item in items(session(*said), decision("x", "user", "u"), limit=3)] == [
        "t14",
        "t13",
        "t12",
    ]
    assert items(session()) == []
    assert items(session(*said), limit=0) == []
