"""Erasing a conversation from the service: its points go by their ids, from all tiers and all key epochs.

What has to go is written down first, so that a service that is away, or a kill, only puts it off.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dualmem_mcp.crypto.canonical import canonical_json
from dualmem_mcp.failpoints import reach
from dualmem_mcp.model.search import SearchItem, key_digest
from dualmem_mcp.ports import BlobCache, SearchIndex
from dualmem_mcp.ports.placements import Placements
from dualmem_mcp.search.passages import MAX_PASSAGES, stretches
from dualmem_mcp.tiers.bench import Bench, batches
from dualmem_mcp.tiers.gone import conversation_in

_ORDERS: Final = "local/tiers/forget/"
"""Blobs with what has to go of a conversation, whose id follows; empty when it has gone."""
_ROWS_AT_ONCE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Orders to erase, kept until they are carried out."""

    blobs: BlobCache

    def order(self, conversation_id: str, passages: Mapping[str, int]) -> None:
        """Write down that so many points of these items have to go, beside those that were written down before."""
        known = self._ordered(conversation_id)
        wanted = {key: max(passages.get(key, 0), known.get(key, 0)) for key in {*passages, *known}}
        if wanted:
            self.blobs.put(_ORDERS + conversation_id, canonical_json(wanted))
        reach("forgetting: ordered")

    def waiting(self) -> list[str]:
        """The conversations of which something has still to go."""
        return [name.removeprefix(_ORDERS) for name in self.blobs.keys(_ORDERS) if self.blobs.get(name)]

    def carry_out(self, bench: Bench) -> int:
        """Remove what was ordered from wherever there are points; how many were known to be there.

        Raises what the service and the database raise; called again it goes on.
        """
        removed = 0
        waiting = self.waiting()
        populated = bench.populated() if waiting else ()
        for conversation_id in waiting:
            for some in batches([*self._ordered(conversation_id).items()]):
                rows = bench.placements.get([key for key, _ in some])
                bench.transfer.remove(
                    (tier, epoch, bench.service.keys(epoch).point_id(key, passage))
                    for tier, epoch in populated
                    for key, passages in some
                    for passage in range(passages)
                )
                reach("forgetting: removed")
                bench.placements.remove([*rows])
                known = sum(row.passages for row in rows.values())
                bench.transfer.written.removed += known
                removed += known
            self.blobs.put(_ORDERS + conversation_id, b"")
            reach("forgetting: done")
        return removed

    def _ordered(self, conversation_id: str) -> dict[str, int]:
        kept = self.blobs.get(_ORDERS + conversation_id)
        return dict(json.loads(kept)) if kept else {}


def passages_of_conversation(
    indexes: Iterable[SearchIndex], placements: Placements, conversation_id: str
) -> dict[str, int]:
    """The keys of the conversation's items, those that are in an index still and those that were placed, with how
    many points each can have: some texts change, and another device may have placed a longer one."""
    found: dict[str, int] = {}
    wanted = key_digest(conversation_id)
    for index in indexes:
        columns = index.columns()
        ids = columns.ids[columns.conversations == wanted]
        for start in range(0, len(ids), _ROWS_AT_ONCE):
            items = index.items(ids[start : start + _ROWS_AT_ONCE].tolist())
            found |= {item.key: _passages(item) for item in items}
    digests = placements.columns().keys
    for start in range(0, len(digests), _ROWS_AT_ONCE):
        for row in placements.of_digests(digests[start : start + _ROWS_AT_ONCE].tolist()):
            if conversation_in(row.key) == conversation_id:
                found[row.key] = max(found.get(row.key, 0), row.passages)
    return found


def _passages(item: SearchItem) -> int:
    return len(stretches(item)) if item.kind == "turn" else MAX_PASSAGES
