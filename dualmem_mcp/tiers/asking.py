"""Asking the tiers in the service: all at once, each in a thread of its own, and none longer than a search waits.

What a tier answers is opened here: only what opens at its own point, under the vault's own keys, is a candidate.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.errors import DualmemError, StoreRefusedError, StoreUnreachableError
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports.tier_search import PATIENCE_SECONDS
from dualmem_mcp.ports.tiers import SparseVector, TierHit, VectorTier
from dualmem_mcp.tiers.breaker import Breaker
from dualmem_mcp.tiers.lane import Lane
from dualmem_mcp.tiers.opening import Openings
from dualmem_mcp.tiers.question import LATE, Asking

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dualmem_mcp.crypto.vectors import VectorKeys

CANDIDATES: Final = 200
"""Points taken by their vectors, and as many by words: with them recall@10 is above .99 (docs/tiers.md)."""

COUNT_AGAIN_SECONDS: Final = 300.0
"""So old may be what is known of how many points each epoch has in each tier."""

BUSY: Final = "still busy with earlier questions"
RESTING: Final = "left alone for a while, for it failed several times"
_FAILED: Final = "asking it failed"

_CLOSING_SECONDS: Final = 1.0

_OPENED_AT_ONCE: Final = 50
"""Payloads opened, in 2 to 3 ms, before they are there for who waits."""

_RETRY_SECONDS: Final = 0.05
"""A request that fails is made once more, after a random part of this ("full jitter"), if there is time left.
Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015."""


class TierAsker:
    """A TierSearch. A tier that was late (after `patience`) or failed three times in a row is left alone for a
    while."""

    def __init__(
        self,
        *,
        tier: Callable[[TierName], VectorTier],
        keys: Callable[[], Sequence[VectorKeys]],
        words: Callable[[], bool],
        passages_here: Callable[[], int],
        patience: Mapping[TierName, float] = PATIENCE_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tier` gives a tier, connecting to it if need be; `keys` those of the epochs that may have points, the
        newest first; `words` tells whether words are there, too; `passages_here` counts the vectors in this
        device's own indexes. All are called in threads of the asker's, and may raise DualmemError."""
        self._tier = tier
        self._keys = keys
        self._words = words
        self._passages_here = passages_here
        self._now = now
        self._patience = patience
        self._lanes = {name: Lane(name) for name in patience}
        self._breakers = {name: Breaker(now) for name in patience}
        self._connected: set[TierName] = set()
        self._openings = Openings()
        self._counting = Lane("counts")
        self._counted = threading.Event()
        self._lock = threading.Lock()
        self._count_at = now()
        self._counts: dict[tuple[TierName, int], int] = {}
        self._holds_more = False

    def warm_up(self, wait_seconds: float = 0.0) -> None:
        """As TierSearch says; counts, too, what is where, and does so again every five minutes."""
        with self._lock:
            is_due = self._now() >= self._count_at
            if is_due:
                self._count_at = self._now() + COUNT_AGAIN_SECONDS
        if is_due:
            self._counting.run(self._count)
        if wait_seconds:
            self._counted.wait(wait_seconds)

    def ask(self, vector: NDArray[np.float32] | None, stems: Sequence[str]) -> Asking:
        """As TierSearch says."""
        self.warm_up()
        asking = Asking(self._now, self._patience)
        for name, lane in self._lanes.items():
            breaker = self._breakers[name]
            if not breaker.lets_through():
                asking.leave_out(name, RESTING)
                continue
            asking.begin(name, breaker, connected=name in self._connected)
            if not lane.run(partial(self._answer, name, asking, vector, stems)):
                asking.end(name, BUSY)
        return asking

    def holds_more(self) -> bool:
        """Whether more points were counted there than this device has passages."""
        return self._holds_more

    def close(self) -> None:
        """Let go of the threads; those that a service keeps waiting are not waited for long."""
        lanes = (*self._lanes.values(), self._counting)
        for lane in lanes:
            lane.close()
        until = time.monotonic() + _CLOSING_SECONDS
        for lane in lanes:
            lane.join(until - time.monotonic())

    # In the threads

    def _answer(
        self, name: TierName, asking: Asking, vector: NDArray[np.float32] | None, stems: Sequence[str]
    ) -> None:
        problem = _FAILED
        try:
            tier = self._tier(name)
            self._connected.add(name)
            if vector is not None and vector.shape != (tier.dimensions,):
                vector = None  # of a model that is new here
            words = self._words()
            for keys in self._asked_of(name):
                if asking.is_dropped():
                    break
                if asking.is_over():
                    problem = LATE
                    return
                hits = self._nearest(tier, keys, asking, vector, stems if words else ())
                for start in range(0, len(hits), _OPENED_AT_ONCE):
                    if asking.is_dropped():
                        break
                    some = hits[start : start + _OPENED_AT_ONCE]
                    asking.add(name, *self._openings.opened(keys, some, tier.dimensions))
            problem = ""
        except DualmemError as error:
            problem = error.message
        finally:
            asking.end(name, problem)

    def _asked_of(self, name: TierName) -> list[VectorKeys]:
        """The epochs that have points in the tier, as far as that is known; the newest may have got some since."""
        keys = self._keys()
        return [own for own in keys if own is keys[0] or self._counts.get((name, own.epoch), 1)]

    def _nearest(
        self,
        tier: VectorTier,
        keys: VectorKeys,
        asking: Asking,
        vector: NDArray[np.float32] | None,
        stems: Sequence[str],
    ) -> Sequence[TierHit]:
        words = SparseVector(*keys.query_words(stems)) if stems else None
        protected = None if vector is None else asking.protected(keys, vector)
        nearest = partial(tier.nearest, keys.tenant, CANDIDATES, vector=protected, words=words)
        try:
            return nearest()
        except StoreRefusedError:
            raise
        except StoreUnreachableError:
            pause = random.uniform(0, _RETRY_SECONDS)  # noqa: S311  (not for a secret)
            if asking.is_dropped() or asking.is_over(pause):
                raise
            time.sleep(pause)
            return nearest()

    def _count(self) -> None:
        """Count what each epoch has in each tier. What cannot be counted is asked for."""
        try:
            keys = self._keys()
            found: dict[tuple[TierName, int], int] = {}
            for name in self._lanes:
                tier = self._tier(name)
                for own in keys:
                    found[name, own.epoch] = tier.count(own.tenant)
                self._connected.add(name)
            if keys:
                # The first query would wait for the rotation.
                keys[0].protect_query(np.zeros(tier.dimensions, np.float32))
            self._holds_more = sum(found.values()) > self._passages_here()
            self._counts = found
        except DualmemError:
            self._counts = {}
        finally:
            self._counted.set()
