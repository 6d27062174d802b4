"""What the conformance suite's scenarios want to be shown or asked by the server that they call."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

# One red point, and one sample of silence.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQIAAAAAAA=="

SCHEMA_2020_12: Json = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
HEADER_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "query": {"type": "string"},
    },
}


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def embedded(uri: str, words: str, mime_type: str = "text/plain") -> Json:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": words}}


def form(message: str, properties: Json, required: list[str] | None = None) -> Json:
    """A request for input by a form."""
    schema = {"type": "object", "properties": properties, "required": required or []}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def sampling(words: str, most: int = 100) -> Json:
    """A request for a model's answer."""
    messages = [{"role": "user", "content": text(words)}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": most}}


ROOTS: Json = {"method": "roots/list", "params": {}}


CACHE: Json = {"ttlMs": 0, "cacheScope": "private"}
NAME = form("What is your name?", {"name": {"type": "string"}}, ["name"])
CONFIRM = form("Please confirm", {"ok": {"type": "boolean"}}, ["ok"])
CONTEXT = form("What context should the prompt use?", {"context": {"type": "string"}}, ["context"])
NAME_STEP = {"step1": form("Step 1: What is your name?", {"name": {"type": "string"}}, ["name"])}
COLOR_STEP = {"step2": form("Step 2: What is your favorite color?", {"color": {"type": "string"}}, ["color"])}
DEFAULTS = form(
    "Say who you are",
    {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    },
)
_OPTIONS = ["option1", "option2", "option3"]
_TITLED = [{"const": f"value{each}", "title": f"{word} Option"} for each, word in ((1, "First"), (2, "Second"))]
ENUMS = form(
    "Choose",
    {
        "untitledSingle": {"type": "string", "enum": _OPTIONS},
        "titledSingle": {"type": "string", "oneOf": _TITLED},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
        "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
    },
)
PROMPTS: dict[str, Json] = {
    "test_simple_prompt": {},
    "test_prompt_with_arguments": {
        "arguments": [{"name": "arg1", "required": True}, {"name": "arg2", "required": True}]
    },
    "test_prompt_with_embedded_resource": {"arguments": [{"name": "resourceUri", "required": True}]},
    "test_prompt_with_image": {},
    "test_input_required_result_prompt": {},
}
