"""What a search asks of the tiers outside the device, and what it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.model.tiers import TierName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


PATIENCE_SECONDS: Final[Mapping[TierName, float]] = {"critical": 0.2, "context": 0.2, "historical": 2.0}
"""How long a search waits for a tier, from when the question was put; an answer that takes longer is late. Source:
the product's requirements for its tiers, "Search across tiers"."""


@dataclass(frozen=True, slots=True, eq=False)
class TierCandidate:
    """A passage that a tier offered and whose payload opened: its item, the key of what was said before it (empty
    for none), and the exact vector, float32 (d,), L2-normalised."""

    item: SearchItem = field(repr=False)
    passage: int
    previous: str = field(repr=False)
    vector: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class TierAnswer:
    """What one tier answered, and after how many ms. `problem` says in a few words why there is nothing, or not
    all of it: late, away, left alone for a while; empty if it answered. `passed_over` counts what did not open."""

    tier: TierName
    candidates: Sequence[TierCandidate] = ()
    duration_ms: float = 0.0
    problem: str = ""
    passed_over: int = 0


class TierAsking(Protocol):
    """One question that is under way in all tiers at once."""

    def wait(self, tiers: Sequence[TierName], seconds: float) -> Mapping[TierName, TierAnswer]:
        """What these tiers have answered when all of them have, or so many seconds after the question was put; of
        one that has not the answer says `late` and holds what is there so far. Asked again, it has what came
        since. Never raises."""
        ...

    def drop(self) -> None:
        """No more is wanted: what comes from now on is not looked at."""
        ...


class TierSearch(Protocol):
    """The tiers as a search sees them. For use from any thread; nothing here raises, or waits beyond its time."""

    def warm_up(self, wait_seconds: float = 0.0) -> None:
        """Begin to connect in the background, which takes seconds the first time; returns when that is done, or has
        failed, or after so many seconds."""
        ...

    def ask(self, vector: NDArray[np.float32] | None, stems: Sequence[str]) -> TierAsking:
        """Put a question to all tiers: a query's vector, and the stems of its words (different ones; they are asked
        where the user has switched words on). Returns at once."""
        ...

    def holds_more(self) -> bool:
        """Whether the tiers are known to hold something that this device does not."""
        ...
