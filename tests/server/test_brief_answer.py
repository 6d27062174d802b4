"""Briefs within what clients take of one result."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.server.brief_answer import within_limit
from dualmem_mcp.server.tool import Answer

_TEXTS = st.text(max_size=40) | st.sampled_from(["\n" * 4_000, '"' * 9_000, "\\x" * 5_000, "x" * 30_000])
_ENTRIES = st.lists(st.fixed_dictionaries({"text": _TEXTS, "uuid": st.text(max_size=8)}), max_size=30)


def test_a_brief_too_long_for_a_client_loses_its_oldest_entries_and_says_so() -> None:
    brief = {
        "brief": "short",
        "requests": [{"text": f"request {number}"} for number in range(100)],
        "commands": [{"text": "x" * 100, "number": number} for number in range(100)],
        "agents": [{"result": "y" * 1000}],
        "warnings": ["one"],
    }
    assert within_limit(brief, 100_000) == (brief, 0)
    fitted, excess = within_limit(brief, 8_000)
    assert excess == 0
    assert len(json.dumps(fitted)) + len(json.dumps(brief["brief"])) <= 8_000
    assert fitted["agents"] == []
    assert 0 < len(fitted["commands"]) < 100
    assert fitted["commands"] == brief["commands"][-len(fitted["commands"]) :]
    assert fitted["requests"] == brief["requests"]
    left_out = 100 - len(fitted["commands"])
    assert fitted["warnings"] == [
        "one",
        "1 of 1 agents left out here; load_context has them",
        f"{left_out} of 100 commands left out here; load_context has them",
    ]


@given(_TEXTS, _TEXTS, _ENTRIES, _ENTRIES, st.integers(60_000, 150_000))
def test_a_whole_result_stays_within_the_limit_whatever_is_long(
    text: str, last: str, entries: list[Any], later: list[Any], limit: int
) -> None:
    brief = {
        "conversation_id": "c",
        "title": last,
        "brief": text[: limit // 8],
        "sections": [{"name": "requests", "tokens": 1, "cursor": "0"}],
        "resumption_point": {"last_request": {"text": last * 3, "uuid": "u"}, "git": {"uncommitted": [last] * 9}},
        "requests": entries,
        "tasks": later,
        "since_handoff": {"turns": later, "notes": entries, "summary": last},
        "warnings": [],
    }
    fitted, excess = within_limit(brief, limit)
    assert excess == 0
    assert len(json.dumps(Answer(brief["brief"], fitted).result(), ensure_ascii=False)) <= limit
    assert set(fitted) == set(brief)
    assert fitted["brief"] == brief["brief"]
    assert fitted["sections"] == brief["sections"]


def test_a_brief_that_is_too_long_itself_says_by_how_much() -> None:
    _, excess = within_limit({"brief": "x" * 1_000, "warnings": []}, 1_000)
    assert excess > 1_000
