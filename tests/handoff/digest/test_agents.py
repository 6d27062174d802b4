"""Agents as a digest names them."""

from __future__ import annotations

from dualmem_mcp.handoff.digest.agents import extract_agents
from tests.handoff.dialogue import agent


def test_agents_keep_the_order_of_their_launch() -> None:
    found = extract_agents([agent(1, "second"), agent(0, "first", launched_by="u1", context_tokens=7)])
    assert [one.description for one in found] == ["first", "second"]
    assert (found[0].uuid, found[0].context_tokens, found[0].type) == ("u1", 7, "general-purpose")


def test_a_last_message_that_is_the_report_is_not_kept_twice() -> None:
    [found] = extract_agents([agent(0, "x", result="All is fine.", last_message="All is fine.")])
    assert (found.result, found.last_message, found.outcome) == ("All is fine.", "", "All is fine.")


def test_long_reports_lose_their_middle_and_controls() -> None:
    [found] = extract_agents([agent(0, "x", result="begin\x1b[1m " + "word " * 5_000 + "end")])
    assert len(found.result) <= 6_000
    assert found.result.startswith("begin word")
    assert found.result.endswith("end")


def test_an_agent_without_a_word_has_no_outcome() -> None:
    [found] = extract_agents([agent(0, "x", "running")])
    assert (found.status, found.outcome) == ("running", "")
