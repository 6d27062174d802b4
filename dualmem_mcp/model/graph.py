"""The memory graph: entities with observations, and relations between them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dualmem_mcp.errors import UsageError

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


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


def matches(entity: Entity, folded_query: str) -> bool:
    """Whether the name, the type or one observation holds the query, which `fold` has been applied to."""
    return (
        folded_query in fold(entity.name)
        or folded_query in fold(entity.entity_type)
        or any(folded_query in fold(text) for text in entity.observations)
    )


def check_text(text: str, operation: str) -> str:
    """The text itself, if it is Unicode text. Raises UsageError if it holds half of a surrogate pair.

    Such a half can be written in JSON (`"\\ud800"`), but has no UTF-8 form: it could neither be stored as
    text nor sent back. A NUL is an ordinary character.
    """
    if _LONE_SURROGATE.search(text):
        raise UsageError(
            "a text holds half of a surrogate pair, which is no character",
            operation=operation,
            hint="Send whole characters; a text that was cut inside an emoji has to be cut before or after it.",
        )
    return text


def replace_lone_surrogates(text: str) -> str:
    """The text with U+FFFD for every half of a surrogate pair, so that it can be stored."""
    return _LONE_SURROGATE.sub("\ufffd", text)
