"""The conversations, one's brief, and its sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from dualmem_mcp.errors import UsageError
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.model.branches import branches_text
from dualmem_mcp.remote.pages.text_blocks import brief_blocks, section_blocks
from dualmem_mcp.remote.pages.visit import Page, Visit

if TYPE_CHECKING:
    from collections.abc import Mapping

_PAGE_LENGTH: Final = 20
_MAX_QUERY: Final = 200

_SECTION_TITLES: Final = {
    "thread": "Everything that was said",
    "agent_definitions": "Agent definitions",
    "carried_files": "Carried files",
    "state": "Carried state",
    "offline": "For use offline",
}


def conversations(visit: Visit) -> Page:
    """The conversations that were handed over, newest first, twenty at a time."""
    query = visit.query.get("q", "").strip()[:_MAX_QUERY]
    cursor = visit.query.get("after", "")
    found = visit.app.list_conversations(query=query, limit=_PAGE_LENGTH, cursor=cursor)
    older = {"q": query, "after": found["next_cursor"]} if query else {"after": found["next_cursor"]}
    context = {
        "query": query,
        "first": not cursor,
        "rows": [
            {
                **row,
                "href": conversation_path(row["conversation_id"]),
                "branches": branches_text(row["branches"]) if row["branches"] else "",
            }
            for row in found["conversations"]
        ],
        "older": f"/?{urlencode(older)}" if found["next_cursor"] else "",
        "warnings": found["warnings"],
        "conflicts": visit.app.list_conflicts(1)["count"],
        "now": visit.app.clock.now(),
    }
    return Page("conversations.html", f"Conversations with “{query}”" if query else "Conversations", context)


def brief(visit: Visit) -> Page:
    """Where a conversation stands: the brief that Claude on a desktop gets, and the way to all of it."""
    conversation_id = visit.path["conversation_id"]
    found = visit.app.resume_conversation(conversation_id, device="desktop", to_client=False)
    since = found["since_handoff"]
    context = {
        "conversation_id": conversation_id,
        "blocks": brief_blocks(found["brief"]),
        "sections": [
            {
                "title": section_title(one["name"]),
                "tokens": one["tokens"],
                "href": conversation_path(conversation_id, one["name"]),
            }
            for one in found["sections"]
        ],
        "from_device": since["from_device"],
        "handed_over_at": since["handed_over_at"],
        "branches": branches_text(found["branches"]) if found["branches"] else "",
        "warnings": found["warnings"],
    }
    return Page("brief.html", _title(found["title"]), context)


def section(visit: Visit) -> Page:
    """One page of a section of a conversation."""
    conversation_id, name = visit.path["conversation_id"], visit.path["section"]
    cursor = visit.query.get("at", "")
    page = visit.app.load_context(conversation_id, name, cursor)
    title = _title(_known_title(visit, conversation_id))
    context: Mapping[str, Any] = {
        "conversation": title,
        "back": conversation_path(conversation_id),
        "heading": section_title(name),
        "blocks": section_blocks(name, cursor, page["text"]),
        "first": conversation_path(conversation_id, name) if cursor else "",
        "more": conversation_path(conversation_id, name, page["next_cursor"]) if page["next_cursor"] else "",
    }
    return Page("section.html", f"{section_title(name)}: {title}", context)


def conversation_path(conversation_id: str, section: str = "", cursor: str = "") -> str:
    """The path of a conversation's brief, or of a page of one of its sections."""
    path = f"/c/{quote(conversation_id, safe='')}" + (f"/{quote(section)}" if section else "")
    return f"{path}?{urlencode({'at': cursor})}" if cursor else path


def section_title(name: str) -> str:
    """What a section is called on the pages."""
    return _SECTION_TITLES.get(name) or one_line(name).replace("_", " ").capitalize()


def _known_title(visit: Visit, conversation_id: str) -> str:
    try:
        rows, _ = visit.app.catalogue.conversations(query=conversation_id, limit=1)
    except UsageError:
        return ""
    return rows[0].title if rows else ""


def _title(title: str) -> str:
    return one_line(title) or "Untitled conversation"
