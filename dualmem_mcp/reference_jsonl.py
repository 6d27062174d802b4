"""Memory files as they are found: read in three forms, written in the reference server's own.

- JSONL: one object a line, `{"type":"entity",…}` or `{"type":"relation",…}`;
- one JSON document with the lists `entities` and `relations`;
- one JSON document whose `entities` is an object keyed by name, with `created_at` and `updated_at`.

Source: @modelcontextprotocol/server-memory 2026.8.31, loadGraph and saveGraph.
"""

from __future__ import annotations

import codecs
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from dualmem_mcp.errors import MalformedError
from dualmem_mcp.model.graph import Entity, Graph, Relation
from dualmem_mcp.model.half_pairs import compact_json

MAX_FILE_BYTES: Final = 1 << 30
_SHOWN_WARNINGS: Final = 20
_DEEPEST: Final = 64
_ENTITY_FIELDS: Final = frozenset({"type", "name", "entityType", "observations"})
_RELATION_FIELDS: Final = frozenset({"type", "from", "to", "relationType"})
# What other programs call the type of an entity or relation; only where the reference's own name is missing.
_ENTITY_TYPE_NAMES: Final = ("entityType", "entity_type", "type")
_RELATION_TYPE_NAMES: Final = ("relationType", "relation_type", "type")

Form = Literal["jsonl", "lists", "mapping"]


@dataclass(frozen=True, slots=True)
class MemoryFileContent:
    """What a memory file holds. `skipped` counts what could not be read, `warnings` say what and where.

    `faithful` tells whether writing the graph as JSONL gives everything back that the file held.
    """

    graph: Graph
    form: Form
    skipped: int = 0
    warnings: tuple[str, ...] = ()
    faithful: bool = True


def parse_memory_file(data: bytes) -> MemoryFileContent:
    """The content of a memory file in any form; UTF-8 or, with or without a mark, UTF-16 or UTF-32.

    What cannot be read is reported by its line or place, never by its content, and skipped. Raises
    MalformedError if the file is over 1 GiB, or if nothing in it belongs to a memory graph.
    """
    if len(data) > MAX_FILE_BYTES:
        raise MalformedError(
            f"the file has {len(data):,} bytes; a memory file may have {MAX_FILE_BYTES:,}",
            operation="read memory file",
            hint="Split it by lines, and import the parts one after the other.",
        )
    reader = _Reader()
    text = reader.to_utf8(data)
    form = _read_document(text, reader)
    if form is None:
        form = "jsonl"
        _read_lines(text, reader)
        if reader.problems and not reader.entities and not reader.relations and not reader.recognised:
            raise MalformedError(
                "nothing in the file belongs to a memory graph",
                operation="read memory file",
                hint="It should hold a JSON object a line, or one JSON document with entities and relations.",
            )
    return MemoryFileContent(
        Graph(tuple(reader.entities), tuple(reader.relations)),
        form,
        skipped=reader.skipped,
        warnings=reader.warnings(),
        faithful=form == "jsonl" and not reader.problems,
    )


def entity_line(entity: Entity) -> str:
    """The entity as the reference writes it, its unknown fields after the known ones; without line break."""
    fields = {"type": "entity", "name": entity.name, "entityType": entity.entity_type}
    return compact_json({**fields, "observations": entity.observations, **_others(entity.extra, _ENTITY_FIELDS)})


def relation_line(relation: Relation) -> str:
    """The relation as the reference writes it, its unknown fields after the known ones; without line break."""
    return compact_json(
        {
            "type": "relation",
            "from": relation.source,
            "to": relation.target,
            "relationType": relation.relation_type,
            **_others(relation.extra, _RELATION_FIELDS),
        }
    )


def serialise_graph(graph: Graph) -> Iterator[bytes]:
    """The file's bytes in parts: entities, then relations, a line each, no line break at the end."""
    separator = b""
    for line in _lines(graph):
        yield separator + line.encode()
        separator = b"\n"


def _lines(graph: Graph) -> Iterator[str]:
    yield from map(entity_line, graph.entities)
    yield from map(relation_line, graph.relations)


def _others(extra: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in extra.items() if key not in known}


