"""Devices of one vault that share a search service: each with a database, indexes, a vault and its tiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from dualmem_mcp.errors import StoreRefusedError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.model.search import COLLECTION_OF, Collection, ItemKind, SearchItem, item_key
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports import ObjectStore
from dualmem_mcp.ports.tiers import TierPoint, VectorTier
from dualmem_mcp.search.passages import passages
from dualmem_mcp.stores.access_log import DatabaseAccessLog
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.package_cache import FilePackageCache
from dualmem_mcp.stores.placements import DatabasePlacements
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index
from dualmem_mcp.stores.stems import Stemmer
from dualmem_mcp.stores.vector_tier import SqliteVectorTier
from dualmem_mcp.tiers.service import SERVICE_TIERS, Connect, Service, ServiceSettings
from dualmem_mcp.tiers.tiers import Tiers
from tests.conftest import SteppingClock
from tests.crypto.conftest import MemoryObjectStore
from tests.search.home import WordEmbedder
from tests.sync.conftest import Device

CHAT: Final = "chat"
PRICES: Final[Mapping[TierName, float]] = {"critical": 0.75, "context": 0.35, "historical": 0.12, "edge": 0.0}


class SqliteService:
    """Tiers in files of a folder, each as a collection of a service."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: dict[tuple[TierName, str, int], SqliteVectorTier] = {}

    def collection(self, tier: TierName) -> str:
        return f"dualmem-{tier}"

    def create(self, tier: TierName, *, dimensions: int, model_id: str, cluster: Any = None) -> VectorTier:
        self.folder.mkdir(exist_ok=True)
        key = (tier, model_id, dimensions)
        if key not in self._opened:
            self._opened[key] = SqliteVectorTier.open(
                self.folder / f"{tier}.db", bytes(32), name=tier, model_id=model_id, dimensions=dimensions
            )
        return self._opened[key]

    def tier(self, tier: TierName, *, dimensions: int, model_id: str) -> VectorTier:
        if not (self.folder / f"{tier}.db").exists():
            raise StoreRefusedError(f"there is no collection of {tier}", hint="Run `dualmem tiers init`.")
        return self.create(tier, dimensions=dimensions, model_id=model_id)

    def close(self) -> None:
        for one in self._opened.values():
            one.close()
        self._opened.clear()


class SharedService:
    """A service that several devices have, and none closes; `fault` is called before every request."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.fault: Callable[[str, str], object] = lambda tier, request: None
        self._opened: dict[TierName, VectorTier] = {}

    def collection(self, tier: TierName) -> str:
        return self.service.collection(tier)

    def create(self, tier: TierName, *, dimensions: int, model_id: str, cluster: Any = None) -> VectorTier:
        self.service.create(tier, dimensions=dimensions, model_id=model_id, cluster=cluster)
        return self.tier(tier, dimensions=dimensions, model_id=model_id)

    def tier(self, tier: TierName, *, dimensions: int, model_id: str) -> VectorTier:
        self.fault(tier, "open")
        self._opened[tier] = self.service.tier(tier, dimensions=dimensions, model_id=model_id)
        return FaultyTier(self._opened[tier], self)

    def plain(self, tier: TierName) -> VectorTier:
        """A tier that was opened, without its faults."""
        return self._opened[tier]

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class FaultyTier:
    """A VectorTier that tells the service's `fault` of each request before it is made."""

    tier: VectorTier
    service: SharedService

    @property
    def name(self) -> TierName:
        return self.tier.name

    @property
    def dimensions(self) -> int:
        return self.tier.dimensions

    def upsert(self, points: Sequence[TierPoint]) -> None:
        self.service.fault(self.name, "upsert")
        self.tier.upsert(points)

    def nearest(self, *arguments: Any, **options: Any) -> Any:
        self.service.fault(self.name, "nearest")
        return self.tier.nearest(*arguments, **options)

    def fetch(self, tenant: str, ids: Sequence[str]) -> Any:
        self.service.fault(self.name, "fetch")
        return self.tier.fetch(tenant, ids)

    def remove(self, tenant: str, ids: Sequence[str]) -> None:
        self.service.fault(self.name, "remove")
        self.tier.remove(tenant, ids)

    def ids(self, tenant: str, **options: Any) -> Any:
        self.service.fault(self.name, "ids")
        return self.tier.ids(tenant, **options)

    def count(self, tenant: str) -> int:
        self.service.fault(self.name, "count")
        return self.tier.count(tenant)


