"""The nine tools of the reference memory server, so that its clients notice no difference.

Names, titles, descriptions, schemas, annotations, results and texts are those of
@modelcontextprotocol/server-memory 2026.8.31. One thing differs on purpose: items repeated within one call
are stored and returned once, where the reference keeps both and can then not tell them apart.
"""

from __future__ import annotations

from typing import Any

from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.model.graph import Entity, EntityObservations, Graph, Relation
from dualmem_mcp.server.javascript_json import stringify
from dualmem_mcp.server.tool import Answer, Call, Tool

GRAPH_URI = "memory://knowledge-graph"

_CREATES = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False, "openWorldHint": False}
_DELETES = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True, "openWorldHint": False}
_READS = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}

Json = dict[str, Any]


# Schemas


def _text(description: str = "") -> Json:
    return {"type": "string", "description": description} if description else {"type": "string"}


def _list_of(items: Json, description: str = "") -> Json:
    schema = {"type": "array", "items": items}
    return {**schema, "description": description} if description else schema


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _closed(schema: Json) -> Json:
    """The schema as the reference describes results: no further properties, at any depth."""
    closed = dict(schema)
    if closed["type"] == "object":
        closed["properties"] = {name: _closed(inner) for name, inner in closed["properties"].items()}
        closed["additionalProperties"] = False
    elif closed["type"] == "array":
        closed["items"] = _closed(closed["items"])
    return closed


def _input(properties: Json) -> Json:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", **_object(properties)}
    if not properties:
        del schema["required"]
    return schema


def _output(properties: Json) -> Json:
    return _closed(_input(properties))


_ENTITY = _object(
    {
        "name": _text("The name of the entity"),
        "entityType": _text("The type of the entity"),
        "observations": _list_of(_text(), "An array of observation contents associated with the entity"),
    }
)
_RELATION = _object(
    {
        "from": _text("The name of the entity where the relation starts"),
        "to": _text("The name of the entity where the relation ends"),
        "relationType": _text("The type of the relation"),
    }
)
_ADDITION = _object(
    {
        "entityName": _text("The name of the entity to add the observations to"),
        "contents": _list_of(_text(), "An array of observation contents to add"),
    }
)
_DELETION = _object(
    {
        "entityName": _text("The name of the entity containing the observations"),
        "observations": _list_of(_text(), "An array of observations to delete"),
    }
)
_GRAPH_OUTPUT = _output({"entities": _list_of(_ENTITY), "relations": _list_of(_RELATION)})
_DELETED_OUTPUT = _output({"success": {"type": "boolean"}, "message": _text()})


# From JSON and back


def _read_entity(item: Json) -> Entity:
    return Entity(item["name"], item["entityType"], tuple(item["observations"]))


def _read_relation(item: Json) -> Relation:
    return Relation(item["from"], item["to"], item["relationType"])


def _entity_json(entity: Entity) -> Json:
    return {"name": entity.name, "entityType": entity.entity_type, "observations": list(entity.observations)}


def _relation_json(relation: Relation) -> Json:
    return {"from": relation.source, "to": relation.target, "relationType": relation.relation_type}


def graph_json(graph: Graph) -> Json:
    """The graph as `read_graph` returns it and the resource holds it."""
    return {
        "entities": [_entity_json(entity) for entity in graph.entities],
        "relations": [_relation_json(relation) for relation in graph.relations],
    }


# Handlers


def _create_entities(call: Call) -> Answer:
    created = call.app.graph.create_entities([_read_entity(item) for item in call.arguments["entities"]])
    return _changed("entities", [_entity_json(entity) for entity in created])


def _create_relations(call: Call) -> Answer:
    created = call.app.graph.create_relations([_read_relation(item) for item in call.arguments["relations"]])
    return _changed("relations", [_relation_json(relation) for relation in created])


def _add_observations(call: Call) -> Answer:
    additions = [
        EntityObservations(item["entityName"], tuple(item["contents"])) for item in call.arguments["observations"]
    ]
    try:
        results = call.app.graph.add_observations(additions)
    except NotFoundError as error:
        return Answer(error.message, is_error=True)
    return _changed(
        "results",
        [{"entityName": item.entity_name, "addedObservations": list(item.added_observations)} for item in results],
    )


