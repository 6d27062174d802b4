"""One search: read the query, ask the working set, then the indexes, and fit the best to the budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.handoff.quoting import clean
from dualmem_mcp.model.search import COLLECTION_OF, Collection, Filter, SearchItem
from dualmem_mcp.ports import SearchIndex, SearchReader
from dualmem_mcp.search.excerpts import fit
from dualmem_mcp.search.query import Query, read_query
from dualmem_mcp.search.ranking import Ranked, candidates, rank
from dualmem_mcp.search.working_set import WorkingSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Embed = Callable[[str], "NDArray[np.float32] | None"]
"""The vector of a query's text, or None where no model is at hand."""

CACHE_TIER: Final = "edge_cache"
INDEX_TIER: Final = "edge_index"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result:
    """An item that was found, its score from 0 to 1, and what of its text fits the budget."""

    item: SearchItem
    score: float
    text: str

    def fields(self) -> dict[str, Any]:
        """The contract's *search result*."""
        item = self.item
        return {
            "id": item.key,
            "kind": item.kind,
            "text": self.text,
            "score": round(self.score, 4),
            "conversation_id": item.conversation_id or None,
            "turn_id": item.turn_id or None,
            "author": item.author or None,
            "timestamp": item.timestamp.isoformat() if item.timestamp else None,
            "device": item.device or None,
        }


@dataclass(frozen=True, slots=True)
class Tier:
    """Who answered: its name, how many results it gave, and how long it took."""

    name: str
    results: int
    duration_ms: float


@dataclass(slots=True)
class Found:
    """The answer of one search. `failures` say what could not be asked, `left_out` counts
    results for which the budget had no room."""

    results: list[Result] = field(default_factory=list)
    tiers: list[Tier] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    left_out: int = 0


def search(
    text: str,
    where: Filter,
    *,
    limit: int,
    token_budget: int,
    indexes: Mapping[Collection, SearchIndex],
    working_set: WorkingSet | None,
    embed: Embed,
    now: datetime,
) -> Found:
    """The best items for the query, at most `limit`, and within `token_budget` tokens.

    The working set, where the device has one, is asked first; what the indexes say then goes before it. Of an index
    that cannot be asked `failures` says why; if none can, the answer is the working set's alone.
    """
    found = Found()
    stopwatch = _Stopwatch(found.timings_ms)
    with ExitStack() as readings:
        opened = [indexes[collection] for collection in where.collections if collection in indexes]
        asked = _Asked([readings.enter_context(index.reading()) for index in opened], found.failures)
        # Without what the items were rid of too, so that the same words are the same.
        query = read_query(clean(text.replace("\0", " ")), known_authors=_authors(asked, where), now=now)
        stopwatch.lap("read")
        vector = embed(query.embedded) if query.embedded else None
        stopwatch.lap("embed")
        hits: list[_Hit] = []
        if working_set is not None:
            cached = working_set.find(query.terms, vector, limit, lambda item: passes(item, where))
            hits = [_Hit(item, score, None) for item, score in cached]
            found.tiers.append(Tier(CACHE_TIER, len(hits), stopwatch.lap("cache")))
        best = _best(asked, query, vector, where, limit)
        unindexed = _unindexed(hits, best, asked)
        if asked.indexes:
            # Sorted only where something comes in: equal scores are in an order already.
            hits = sorted([*best, *unindexed], key=lambda hit: -hit.score)[:limit] if unindexed else best
            found.tiers.append(Tier(INDEX_TIER, len(best), stopwatch.lap("index")))
        texts = fit([hit.item.text for hit in hits], query.terms, token_budget) if hits else []
        found.results = [Result(hit.item, hit.score, shown) for hit, shown in zip(hits, texts, strict=False)]
        found.left_out = len(hits) - len(texts)
        stopwatch.lap("fit")
        if working_set is not None:
            _remember(working_set, hits[: len(texts)], vector, found)
    found.timings_ms["total"] = stopwatch.total()
    return found


class _Asked:
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
                self._failures.append(error.message)
                self.indexes.remove(index)
        return said


