"""The graph in memory, for reading and searching; always as new as the database when it is used.

A search over 50,000 entities takes milliseconds here. SQLite's full-text index with trigrams would need its own
answer for queries of one or two characters and for letters whose lower case has another length; comparing
the folded texts is the reference server's own rule.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from dualmem_mcp.model.graph import Entity, Graph, Relation, fold, matches
from dualmem_mcp.model.half_pairs import has_half_pair
from dualmem_mcp.stores.columns import from_column, to_column
from dualmem_mcp.stores.connection import Connection

# Reading one changed entity costs about as much as reading ten in one sweep.
_SWEEP_ABOVE: Final = 2_000
# Between the folded texts of one entity; a query that holds it is checked text by text.
_SEPARATOR: Final = "\0"

GRAPH_PAYLOAD: Final = "CASE WHEN subject IS NOT NULL AND kind NOT GLOB 'record.*' THEN payload END"
"""In a SELECT from `ops`: the payload of an op that is about the graph, null of others, which are not even read."""

Triple = tuple[str, str, str]


class _Node:
    __slots__ = ("entity", "folded", "row_id")

    def __init__(self, row_id: int, entity: Entity) -> None:
        self.row_id = row_id
        self.entity = entity
        self.folded = ""


def graph_version(connection: Connection) -> int:
    """A number that grows with every op that is recorded or merged, by whichever process; 0 before the first."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'ops'").fetchone()
    return row[0] if row else 0


class GraphCache:
    """All entities and relations, in order. Not safe for several threads at once: its owner holds a lock."""

    def __init__(self) -> None:
        self.version = -1
        self._nodes: dict[str, _Node] = {}
        self._unfolded: dict[str, _Node] = {}
        self._relations: dict[Triple, tuple[int, Relation]] = {}
        self._by_end: dict[str, dict[int, Relation]] = {}

    def refresh(self, connection: Connection) -> None:
        """Take in what changed since the last time, within the transaction of the connection."""
        version = graph_version(connection)
        behind = version - self.version
        if behind == 0:
            return
        if self.version >= 0 and behind <= _SWEEP_ABOVE:
            # Ops that take effect later than they came, or change their stamps, get new numbers then.
            rows = connection.execute(
                f"SELECT {GRAPH_PAYLOAD} FROM ops WHERE id > ?",  # noqa: S608
                (self.version,),
            ).fetchall()
            # Fewer rows than numbers: ops have been compacted away meanwhile, so look at everything.
            if len(rows) == behind:
                self._take_in(connection, [json.loads(payload) for (payload,) in rows if payload is not None])
                self.version = version
                return
        self.version = -1  # should reading fail half-way, the next time starts anew
        self._load(connection)
        self.version = version

    def graph(self) -> Graph:
        """Everything."""
        return Graph(
            tuple(node.entity for node in self._nodes.values()),
            tuple(relation for _, relation in self._relations.values()),
        )

    def search(self, query: str) -> Graph:
        """Entities that hold the query in name, type or an observation, and relations with an end among them."""
        for node in self._unfolded.values():
            node.folded = _folded(node.entity)
        self._unfolded.clear()
        wanted = fold(query)
        if has_half_pair(query):
            found = [node.entity for node in self._nodes.values() if matches(node.entity, query)]
        else:
            found = [node.entity for node in self._nodes.values() if wanted in node.folded]
            if _SEPARATOR in wanted:
                found = [entity for entity in found if matches(entity, query)]
        return Graph(tuple(found), self._touching([entity.name for entity in found]))

    def _touching(self, names: list[str]) -> tuple[Relation, ...]:
        if len(names) * 4 > len(self._relations):
            ends = set(names)
            return tuple(
                relation
                for _, relation in self._relations.values()
                if relation.source in ends or relation.target in ends
            )
        found: dict[int, Relation] = {}
        for name in names:
            found.update(self._by_end.get(name, {}))
        return tuple(found[row_id] for row_id in sorted(found))

    def _load(self, connection: Connection) -> None:
        observations: dict[int, list[str]] = {}
        for entity_id, text in connection.execute("SELECT entity_id, text FROM observations ORDER BY id"):
            observations.setdefault(entity_id, []).append(text if text.__class__ is str else from_column(text))
        self._nodes = {}
        for row_id, name, entity_type, extra in connection.execute(
            "SELECT id, name, entity_type, extra FROM entities ORDER BY id"
        ):
            entity = _entity(from_column(name), entity_type, observations.get(row_id, ()), extra)
            self._nodes[entity.name] = _Node(row_id, entity)
        self._unfolded = dict(self._nodes)
        self._relations = {}
        self._by_end = {}
        for row_id, source, target, relation_type, extra in connection.execute(
            "SELECT id, source, target, relation_type, extra FROM relations ORDER BY id"
        ):
            self._put_relation(row_id, _relation((source, target, relation_type), extra))

    def _take_in(self, connection: Connection, payloads: list[dict[str, Any]]) -> None:
        """Read again what the ops name. An op's effect is not replayed: the rows are the truth."""
        # Row numbers are never used twice, and new ones are above all others: a row either keeps its place or
        # comes last.
        names = dict.fromkeys(payload["name"] for payload in payloads if "name" in payload)
        nodes = {name: _Node(*row) if (row := read_entity(connection, name)) else None for name in names}
        for name, node in nodes.items():
            old = self._nodes.get(name)
            if old is not None and (node is None or node.row_id != old.row_id):
                del self._nodes[name]
                self._unfolded.pop(name, None)
        for node in sorted((node for node in nodes.values() if node), key=lambda node: node.row_id):
            self._nodes[node.entity.name] = node
            self._unfolded[node.entity.name] = node
        triples = dict.fromkeys(
            (payload["from"], payload["to"], payload["relationType"]) for payload in payloads if "from" in payload
        )
        edges = {triple: self._read_relation(connection, triple) for triple in triples}
        for triple, edge in edges.items():
            old_edge = self._relations.get(triple)
            if old_edge is not None and (edge is None or edge[0] != old_edge[0]):
                self._drop_relation(triple)
        for row_id, relation in sorted((edge for edge in edges.values() if edge), key=lambda edge: edge[0]):
            self._put_relation(row_id, relation)

    def _read_relation(self, connection: Connection, triple: Triple) -> tuple[int, Relation] | None:
        row = connection.execute(
            "SELECT id, extra FROM relations WHERE source = ? AND target = ? AND relation_type = ?",
            tuple(map(to_column, triple)),
        ).fetchone()
        return (row[0], _relation(triple, row[1])) if row else None

    def _put_relation(self, row_id: int, relation: Relation) -> None:
        self._relations[relation.triple] = (row_id, relation)
        for end in (relation.source, relation.target):
            self._by_end.setdefault(end, {})[row_id] = relation

    def _drop_relation(self, triple: Triple) -> None:
        row_id, relation = self._relations.pop(triple)
        for end in {relation.source, relation.target}:
            del self._by_end[end][row_id]
            if not self._by_end[end]:
                del self._by_end[end]


