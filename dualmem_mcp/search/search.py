"""One search: read the query, ask the working set, the indexes, then what lies beyond, and fit the best to the
budget."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.handoff.quoting import clean
from dualmem_mcp.model.search import Collection, Filter, SearchItem
from dualmem_mcp.ports import SearchIndex, SearchReader
from dualmem_mcp.search.beyond import Beyond
from dualmem_mcp.search.excerpts import fit
from dualmem_mcp.search.hits import Asked, Hit, best_hits, passes
from dualmem_mcp.search.looking import Looking
from dualmem_mcp.search.query import Query, read_query
from dualmem_mcp.search.ranking import candidates
from dualmem_mcp.search.working_set import WorkingSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Embed = Callable[[str], "NDArray[np.float32] | None"]
"""The vector of a query's text, or None where no model is at hand."""

CACHE_TIER: Final = "edge_cache"
INDEX_TIER: Final = "edge_index"


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
    """Who answered: its name, how many results it gave, and how long it took; in a few words why it gave none, or
    not all of them."""

    name: str
    results: int
    duration_ms: float
    problem: str = ""

    def fields(self) -> dict[str, Any]:
        """An entry of the contract's `tiers`; `problem` is there only if there is one."""
        said = {"name": self.name, "results": self.results, "duration_ms": self.duration_ms}
        return {**said, "problem": self.problem} if self.problem else said


@dataclass(slots=True)
class Found:
    """The answer of one search. `failures` say what could not be asked, `left_out` counts results for which the
    budget had no room, `unopened` what tiers offered that did not open."""

    results: list[Result] = field(default_factory=list)
    tiers: list[Tier] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    left_out: int = 0
    unopened: int = 0


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
    beyond: Beyond | None = None,
) -> Found:
    """The best items for the query, at most `limit`, and within `token_budget` tokens.

    The working set, where the device has one, is asked first; what the indexes say then goes before it, but for
    what they do not have. Of an index that cannot be asked `failures` says why; if none can, the answer is the
    working set's alone. With `beyond` the tiers are asked, too, where what is here is weak or known not to be all,
    and all candidates are ranked together.
    """
    found = Found()
    stopwatch = _Stopwatch(found.timings_ms)
    with ExitStack() as readings:
        opened = [indexes[collection] for collection in where.collections if collection in indexes]
        asked = Asked([readings.enter_context(index.reading()) for index in opened], found.failures)
        # Without what the items were rid of too, so that the same words are the same.
        read = partial(read_query, clean(text.replace("\0", " ")), now=now)
        authors = _authors(asked, where)
        query = read(known_authors=authors)
        stopwatch.lap("read")
        vector = embed(query.embedded) if query.embedded else None
        stopwatch.lap("embed")
        hits: list[Hit] = []
        if working_set is not None:
            cached = working_set.find(query.terms, vector, limit, lambda item: passes(item, where))
            hits = [Hit(item, score) for item, score in cached]
            found.tiers.append(Tier(CACHE_TIER, len(hits), stopwatch.lap("cache")))
        if beyond is None:
            best = _best(asked, query, vector, where, limit)
            unindexed = _unindexed(hits, best, asked)
            if asked.indexes:
                # Sorted only where something comes in: equal scores are in an order already.
                hits = sorted([*best, *unindexed], key=lambda hit: -hit.score)[:limit] if unindexed else best
                found.tiers.append(Tier(INDEX_TIER, len(best), stopwatch.lap("index")))
        else:
            looking = Looking(asked, query, vector, beyond, where=where, limit=limit)
            at_hand = working_set.entries([hit.item.key for hit in hits]) if working_set is not None else ()
            best = looking.best(at_hand, lambda others: read(known_authors=[*authors, *others]), embed)
            vector = looking.vector
            if asked.indexes or best:
                hits = best
            found.tiers += _tiers(looking, hits, stopwatch.lap("index"))
            found.unopened = sum(answer.passed_over for answer in looking.answers.values())
        texts = fit([hit.item.text for hit in hits], query.terms, token_budget) if hits else []
        found.results = [Result(hit.item, hit.score, shown) for hit, shown in zip(hits, texts, strict=False)]
        found.left_out = len(hits) - len(texts)
        stopwatch.lap("fit")
        if working_set is not None:
            _remember(working_set, hits[: len(texts)], vector, found)
    found.timings_ms["total"] = stopwatch.total()
    return found


def _authors(asked: Asked, where: Filter) -> Sequence[str]:
    """The persons who took part in conversations.

    What stands as author elsewhere is a kind of agent, say: "Plan" and "Explore" are words of queries too.
    """
    return dict(asked.each(lambda index: index.authors(where))).get(Collection.CONVERSATIONS, ())


def _best(asked: Asked, query: Query, vector: NDArray[np.float32] | None, where: Filter, limit: int) -> list[Hit]:
    offered = asked.each(lambda index: candidates(index, query, vector, where))
    return best_hits(query, tuple(one for _, one in offered if one is not None), asked, where=where, limit=limit)


def _unindexed(cached: Sequence[Hit], best: Sequence[Hit], asked: Asked) -> list[Hit]:
    """What the working set found and no index has: it came with a package, and is indexed in a while."""
    known = {hit.item.key for hit in best}
    keys = [hit.item.key for hit in cached if hit.item.key not in known]
    for _, ids in asked.each(lambda index: index.ids(keys)) if keys else ():
        known |= ids.keys()
    return [hit for hit in cached if hit.item.key not in known]


def _tiers(looking: Looking, hits: Sequence[Hit], duration_ms: float) -> list[Tier]:
    """Who answered, beside the working set: the indexes, and each tier that was waited for."""
    given = Counter(hit.offered.source for hit in hits if hit.offered is not None)
    own = Tier(INDEX_TIER, len(hits) - given.total(), duration_ms)
    answers = looking.answers.values()
    return [own, *(Tier(one.tier, given[one.tier], one.duration_ms, one.problem) for one in answers)]


def _remember(
    working_set: WorkingSet, hits: Sequence[Hit], vector: NDArray[np.float32] | None, found: Found
) -> None:
    """Keep what was an answer at hand, each with the passage that answered."""
    for hit in hits:
        try:
            passage = _passage(*hit.place, vector) if hit.place is not None else _nearest(hit, vector)
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


def _nearest(hit: Hit, vector: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """Of what a tier gave, the same."""
    passages = hit.offered.vectors if hit.offered is not None else []
    if not passages or vector is None:
        return passages[0] if passages else None
    return max(passages, key=lambda passage: float(passage @ vector))


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
