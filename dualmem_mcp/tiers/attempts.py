"""Trying again what may pass: a service that was away for a moment, or late."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from dualmem_mcp.errors import BudgetSpentError, DiskFullError, StoreRefusedError, StoreUnreachableError

T = TypeVar("T")

TRIES: Final = 3
# Exponential backoff with full jitter, so that devices that were cut off together do not come back together.
# Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
BASE_SECONDS: Final = 0.5
CAP_SECONDS: Final = 5.0

_FOR_GOOD: Final = (StoreRefusedError, DiskFullError, BudgetSpentError)
"""What is no better a second later."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Up to three tries each, none after `ends_at` on the steady clock, None for no end."""

    ends_at: float | None = None
    sleep: Callable[[float], object] = time.sleep
    chance: Callable[[], float] = random.random
    steady: Callable[[], float] = time.monotonic

    def __call__(self, work: Callable[[], T]) -> T:
        """What the work gives. Raises what it raises the last time, or at once what trying again does not help."""
        for number in range(1, TRIES):
            try:
                return work()
            except _FOR_GOOD:
                raise
            except StoreUnreachableError:
                wait = min(CAP_SECONDS, BASE_SECONDS * 2 ** (number - 1)) * self.chance()
                if self.ends_at is not None and self.steady() + wait >= self.ends_at:
                    raise
                self.sleep(wait)
        return work()