def _delete_entities(call: Call) -> Answer:
    call.app.graph.delete_entities(call.arguments["entityNames"])
    return _deleted("Entities deleted successfully")


def _delete_observations(call: Call) -> Answer:
    call.app.graph.delete_observations(
        [
            EntityObservations(item["entityName"], tuple(item["observations"]))
            for item in call.arguments["deletions"]
        ]
    )
    return _deleted("Observations deleted successfully")


def _delete_relations(call: Call) -> Answer:
    call.app.graph.delete_relations([_read_relation(item) for item in call.arguments["relations"]])
    return _deleted("Relations deleted successfully")


def _read_graph(call: Call) -> Answer:
    return _found(call.app.graph.read_graph())


def _search_nodes(call: Call) -> Answer:
    return _found(call.app.graph.search_nodes(call.arguments["query"]))


def _open_nodes(call: Call) -> Answer:
    return _found(call.app.graph.open_nodes(call.arguments["names"]))


def _changed(key: str, items: list[Json]) -> Answer:
    return Answer(stringify(items), {key: items}, updated=(GRAPH_URI,))


def _deleted(message: str) -> Answer:
    return Answer(message, {"success": True, "message": message}, updated=(GRAPH_URI,))


def _found(graph: Graph) -> Answer:
    found = graph_json(graph)
    return Answer(stringify(found), found)


MEMORY_TOOLS: tuple[Tool, ...] = (
    Tool(
        "create_entities",
        "Create Entities",
        "Create multiple new entities in the knowledge graph",
        _input({"entities": _list_of(_ENTITY)}),
        _output({"entities": _list_of(_ENTITY)}),
        _CREATES,
        _create_entities,
        order="write",
    ),
    Tool(
        "create_relations",
        "Create Relations",
        "Create multiple new relations between entities in the knowledge graph. "
        "Relations should be in active voice",
        _input({"relations": _list_of(_RELATION)}),
        _output({"relations": _list_of(_RELATION)}),
        _CREATES,
        _create_relations,
        order="write",
    ),
    Tool(
        "add_observations",
        "Add Observations",
        "Add new observations to existing entities in the knowledge graph",
        _input({"observations": _list_of(_ADDITION)}),
        _output({"results": _list_of(_object({"entityName": _text(), "addedObservations": _list_of(_text())}))}),
        _CREATES,
        _add_observations,
        order="write",
    ),
    Tool(
        "delete_entities",
        "Delete Entities",
        "Delete multiple entities and their associated relations from the knowledge graph",
        _input({"entityNames": _list_of(_text(), "An array of entity names to delete")}),
        _DELETED_OUTPUT,
        _DELETES,
        _delete_entities,
        order="write",
    ),
    Tool(
        "delete_observations",
        "Delete Observations",
        "Delete specific observations from entities in the knowledge graph",
        _input({"deletions": _list_of(_DELETION)}),
        _DELETED_OUTPUT,
        _DELETES,
        _delete_observations,
        order="write",
    ),
    Tool(
        "delete_relations",
        "Delete Relations",
        "Delete multiple relations from the knowledge graph",
        _input({"relations": _list_of(_RELATION, "An array of relations to delete")}),
        _DELETED_OUTPUT,
        _DELETES,
        _delete_relations,
        order="write",
    ),
    Tool(
        "read_graph",
        "Read Graph",
        "Read the entire knowledge graph",
        _input({}),
        _GRAPH_OUTPUT,
        _READS,
        _read_graph,
        order="read",
    ),
    Tool(
        "search_nodes",
        "Search Nodes",
        "Search for nodes in the knowledge graph based on a query",
        _input({"query": _text("The search query to match against entity names, types, and observation content")}),
        _GRAPH_OUTPUT,
        _READS,
        _search_nodes,
        order="read",
    ),
    Tool(
        "open_nodes",
        "Open Nodes",
        "Open specific nodes in the knowledge graph by their names",
        _input({"names": _list_of(_text(), "An array of entity names to retrieve")}),
        _GRAPH_OUTPUT,
        _READS,
        _open_nodes,
        order="read",
    ),
)
