"""Checks a tool's arguments against its input schema, in the words of the reference memory server.

One walker over the part of JSON Schema that the tools use serves all of them, so the schema that clients
see is the schema that is enforced. Texts are those of the reference server's validator, word for word.

Source: zod 4 (`locales/en`, `core/util.parsedType`) and the TypeScript SDK's `getParseErrorMessage`, as
installed with @modelcontextprotocol/server-memory 2026.8.31.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]

_ABSENT = object()


class InvalidArgumentsError(ValueError):
    """The arguments do not fit the schema; the message names every misfit on a line of its own."""


@dataclass(frozen=True, slots=True)
class _Misfit:
    text: str
    path: str

    def __str__(self) -> str:
        return f"{self.text} at {self.path}" if self.path else self.text


def checked_arguments(schema: Schema, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that the schema knows, in its order; others are dropped, at every depth.

    A property that is not required counts as absent when it is null. Raises InvalidArgumentsError.
    """
    misfits: list[_Misfit] = []
    value = _checked(schema, arguments, "", misfits)
    if misfits:
        raise InvalidArgumentsError("\n".join(map(str, misfits)))
    checked: dict[str, Any] = value
    return checked


def _checked(schema: Schema, value: Any, path: str, misfits: list[_Misfit]) -> Any:
    expected: str = schema["type"]
    found = _type_name(value)
    if not _fits(expected, value):
        # An integer out of JavaScript's sight is a number like any other.
        wanted = "int" if expected == "integer" and found == "number" else expected.replace("integer", "number")
        misfits.append(_Misfit(f"Invalid input: expected {wanted}, received {found}", path))
        return value
    if expected == "object":
        return dict(_checked_properties(schema, value, path, misfits))
    if expected == "array":
        return [_checked(schema["items"], item, f"{path}[{index}]", misfits) for index, item in enumerate(value)]
    if "enum" in schema and value not in schema["enum"]:
        options = "|".join(f'"{option}"' for option in schema["enum"])
        misfits.append(_Misfit(f"Invalid option: expected one of {options}", path))
    if expected in {"integer", "number"}:
        misfits.extend(_outside_range(schema, value, path))
        return int(value) if expected == "integer" else value
    return value


def _checked_properties(
    schema: Schema, value: Mapping[str, Any], path: str, misfits: list[_Misfit]
) -> Iterator[tuple[str, Any]]:
    required = schema.get("required", ())
    for name, inner in schema.get("properties", {}).items():
        item = value.get(name, _ABSENT)
        if name not in required and (item is _ABSENT or item is None):
            continue
        yield name, _checked(inner, item, f"{path}.{name}" if path else name, misfits)


def _outside_range(schema: Schema, value: float, path: str) -> Iterator[_Misfit]:
    minimum, maximum = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if value < minimum:
        yield _Misfit(f"Too small: expected number to be >={minimum}", path)
    if value > maximum:
        yield _Misfit(f"Too big: expected number to be <={maximum}", path)


def _fits(expected: str, value: Any) -> bool:
    match expected:
        case "object":
            return isinstance(value, Mapping)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "number":
            return _type_name(value) == "number"
        case "integer":
            # To JSON's senders 5.0 is 5.
            return _fits("number", value) and float(value).is_integer()
    raise ValueError(f"no rule for schema type {expected!r}")


def _type_name(value: Any) -> str:
    if value is _ABSENT:
        return "undefined"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return _number_name(value)
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _number_name(value: float) -> str:
    try:
        value = float(value)
    except OverflowError:  # an integer of more than 308 digits is infinite to JavaScript
        value = math.inf if value > 0 else -math.inf
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return "number"
