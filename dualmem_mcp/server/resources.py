"""The resources: the memory graph, and every handed-over conversation's brief and sections."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any

from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.model.handoff import ConversationSummary
from dualmem_mcp.model.ids import parse_conversation_id
from dualmem_mcp.server.javascript_json import stringify
from dualmem_mcp.server.memory_tools import GRAPH_URI, graph_json

if TYPE_CHECKING:
    from dualmem_mcp.app import App

# A section longer than this is cut, with the cursor that load_context goes on from.
# Source: what Claude's connectors accept of one result, about 150,000 characters.
MAX_CHARACTERS = 120_000

_PAGE_LENGTH = 100

_CONVERSATION_URI = re.compile(r"dualmem://conversation/([^/]+)/(.+)")

# As the reference memory server lists it.
GRAPH_ENTRY = {
    "uri": GRAPH_URI,
    "name": "knowledge-graph",
    "title": "Knowledge Graph",
    "description": "The full knowledge graph with all entities and relations",
    "mimeType": "application/json",
}

TEMPLATES: tuple[dict[str, Any], ...] = (
    {
        "uriTemplate": "dualmem://conversation/{id}/brief",
        "name": "conversation-brief",
        "title": "Brief of a conversation",
        "description": "Where a handed-over conversation stands, fitted to this device",
        "mimeType": "text/markdown",
    },
    {
        "uriTemplate": "dualmem://conversation/{id}/{section}",
        "name": "conversation-section",
        "title": "Section of a conversation",
        "description": "One section of a handed-over conversation, by the names that its brief lists",
        "mimeType": "text/plain",
    },
)


def brief_uri(conversation_id: str) -> str:
    """The URI of a conversation's brief."""
    return f"dualmem://conversation/{conversation_id}/brief"


def list_resources(app: App, cursor: str) -> tuple[list[dict[str, Any]], str]:
    """One page of `resources/list` and the next cursor: the graph first, then the briefs, newest first.

    What this device knows of, without a look into the bucket: clients ask for the list whenever they connect.
    """
    known, next_cursor = app.catalogue.conversations(limit=_PAGE_LENGTH, cursor=cursor)
    briefs = [_brief_entry(conversation) for conversation in known if conversation.handoff_id]
    return (briefs if cursor else [GRAPH_ENTRY, *briefs]), next_cursor


def list_mark(app: App) -> Hashable:
    """What is another when the list of resources has grown."""
    newest = app.catalogue.newest_handoff()
    return newest and newest.handoff_id


def mark(app: App, uri: str) -> Hashable:
    """What is another when what the resource shows has changed; the same for ever for one that is not there."""
    if uri == GRAPH_URI:
        return app.graph.version()
    match = _CONVERSATION_URI.fullmatch(uri)
    if match is None:
        return ()
    conversation_id = parse_conversation_id(match[1])
    records = app.records.find(conversation_id=conversation_id)
    newest = max((record.changed for record in records), default=None)
    return app.threads.conversation(conversation_id), len(records), newest


def _brief_entry(conversation: ConversationSummary) -> dict[str, Any]:
    return {
        "uri": brief_uri(conversation.conversation_id),
        "name": f"brief-{conversation.conversation_id}",
        "title": one_line(conversation.title) or conversation.conversation_id,
        "description": f"Brief of the conversation handed over from {one_line(conversation.device_name)}",
        "mimeType": "text/markdown",
    }


def read_resource(app: App, uri: str, profile: str = "") -> dict[str, Any] | None:
    """The resource's contents as `resources/read` returns them, or None if there is none of that form.

    A brief is fitted to that device profile, by default to the data home's.

    Raises NotFoundError for a conversation or section that is not there.
    """
    if uri == GRAPH_URI:
        return {"uri": uri, "mimeType": "application/json", "text": stringify(graph_json(app.graph.read_graph()))}
    match = _CONVERSATION_URI.fullmatch(uri)
    if match is None:
        return None
    conversation_id, section = match.groups()
    if section == "brief":
        brief = app.resume_conversation(conversation_id, device=profile)
        return {"uri": uri, "mimeType": "text/markdown", "text": brief["brief"]}
    return {"uri": uri, "mimeType": "text/plain", "text": "".join(_pages(app, conversation_id, section))}


def _pages(app: App, conversation_id: str, section: str) -> Iterator[str]:
    size, cursor = 0, ""
    while True:
        page = app.load_context(conversation_id, section, cursor)
        yield page["text"]
        size, cursor = size + len(page["text"]), page["next_cursor"]
        if not cursor:
            return
        if size > MAX_CHARACTERS:
            yield f"\n\n[cut here; load_context goes on from cursor {cursor}]"
            return
