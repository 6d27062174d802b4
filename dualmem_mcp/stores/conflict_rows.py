"""Conflicts as rows of memory.db: what a person is shown, and which versions a change of the subject replaces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.merge import EntityState, RelationState, SubjectState
from dualmem_mcp.stores.connection import Connection

_TITLE_CHARACTERS = 60


def conflict_rows(state: SubjectState) -> Iterator[tuple[str, dict[str, Any]]]:
    """Column `field` and object `detail` of each conflict. Source: docs/sync.md, "Conflicts"."""
    kind, name = _named(state)
    for clash in state.clashes:
        kept = clash.kept
        yield (
            field_column(clash.field),
            {
                "kind": kind,
                "name": name,
                "field": clash.field,
                "kept": None if kept is None else {"value": kept.value, "stamp": kept.stamp},
                "lost": [{"value": side.value, "stamp": side.stamp} for side in clash.lost],
                "heads": list(clash.heads),
            },
        )


def field_column(field: str) -> str:
    """The field's name in a column of type TEXT, which no half of a surrogate pair fits in: as JSON writes it."""
    return compact_json(field)[1:-1]


def conflict_heads(connection: Connection, subject: bytes) -> set[str]:
    """Stamps of all versions that the conflicts of a subject are about: what deleting it replaces."""
    rows = connection.execute("SELECT detail FROM conflicts WHERE subject = ?", (subject,)).fetchall()
    return {stamp for (detail,) in rows for stamp in json.loads(detail)["heads"]}


def _named(state: SubjectState) -> tuple[str, str]:
    if isinstance(state, EntityState):
        return "entity", state.name
    if isinstance(state, RelationState):
        return "relation", f"{state.source} {state.relation_type} {state.target}"
    known = {**{name: one.value for name, one in state.fields.items()}, **_hidden_fields(state)}
    text = next((known[name] for name in ("text", "title", "label") if isinstance(known.get(name), str)), state.id)
    title = " ".join(text.split())[:_TITLE_CHARACTERS]
    return "record", f"{state.type}: {title}"


def _hidden_fields(state: SubjectState) -> dict[str, Any]:
    return {name: value for clash in state.clashes for name, value in clash.fields.items()}