def _unindexed(cached: Sequence[_Hit], best: Sequence[_Hit], asked: _Asked) -> list[_Hit]:
    """What the working set found and no index has: it came with a package, and is indexed in a while."""
    known = {hit.item.key for hit in best}
    keys = [hit.item.key for hit in cached if hit.item.key not in known]
    for _, ids in asked.each(lambda index: index.ids(keys)) if keys else ():
        known |= ids.keys()
    return [hit for hit in cached if hit.item.key not in known]


@dataclass(frozen=True, slots=True)
class _Hit:
    """A candidate for the answer; `place` is its index and its id there, None for one of the working set."""

    item: SearchItem
    score: float
    place: tuple[SearchReader, int] | None


def _authors(asked: _Asked, where: Filter) -> Sequence[str]:
    """The persons who took part in conversations.

    What stands as author elsewhere is a kind of agent, say: "Plan" and "Explore" are words of queries too.
    """
    return dict(asked.each(lambda index: index.authors(where))).get(Collection.CONVERSATIONS, ())


def _best(
    asked: _Asked,
    query: Query,
    vector: NDArray[np.float32] | None,
    where: Filter,
    limit: int,
) -> list[_Hit]:
    """The best items that the indexes offer; one turn that stands in several conversations (a forked or resumed
    session carries its past along) comes once."""
    offered = asked.each(lambda index: candidates(index, query, vector, where))
    ranked = rank(query, tuple(one for _, one in offered if one is not None))
    hits: dict[object, _Hit] = {}
    for start in range(0, len(ranked), limit):
        for place, item, score in _items(ranked[start : start + limit], asked):
            hits.setdefault(_sameness(item, where), _Hit(item, score, place))
        if len(hits) >= limit:
            break
    found = list(hits.values())[:limit]
    return found if query.spans else _newest_of_equals_first(found)


def _newest_of_equals_first(hits: Sequence[_Hit]) -> list[_Hit]:
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


def _time(hit: _Hit) -> float:
    return hit.item.timestamp.timestamp() if hit.item.timestamp else -math.inf


def _items(ranked: Sequence[Ranked], asked: _Asked) -> Iterator[tuple[tuple[SearchReader, int], SearchItem, float]]:
    """The ranked items in their order, without those that have gone meanwhile."""
    wanted: dict[Collection, list[int]] = {}
    for one in ranked:
        wanted.setdefault(one.collection, []).append(one.id)
    found = dict(asked.each(lambda index: _those_there(index, wanted.get(index.collection, ()))))
    places = {index.collection: index for index in asked.indexes}
    for one in ranked:
        item = found.get(one.collection, {}).get(one.id)
        if item is not None:
            yield (places[one.collection], one.id), item, one.score


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


def _remember(
    working_set: WorkingSet, hits: Sequence[_Hit], vector: NDArray[np.float32] | None, found: Found
) -> None:
    """Keep what was an answer at hand, each with the passage that answered."""
    for hit in hits:
        try:
            passage = None if hit.place is None else _passage(*hit.place, vector)
        except StoreUnreachableError as error:  # the answer stands
            found.failures.append(error.message)
            return
        working_set.use(hit.item, passage, hit.score)


def _passage(index: SearchReader, number: int, vector: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """The item's passage that is nearest to the vector."""
    passages = index.vectors([number]).get(number)
    if passages is None or not len(passages):
        return None
    nearest: NDArray[np.float32] = passages[0] if vector is None else passages[int((passages @ vector).argmax())]
    return nearest


class _Stopwatch:
    """Milliseconds since the last lap, kept under the lap's name."""

    def __init__(self, laps: dict[str, float]) -> None:
        self._laps = laps
        self._started = self._last = time.perf_counter()

    def lap(self, name: str) -> float:
        now = time.perf_counter()
        took, self._last = round((now - self._last) * 1000, 3), now
        self._laps[name] = took
        return took

    def total(self) -> float:
        return round((time.perf_counter() - self._started) * 1000, 3)


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
