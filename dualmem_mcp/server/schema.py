"""Pieces of JSON Schema, and the annotations, that tools are described with."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

WRITES = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False, "openWorldHint": False}
READS = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}

STRING: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
INTEGER: Json = {"type": "integer"}
BOOLEAN: Json = {"type": "boolean"}
OBJECT: Json = {"type": "object"}
OBJECTS: Json = {"type": "array", "items": OBJECT}
STRINGS: Json = {"type": "array", "items": STRING}


def text(description: str) -> Json:
    """A text, described."""
    return {"type": "string", "description": description}


def list_of(items: Json, description: str = "") -> Json:
    """A list of such items."""
    schema = {"type": "array", "items": items}
    return {**schema, "description": description} if description else schema


def object_of(properties: Json, required: tuple[str, ...] = ()) -> Json:
    """An object with these properties; what is not required may be left out."""
    schema: Json = {"type": "object", "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def output(**properties: Json) -> Json:
    """Every property is there; more may come in later versions."""
    return {"type": "object", "properties": properties, "required": list(properties)}
