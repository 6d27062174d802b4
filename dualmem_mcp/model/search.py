"""What search works on: items of the memory, where to look for them, and what was found."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, get_args

from dualmem_mcp.model.ids import ConversationId

ItemKind = Literal["turn", "summary", "agent", "entity", "decision", "note"]

KINDS: Final[tuple[ItemKind, ...]] = get_args(ItemKind)
"""In the order in which they are numbered where a number stands for one: indexes keep it."""


class Collection(StrEnum):
    """One search index; the value is the name of its folder in `vector_cache/`."""

    CONVERSATIONS = "conversation_embeddings"
    """Turns, and the summaries that compactions left."""
    AGENTS = "agent_memory_vectors"
    """What subagents were launched for and what they reported."""
    CONTEXT = "context_vectors"
    """The memory graph's entities with their observations, decisions, and notes."""


COLLECTION_OF: Final[dict[ItemKind, Collection]] = {
    "turn": Collection.CONVERSATIONS,
    "summary": Collection.CONVERSATIONS,
    "agent": Collection.AGENTS,
    "entity": Collection.CONTEXT,
    "decision": Collection.CONTEXT,
    "note": Collection.CONTEXT,
}

Scope = Literal["all", "memory", "conversations"]

SCOPES: Final[dict[Scope, tuple[Collection, ...]]] = {
    "all": tuple(Collection),
    "memory": (Collection.CONTEXT, Collection.AGENTS),
    "conversations": (Collection.CONVERSATIONS,),
}


@dataclass(frozen=True, slots=True)
class SearchItem:
    """One thing that can be found.

    `key` names it for good, over rebuilt indexes and on every device: `turn/<conversation>/<turn id>`,
    `entity/<name>`, …. `text` is what is searched and shown: secrets redacted, control characters gone.
    `conversation_id` and `turn_id` are empty where there is none, `author` is a person's name or else the role
    (`user`, `assistant`), `device` the name of the device where it came to be.
    """

    key: str
    kind: ItemKind
    text: str
    conversation_id: str = ""
    turn_id: str = ""
    author: str = ""
    timestamp: datetime | None = None
    device: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items may be found; None and empty mean any. Times are compared with `since` <= time < `until`,
    and an item without a time passes only where neither is set. `author` is compared in any case."""

    collections: tuple[Collection, ...] = tuple(Collection)
    conversation_id: ConversationId | None = None
    kinds: tuple[ItemKind, ...] = ()
    author: str = ""
    since: datetime | None = None
    until: datetime | None = None


def item_key(kind: ItemKind, *parts: str) -> str:
    """The key of an item: its kind and the parts that name it, joined by `/`."""
    return "/".join((kind, *parts))


def key_digest(key: str) -> int:
    """A number for an item's key, below 2^63, the same on every device: of 10 million keys two share one with a
    chance of 1 in 180,000, so that a digest stands for a key where a mistake can be mended."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
