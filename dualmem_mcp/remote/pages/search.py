"""Search over everything, each result with where it comes from."""

from __future__ import annotations

from typing import Any, Final

from dualmem_mcp.model.search import SCOPES
from dualmem_mcp.remote.pages.conversations import conversation_path
from dualmem_mcp.remote.pages.text_blocks import SPEAKERS
from dualmem_mcp.remote.pages.visit import Page, Visit

_RESULTS: Final = 20
_MAX_QUERY: Final = 1_000

_WHERE: Final = {"all": "Everywhere", "conversations": "Conversations", "memory": "Memory"}
_WHEN: Final = {"": "Any time", "7d": "Last 7 days", "30d": "Last 30 days", "1y": "Last year"}
_KINDS: Final = {
    "turn": "Said",
    "summary": "Summary",
    "agent": "Agent",
    "entity": "Memory",
    "decision": "Decision",
    "note": "Note",
}


def search(visit: Visit) -> Page:
    """The form; and with a question, what was found."""
    query = visit.query.get("q", "").strip()[:_MAX_QUERY]
    where = visit.query.get("where", "all")
    when = visit.query.get("when", "")
    where, when = where if where in SCOPES else "all", when if when in _WHEN else ""
    found: dict[str, Any] = {"results": [], "warnings": []}
    if query:
        found = visit.app.edge.search(query, scope=where, since=when, limit=_RESULTS)
    context = {
        "query": query,
        "where": where,
        "when": when,
        "places": _WHERE,
        "times": _WHEN,
        "results": [_shown(result) for result in found["results"]],
        "warnings": found["warnings"],
        "now": visit.app.clock.now(),
    }
    return Page("search.html", f"Search: {query}" if query else "Search", context)


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    conversation, turn = result["conversation_id"], result["turn_id"]
    # Subagents' turns are no part of the thread: the conversation's brief leads on from there.
    section, cursor = ("thread", turn) if turn and result["kind"] == "turn" else ("", "")
    return {
        **result,
        "author": SPEAKERS.get(result["author"], result["author"]),
        "kind": _KINDS.get(result["kind"], result["kind"]),
        "href": conversation_path(conversation, section, cursor) if conversation else "",
    }
