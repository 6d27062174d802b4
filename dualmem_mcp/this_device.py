"""What an open application does with this device alone: take files in, write them out, say what is here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualmem_mcp import __version__
from dualmem_mcp.crypto.roster import RosterEntry
from dualmem_mcp.edge.interface import EdgeInterface
from dualmem_mcp.edge.moving import VectorMoves
from dualmem_mcp.edge.status import search_status
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.source import ImportFormat
from dualmem_mcp.ports import Clock, Progress, no_progress
from dualmem_mcp.search.turns_file import is_turns_file
from dualmem_mcp.settings import Settings
from dualmem_mcp.spending import Spending
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.memory_file import export_file, import_file
from dualmem_mcp.stores.outbox import FileOutbox
from dualmem_mcp.sync.last_sync import LastSync

if TYPE_CHECKING:
    from dualmem_mcp.edge.edge import Edge


class ThisDevice(ABC):
    """The part of an application that works on its data home alone; `App` opens what it needs."""

    settings: Settings
    clock: Clock
    device_id: DeviceId
    key_kept_in: str
    graph: GraphStore
    catalogue: ConversationStore
    outbox: FileOutbox
    spending: Spending
    vectors: VectorMoves

    @property
    @abstractmethod
    def edge(self) -> EdgeInterface:
        """What searches here."""

    @property
    @abstractmethod
    def local_edge(self) -> Edge:
        """Search and indexing in this process."""

    @abstractmethod
    def joined_channel(self) -> Channel | None:
        """The open vault and its stores, or None if this device belongs to no vault."""

    def import_file(
        self, path: Path, form: ImportFormat = "auto", progress: Progress = no_progress
    ) -> dict[str, Any]:
        """Add a memory file, in any of its three forms, to the graph, or a file of turns to what is searched:
        form (graph or turns), entities, relations, observations, turns, skipped, warnings.

        Raises NotFoundError, MalformedError, StoreUnreachableError.
        """
        if form == "turns" or (form == "auto" and is_turns_file(path)):
            report = self.local_edge.import_turns(path, progress)
            return {"form": "turns", "entities": 0, "relations": 0, "observations": 0, **report}
        return {"form": "graph", "turns": 0, **asdict(import_file(self.graph, path))}

    def export_file(self, path: Path) -> dict[str, Any]:
        """Write the graph in clear, in the reference's form, mode 0600: path, entities, relations.

        Raises ConflictError rather than replace a file that is there.
        """
        graph = export_file(self.graph, path)
        return {"path": str(path.absolute()), "entities": len(graph.entities), "relations": len(graph.relations)}

    def status(self) -> dict[str, Any]:
        """Vault, device, and what is stored here; looks at this device only."""
        entities, relations = self.graph.counts()
        channel = self.joined_channel()
        vault = channel.vault if channel else None
        devices = vault.devices() if vault else []  # once: their signatures are checked each time
        newest = self.catalogue.newest_handoff()
        synced = LastSync(self.settings.home, self.clock).outcome()
        since = f"{synced.problem_at.isoformat(timespec='seconds')}: " if synced.problem_at else ""
        return {
            "version": __version__,
            # Of a host that serves several users its folders are nobody's business.
            "home": None if self.settings.hosted else str(self.settings.home),
            "bucket": self.settings.bucket,
            "vault_id": vault.vault_id if vault else None,
            # The vault's own, since a copied data home takes a new id while it is open.
            "device_id": vault.device_id if vault else self.device_id,
            "device_name": _name_of(vault.device_id, devices) if vault else self.settings.device_name,
            "devices": _live_names(devices),
            "device_key_in": self.key_kept_in,
            "entities": entities,
            "relations": relations,
            "newest_handoff": newest.created_at.isoformat() if newest else None,
            "waiting_uploads": len(self.outbox.pending()),
            "last_sync": synced.synced_at.isoformat(timespec="seconds") if synced.synced_at else None,
            "sync_problem": f"{since}{synced.problem}" if synced.problem else None,
            "memory_file": str(self.settings.memory_file) if self.settings.memory_file else None,
            "budget_problem": next(iter(self.spending.gate.warnings()), None),
            "tiers": self.vectors.status(),
            **search_status(self.edge, lambda: self.local_edge),
        }


def _name_of(device_id: DeviceId, devices: Sequence[RosterEntry]) -> str:
    return next((one.name for one in devices if one.device_id == device_id), "")


def _live_names(devices: Sequence[RosterEntry]) -> list[str]:
    return [one_line(one.name) for one in devices if one.revoked_after is None]
