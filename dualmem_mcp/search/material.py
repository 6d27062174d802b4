"""What is known as items to be found: the words themselves, without secrets and within a sensible length."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from dualmem_mcp.handoff.digest.requests import said_by_user
from dualmem_mcp.handoff.quoting import clean, cut, cut_middle
from dualmem_mcp.handoff.redact import redact
from dualmem_mcp.model.conversation import Block, Turn
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.model.recalled import without_recalled
from dualmem_mcp.model.search import ItemKind, SearchItem, item_key
from dualmem_mcp.model.source import API_ERROR, IMPORTED, Finding, StoredTurn

MAX_CHARACTERS: Final = 50_000
"""Characters of one item: of a longer text the beginning and the end. The truth has all of it."""

_UNSPOKEN: Final = re.compile(r"\W*(?:No response requested|\(no content\))\W*", re.IGNORECASE)
"""What the client puts where the model has said nothing. Source: Claude Code 1.0 to 2.1 transcripts."""


def turn_item(turn: StoredTurn) -> SearchItem | None:
    """A turn, or the summary that a compaction left, as an item; None if nobody said anything in it."""
    text = _summary(turn) if turn.is_compact_summary else _words(turn)
    if not text:
        return None
    kind: ItemKind = "summary" if turn.is_compact_summary else "turn"
    return SearchItem(
        key=item_key(kind, turn.conversation_id, turn.uuid),
        kind=kind,
        text=_bounded(text),
        conversation_id=turn.conversation_id,
        turn_id=turn.uuid,
        author=turn.author or turn.role,
        timestamp=turn.timestamp,
        device=turn.device,
    )


def _words(turn: StoredTurn) -> str:
    text = without_recalled(turn.text)
    if turn.origin == IMPORTED:
        return clean(text)
    if turn.role == "user":
        # Of what stands in a user turn of Claude Code, much is the client's.
        return said_by_user(
            Turn(
                uuid=turn.uuid,
                parent_uuid=None,
                role="user",
                timestamp=turn.timestamp,
                blocks=(Block("text", text),),
                origin=turn.origin,
            )
        )
    text = clean(text)
    return "" if turn.origin == API_ERROR or _UNSPOKEN.fullmatch(text) else text


def _summary(turn: StoredTurn) -> str:
    return clean(without_recalled(turn.text))


def finding_item(finding: Finding) -> SearchItem | None:
    """A decision, an agent or a note as an item; None for one that was removed."""
    text = clean(without_recalled(finding.text))
    if not text:
        return None
    return SearchItem(
        key=finding_key(finding),
        kind=finding.kind,
        text=_bounded(text),
        conversation_id=finding.conversation_id,
        turn_id=finding.turn_uuid,
        author=finding.author,
        timestamp=finding.timestamp,
        device=finding.device,
    )


def finding_key(finding: Finding) -> str:
    """The key of a finding's item, also of one that was removed."""
    return item_key(finding.kind, finding.conversation_id, finding.finding_id)


def entity_item(entity: Entity, changed_at: datetime) -> SearchItem:
    """An entity as an item: `name (type)`, then its observations one a line; of very many the newest."""
    head = clean(entity.name) + (f" ({clean(entity.entity_type)})" if entity.entity_type.strip() else "")
    lines = [redact(cut(clean(text), MAX_CHARACTERS)) for text in _newest(entity.observations)]
    return SearchItem(
        key=entity_key(entity.name),
        kind="entity",
        text=cut("\n".join([redact(cut(head, MAX_CHARACTERS)), *lines]), MAX_CHARACTERS),
        timestamp=changed_at,
    )


def entity_key(name: str) -> str:
    """The key of an entity's item."""
    return item_key("entity", name)


def _newest(observations: tuple[str, ...]) -> list[str]:
    kept: list[str] = []
    size = 0
    for text in reversed(observations):
        size += len(text) + 1
        if kept and size > MAX_CHARACTERS:
            break
        kept.append(text)
    return kept[::-1]


def _bounded(text: str) -> str:
    # Cut before it is looked at for secrets, which takes time; at white space, so that no half of a key stays. What
    # stands for a secret can be longer than it was.
    return cut(redact(cut_middle(text, MAX_CHARACTERS)), MAX_CHARACTERS)
