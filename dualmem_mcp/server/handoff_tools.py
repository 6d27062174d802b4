"""The tools that hand conversations over and take them up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dualmem_mcp.errors import DualmemError
from dualmem_mcp.model.branches import branches_text
from dualmem_mcp.server.brief_answer import within_limit
from dualmem_mcp.server.resources import brief_uri
from dualmem_mcp.server.schema import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    OBJECT,
    OBJECTS,
    READS,
    STRING,
    STRINGS,
    WRITES,
    list_of,
    object_of,
    output,
    text,
)
from dualmem_mcp.server.tool import MAX_RESULT_META, Answer, Call, Tool

if TYPE_CHECKING:
    from dualmem_mcp.app import App

# Text and structured form of one result together. Source: Claude's connectors take about 150,000 characters.
MAX_RESULT_CHARACTERS = 140_000

_CATCH_UP_SECONDS = 3.0
"""For so long requests of a sync are begun before a brief is made."""

_FRESH_SECONDS = 0.2
"""A brief is made of what a sync took in that is no older: who asks for one has just come from another device."""

_ID = text("Conversation id")
_CURSOR = text("next_cursor of the previous page")
_DEVICE = text("ios, android, pwa or desktop")


def _prepare_handoff(call: Call) -> Answer:
    given = call.arguments
    handoff = call.app.prepare_handoff(
        given.get("conversation_id"),
        target_device=given.get("target_device"),
        summary=given.get("summary", ""),
        decisions=given.get("decisions", ()),
        next_steps=given.get("next_steps", ()),
        open_questions=given.get("open_questions", ()),
        progress=call.progress,
    )
    uri = brief_uri(handoff["conversation_id"])
    return Answer(_handoff_text(handoff), handoff, updated=(uri,), lists_changed=True)


def _handoff_text(handoff: Mapping[str, Any]) -> str:
    where = (
        "is sealed and queued on this device, as the bucket did not take it: call prepare_handoff again later"
        if handoff["queued"]
        else "is handed over, and every device of the vault can resume it"
    )
    less = f" ({handoff['reduction']:.1%} less)" if handoff["reduction"] > 0 else ""
    sizes = f"{handoff['visible_tokens']} tokens in {handoff['digest_tokens']}{less}"
    size = f"{handoff['message_count']} messages, {sizes}; package of {handoff['package_bytes']} bytes."
    warnings = (f"Warning: {warning}" for warning in handoff["warnings"])
    return "\n".join((f"Conversation {handoff['conversation_id']} ({handoff['title']}) {where}.", size, *warnings))


def _resume_conversation(call: Call) -> Answer:
    given = call.arguments
    synced = _catch_up(call.app)
    device, budget = given.get("device") or call.caller.profile, given.get("token_budget")
    while True:
        brief = call.app.resume_conversation(
            given.get("conversation_id"),
            device=device,
            token_budget=budget,
            caller=call.caller.key,
            progress=call.progress,
        )
        fitted, excess = within_limit(brief, MAX_RESULT_CHARACTERS)
        if not excess:
            return Answer(brief["brief"], fitted, synced=synced)
        # The text counts twice, and what JSON escapes in it once more.
        budget = max(1, brief["brief_tokens"] * 3 // 4)


def _catch_up(app: App) -> bool:
    """Take in what other devices added, unless this one looked a moment ago; whether it did."""
    from dualmem_mcp.server.sync_loop import sync_by_hand  # noqa: PLC0415  (a list of tools needs none of it)
    from dualmem_mcp.sync.last_sync import LastSync  # noqa: PLC0415

    age = LastSync(app.home.root, app.clock).ages().synced
    if not app.settings.sync.automatic or (age is not None and age < _FRESH_SECONDS):
        return False
    try:
        # The call has woken the thread that syncs, too, which may be at it: what that takes in is waited for.
        synced = sync_by_hand(app, large_objects=False, max_seconds=_CATCH_UP_SECONDS)
        return not any(synced[name] for name in ("away", "refused", "busy"))
    except DualmemError:  # what ails the bucket is told by the brief's own look at it
        return False


def _load_context(call: Call) -> Answer:
    given = call.arguments
    page = call.app.load_context(
        given["conversation_id"], given["section"], given.get("cursor", ""), caller=call.caller.key
    )
    end = f'continues at cursor "{page["next_cursor"]}"' if page["next_cursor"] else "end"
    # Marked off, so that what was said in the conversation is not taken for the user's word of now.
    text = f"[{page['section']} of conversation {given['conversation_id']}: data]\n{page['text']}\n[{end}]"
    return Answer(text, page)


def _list_conversations(call: Call) -> Answer:
    page = call.app.list_conversations(**call.arguments)
    lines = [_conversation_line(item) for item in page["conversations"]] or ["No conversations."]
    if page["next_cursor"]:
        lines.append(f'[continues at cursor "{page["next_cursor"]}"]')
    return Answer("\n".join(lines), page)


def _conversation_line(item: Mapping[str, Any]) -> str:
    state = "handed over" if item["handoff_id"] else "not handed over"
    branches = f"  [{branches_text(item['branches'])}]" if item["branches"] else ""
    return (
        f"{item['conversation_id']}  {item['updated_at']}  {item['title'] or '(untitled)'}  "
        f"[{item['message_count']} messages, {item['device_name']}, {state}]{branches}"
    )


def _memory_status(call: Call) -> Answer:
    status = call.app.status()
    lines = (f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in status.items())
    return Answer("\n".join(lines), status)


HANDOFF_TOOLS: tuple[Tool, ...] = (
    Tool(
        "prepare_handoff",
        "Prepare Handoff",
        "Hand a conversation over, sealed, so that another device can resume it. Call it when the user wants to go "
        "on elsewhere or ends a long session. Pass what only you know: it is kept beside what is extracted.",
        object_of(
            {
                "conversation_id": text("Default: this Claude Code session"),
                "target_device": _DEVICE,
                "summary": text("Where things stand, in a few sentences"),
                "decisions": list_of(STRING, "What was decided, and why"),
                "next_steps": list_of(STRING, "In order"),
                "open_questions": STRINGS,
            }
        ),
        output(
            handoff_id=STRING,
            conversation_id=STRING,
            title=STRING,
            message_count=INTEGER,
            visible_tokens=INTEGER,
            digest_tokens=INTEGER,
            reduction=NUMBER,
            transcript_bytes=INTEGER,
            package_bytes=INTEGER,
            compression_ratio=NUMBER,
            fidelity=OBJECT,
            operations=OBJECTS,
            queued=BOOLEAN,
            mobile_ready=BOOLEAN,
            estimated_reconstruction_ms=NUMBER,
            duration_ms=NUMBER,
            warnings=STRINGS,
        ),
        WRITES,
        _prepare_handoff,
    ),
    Tool(
        "resume_conversation",
        "Resume Conversation",
        "Get the brief of a conversation that was handed over: last request, requests, decisions, files, tasks, "
        "agents. Call it first when the user wants to go on with earlier work.",
        object_of(
            {
                "conversation_id": text("Default: the newest handoff"),
                "device": _DEVICE,
                "token_budget": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "Most tokens of the brief, up to 15,000. Default: what suits the device",
                },
            }
        ),
        output(
            conversation_id=STRING,
            handoff_id=STRING,
            title=STRING,
            brief=STRING,
            brief_tokens=INTEGER,
            sections=OBJECTS,
            resumption_point=OBJECT,
            requests=OBJECTS,
            decisions=OBJECTS,
            active_files=OBJECTS,
            commands=OBJECTS,
            tasks=OBJECTS,
            agents=OBJECTS,
            since_handoff=OBJECT,
            branches=OBJECTS,
            timings_ms=OBJECT,
            completeness=OBJECT,
        ),
        READS,
        _resume_conversation,
        meta={MAX_RESULT_META: MAX_RESULT_CHARACTERS},
    ),
    Tool(
        "load_context",
        "Load Context",
        "Read one section of a handed-over conversation in full, a page at a time. Sections and cursors are in the "
        "brief's `sections`.",
        object_of(
            {
                "conversation_id": _ID,
                "section": text("A name from the brief's sections"),
                "cursor": text("From the brief or next_cursor; default: the start"),
            },
            required=("conversation_id", "section"),
        ),
        output(section=STRING, text=STRING, next_cursor=STRING),
        READS,
        _load_context,
        meta={MAX_RESULT_META: MAX_RESULT_CHARACTERS},
    ),
    Tool(
        "list_conversations",
        "List Conversations",
        "List the conversations that were handed over, here or on other devices, newest first.",
        object_of(
            {
                "query": text("Part of title, folder or id"),
                "limit": {"type": "integer", "minimum": 1, "maximum": 200, "description": "Default 20"},
                "cursor": _CURSOR,
            }
        ),
        output(conversations=OBJECTS, next_cursor=STRING),
        READS,
        _list_conversations,
    ),
    Tool(
        "memory_status",
        "Memory Status",
        "Show the state of this device's memory: counts, vault, bucket, how it synced last, what waits for upload.",
        object_of({}),
        OBJECT,
        READS,
        _memory_status,
        shared=True,
    ),
)
