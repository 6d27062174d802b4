"""What a search of this device needs to look into the tiers, and what is told of them afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

from dualmem_mcp.errors import DualmemError
from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.ports.tier_search import TierSearch
from dualmem_mcp.search.beyond import Beyond
from dualmem_mcp.search.search import Found
from dualmem_mcp.stores.search_feed import SearchFeed
from dualmem_mcp.stores.stems import Stemmer


class WayBeyond:
    """Makes a `Beyond` for each search where the tiers are on. Safe for use from several threads.

    `searcher` gives what is asked, None where the tiers are off; `is_erased` tells whether the conversation of an
    id was erased. With a `small_cache` the tiers are asked by every search.
    """

    def __init__(
        self,
        searcher: Callable[[], TierSearch | None],
        truth: SearchFeed,
        is_erased: Callable[[str], bool],
        *,
        small_cache: bool,
    ) -> None:
        self._searcher = searcher
        self._truth = truth
        self._is_erased = is_erased
        self._small_cache = small_cache
        self._lock = threading.Lock()
        self._stemmer: Stemmer | None = None

    def warm_up(self, wait_seconds: float = 0.0) -> None:
        """Begin to connect, where the tiers are on; waits so long for it."""
        tiers = self._tiers()
        if tiers is not None:
            tiers.warm_up(wait_seconds)

    def beyond(self, *, eager: bool) -> Beyond | None:
        """For one search; None where the tiers are off. `eager`: what is here is known not to be all."""
        tiers = self._tiers()
        if tiers is None:
            return None
        with self._lock:
            if self._stemmer is None:
                self._stemmer = Stemmer()
        return Beyond(tiers, self._stemmer, self.gone, eager=eager or self._small_cache)

    def gone(self, items: Sequence[SearchItem]) -> AbstractSet[str]:
        """The keys of those that were deleted or erased here: in a service they are until the next move."""
        erased = {name for name in {item.conversation_id for item in items} if name and self._is_erased(name)}
        of_erased = {item.key for item in items if item.conversation_id in erased}
        return of_erased | self._truth.deleted(items)

    def close(self) -> None:
        """Let go of what was opened."""
        with self._lock:
            if self._stemmer is not None:
                self._stemmer.close()
                self._stemmer = None

    def _tiers(self) -> TierSearch | None:
        try:
            return self._searcher()
        except DualmemError:
            return None  # what says whether they are on cannot be read


def told_of_tiers(found: Found) -> list[str]:
    """Warnings of what tiers did not give."""
    problems: dict[str, list[str]] = {}
    for tier in found.tiers:
        if tier.problem:
            problems.setdefault(tier.problem, []).append(tier.name)
    warnings = [
        f"more may be in the search service ({_names(names)}): {problem}" for problem, names in problems.items()
    ]
    if found.unopened:
        warnings.append(
            f"{found.unopened:,} points in the search service do not open and were passed over; "
            "`dualmem tiers check` mends what is ours"
        )
    return warnings


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)
