"""The cloud tiers of one device as the rest of the product uses them: switching, placing, moving, mending, erasing.

Everything here runs where the search indexes are: in the edge's process, or in a command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualmem_mcp.errors import UsageError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.model.search import Collection
from dualmem_mcp.model.service_location import shown_location
from dualmem_mcp.model.tiers import TIERS, TierName
from dualmem_mcp.ports import AccessLog, BlobCache, Clock, SearchIndex
from dualmem_mcp.ports.placements import Placements
from dualmem_mcp.tiers.removing import forget_rows, remove_tenant
from dualmem_mcp.tiers.service import SERVICE_TIERS, Connect, Model, ServiceSettings, TierService, open_qdrant
from dualmem_mcp.tiers.state import TierState

if TYPE_CHECKING:
    from dualmem_mcp.stores.qdrant_collections import Cluster


class Tiers:
    """Off until a place is set and `enable` was called on this device. For use from any thread; `close` it.

    What can be put off is never an error: a service that is away leaves its work to a later run. Raised are only
    UsageError for a wrong use, StoreRefusedError for a service that cannot be used as it is set up, NotFoundError
    without a vault or a model, and what the database raises.
    """

    def __init__(
        self,
        *,
        service: ServiceSettings,
        placements: Placements,
        accesses: AccessLog,
        indexes: Callable[[], Mapping[Collection, SearchIndex]],
        is_behind: Callable[[], bool],
        channel: Callable[[], Channel | None],
        blobs: BlobCache,
        model: Model,
        clock: Clock,
        lock_file: Path,
        check_budget: Callable[[], object],
        prices: Callable[[], Mapping[TierName, float]],
        is_erased: Callable[[str], bool],
        connect: Connect = open_qdrant,
    ) -> None:
        """`is_behind` tells whether the indexes lack something that the memory has: then nothing counts as deleted.
        `channel` gives the open vault, None without one; `model` the id of the indexes' model and the length of its
        vectors; `prices` US dollars for 1,000 vectors and a month; `lock_file` is held while vectors are written.
        """
        self._service = TierService(service, model=model, channel=channel, connect=connect)
        self._state = TierState(blobs)
        self._placements = placements
        self._accesses = accesses
        self._indexes = indexes
        self._is_behind = is_behind
        self._clock = clock
        self._lock_file = lock_file
        self._check_budget = check_budget
        self._prices = prices
        self._is_erased = is_erased

    @property
    def configured(self) -> bool:
        """Whether a service is set."""
        return self._service.configured

    @property
    def enabled(self) -> bool:
        """Whether vectors go to the service, and searches ask it."""
        return self.configured and self._state.switches().enabled

    @property
    def words(self) -> bool:
        """Whether words go there, too."""
        return self.enabled and self._state.switches().words

    def close(self) -> None:
        """Let go of the connections."""
        self._service.close()

    def status(self) -> dict[str, Any]:
        """configured, url, enabled, words, tiers, epochs, moving, mover, checked_at and problem, as this device
        knows them: nothing is asked of the service."""
        seen = self._state.seen()
        counts, prices = self._placements.counts(), self._prices()
        return {
            "configured": self.configured,
            "url": shown_location(self._service.settings.url or ""),
            "enabled": self.enabled,
            "words": self.words,
            "tiers": [
                {
                    "name": name,
                    "points": counts.get(name, 0),
                    "most": TIERS[name].most_vectors,
                    "target_latency_ms": TIERS[name].target_latency_ms,
                    "usd_per_1k_vectors_month": prices[name],
                }
                for name in SERVICE_TIERS
            ],
            "epochs": len({*seen.epochs, *self._placements.epochs()}),
            "moving": len(self._placements.moving()),
            "mover": None,
            "checked_at": seen.checked_at,
            "problem": seen.problem,
        }

    def reach(self) -> None:
        """Ask the service for its collections. Raises what `enable` raises if they cannot be used."""
        self._service.channel()
        self._service.tiers()

    def init(self, cluster: Cluster) -> dict[str, Any]:
        """Make the collections that are not there: collections (tier, name, made), model, dimensions.

        Raises UsageError if no service is set, NotFoundError without a model, StoreRefusedError if a collection
        is for other vectors, StoreUnreachableError.
        """
        made = self._service.create(cluster)
        model_id, dimensions = self._service.model()
        return {"collections": made, "model": model_id, "dimensions": dimensions}

    def enable(self, *, words: bool) -> dict[str, Any]:
        """Have vectors go to the service from now on, and with `words` the texts' words: enabled, words.

        Raises UsageError if no service is set, NotFoundError without a vault or a model, StoreRefusedError if the
        collections are not there or for other vectors, StoreUnreachableError.
        """
        if not self.configured:
            raise UsageError(
                "no search service is set",
                operation="enable tiers",
                hint="Set DUALMEM_QDRANT_URL to your Qdrant, then run `dualmem tiers init`.",
            )
        self._service.channel()
        self._service.tiers()
        self._state.switch(enabled=True, words=words, now=self._clock.now())
        return {"enabled": True, "words": words}

    def disable(self, *, remove: bool) -> dict[str, Any]:
        """Have nothing go to the service any more, and no search ask it: enabled, removed (points).

        With `remove` all points of the vault are removed, those that other devices placed among them. Raises then
        what `enable` raises; it is switched off all the same, and calling it again goes on.
        """
        self._state.switch(enabled=False, words=False, now=self._clock.now())
        removed = 0
        if remove:
            for epoch in self._service.channel().vault.epochs():
                removed += remove_tenant(self._service.tiers(), self._service.keys(epoch).tenant)
            forget_rows(self._placements)
        return {"enabled": False, "removed": removed}
