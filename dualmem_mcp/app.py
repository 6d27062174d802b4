"""The application: everything opened once from the settings, and what the product does with it.

Opening touches only this device: the data home, its key, its database. The vault and the bucket are opened
when a call needs them, so that memory works without either.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from dualmem_mcp.conversations import Conversations
from dualmem_mcp.crypto.keys import derive_database_key, derive_index_key, load_device
from dualmem_mcp.edge.client import EdgeProcess
from dualmem_mcp.edge.interface import EdgeInterface
from dualmem_mcp.edge.moving import VectorMoves
from dualmem_mcp.edge.status import search_status
from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.handoff.prefetch import OpenedAhead
from dualmem_mcp.handoff.redact import redact
from dualmem_mcp.model.bucket_access import BucketAccess
from dualmem_mcp.model.ids import ConversationId, parse_conversation_id
from dualmem_mcp.news_keeper import NewsKeeper
from dualmem_mcp.ports import Clock, Progress, SystemClock, no_progress
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
from dualmem_mcp.stores.memory_file import MemoryFile
from dualmem_mcp.stores.outbox import FileOutbox
from dualmem_mcp.stores.package_cache import FilePackageCache
from dualmem_mcp.stores.placements import DatabasePlacements
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.stores.thread_store import ThreadStore
from dualmem_mcp.sync.engine import Merged
from dualmem_mcp.sync.notebook import Notebook
from dualmem_mcp.this_device import ThisDevice
from dualmem_mcp.tiers.proposals import tier_proposer
from dualmem_mcp.vault_access import VaultAccess

if TYPE_CHECKING:
    from dualmem_mcp.edge.edge import Edge
    from dualmem_mcp.model.tier_plan import Plan
    from dualmem_mcp.tiers.tiers import Tiers

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


class App(Conversations, ThisDevice):
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
            placements = DatabasePlacements(self.database)
            self.vectors = VectorMoves(
                url=settings.tiers.url,
                blobs=self.blobs,
                placements=placements,
                clock=clock,
                edge=lambda: self.edge,
            )
            opening.callback(self.vectors.close)
            self.spending = Spending(
                settings,
                counts=DatabaseCostCounts(self.database),
                blobs=self.blobs,
                clock=clock,
                channel=self.joined_channel,
                edge_vectors=lambda: search_status(self.edge, lambda: self.local_edge)["indexed"] or 0,
                placed=placements.counts,
            )
            self.spending.proposers.append(tier_proposer(self._tier_plan))
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
        from dualmem_mcp.edge.tier_work import TierParts  # noqa: PLC0415

        edge = Edge(
            self.settings,
            home=self.home,
            database=self.database,
            catalogue=self.catalogue,
            index_key=self._index_key,
            device_id=self.device_id,
            channel=self.joined_channel,
            clock=self.clock,
            tiers=TierParts(
                blobs=self.blobs,
                placements=DatabasePlacements(self.database),
                check_budget=self.spending.check_placing,
                prices=self.spending.vector_prices,
                is_erased=lambda conversation: self.sharing.erased.is_erased(ConversationId(conversation)),
            ),
        )
        self._closing.callback(edge.close)
        self._closing.callback(self.vectors.close)
        return edge

    @property
    def tiers(self) -> Tiers:
        """Vectors in a search service, as commands use them: in this process."""
        return self.local_edge.tiers

    def _tier_plan(self) -> Plan | None:
        return self.tiers.plan() if self.vectors.is_on and self.joined_channel() is not None else None

    def make_collections(self, *, shards: int | None = None, replicas: int | None = None) -> dict[str, Any]:
        """Make the service's collections, spread as given or else as set; see `Tiers.init`."""
        from dualmem_mcp.model.tiers import Cluster  # noqa: PLC0415  (its client takes 1.5 s)

        set_so = self.settings.tiers
        return self.tiers.init(Cluster(shards or set_so.shards, replicas or set_so.replicas))

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
        if self.vectors.points():
            done = {**done, "warnings": [*done["warnings"], *self.edge.forget_vectors(wanted)["warnings"]]}
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
