"""A plan of how things lie now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from dualmem_mcp.model.tier_plan import Plan
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports import AccessLog, Clock
from dualmem_mcp.tiers.bench import Bench
from dualmem_mcp.tiers.plan import make_plan

_EPOCHS_BEHIND: Final = 2
"""Of 30 days each. Renewing all points at each new epoch would write everything every month."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes plans. `is_behind` tells whether the indexes lack something: then nothing counts as deleted."""

    accesses: AccessLog
    clock: Clock
    prices: Callable[[], Mapping[TierName, float]]
    is_behind: Callable[[], bool]

    def __call__(self, bench: Bench) -> Plan:
        """What should move, by the indexes as the bench has them and the rows as they are; nothing is asked of the
        service."""
        vault = bench.channel.vault
        present = vault.current_epoch()
        renewed = [
            epoch
            for epoch in bench.placements.epochs()
            if not vault.is_of_present_key(epoch) or is_past(epoch, present)
        ]
        return make_plan(
            bench.columns,
            self.accesses.columns(),
            bench.placements.columns(),
            now=self.clock.now(),
            prices=self.prices(),
            present_epoch=present,
            renew_epochs=renewed,
            words=bench.words,
            complete=not self.is_behind(),
        )


def is_past(epoch: int, present: int) -> bool:
    """Whether an epoch is so far behind the present one that its points are renewed."""
    # Source: docs/format.md, "Epoch keys": the high half counts, the low one is random.
    return (present >> 32) - (epoch >> 32) > _EPOCHS_BEHIND
