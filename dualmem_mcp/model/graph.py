"""The memory graph: entities with observations, and relations between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dualmem_mcp.model.half_pairs import has_half_pair


@dataclass(frozen=True, slots=True)
class Entity:
    """A named node. `observations` are distinct texts in the order they were added.

    `extra` holds fields that the reference format does not know (`created_at`, …), as JSON values; they
    are kept and written back to files, and never shown by the tools.
    """

    name: str
    entity_type: str
    observations: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Relation:
    """A directed edge, named by the triple of `source` (JSON `from`), `target` (`to`) and `relation_type`.

    Either end may be the name of an entity that does not exist. `extra` as in Entity.
    """

    source: str
    target: str
    relation_type: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def triple(self) -> tuple[str, str, str]:
        """What makes two relations the same one."""
        return (self.source, self.target, self.relation_type)


@dataclass(frozen=True, slots=True)
class EntityObservations:
    """Observations to add to, or to delete from, the entity of that name."""

    entity_name: str
    observations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AddedObservations:
    """What an addition changed: the observations that the entity did not have before, in order."""

    entity_name: str
    added_observations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """Entities and relations, each in the order of their creation."""

    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()


def fold(text: str) -> str:
    """The text as searches compare it.

    Full Unicode lower case without locale, final sigma included. Source: ECMA-262 String.prototype.toLowerCase,
    which the reference server's search uses; Python's str.lower follows the same SpecialCasing rules.
    """
    return text.lower()


def matches(entity: Entity, query: str) -> bool:
    """Whether the name, the type or one observation holds the query, in any case; "" is held by all."""
    form = _code_units if has_half_pair(query) else fold
    wanted = form(query)
    return (
        wanted in form(entity.name)
        or wanted in form(entity.entity_type)
        or any(wanted in form(text) for text in entity.observations)
    )


def _code_units(text: str) -> str:
    """The folded text, one character for each UTF-16 unit as in JavaScript: half an emoji is found in it."""
    data = fold(text).encode("utf-16-le", "surrogatepass")
    return "".join(chr(data[at] | data[at + 1] << 8) for at in range(0, len(data), 2))
