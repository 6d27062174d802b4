"""The memory graph in the encrypted database: the operations of the reference memory server, and imports."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Final

from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.model.graph import AddedObservations, Entity, EntityObservations, Graph, Relation
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.ports import Clock
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_cache import GraphCache, graph_version, read_entity, read_relations_touching
from dualmem_mcp.stores.graph_import import GraphImporter, ImportCounts, changes_since
from dualmem_mcp.stores.graph_writer import GraphWriter
from dualmem_mcp.stores.op_log import OpWriter

# Items a transaction of an import takes: other programs' writes wait no longer than some tenths of a second.
_IMPORT_BATCH: Final = 2_000


class GraphStore:
    """The graph of one data home, for use from any thread, beside other processes on the same data home.

    Behaves as @modelcontextprotocol/server-memory 2026.8.31 does, order included, but for this: items repeated
    within one call (entities by name, relations by triple, observations by text) are stored and returned once.
    A call either changes all that it should or, when it raises, nothing. Every method raises the errors of
    `Database.read` and `Database.write`.
    """

    def __init__(self, database: Database, clock: Clock, device_id: DeviceId) -> None:
        self._database = database
        self._clock = clock
        self._device_id = device_id
        self._cache = GraphCache()
        self._cache_lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call the listener after each call that changed the graph, in that call's thread, after its commit."""
        self._listeners.append(listener)

    def tell_changed(self) -> None:
        """Tell the listeners of changes that came from elsewhere."""
        for listener in self._listeners:
            listener()

    def create_entities(self, entities: Sequence[Entity]) -> list[Entity]:
        """The entities that were created: those whose names were not there."""
        with self._change() as writer:
            return [created for entity in entities if (created := writer.create_entity(entity))]

    def create_relations(self, relations: Sequence[Relation]) -> list[Relation]:
        """The relations that were created: those that were not there. Their ends need not exist."""
        with self._change() as writer:
            return [created for relation in relations if (created := writer.create_relation(relation))]

    def add_observations(self, additions: Sequence[EntityObservations]) -> list[AddedObservations]:
        """For each addition the observations that its entity did not have.

        Raises NotFoundError, and adds nothing at all, if one of the entities does not exist.
        """
        results: list[AddedObservations] = []
        with self._change() as writer:
            for addition in additions:
                added = writer.add_observations(addition.entity_name, addition.observations)
                if added is None:
                    raise NotFoundError(
                        f"Entity with name {addition.entity_name} not found",
                        operation="add observations",
                        subject=addition.entity_name,
                        hint="Create the entity first; nothing of this call was stored.",
                    )
                results.append(AddedObservations(addition.entity_name, added))
        return results

    def delete_entities(self, names: Sequence[str]) -> None:
        """Delete the entities of these names and all relations with one of the names at an end."""
        with self._change() as writer:
            for name in names:
                writer.delete_entity(name)

    def delete_observations(self, deletions: Sequence[EntityObservations]) -> None:
        """Delete those of the observations that are there."""
        with self._change() as writer:
            for deletion in deletions:
                writer.delete_observations(deletion.entity_name, deletion.observations)

    def delete_relations(self, relations: Sequence[Relation]) -> None:
        """Delete those of the relations that are there."""
        with self._change() as writer:
            for relation in relations:
                writer.delete_relation(relation)

    def read_graph(self) -> Graph:
        """The whole graph."""
        return self.snapshot()[1]

    def snapshot(self) -> tuple[int, Graph]:
        """The whole graph, and a number that grows with each change by whichever process.

        Entities and relations that did not change between two snapshots are the same objects in both.
        """
        with self._fresh_cache() as cache:
            return cache.version, cache.graph()

    def counts(self) -> tuple[int, int]:
        """How many entities and relations there are, without reading the graph."""
        with self._database.read() as connection:
            entities, relations = connection.execute(
                "SELECT (SELECT count(*) FROM entities), (SELECT count(*) FROM relations)"
            ).fetchone()
            return entities, relations

    def version(self) -> int:
        """The number that `snapshot` would give now, without reading the graph; 0 before the first change."""
        with self._database.read() as connection:
            return graph_version(connection)

    def search_nodes(self, query: str) -> Graph:
        """Entities that hold the query in name, type or one observation, in any case, and relations that touch
        one of them; everything for ""."""
        with self._fresh_cache() as cache:
            return cache.search(query)

    def open_nodes(self, names: Sequence[str]) -> Graph:
        """The entities of exactly these names, and relations that touch one of them."""
        with self._database.read() as connection:
            found = [row for name in dict.fromkeys(names) if (row := read_entity(connection, name))]
            entities = tuple(entity for _, entity in sorted(found, key=lambda row: row[0]))
            return Graph(entities, read_relations_touching(connection, [entity.name for entity in entities]))

    def import_graph(self, graph: Graph, *, edited_since: int | None = None) -> ImportCounts:
        """Add a graph to this one, in batches; what is there already is left alone, so it may be done again.

        `edited_since` is the number of the snapshot that the graph is an edited copy of, if it is one; its
        fields then count as newer than those here, and what was deleted here since is not brought back.
        """
        counts = ImportCounts()
        changes = None
        if edited_since is not None:
            with self._database.read() as connection:
                changes = changes_since(connection, edited_since)
        items: Iterator[Entity | Relation] = chain(graph.entities, graph.relations)
        while batch := list(islice(items, _IMPORT_BATCH)):
            with self._change() as writer:
                importer = GraphImporter(writer, changes)
                for item in batch:
                    if isinstance(item, Entity):
                        importer.add_entity(item)
                    else:
                        importer.add_relation(item)
            counts += importer.counts
        return counts

    @contextlib.contextmanager
    def _change(self) -> Iterator[GraphWriter]:
        with self._database.write() as connection:
            ops = OpWriter(connection, self._device_id, self._clock.now())
            yield GraphWriter(connection, ops)
            changed = ops.finish()
        if changed:
            for listener in self._listeners:
                listener()

    @contextlib.contextmanager
    def _fresh_cache(self) -> Iterator[GraphCache]:
        with self._cache_lock:
            with self._database.read() as connection:
                self._cache.refresh(connection)
            yield self._cache