@dataclass
class TierDevice:
    """One device. `connect` gives its service: several devices have one."""

    folder: Path
    objects: ObjectStore
    clock: SteppingClock
    connect: Connect
    name: str = "desk"
    joins: bool = False
    embedder: WordEmbedder = field(default_factory=WordEmbedder)

    def __post_init__(self) -> None:
        self.device = Device(self.folder, self.objects, self.clock)
        database = self.device.database
        if self.device.blobs.get("vault.json") is not None:
            self.device.reopen()
            database = self.device.database
        elif self.joins:
            self.device.join(self.name)
        else:
            self.device.create(self.name)
        self.placements = DatabasePlacements(database)
        self.accesses = DatabaseAccessLog(database)
        self.indexes: dict[Collection, SqliteSearchIndex] = {}
        for collection in Collection:
            index = open_search_index(self.folder / collection.value, bytes(32), collection)
            index.use_model(self.embedder.model_id, self.embedder.dimensions)
            self.indexes[collection] = index
        self.erased: set[str] = set()
        self.behind = False
        self.budget: Callable[[], object] = lambda: None
        self.model: tuple[str, int] | None = (self.embedder.model_id, self.embedder.dimensions)
        self.url = "memory"
        self.tiers = self.make_tiers()

    @property
    def channel(self) -> Channel:
        assert self.device.vault is not None
        return Channel(
            vault=self.device.vault,
            objects=self.objects,
            outbox=self.device.outbox,
            packages=FilePackageCache(self.folder / "a", self.folder / "b"),
            catalogue=ConversationStore(self.device.database, self.clock, self.device_name),
            blobs=self.device.blobs,
            clock=self.clock,
        )

    def device_name(self) -> str:
        return self.name

    def check_budget(self) -> None:
        self.budget()

    def make_tiers(self) -> Tiers:
        return Tiers(
            service=ServiceSettings(self.url),
            placements=self.placements,
            accesses=self.accesses,
            indexes=lambda: self.indexes,
            is_behind=lambda: self.behind,
            channel=lambda: self.channel,
            blobs=self.device.blobs,
            model=lambda: self.model,
            clock=self.clock,
            lock_file=self.folder / ".tiers.lock",
            check_budget=self.check_budget,
            prices=lambda: PRICES,
            is_erased=lambda conversation: conversation in self.erased,
            connect=self.connect,
            stems=Stemmer,
        )

    def close(self) -> None:
        self.tiers.close()
        for index in self.indexes.values():
            index.close()
        self.device.database.close()

    # What is in the memory

    def turn(self, number: int, text: str = "", *, chat: str = CHAT, days_ago: float = 0.0) -> SearchItem:
        """A turn of a conversation, in the index with its vectors."""
        return self.item("turn", f"t{number:03}", text or f"this is turn number {number}", chat, days_ago)

    def item(
        self, kind: ItemKind, name: str, text: str, chat: str = CHAT, days_ago: float = 0.0, *, embed: bool = True
    ) -> SearchItem:
        item = SearchItem(
            key=item_key(kind, name) if kind == "entity" else item_key(kind, chat, name),
            kind=kind,
            text=text,
            conversation_id="" if kind == "entity" else chat,
            turn_id=name if kind == "turn" else "",
            author="user",
            timestamp=self.clock.time - timedelta(days=days_ago),
            device=self.name,
        )
        self.indexes[COLLECTION_OF[kind]].put([item])
        if embed:
            self.embed()
        return item

    def embed(self) -> None:
        for index in self.indexes.values():
            waiting = index.unembedded(1_000)
            texts = [passages(one.item, one.previous) for one in waiting]
            index.put_vectors(
                self.embedder.model_id,
                [(one.id, self.embedder.embed(some)) for one, some in zip(waiting, texts, strict=True)],
            )

    def take_from(self, other: TierDevice) -> None:
        """Know what another device knows, as after a sync."""
        for collection, index in other.indexes.items():
            self.indexes[collection].put(index.items(index.columns().ids.tolist()))
        self.embed()

    def ask_for(self, *keys: str, times: int = 1) -> None:
        for _ in range(times):
            self.accesses.add([(key, 0.9) for key in keys], self.clock.time)

    # What lies in the service

    def where(self) -> dict[str, list[TierName]]:
        """For each item that has a row or is in an index: the tiers that have all its points, under its epochs."""
        service = self.tiers._service
        keys = {row.key: row.passages for row in self.rows()}
        for index in self.indexes.values():
            columns = index.columns()
            for item, count in zip(index.items(columns.ids.tolist()), columns.passages.tolist(), strict=True):
                keys.setdefault(item.key, count)
        found: dict[str, list[TierName]] = {}
        for key, count in keys.items():
            for name in SERVICE_TIERS:
                for epoch in self.channel.vault.epochs():
                    of_epoch = service.keys(epoch)
                    ids = [of_epoch.point_id(key, passage) for passage in range(count)]
                    if count and len(service.tier(name).fetch(of_epoch.tenant, ids)) == count:
                        found.setdefault(key, []).append(name)
        return found

    def rows(self) -> Sequence[Any]:
        return self.placements.of_digests(self.placements.columns().keys.tolist())

    def tier_of(self, item: SearchItem) -> TierName | None:
        row = self.placements.get([item.key]).get(item.key)
        return None if row is None else row.tier

    def all_points(self) -> Iterator[tuple[TierName, TierPoint]]:
        """Every point of the vault in the service."""
        for name in SERVICE_TIERS:
            yield from self.all_points_of(name)

    def all_points_of(self, name: TierName) -> Iterator[tuple[TierName, TierPoint]]:
        """Every point of the vault in that tier, whatever its service does to requests."""
        tier = self.tiers._service.tier(name)
        plain = tier.tier if isinstance(tier, FaultyTier) else tier
        for epoch in self.channel.vault.epochs():
            tenant = self.tiers._service.keys(epoch).tenant
            for point in plain.fetch(tenant, plain.ids(tenant).ids):
                yield name, point

    def apply(self, **options: Any) -> dict[str, Any]:
        return self.tiers.apply(**{"max_seconds": None, **options})


def founded_homes(folder: Path, names: Sequence[str]) -> tuple[Path, MemoryObjectStore]:
    """Data homes of a vault as they are at first, by their names in the folder, and its bucket: copied they are
    there sooner than made."""
    objects = MemoryObjectStore()
    for name in names:
        device = TierDevice(folder / name, objects, SteppingClock(), _nobody, name=name, joins=name != names[0])
        device.close()
    return folder, objects


def _nobody(_: object) -> Service:
    raise AssertionError("asked for a service")
