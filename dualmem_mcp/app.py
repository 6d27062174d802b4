"""The application: everything opened once from the settings, and what the product does with it.

Opening touches only this device: the data home, its key, its database. The vault and the bucket are opened
when a call needs them, so that memory works without either.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dualmem_mcp import __version__
from dualmem_mcp.conversations import Conversations
from dualmem_mcp.crypto.keys import derive_database_key, derive_index_key, load_device
from dualmem_mcp.crypto.roster import RosterEntry
from dualmem_mcp.edge.client import EdgeProcess
from dualmem_mcp.edge.interface import EdgeInterface
from dualmem_mcp.edge.status import search_status
from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.handoff.prefetch import OpenedAhead
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.handoff.redact import redact
from dualmem_mcp.model.bucket_access import BucketAccess
from dualmem_mcp.model.ids import DeviceId, parse_conversation_id
from dualmem_mcp.model.source import ImportFormat
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.news_keeper import NewsKeeper
from dualmem_mcp.ports import Clock, Progress, SystemClock, no_progress
from dualmem_mcp.search.turns_file import is_turns_file
from dualmem_mcp.settings import Settings
from dualmem_mcp.sharing import Sharing
from dualmem_mcp.spending import Spending
from dualmem_mcp.stores.blob_cache import DatabaseBlobCache
from dualmem_mcp.stores.bucket_access import keep_bucket_access
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.cost_counts import DatabaseCostCounts
from dualmem_mcp.stores.data_home import migrate_memory_json, open_data_home
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.keystore import handed_in, open_device_secret
from dualmem_mcp.stores.memory_file import MemoryFile, export_file, import_file
from dualmem_mcp.stores.outbox import FileOutbox
from dualmem_mcp.stores.package_cache import FilePackageCache
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.stores.thread_store import ThreadStore
from dualmem_mcp.sync.engine import Merged
from dualmem_mcp.sync.last_sync import LastSync
from dualmem_mcp.sync.notebook import Notebook
from dualmem_mcp.vault_access import VaultAccess

if TYPE_CHECKING:
    from dualmem_mcp.edge.edge import Edge

_log = logging.getLogger(__name__)


def open_app(
    settings: Settings, *, clock: Clock | None = None, edge_process: bool = False, secret: bytes | None = None
) -> App:
    """The application on the settings' data home, made if it is not there.

    With `edge_process` search and indexing run in a process of their own, as a server wants it. `secret` (32 bytes)
    opens a data home that keeps none itself.

    Raises LockedError if the database does not open with this device's key, StoreUnreachableError if the
    data home cannot be written, UsageError if a setting does not fit.
    """
    return App(settings, clock or SystemClock(), edge_process=edge_process, secret=secret)


class App(Conversations):
    """One data home, open. Safe to call from several threads; `close` it, or use it as a context manager.

    `notices` are sentences for the user about what opening did (a file migrated, a mirror imported).
    """

    def __init__(
        self, settings: Settings, clock: Clock, *, edge_process: bool = False, secret: bytes | None = None
    ) -> None:
        self.settings = settings
        self.clock = clock
        # Before anything is made: who cannot open a data home changes nothing in it.
        sealed = None if secret is None else handed_in(settings.home, secret)
        self.home = open_data_home(settings.home)
        with ExitStack() as opening:
            # Several sessions may start on a new data home at once: one makes key and device, the others use them.
            with self.home.setting_up() as notices:
                self.notices = [*self.home.notices, *notices]
                device = sealed or open_device_secret(
                    settings.home, choice=settings.keystore, database=self.home.database_file
                )
                self.key_kept_in = device.kept_in
                self._index_key = derive_index_key(device.secret)
                self.database = Database.open(self.home.database_file, derive_database_key(device.secret))
                opening.callback(self.database.close)
                self.blobs = DatabaseBlobCache(self.database)
                self.device_id, keys = load_device(self.blobs)
            self.spending = Spending(
                settings,
                counts=DatabaseCostCounts(self.database),
                blobs=self.blobs,
                clock=clock,
                channel=self.joined_channel,
                vectors=self._vectors,
            )
            opening.callback(self.spending.meter.flush)
            self._access = VaultAccess(
                settings, self.blobs, self.device_id, keys, clock, metered=self.spending.metered
            )
            self.graph = GraphStore(self.database, clock, self.device_id)
            self.catalogue = ConversationStore(self.database, clock, self._device_name)
            self.threads = ThreadStore(self.database, clock)
            self.records = RecordStore(self.database, clock, self.device_id)
            self.outbox = FileOutbox(self.database, self.home.sync_queue)
            self.sharing = Sharing(
                home=self.home,
                database=self.database,
                outbox=self.outbox,
                blobs=self.blobs,
                clock=clock,
                device_id=self.device_id,
                access=self._access,
                channel=self.channel,
            )
            # Whoever is a guest on this machine has no projects here.
            self.news = None if settings.hosted else NewsKeeper(settings.home, clock)
            self.sharing.on_synced(self._took_in)
            self.ahead = OpenedAhead()
            opening.callback(self.ahead.close)
            self.packages = FilePackageCache(self.home.desktop_sessions, self.home.mobile_reconstruction)
            self.outbox.remove_abandoned()
            self.packages.remove_abandoned()
            self._open_memory_file(opening)
            self._edge_process = EdgeProcess(settings.home, secret=secret or b"") if edge_process else None
            if self._edge_process is not None:
                opening.callback(self._edge_process.close)
            self._closing = opening.pop_all()

    def _open_memory_file(self, opening: ExitStack) -> None:
        wanted = self.settings.memory_file
        # By what the names lead to: on macOS /tmp and /var have two each.
        mirrored = wanted is not None and os.path.realpath(wanted) == os.path.realpath(self.home.memory_file)
        self.notices += migrate_memory_json(self.home, self.graph, self.clock, mirrored=mirrored)
        if wanted is not None:
            mirror = MemoryFile(wanted, self.graph, self.clock, owner=self.device_id, report=_log.warning)
            self.notices += mirror.start()
            opening.callback(mirror.close)

    @property
    def edge(self) -> EdgeInterface:
        """What searches here: in a process of its own, or in this one."""
        return self._edge_process or self.local_edge

    @cached_property
    def local_edge(self) -> Edge:
        """Search and indexing in this process."""
        from dualmem_mcp.edge.edge import Edge  # noqa: PLC0415  (numpy takes 0.1 s and 20 MB)

        edge = Edge(
            self.settings,
            home=self.home,
            database=self.database,
            catalogue=self.catalogue,
            index_key=self._index_key,
            device_id=self.device_id,
            channel=self.joined_channel,
            clock=self.clock,
        )
        self._closing.callback(edge.close)
        return edge

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is not written yet and let everything go. Calling it again does nothing."""
        self._closing.close()

    def warm_up(self) -> None:
        """Load what the first handoff needs beyond opening, and have what is new indexed."""
        # The detectors of secrets take 0.2 s to import.
        redact("token = 0")
        self.wake_edge()

    def wake_edge(self) -> None:
        """Have the edge's process look for what is new; in an application without one, nothing. Returns at once."""
        if self._edge_process is not None:
            self._edge_process.wake()

    # The vault

    def init(self, passphrase: str, *, device_name: str = "") -> dict[str, Any]:
        """A new vault in the bucket; see `VaultAccess.init`."""
        return self._access.init(passphrase, device_name=device_name)

    def keep_bucket_access(self, access: BucketAccess) -> None:
        """Reach the bucket with these credentials from now on, and not with what the environment says."""
        keep_bucket_access(self.blobs, access)

    def join(self, secret: str, *, device_name: str = "") -> dict[str, Any]:
        """Make this device one of the vault's in the bucket; see `VaultAccess.join`."""
        return self._access.join(secret, device_name=device_name)

    def renew_recovery_key(self, show: Callable[[dict[str, Any]], None]) -> None:
        """A new recovery key for the vault; see `VaultAccess.renew_recovery_key`."""
        self._access.renew_recovery_key(show)

    def check_passphrase(self, passphrase: str) -> None:
        """Raises LockedError unless it is the vault's passphrase; see `VaultAccess.check_passphrase`."""
        self._access.check_passphrase(passphrase)

    def joined_channel(self) -> Channel | None:
        """The open vault and its stores, or None if this device belongs to no vault."""
        try:
            return self.channel()
        except NotFoundError:
            return None

    def channel(self) -> Channel:
        """The open vault and its stores. Raises NotFoundError if this device belongs to no vault."""
        vault, objects = self._access.opened()
        return Channel(
            vault=vault,
            objects=objects,
            outbox=self.outbox,
            packages=self.packages,
            catalogue=self.catalogue,
            blobs=self.blobs,
            clock=self.clock,
        )

    # Conversations

    @property
    def notebook(self) -> Notebook:
        """Notes, tasks and bookmarks."""
        return Notebook(self.records, self.threads)

    # What all devices share

    def sync(
        self, *, probe: bool = False, max_seconds: float | None = None, large_objects: bool = True
    ) -> dict[str, Any]:
        """Bring this device and the bucket together; see `Sharing.sync`."""
        result = self.sharing.sync(probe=probe, max_seconds=max_seconds, large_objects=large_objects)
        self.spending.meter.flush_if_due()
        return self._with_budget(result)

    def prepare_handoff(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Hand a conversation over; see `Conversations.prepare_handoff`."""
        return self._with_budget(super().prepare_handoff(*arguments, **options))

    def _with_budget(self, report: dict[str, Any]) -> dict[str, Any]:
        if report.get("over_budget"):  # which its warnings say
            return report
        return {**report, "warnings": [*report["warnings"], *self.spending.gate.warnings()]}

    def _vectors(self) -> dict[TierName, int]:
        """How many vectors lie in which tier. Tiers in a service add theirs here."""
        return {"edge": search_status(self.edge, lambda: self.local_edge)["indexed"] or 0}

    def compact(
        self,
        *,
        dry_run: bool = False,
        force: bool = False,
        grace_days: float | None = None,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        """Remove from the bucket what a snapshot of the log replaces; see `Sharing.compact`."""
        return self.sharing.compact(dry_run=dry_run, force=force, grace_days=grace_days, progress=progress)

    def erase(self, conversation_id: str) -> dict[str, Any]:
        """Erase a conversation for good, here, in the bucket and on all devices: conversation_id, name, keys,
        packages, manifests, queued, remains, warnings. Raises NotFoundError if nobody knows of it."""
        wanted = parse_conversation_id(conversation_id)
        done = self.sharing.erase(wanted)
        self.ahead.forget(wanted)
        self.wake_edge()
        if self._edge_process is None:
            # Nothing new is indexed for it; what is left of the conversation in the indexes goes in any case.
            self.local_edge.catch_up(should_stop=lambda: True, embed=False)
        return done

    def sync_waiting(self) -> int:
        """Changes and objects that wait to be uploaded."""
        return self.sharing.waiting()

    def list_conflicts(self, limit: int = 100) -> dict[str, Any]:
        """What devices changed without knowing of each other; see `Sharing.list_conflicts`."""
        return self.sharing.list_conflicts(limit)

    def resolve_conflict(self, conflict_id: str, keep: bool, stamp: str | None = None) -> dict[str, Any]:
        """Decide a conflict; see `Sharing.resolve_conflict`."""
        return self.sharing.resolve_conflict(conflict_id, keep=keep, stamp=stamp)

    def _took_in(self, merged: Merged) -> None:
        if merged.subjects:
            self.graph.tell_changed()
        if self.news is not None:
            own_name = self._device_name()
            self.news.note(merged.conversations, self.catalogue, self.threads, own_name=own_name)
        self.wake_edge()

    def settle_news(self, conversation_id: str) -> None:
        """As `Conversations` says."""
        if self.news is not None:
            self.news.settle(conversation_id)

    # Checkpoints

    # This device

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
            **search_status(self.edge, lambda: self.local_edge),
        }


def _name_of(device_id: DeviceId, devices: Sequence[RosterEntry]) -> str:
    return next((one.name for one in devices if one.device_id == device_id), "")


def _live_names(devices: Sequence[RosterEntry]) -> list[str]:
    return [one_line(one.name) for one in devices if one.revoked_after is None]
