"""What is found of a session beside its turns."""

from __future__ import annotations

import pytest

from dualmem_mcp.model.digest import Decision
from dualmem_mcp.model.project import ProjectFile
from dualmem_mcp.search.findings import (
    FROM_SESSION,
    GIVEN,
    USER,
    decision_findings,
    knowledge_findings,
    session_findings,
)
from tests.handoff.dialogue import Dialogue, agent


def test_answers_and_plans_are_decisions() -> None:
    talk = Dialogue()
    talk.user("Paint the shed")
    asked = talk.tool(
        "AskUserQuestion",
        {"questions": []},
        "answered",
        detail={"answers": {"Which colour?": "green", "When?": "now"}},
    )
    planned = talk.tool("ExitPlanMode", {"plan": "# Paint it green\n1. Buy paint"}, "User has approved your plan")
    found = session_findings(talk.session())
    assert [(one.kind, one.text, one.turn_uuid, one.author) for one in found] == [
        ("decision", "Which colour?\ngreen", asked, "user"),
        ("decision", "When?\nnow", asked, "user"),
        ("decision", "Paint it green\nplan approved", planned, "user"),
    ]
    assert [one.finding_id for one in found] == [
        f"{FROM_SESSION}{asked}/1",
        f"{FROM_SESSION}{asked}/2",
        f"{FROM_SESSION}{planned}/1",
    ]


def test_a_short_answer_stands_with_its_question() -> None:
    talk = Dialogue()
    talk.user("Paint the shed")
    talk.model("Shall I use the vermilion paint that is left over?")
    answer = talk.user("yes please")
    (found,) = session_findings(talk.session())
    assert (found.text, found.turn_uuid) == (
        "Shall I use the vermilion paint that is left over?\nyes please",
        answer,
    )


def test_an_agent_is_what_it_was_asked_and_what_it_reported() -> None:
    talk = Dialogue()
    talk.user("Paint the shed")
    agents = (
        agent(0, "buy paint", result="None was left.", tool_use_id="t1", launched_by="u1"),
        agent(1, "ask around", status="interrupted", last_message="I asked one neighbour."),
        agent(2, "look", result="\n"),
    )
    found = session_findings(talk.session(agents=agents))
    assert [(one.finding_id, one.text, one.turn_uuid) for one in found if one.kind == "agent"] == [
        ("session/t1", "buy paint (general-purpose)\nPlease do this: buy paint.\nNone was left.", "u1"),
        ("session/agent1", "ask around (general-purpose)\nPlease do this: ask around.\nI asked one neighbour.", ""),
        ("session/agent2", "look (general-purpose)\nPlease do this: look.", ""),
    ]


def test_what_the_model_decided_is_named_by_what_it_says() -> None:
    given = [
        Decision(text="green it is", origin="model"),
        Decision(text="in May", origin="model"),
        Decision(text=" "),
    ]
    first = decision_findings("c", given, GIVEN)
    again = decision_findings("c", given[1:], GIVEN)
    assert [(one.text, one.author) for one in first] == [("green it is", "assistant"), ("in May", "assistant")]
    assert again[0].finding_id == first[1].finding_id != first[0].finding_id


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("project/-p/", {"project/-p/memory/MEMORY.md", "project/-p/.claude/agents/painter.md"}),
        (USER, {"user/agents/buyer.md"}),
    ],
)
def test_what_agents_know(source: str, expected: set[str]) -> None:
    files = [
        ProjectFile.of("memory", "memory/MEMORY.md", "The shed is grün.".encode(), 0),
        ProjectFile.of("agent_definition", ".claude/agents/painter.md", b"paint \xff", 1),
        ProjectFile.of("agent_definition", "user/agents/buyer.md", b"buy", 2),
        ProjectFile.of("plan", "plans/p.md", b"a plan", 3),
    ]
    found = knowledge_findings(files, source)
    assert {one.finding_id for one in found} == expected
    assert {one.kind for one in found} == {"agent"}
