"""The texts are compared with the reference server's in the differential test; here the rules beyond it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dualmem_mcp.server.validation import InvalidArgumentsError, checked_arguments

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 200},
        "ratio": {"type": "number"},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "loud": {"type": "boolean"},
        "items": {
            "type": "array",
            "items": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        },
    },
    "required": ["name"],
}


def test_fitting_arguments_come_back_without_what_the_schema_does_not_know() -> None:
    given = {"items": [{"text": "t", "further": 1}], "further": {}, "name": "n", "limit": 5.0, "loud": False}
    checked = checked_arguments(SCHEMA, given)
    assert checked == {"name": "n", "limit": 5, "loud": False, "items": [{"text": "t"}]}
    assert isinstance(checked["limit"], int)


def test_optional_null_counts_as_absent_and_required_null_does_not() -> None:
    assert checked_arguments(SCHEMA, {"name": "n", "limit": None, "items": None}) == {"name": "n"}
    with pytest.raises(InvalidArgumentsError, match=r"^Invalid input: expected string, received null at name$"):
        checked_arguments(SCHEMA, {"name": None})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "Invalid input: expected string, received undefined at name"),
        ({"name": True}, "Invalid input: expected string, received boolean at name"),
        ({"name": math.nan}, "Invalid input: expected string, received NaN at name"),
        ({"name": -math.inf}, "Invalid input: expected string, received -Infinity at name"),
        ({"name": 10**400}, "Invalid input: expected string, received Infinity at name"),
        ({"name": "n", "limit": 1.5}, "Invalid input: expected int, received number at limit"),
        ({"name": "n", "limit": "5"}, "Invalid input: expected number, received string at limit"),
        ({"name": "n", "limit": True}, "Invalid input: expected number, received boolean at limit"),
        ({"name": "n", "limit": 0}, "Too small: expected number to be >=1 at limit"),
        ({"name": "n", "limit": 201}, "Too big: expected number to be <=200 at limit"),
        ({"name": "n", "ratio": math.inf}, "Invalid input: expected number, received Infinity at ratio"),
        ({"name": "n", "kind": "c"}, 'Invalid option: expected one of "a"|"b" at kind'),
        ({"name": "n", "items": {}}, "Invalid input: expected array, received object at items"),
        ({"name": "n", "items": [{"text": "t"}, 1]}, "Invalid input: expected object, received number at items[1]"),
        (
            {"items": [{}, {"text": []}]},
            (
                "Invalid input: expected string, received undefined at name\n"
                "Invalid input: expected string, received undefined at items[0].text\n"
                "Invalid input: expected string, received array at items[1].text"
            ),
        ),
    ],
)
def test_every_misfit_is_named(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgumentsError) as caught:
        checked_arguments(SCHEMA, arguments)
    assert str(caught.value) == text
