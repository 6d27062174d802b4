"""Moves that were begun and not ended: finished, or taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dualmem_mcp.ports.placements import Placement
from dualmem_mcp.tiers.bench import Bench, batches, unmarked
from dualmem_mcp.tiers.gone import Gone
from dualmem_mcp.tiers.service import SERVICE_TIERS
from dualmem_mcp.tiers.transfer import Step


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Ends interrupted moves."""

    bench: Bench
    gone: Gone

    def finish_writing(self) -> int:
        """Write again what was being written where it lies; how many items that were. Raises as `finish` does."""
        rows = [row for row in self.bench.placements.moving() if row.moving_to == row.tier]
        for some in batches(rows):
            # Of what is written where it lies only passages go that there are no more.
            self._go_on([row for row in some if not self.gone(row.key)], allow_removal=lambda: None)
        return len(rows)

    def finish(self, *, may_move: bool, allow_removal: Callable[[], object]) -> int:
        """End what was begun; how many items that were. Raises what Transfer raises, and BudgetSpentError.

        Without `may_move` only writing is finished: of what was on its way between two tiers, which another device
        may move now, nothing is removed, and its row says the warmer one that has all of it.
        """
        rows = self.bench.placements.moving()
        for some in batches(rows):
            gone = [row for row in some if self.gone(row.key)]
            self.bench.transfer.take_away(gone)
            between = [row for row in some if not may_move and row.moving_to != row.tier and row not in gone]
            self.bench.placements.put([self._where_it_is(row) for row in between])
            self._go_on([row for row in some if row not in gone and row not in between], allow_removal)
        return len(rows)

    def _go_on(self, rows: Sequence[Placement], allow_removal: Callable[[], object]) -> None:
        at_hand = self.bench.of_rows(rows)
        steps = self.bench.steps(
            [(at_hand[row.key], row, row.moving_to or row.tier) for row in rows if row.key in at_hand]
        )
        made = {step.after.key for step in steps}
        for row in rows:
            if row.key in made:
                continue
            step = self._from_service(row)
            if step is not None:
                steps.append(step)
            elif self._is_nowhere(row):
                self.bench.placements.remove([row.key])
            else:
                self.bench.placements.put([unmarked(row)])  # what lacks is for a check to find
        if steps:
            self.bench.check_budget()
            self.bench.transfer.carry_out(steps, allow_removal=allow_removal)

    def _from_service(self, row: Placement) -> Step | None:
        """A step with the points that the service has, for an item that is not at hand here."""
        target = row.moving_to or row.tier
        points = self.bench.points_there(row, target) or self.bench.points_there(row, row.tier)
        return Step(row, replace(row, tier=target, moving_to=None), points) if points else None

    def _is_nowhere(self, row: Placement) -> bool:
        """Whether it was marked and nothing of it written yet."""
        transfer = self.bench.transfer
        ids = [point for _, _, point in transfer.places(row)]
        return not any(transfer.fetch(tier, row.epoch, ids) for tier in {row.tier, row.moving_to or row.tier})

    def _where_it_is(self, row: Placement) -> Placement:
        both = [tier for tier in SERVICE_TIERS if tier in {row.tier, row.moving_to}]
        tier = next((tier for tier in both if self.bench.points_there(row, tier)), row.tier)
        return replace(row, tier=tier, moving_to=None)