def read_entity(connection: Connection, name: str) -> tuple[int, Entity] | None:
    """The entity of exactly that name with its row number, which grows in the order of creation; else None."""
    row = connection.execute(
        "SELECT id, entity_type, extra FROM entities WHERE name = ?", (to_column(name),)
    ).fetchone()
    if row is None:
        return None
    texts = connection.execute("SELECT text FROM observations WHERE entity_id = ? ORDER BY id", (row[0],))
    return row[0], _entity(name, row[1], (from_column(text) for (text,) in texts), row[2])


def read_relations_touching(connection: Connection, names: Iterable[str]) -> tuple[Relation, ...]:
    """The relations with one of the names at an end, in order."""
    found: dict[int, Relation] = {}
    for name in names:
        for row_id, *triple, extra in connection.execute(
            "SELECT id, source, target, relation_type, extra FROM relations WHERE source = ?1 OR target = ?1",
            (to_column(name),),
        ):
            found[row_id] = _relation(triple, extra)
    return tuple(found[row_id] for row_id in sorted(found))


def _folded(entity: Entity) -> str:
    return _SEPARATOR.join(map(fold, (entity.name, entity.entity_type, *entity.observations)))


def _entity(name: str, entity_type: Any, observations: Iterable[str], extra: str | None) -> Entity:
    return Entity(name, from_column(entity_type), tuple(observations), json.loads(extra) if extra else {})


def _relation(triple: Iterable[Any], extra: str | None) -> Relation:
    source, target, relation_type = map(from_column, triple)
    return Relation(source, target, relation_type, json.loads(extra) if extra else {})
