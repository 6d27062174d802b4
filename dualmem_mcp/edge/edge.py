"""Search and indexing of one data home, in this process."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

from dualmem_mcp.edge import tier_work
from dualmem_mcp.edge.interface import FilterOptions
from dualmem_mcp.edge.model import LOADING_SECONDS, QueryModel
from dualmem_mcp.edge.refreshing import refresh_working_set
from dualmem_mcp.edge.tier_work import TierParts, open_tiers
from dualmem_mcp.edge.upkeep import Upkeep
from dualmem_mcp.edge.way_beyond import WayBeyond, told_of_tiers
from dualmem_mcp.errors import DualmemError, StoreUnreachableError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.handoff.preload import preload_from_bytes, preload_to_bytes
from dualmem_mcp.model.ids import ConversationId, DeviceId
from dualmem_mcp.model.search import Collection, Filter
from dualmem_mcp.ports import Clock, Progress, SearchIndex, no_progress
from dualmem_mcp.search.filling import ShouldStop, never
from dualmem_mcp.search.material import entity_item, entity_key
from dualmem_mcp.search.preloading import OwnItem, find_preload, take_preload
from dualmem_mcp.search.request import DEFAULT_LIMIT, read_filter
from dualmem_mcp.search.search import search
from dualmem_mcp.search.working_set import WorkingSet
from dualmem_mcp.settings import Settings
from dualmem_mcp.stores.access_log import DatabaseAccessLog
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.data_home import DataHome
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.search_feed import SearchFeed
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESULT_TOKENS: Final = 6_000
"""Tokens that results take at most unless the caller says otherwise, and at most half of what the device reads."""

RELATED_RESULTS: Final = 5
_RELATED_POOL: Final = 100

_PATIENCE_SECONDS: Final = 60.0
"""There a search also waits for the model: whoever starts a process for one search wants its best answer."""

_CONNECTING_SECONDS: Final = 10.0
"""And so long for a search service, whose client alone takes 1.5 s to import; one that is away is known before."""


class Edge:
    """The indexes, the model and the working set of one data home, each opened when it is first needed.

    Safe for use from several threads, beside other processes on the same data home.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        home: DataHome,
        database: Database,
        catalogue: ConversationStore,
        index_key: bytes,
        device_id: DeviceId,
        channel: Callable[[], Channel | None],
        clock: Clock,
        tiers: TierParts,
    ) -> None:
        self._settings = settings
        self._home = home
        self._catalogue = catalogue
        self._index_key = index_key
        self._clock = clock
        self._truth = SearchFeed(database)
        self._accesses = DatabaseAccessLog(database)
        self._lock = threading.RLock()
        self._indexes: dict[Collection, SqliteSearchIndex] = {}
        self._working_set: WorkingSet | None = None
        self._used: list[tuple[str, float]] = []
        self._cached_graph = 0
        self.model = QueryModel(settings.model_dir, settings.model)
        self._upkeep = Upkeep(
            settings,
            vector_cache=home.vector_cache,
            database=database,
            indexes=self._opened,
            model=self.model,
            device_id=device_id,
            channel=channel,
            clock=clock,
        )
        self.tiers = open_tiers(
            settings,
            tiers,
            accesses=self._accesses,
            indexes=self._opened,
            upkeep=self._upkeep,
            model=self.model,
            channel=channel,
            clock=clock,
        )
        """Vectors in a search service; off where none is used."""
        self._way_beyond = WayBeyond(
            self.tiers.searcher, self._truth, tiers.is_erased, small_cache=settings.profile.has_small_cache
        )

    # Searching

    def search(
        self,
        query: str,
        *,
        limit: int = DEFAULT_LIMIT,
        token_budget: int | None = None,
        catch_up: bool = False,
        **which: Unpack[FilterOptions],
    ) -> dict[str, Any]:
        """As the interface says. With `catch_up` the indexes are brought up to date first, as far as that is quick,
        and the search waits for the model and the connection to a search service."""
        where = read_filter(now=self._clock.now(), **which)
        self._way_beyond.warm_up()
        warnings = self._upkeep.catch_up_quickly() if catch_up else self._upkeep.fill_quickly()
        if catch_up:
            self._way_beyond.warm_up(_CONNECTING_SECONDS)
        self._renew_cache()
        incomplete = bool(warnings or self._upkeep.behind)
        by_words = ""

        def embed(text: str) -> NDArray[np.float32] | None:
            nonlocal by_words
            vector, by_words = self.model.query_vector(text, _PATIENCE_SECONDS if catch_up else LOADING_SECONDS)
            return vector

        budget = token_budget or min(RESULT_TOKENS, self._settings.profile.context_tokens // 2)
        unopened: list[str] = []
        indexes = self._opened(unopened)
        lacking = incomplete or bool(unopened) or (self.tiers.configured and self._upkeep.waiting() > 0)
        found = search(
            query,
            where,
            limit=limit,
            token_budget=budget,
            beyond=self._way_beyond.beyond(eager=lacking),
            indexes=indexes if incomplete else self._upkeep.worth_asking(indexes),
            working_set=self._cache(),
            embed=embed,
            now=self._clock.now(),
        )
        if not incomplete:
            warnings += self._upkeep.lost_meanwhile()
            incomplete = bool(warnings)
        with self._lock:
            self._used += [(result.item.key, result.score) for result in found.results]
        warnings += filter(None, (by_words, self._upkeep.behind))
        warnings += dict.fromkeys((*unopened, *found.failures))
        warnings += (tiers := told_of_tiers(found))
        if where.conversation_id and not found.results and self._knows_nothing_of(where.conversation_id):
            warnings.append(f"nothing of conversation {where.conversation_id} is indexed here")
        if found.left_out:
            warnings.append(f"{found.left_out} more were found than the token budget has room for")
        waiting = 0 if by_words else self._upkeep.waiting()
        if waiting:
            warnings.append(f"{waiting:,} items are found by words only until they are embedded (`dualmem index`)")
        return {
            "results": [result.fields() for result in found.results],
            "partial": bool(incomplete or found.failures or by_words or waiting or unopened or tiers),
            "tiers": [tier.fields() for tier in found.tiers],
            "timings_ms": found.timings_ms,
            "warnings": warnings,
        }

    def warm_up(self) -> None:
        """Begin to connect to the search service, where one is used; returns at once."""
        self._way_beyond.warm_up()

    def _knows_nothing_of(self, conversation_id: ConversationId) -> bool:
        where = Filter(conversation_id=conversation_id)
        try:
            return not any(index.authors(where) for index in self._opened([]).values())
        except StoreUnreachableError:
            return False

    def related(self, query: str, *, conversation_id: str, cwd: str) -> Sequence[Mapping[str, Any]]:
        """As the interface says; by words alone while the model is not in memory, for a brief must not wait."""
        others = self._catalogue.conversations_in(cwd) - {conversation_id} if cwd else frozenset()
        if not others:
            return []
        # The working set is for what somebody asked for.
        found = search(
            query,
            Filter(),
            limit=_RELATED_POOL,
            token_budget=4 * RESULT_TOKENS,
            indexes=self._opened([]),
            working_set=None,
            embed=self._embed_if_loaded,
            now=self._clock.now(),
        )
        return [
            result.fields()
            for result in found.results
            if result.item.conversation_id in others and result.item.kind != "summary"
        ][:RELATED_RESULTS]

    def _embed_if_loaded(self, text: str) -> NDArray[np.float32] | None:
        embedder = self.model.embedder
        return self.model.query_vector(text, 0.0)[0] if embedder is not None and embedder.loaded else None

    def _opened(self, unopened: list[str] | None = None) -> Mapping[Collection, SearchIndex]:
        """The indexes that can be opened; why others cannot goes to `unopened`, else is raised."""
        with self._lock:
            for collection in Collection:
                if collection in self._indexes:
                    continue
                try:
                    folder = self._home.vector_cache / collection.value
                    self._indexes[collection] = open_search_index(folder, self._index_key, collection)
                except StoreUnreachableError as error:
                    if unopened is None:
                        raise
                    unopened.append(error.message)
            return self._indexes.copy()

    def _cache(self) -> WorkingSet | None:
        """The working set of a device with a small cache; None on one that has its whole index at hand."""
        if not self._settings.profile.has_small_cache:
            return None
        with self._lock:
            if self._working_set is None:
                entries = self._accesses.working_set(self.model.model_id)
                self._working_set = WorkingSet(self._settings.profile.cached_vectors, entries)
            return self._working_set

    # Indexing

    def index(
        self, *, project: str | None = None, claude_dir: Path | None = None, progress: Progress = no_progress
    ) -> dict[str, Any]:
        """Index all that is new; see `Upkeep.index`."""
        return self._upkeep.index(project=project, claude_dir=claude_dir, progress=progress)

    def import_turns(self, path: Path, progress: Progress = no_progress) -> dict[str, Any]:
        """Keep the turns of a file and index them; see `Upkeep.import_turns`."""
        return self._upkeep.import_turns(path, progress)

    def catch_up(self, *, should_stop: ShouldStop = never, embed: bool = True) -> bool:
        """Index what is new now; see `Upkeep.catch_up`."""
        worked = self._upkeep.catch_up(should_stop=should_stop, embed=embed)
        self._renew_cache()
        return worked

    def _renew_cache(self) -> None:
        """What was erased, deleted or changed in the memory graph is so in the working set too."""
        cache = self._cache()
        if cache is None:
            return
        cache.forget([*self._way_beyond.gone([entry.item for entry in cache.entries(cache.keys())])])
        if (version := self._truth.graph_version()) == self._cached_graph:
            return
        start = len(entity_key(""))
        names = [key[start:] for key in cache.keys() if key.startswith(entity_key(""))]  # noqa: SIM118
        there = {entity_key(entity.name): entity_item(entity, at) for entity, at in self._truth.entities(names)}
        cache.forget([key for key in map(entity_key, names) if key not in there])
        cache.refresh(there)
        self._cached_graph = version

    # Tiers

    def place(self, conversation_id: str, *, max_seconds: float) -> dict[str, Any]:
        """As the interface says."""
        return tier_work.place(self.tiers, conversation_id, max_seconds=max_seconds)

    def catch_up_quickly(self) -> list[str]:
        """Index what is new as far as that is quick; a warning if it was not quick enough."""
        return self._upkeep.catch_up_quickly()

    def move_vectors(self, *, max_seconds: float) -> dict[str, Any]:
        """As the interface says."""
        moved = tier_work.move(self.tiers, self._upkeep, max_seconds=max_seconds)
        try:
            self.refresh_cache()
        except StoreUnreachableError as error:
            moved["warnings"] = [*moved["warnings"], f"the cache of this device is as it was: {error.message}"]
        return moved

    def forget_vectors(self, conversation_id: str) -> dict[str, Any]:
        """As the interface says."""
        return tier_work.forget(self.tiers, conversation_id)

    # What a handoff takes along

    def preload_for(
        self, conversation_id: str, *, own: Sequence[Mapping[str, Any]], limit: int, threshold: float
    ) -> dict[str, Any]:
        """As the interface says; what takes long is left out."""
        if not self.model.model_id:
            return {"section": "", "problem": self.model.missing}
        found, problem = find_preload(
            conversation_id,
            [OwnItem(**one) for one in own],
            self._opened([]),
            model_id=self.model.model_id,
            embed=self._embed_if_loaded,
            limit=limit,
            threshold=threshold,
        )
        return {"section": base64.b64encode(preload_to_bytes(found)).decode("ascii"), "problem": problem}

    def preload(self, conversation_id: str, section: str) -> int:
        """As the interface says."""
        cache = self._cache()
        if cache is None:
            return 0
        given = preload_from_bytes(base64.b64decode(section), conversation_id)
        if any(entry.item is None for entry in given.entries):
            self._upkeep.fill_quickly()
        taken = take_preload(given, cache, self._opened([]), self.model.model_id)
        with self._lock:
            # What the conversation is at was shown with its brief; what is near to it was not.
            self._used += [(key, relevance) for key, relevance in taken if relevance == 1.0]
        return len(taken)

    def refresh_cache(self) -> int:
        """Bring the working set of a small device to what is worth most; how many items came into it.

        Raises StoreUnreachableError.
        """
        cache = self._cache()
        if cache is None:
            return 0
        self._renew_cache()
        return refresh_working_set(cache, self._opened(), self._accesses.columns(), self._clock.now())

    # The rest

    def status(self) -> dict[str, Any]:
        """As the interface says: indexed items by collection, waiting, shared, index_bytes, model.

        Raises StoreUnreachableError if an index can neither be read nor made.
        """
        counts = {collection.value: index.counts() for collection, index in self._opened().items()}
        return {
            "indexed": {name: count.items for name, count in counts.items()},
            "waiting": sum(count.items - count.embedded for count in counts.values()),
            "shared": sum(count.shared for count in counts.values()),
            "index_bytes": sum(count.size_bytes for count in counts.values()),
            "model": self.model.model_id or None,
            "model_missing": self.model.missing or None,
        }

    def flush(self) -> None:
        """Write access counts and the working set to the memory, if there is anything new in them.

        Raises StoreUnreachableError; they are then written the next time.
        """
        with self._lock:
            used, self._used = self._used, []
            cache = self._working_set
        try:
            self._accesses.add(used, self._clock.now())
        except DualmemError:
            with self._lock:
                self._used = used + self._used
            raise
        entries = cache.take_changed() if cache is not None else None
        if cache is not None and entries is not None:
            try:
                self._accesses.save_working_set(self.model.model_id, entries)
            except DualmemError:
                cache.note_unsaved()
                raise

    def wake(self) -> None:
        """As the interface says: in this process, whoever runs `catch_up` looks by itself."""

    def close(self) -> None:
        """Write what is not written yet and let everything go."""
        try:
            self.flush()
        finally:
            self.tiers.close()
            self._way_beyond.close()
            with self._lock:
                indexes, self._indexes = self._indexes, {}
            for index in indexes.values():
                index.close()
