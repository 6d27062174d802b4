"""The steps of a piece of work, timed, for the report that the user gets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a handoff: bytes that it wrote or read, how long it took, what it costs by list prices: requests
    once, vectors in a service each month."""

    name: str
    bytes: int
    duration_ms: float
    ok: bool
    cost_usd: float = 0.0


@dataclass(slots=True)
class Steps:
    """The steps so far, and when the work began."""

    started: float = field(default_factory=time.perf_counter)
    done: list[Operation] = field(default_factory=list)

    @property
    def duration_ms(self) -> float:
        """Milliseconds since the work began."""
        return round((time.perf_counter() - self.started) * 1000, 3)

    def duration_of(self, name: str) -> float:
        """Milliseconds that the steps of that name took together."""
        return round(sum(step.duration_ms for step in self.done if step.name == name), 3)

    def as_list(self) -> list[dict[str, Any]]:
        """The steps as the contract's *operations*."""
        return [asdict(step) for step in self.done]

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a step; the caller puts `bytes`, `ok` and `cost_usd` into the yielded dictionary, and of what was
        done beside other steps `duration_ms`."""
        facts: dict[str, Any] = {}
        start = time.perf_counter()
        yield facts
        self.done.append(
            Operation(
                name,
                facts.get("bytes", 0),
                round(facts.get("duration_ms", (time.perf_counter() - start) * 1000), 3),
                facts.get("ok", True),
                facts.get("cost_usd", 0.0),
            )
        )
