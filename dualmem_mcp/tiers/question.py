"""One question under way in all tiers: what has come so far, and who is late."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports.tier_search import TierAnswer, TierCandidate
from dualmem_mcp.tiers.breaker import Breaker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dualmem_mcp.crypto.vectors import VectorKeys

LATE: Final = "late"


@dataclass(slots=True)
class _Part:
    """One tier's part. `problem` is None while it is under way; `breaker` still has to hear how it went."""

    breaker: Breaker | None = None
    connected: bool = True
    problem: str | None = None
    seconds: float = 0.0
    candidates: list[TierCandidate] = field(default_factory=list)
    passed_over: int = 0


class Asking:
    """A TierAsking. Safe from several threads: one asks, and one for each tier answers."""

    def __init__(self, now: Callable[[], float], patience: Mapping[TierName, float]) -> None:
        """`patience`: after so many seconds a tier is late."""
        self._now = now
        self._patience = patience
        self._asked_at = now()
        self._changed = threading.Condition()
        self._parts: dict[TierName, _Part] = {}
        self._protected: dict[int, NDArray[np.float32]] = {}
        self._dropped = False

    # For who asks

    def wait(self, tiers: Sequence[TierName], seconds: float) -> Mapping[TierName, TierAnswer]:
        """As TierAsking says."""
        with self._changed:
            parts = {name: self._parts[name] for name in tiers if name in self._parts}
            left = self._asked_at + seconds - self._now()
            self._changed.wait_for(lambda: all(part.problem is not None for part in parts.values()), max(left, 0.0))
            for name, part in parts.items():
                if part.problem is None and part.connected and self._passed() >= self._patience[name]:
                    self._report(part, well=False)
            return {name: self._answer(name, part) for name, part in parts.items()}

    def drop(self) -> None:
        """As TierAsking says."""
        self._dropped = True

    # For who answers

    def leave_out(self, name: TierName, problem: str) -> None:
        """The tier is not asked."""
        self._parts[name] = _Part(problem=problem)

    def begin(self, name: TierName, breaker: Breaker, *, connected: bool) -> None:
        """The tier is asked from now on; one that has to be connected to first is not late by that."""
        self._parts[name] = _Part(breaker, connected)

    def add(self, name: TierName, candidates: Sequence[TierCandidate], passed_over: int) -> None:
        """A further part of its answer."""
        with self._changed:
            part = self._parts[name]
            part.candidates += candidates
            part.passed_over += passed_over

    def end(self, name: TierName, problem: str) -> None:
        """Its answer is there, or why there is no more of it."""
        with self._changed:
            part = self._parts[name]
            part.problem, part.seconds = problem, self._passed()
            late = part.connected and part.seconds > self._patience[name]
            self._report(part, well=not problem and not late)
            self._changed.notify_all()

    def is_over(self, seconds: float = 0.0) -> bool:
        """Whether nobody waits any more so many seconds from now, for any tier: while one is waited for, what comes
        from another counts, too."""
        return self._passed() + seconds > max(self._patience.values())

    def is_dropped(self) -> bool:
        """Whether no more is wanted."""
        return self._dropped

    def protected(self, keys: VectorKeys, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """The question's vector under these keys; three threads may each make it, and make the same."""
        made = self._protected.get(keys.epoch)
        if made is None:
            made = self._protected[keys.epoch] = keys.protect_query(vector)
        return made

    def _passed(self) -> float:
        return self._now() - self._asked_at

    def _report(self, part: _Part, *, well: bool) -> None:
        """Tell the breaker, once."""
        breaker, part.breaker = part.breaker, None
        if breaker is not None:
            (breaker.succeeded if well else breaker.failed)()

    def _answer(self, name: TierName, part: _Part) -> TierAnswer:
        under_way = part.problem is None
        seconds = self._passed() if under_way else part.seconds
        return TierAnswer(
            name,
            tuple(part.candidates),
            round(seconds * 1000, 3),
            LATE if part.problem is None else part.problem,
            part.passed_over,
        )
