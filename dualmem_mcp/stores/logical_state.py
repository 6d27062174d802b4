"""What all devices of a vault agree on once they have the same ops: the memory without what is a device's own.

Left out are the order in which things reached the device, numbers of rows, what search keeps, and what the device
learned by itself of another's packages before their author's ops told of it (rows with an empty stamp).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.oplog import split_tags
from dualmem_mcp.stores.columns import from_column
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.row_payloads import (
    CONVERSATION_COLUMNS,
    FINDING_COLUMNS,
    HANDOFF_COLUMNS,
    TURN_COLUMNS,
)

_Reading = Callable[[Any], Any]


def logical_hash(connection: Connection) -> str:
    """SHA-256 in hexadecimal over the logical state; equal on two devices if, in practice, it is the same."""
    digest = hashlib.sha256()
    for section, items in _sections(connection):
        for item in items:
            digest.update(compact_json([section, item]).encode())
            digest.update(b"\n")
    return digest.hexdigest()


def logical_view(connection: Connection) -> dict[str, list[Any]]:
    """The logical state itself, by section, to see in what two devices differ."""
    return {section: list(items) for section, items in _sections(connection)}


def _sections(connection: Connection) -> Iterator[tuple[str, Iterator[list[Any]]]]:
    for section, statement, readings in _SECTIONS:
        yield section, _items(connection, statement, readings)


def _items(connection: Connection, statement: str, readings: tuple[_Reading, ...]) -> Iterator[list[Any]]:
    for row in connection.execute(statement):
        yield [reading(value) for reading, value in zip(readings, row, strict=True)]


def _plain(value: Any) -> Any:
    """Numbers, null and texts of columns of type TEXT or ANY."""
    return from_column(value) if isinstance(value, bytes) else value


def _json(value: str | None) -> Any:
    """The members of an object in one order, whoever wrote them first."""
    return json.dumps(json.loads(value), sort_keys=True) if value else "{}"


def _conflict(value: str) -> Any:
    """A conflict but for the name that it is shown by: a snapshot may have taken out what a deleted record said."""
    return json.dumps({name: found for name, found in json.loads(value).items() if name != "name"}, sort_keys=True)


def _tags(value: bytes) -> list[str]:
    return [str(tag) for tag in sorted(split_tags(value))]


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _rows_of(table: str, columns: str, order: str, also: str = "") -> tuple[str, str, tuple[_Reading, ...]]:
    """A table of rows with stamps; what op a row is from decides what later ones do to it, so it belongs to it."""
    statement = f"SELECT {columns}, stamp FROM {table} WHERE stamp IS NOT X''{also} ORDER BY {order}"  # noqa: S608
    return table, statement, (*(_plain for _ in columns.split(",")), _hex)


_SECTIONS: Final[tuple[tuple[str, str, tuple[_Reading, ...]], ...]] = (
    (
        "entities",
        "SELECT name, entity_type, extra, tags FROM entities ORDER BY name",
        (_plain, _plain, _json, _tags),
    ),
    (
        "observations",
        "SELECT name, text, o.tags FROM entities e JOIN observations o ON entity_id = e.id ORDER BY 1, digest",
        (_plain, _plain, _tags),
    ),
    (
        "relations",
        "SELECT source, target, relation_type, extra, tags FROM relations ORDER BY source, target, relation_type",
        (_plain, _plain, _plain, _json, _tags),
    ),
    (
        "records",
        "SELECT type, id, conversation_id, fields, stamps, created, changed FROM records ORDER BY type, id",
        (_plain, _plain, _plain, _json, _json, _hex, _hex),
    ),
    _rows_of("conversations", CONVERSATION_COLUMNS, "id"),
    _rows_of("turns", TURN_COLUMNS, "conversation_id, uuid"),
    # One whose text was taken away is as one that never was.
    _rows_of("findings", FINDING_COLUMNS, "conversation_id, kind, finding_id", " AND text <> ''"),
    _rows_of("handoffs", HANDOFF_COLUMNS, "handoff_id"),
    ("bans", "SELECT name FROM erased ORDER BY name", (_plain,)),
    (
        "conflicts",
        "SELECT subject, field, detail FROM conflicts ORDER BY subject, field",
        (_hex, _plain, _conflict),
    ),
)
