"""What the cost engine counts on this device: use by day, conversations, packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from dualmem_mcp.model.ids import ConversationId, HandoffId


@dataclass(frozen=True, slots=True)
class PackageFact:
    """A package as the catalogue knows it: its size in the bucket, when it was made, and the one it builds on."""

    handoff_id: HandoffId
    conversation_id: ConversationId
    size_bytes: int
    created_at: datetime
    base: HandoffId | None


class CostCounts(Protocol):
    """Counts in the encrypted database. Use is of this device alone, the rest of the whole vault as known here."""

    def add_use(self, day: date, counts: Mapping[str, int]) -> None:
        """Add to the counts of that day (UTC) by component; beyond 400 days with counts the oldest go."""
        ...

    def use(self, since: date) -> Mapping[date, Mapping[str, int]]:
        """Counts by day and component from that day on, the oldest day first; days without any are left out."""
        ...

    def conversations(self, since: datetime | None = None) -> int:
        """How many conversations there are, or were worked on since then."""
        ...

    def packages(self) -> Sequence[PackageFact]:
        """All packages, the oldest first."""
        ...