@dataclass
class _Reader:
    """Collects what is found, and what is wrong with the rest."""

    entities: list[Entity] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    problems: int = 0
    skipped: int = 0
    recognised: bool = False
    _told: list[str] = field(default_factory=list)

    def report(self, where: str, what: str, *, skip: bool = False) -> None:
        self.problems += 1
        self.skipped += skip
        if len(self._told) < _SHOWN_WARNINGS:
            self._told.append(f"{where}: {what}")

    def warnings(self) -> tuple[str, ...]:
        more = self.problems - len(self._told)
        return (*self._told, f"and {more:,} more like these") if more else tuple(self._told)

    def to_utf8(self, data: bytes) -> bytes:
        """The text in UTF-8 without a mark; what is not UTF-8 in it is left for its line to tell."""
        encoding = json.detect_encoding(data)
        if encoding == "utf-8":
            return data
        if encoding == "utf-8-sig":
            return data[3:]
        try:
            return data.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            # Zeros at the start look like UTF-16 or UTF-32, but are more likely what a crash left of a file.
            marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            return data.decode(encoding, "replace").encode() if marked else data

    def add_entity(self, item: Mapping[str, Any], where: str, *, name: Any = None) -> None:
        """One entity; `name` is its key in the mapping form."""
        self.recognised = True
        name = item.get("name", name)
        if not isinstance(name, str):
            self.report(where, "an entity without a name; skipped", skip=True)
            return
        type_field = _first(item, _ENTITY_TYPE_NAMES if item.get("type") != "entity" else _ENTITY_TYPE_NAMES[:2])
        entity_type = item.get(type_field, "")
        if _is_deeper(entity_type, _DEEPEST):
            self.report(where, f"an entity type nested deeper than {_DEEPEST} levels; its type is empty now")
            entity_type = ""
        elif not isinstance(entity_type, str):
            self.report(where, "an entity type that is no text; kept as JSON")
            entity_type = compact_json(entity_type)
        elif type_field not in item:
            self.report(where, "an entity without a type; its type is empty now")
        extra = self._unknown(item, _ENTITY_FIELDS | {type_field}, where)
        self._check_type_field(item, type_field, "entity", where)
        self.entities.append(Entity(name, entity_type, self._observations(item, where), extra))

    def add_relation(self, item: Mapping[str, Any], where: str) -> None:
        """One relation."""
        self.recognised = True
        type_field = _first(
            item, _RELATION_TYPE_NAMES if item.get("type") != "relation" else _RELATION_TYPE_NAMES[:2]
        )
        source, target, relation_type = item.get("from"), item.get("to"), item.get(type_field)
        if not (isinstance(source, str) and isinstance(target, str) and isinstance(relation_type, str)):
            self.report(where, "a relation without from, to or type; skipped", skip=True)
            return
        extra = self._unknown(item, _RELATION_FIELDS | {type_field}, where)
        self._check_type_field(item, type_field, "relation", where)
        self.relations.append(Relation(source, target, relation_type, extra))

    def _unknown(self, item: Mapping[str, Any], known: frozenset[str], where: str) -> dict[str, Any]:
        extra = {key: value for key, value in item.items() if key not in known}
        for key in [key for key, value in extra.items() if _is_deeper(value, _DEEPEST)]:
            self.report(where, f"an unknown field nested deeper than {_DEEPEST} levels; not taken")
            del extra[key]
        return extra

    def _check_type_field(self, item: Mapping[str, Any], type_field: str, kind: str, where: str) -> None:
        # In the reference's form `type` says what the line is, so another meaning of it has no place there.
        if type_field != "type" and item.get("type", kind) != kind:
            self.report(where, f"a field `type` beside `{type_field}`; not taken")

    def _observations(self, item: Mapping[str, Any], where: str) -> tuple[str, ...]:
        observations = item.get("observations", [])
        if not isinstance(observations, list):
            self.report(where, "observations that are no list; kept as one")
            observations = [observations]
        if all(isinstance(text, str) for text in observations):
            return tuple(observations)
        kept = [text for text in observations if not _is_deeper(text, _DEEPEST)]
        if len(kept) < len(observations):
            self.report(where, f"observations nested deeper than {_DEEPEST} levels; not taken")
        if not all(isinstance(text, str) for text in kept):
            self.report(where, "observations that are no texts; kept as JSON")
        return tuple(text if isinstance(text, str) else compact_json(text) for text in kept)


def _first(item: Mapping[str, Any], names: Iterable[str]) -> str:
    """The first of the names that the item has, else the first of all."""
    names = tuple(names)
    return next((name for name in names if name in item), names[0])


def _read_document(data: bytes, reader: _Reader) -> Form | None:
    """Read the file as one JSON document; None if it is none, and then nothing was read."""
    start = data[:4096].lstrip()
    if not start.startswith(b"{"):
        return None
    first_line = data.lstrip().split(b"\n", 1)[0]
    record = _parse(first_line)
    if isinstance(record, dict) and not ("entities" in record or "relations" in record):
        return None
    document = _parse(data)
    if not isinstance(document, dict) or not ("entities" in document or "relations" in document):
        return None
    form: Form = "lists"
    entities = document.get("entities", [])
    if isinstance(entities, dict):
        form = "mapping"
        for number, (name, item) in enumerate(entities.items(), start=1):
            where = f"entity {number:,}"
            if isinstance(item, dict):
                reader.add_entity(item, where, name=name)
            elif isinstance(item, list):
                reader.add_entity({"observations": item}, where, name=name)
            else:
                reader.report(where, "neither an object nor a list; skipped", skip=True)
    else:
        _read_items(entities, "entity", reader, reader.add_entity)
    _read_items(document.get("relations", []), "relation", reader, reader.add_relation)
    for key in document.keys() - {"entities", "relations"}:
        reader.report("the document", f"a field of {len(key)} letters beside entities and relations; not taken")
    return form


def _read_items(items: Any, kind: str, reader: _Reader, add: Any) -> None:
    if not isinstance(items, list):
        reader.report("the document", f"no list of {kind} items; skipped", skip=True)
        return
    for number, item in enumerate(items, start=1):
        if isinstance(item, dict):
            add(item, f"{kind} {number:,}")
        else:
            reader.report(f"{kind} {number:,}", "no object; skipped", skip=True)


def _read_lines(data: bytes, reader: _Reader) -> None:
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        where = f"line {number:,}"
        item = _parse(line)
        if item is None:
            # The reference reads bytes that are not UTF-8 as U+FFFD.
            item = _parse(line.decode("utf-8", "replace").encode())
            if item is not None:
                reader.report(where, "bytes that are not UTF-8; replaced")
        if not isinstance(item, dict):
            reader.report(where, "not a JSON object; skipped", skip=True)
        elif item.get("type") == "entity":
            reader.add_entity(item, where)
        elif item.get("type") == "relation":
            reader.add_relation(item, where)
        else:
            reader.report(where, "neither an entity nor a relation; skipped", skip=True)


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)


def _parse(data: bytes) -> Any:
    """The JSON value, None if it is none that JavaScript would read too."""
    try:
        text = data.decode("utf-8", "surrogatepass")
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number too large")
    return number
