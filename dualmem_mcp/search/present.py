"""What a conversation is at, as items: its last turns with something said, and its decisions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from dualmem_mcp.handoff.preload import OWN_TURNS
from dualmem_mcp.model.conversation import Session, Turn
from dualmem_mcp.model.digest import Decision, Digest
from dualmem_mcp.model.search import SearchItem, item_key
from dualmem_mcp.model.source import API_ERROR, StoredTurn
from dualmem_mcp.search.findings import FROM_SESSION, GIVEN, QUOTED, decision_findings
from dualmem_mcp.search.material import finding_item, turn_item

_SOURCES: Final = (("user", FROM_SESSION), ("model", GIVEN), ("extracted", QUOTED))
"""Whose decisions come first, and how their ids begin in the index."""

_MOST_QUOTED: Final = 10
"""Of extracted decisions, which are sentences of turns and candidates only."""


def present_items(session: Session, digest: Digest, *, device: str, limit: int) -> list[SearchItem]:
    """At most `limit` items, as they are indexed too: the last OWN_TURNS turns, then decisions, the user's before
    the model's and both before extracted ones, of each kind the last first; of extracted ones the most telling.

    Secrets are left out. `device` is the name of the device that the conversation is on.
    """
    found: dict[str, SearchItem] = {}
    for item in (*_turns(session, device), *_decisions(session, digest.decisions, device)):
        found.setdefault(item.key, item)
    return [*found.values()][:limit]


def is_quoted(item: SearchItem) -> bool:
    """Whether it is an extracted decision: a sentence of a turn, and what is near to it is above all that turn."""
    return item.key.startswith(item_key("decision", item.conversation_id, QUOTED))


def _turns(session: Session, device: str) -> Iterator[SearchItem]:
    found = 0
    for turn in reversed([*session.all_turns()]):
        if turn.is_meta or not turn.text:
            continue
        item = turn_item(_stored(session, turn, device))
        if item is not None:
            yield item
            found += 1
        if found == OWN_TURNS:
            return


def _stored(session: Session, turn: Turn, device: str) -> StoredTurn:
    return StoredTurn(
        id=0,
        conversation_id=session.conversation_id,
        uuid=turn.uuid,
        role=turn.role,
        text=turn.text,
        timestamp=turn.timestamp,
        device=device,
        origin=API_ERROR if turn.is_api_error else turn.origin,
        is_compact_summary=turn.is_compact_summary,
    )


def _decisions(session: Session, decisions: Sequence[Decision], device: str) -> Iterator[SearchItem]:
    for origin, source in _SOURCES:
        found = decision_findings(
            session.conversation_id, [one for one in decisions if one.origin == origin], source
        )
        # The extracted ones stand in the order of what they tell, the others in that of the conversation.
        for finding in found[:_MOST_QUOTED] if origin == "extracted" else reversed(found):
            item = finding_item(replace(finding, device=device))
            if item is not None:
                yield item
