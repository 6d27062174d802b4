"""The tiers of one data home, made of what the edge has open; what goes wrong while others wait is a warning."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dualmem_mcp.edge.model import QueryModel
from dualmem_mcp.edge.tier_results import nothing_moved, nothing_placed, problem_text
from dualmem_mcp.edge.upkeep import Upkeep
from dualmem_mcp.errors import DualmemError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.model.search import Collection
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports import AccessLog, BlobCache, Clock, SearchIndex, no_progress
from dualmem_mcp.ports.placements import Placements
from dualmem_mcp.settings import Settings
from dualmem_mcp.stores.stems import Stemmer
from dualmem_mcp.tiers.service import Service, ServiceSettings
from dualmem_mcp.tiers.tiers import Tiers

LOCK_FILE: Final = ".tiers.lock"
"""In the data home; held by the process that writes vectors to the service."""


@dataclass(frozen=True, slots=True)
class TierParts:
    """What the tiers take from the application: where things are kept, what may be spent, what was erased."""

    blobs: BlobCache
    placements: Placements
    check_budget: Callable[[], object]
    prices: Callable[[], Mapping[TierName, float]]
    is_erased: Callable[[str], bool]


def open_tiers(
    settings: Settings,
    parts: TierParts,
    *,
    accesses: AccessLog,
    indexes: Callable[[], Mapping[Collection, SearchIndex]],
    upkeep: Upkeep,
    model: QueryModel,
    channel: Callable[[], Channel | None],
    clock: Clock,
) -> Tiers:
    """The tiers as the settings say; nothing is connected yet."""
    key = settings.qdrant_api_key

    def model_of_indexes() -> tuple[str, int] | None:
        embedder = model.embedder
        return (embedder.model_id, embedder.dimensions) if embedder is not None else None

    return Tiers(
        service=ServiceSettings(settings.tiers.url, key.get_secret_value() if key is not None else None),
        placements=parts.placements,
        accesses=accesses,
        indexes=indexes,
        is_behind=upkeep.is_behind,
        channel=channel,
        blobs=parts.blobs,
        model=model_of_indexes,
        clock=clock,
        lock_file=settings.home / LOCK_FILE,
        check_budget=parts.check_budget,
        prices=parts.prices,
        is_erased=parts.is_erased,
        connect=open_service,
        stems=Stemmer,
    )


def open_service(settings: ServiceSettings) -> Service:
    """Qdrant at the place that is set. Raises UsageError, StoreUnreachableError."""
    # Its client takes 1.5 s and 50 MB.
    from dualmem_mcp.stores.qdrant import QdrantService  # noqa: PLC0415

    return QdrantService.open(settings.url or "", api_key=settings.api_key)


def place(tiers: Tiers, conversation_id: str, *, max_seconds: float) -> dict[str, Any]:
    """As `EdgeInterface.place` says."""
    if not tiers.enabled:
        return nothing_placed(ok=True)
    began = time.monotonic()
    try:
        return tiers.place(conversation_id, max_seconds=max_seconds)
    except DualmemError as error:
        return nothing_placed(problem_text("not placed in the search service", error), began=began)


def move(tiers: Tiers, upkeep: Upkeep, *, max_seconds: float) -> dict[str, Any]:
    """As `EdgeInterface.move_vectors` says."""
    if not tiers.enabled:
        return nothing_moved()
    began = time.monotonic()
    # What a sync has just brought is placed, too; and while the indexes lack something nothing counts as deleted.
    upkeep.catch_up_quickly()
    try:
        return tiers.apply(max_seconds=max_seconds, progress=no_progress)
    except DualmemError as error:
        return nothing_moved(problem_text("vectors do not move", error), error=error, began=began)


def forget(tiers: Tiers, conversation_id: str) -> dict[str, Any]:
    """As `EdgeInterface.forget_vectors` says."""
    if not tiers.configured:
        return {"removed": 0, "warnings": []}
    try:
        return tiers.forget(conversation_id)
    except DualmemError as error:
        return {"removed": 0, "warnings": [problem_text("points are still in the search service", error)]}
