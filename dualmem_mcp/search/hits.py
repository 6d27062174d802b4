"""From ranked candidates to items: those of the indexes are read, what stands twice comes once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.search import COLLECTION_OF, Collection, Filter, SearchItem
from dualmem_mcp.ports import SearchReader
from dualmem_mcp.search.merging import Place
from dualmem_mcp.search.offered import Offered
from dualmem_mcp.search.query import Query
from dualmem_mcp.search.ranking import Pool, Ranked, rank

T = TypeVar("T")


class Asked:
    """The indexes of one search. One that cannot be asked is asked no further, and `failures` says why."""

    def __init__(self, indexes: list[SearchReader], failures: list[str]) -> None:
        self.indexes = indexes
        self._failures = failures

    def each(self, ask: Callable[[SearchReader], T]) -> list[tuple[Collection, T]]:
        """What those that can be asked say, each with its collection."""
        said = []
        for index in self.indexes.copy():
            try:
                said.append((index.collection, ask(index)))
            except StoreUnreachableError as error:
                self.fails(index, error)
        return said

    def fails(self, index: SearchReader | None, error: StoreUnreachableError) -> None:
        """This one cannot be asked any more; None for what is no index."""
        self._failures.append(error.message)
        if index is not None:
            self.indexes.remove(index)


@dataclass(frozen=True, slots=True)
class Hit:
    """A candidate for the answer. `place` is its index and its id there; `offered` what a tier gave of it; neither
    for one of the working set."""

    item: SearchItem
    score: float
    place: tuple[SearchReader, int] | None = None
    offered: Offered | None = None


NOTHING_OFFERED: Final[Mapping[Place, Offered]] = {}


def best_hits(
    query: Query,
    pool: Pool,
    asked: Asked,
    *,
    where: Filter,
    limit: int,
    offered: Mapping[Place, Offered] = NOTHING_OFFERED,
) -> list[Hit]:
    """The best items of the pool, `offered` being those of it that no index has; one turn that stands in several
    conversations (a forked or resumed session carries its past along) comes once."""
    ranked = rank(query, pool)
    hits: dict[object, Hit] = {}
    for start in range(0, len(ranked), limit):
        for hit in _hits(ranked[start : start + limit], asked, offered):
            hits.setdefault(_sameness(hit.item, where), hit)
        if len(hits) >= limit:
            break
    found = list(hits.values())[:limit]
    return found if query.spans else _newest_of_equals_first(found)


def _newest_of_equals_first(hits: Sequence[Hit]) -> list[Hit]:
    """The hits, those of the same author and text in the order of their times among themselves.

    They match equally well; that their vectors differ is chance of the days on which they were said.
    """
    places: dict[tuple[str, str, str], list[int]] = {}
    for place, hit in enumerate(hits):
        places.setdefault((hit.item.kind, hit.item.author, hit.item.text), []).append(place)
    ordered = list(hits)
    for equal in places.values():
        newest_first = sorted((hits[place] for place in equal), key=_time, reverse=True)
        for place, hit in zip(equal, newest_first, strict=True):
            ordered[place] = replace(hit, score=hits[place].score)
    return ordered


def _time(hit: Hit) -> float:
    return hit.item.timestamp.timestamp() if hit.item.timestamp else -math.inf


def _hits(ranked: Sequence[Ranked], asked: Asked, offered: Mapping[Place, Offered]) -> Iterator[Hit]:
    """The ranked items in their order, without those that have gone meanwhile."""
    wanted: dict[Collection, list[int]] = {}
    for one in ranked:
        if (one.collection, one.id) not in offered:
            wanted.setdefault(one.collection, []).append(one.id)
    found = dict(asked.each(lambda index: _those_there(index, wanted.get(index.collection, ()))))
    places = {index.collection: index for index in asked.indexes}
    for one in ranked:
        own = offered.get((one.collection, one.id))
        if own is not None:
            yield Hit(own.item, one.score, offered=own)
            continue
        item = found.get(one.collection, {}).get(one.id)
        if item is not None:
            yield Hit(item, one.score, (places[one.collection], one.id))


def _those_there(index: SearchReader, wanted: Sequence[int]) -> dict[int, SearchItem]:
    """The items of these ids that are still there."""
    together = index.items(wanted) if wanted else ()
    if len(together) == len(wanted):
        return dict(zip(wanted, together, strict=True))
    # One by one only where some have gone, and the answer does not say which.
    return {number: item for number in wanted for item in index.items([number])}


def _sameness(item: SearchItem, where: Filter) -> object:
    if item.kind == "turn" and where.conversation_id is None:
        return (item.turn_id, item.author, item.timestamp, item.text)
    return item.key


def passes(item: SearchItem, where: Filter) -> bool:
    """Whether the filter lets the item pass."""
    at = item.timestamp
    return (
        COLLECTION_OF[item.kind] in where.collections
        and where.conversation_id in {None, item.conversation_id}
        and (not where.kinds or item.kind in where.kinds)
        and (not where.author or where.author.casefold() == item.author.casefold())
        and (where.since is None or (at is not None and at >= where.since))
        and (where.until is None or (at is not None and at < where.until))
    )
