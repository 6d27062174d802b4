"""Carrying out a plan: batch by batch, each looked at again before, so that a plan made stale does no harm."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from dualmem_mcp.failpoints import reach
from dualmem_mcp.model.search import key_digest
from dualmem_mcp.model.tier_plan import COLLECTION_CODES, NO_COLLECTION, Action, Move, Plan
from dualmem_mcp.ports import AccessLog, Progress, no_progress
from dualmem_mcp.ports.placements import Placement
from dualmem_mcp.tiers.bench import ITEMS_AT_ONCE, Bench
from dualmem_mcp.tiers.elsewhere import FEW, Elsewhere
from dualmem_mcp.tiers.gone import Gone
from dualmem_mcp.tiers.points import Embedded
from dualmem_mcp.tiers.transfer import Step

OF_THE_MOVER: Final = frozenset[Action]({"evict", "demote", "promote", "renew"})
"""What one device at a time may do."""

_CONFIRM_SECONDS: Final = 30.0
"""So old may be what a mover knows of being it when it removes something."""

_DOING: Final[Mapping[Action, str]] = {
    "remove": "removing",
    "evict": "evicting",
    "demote": "demoting",
    "promote": "promoting",
    "place": "placing",
    "renew": "renewing",
}


@dataclass(slots=True)
class Moved:
    """What was done of a plan: items by action; items that another device has placed already, of which this one
    knows now; items whose case was another one when it was their turn; and items left for a later run."""

    done: Counter[Action] = field(default_factory=Counter)
    adopted: int = 0
    stale: int = 0
    left: int = 0


@dataclass(slots=True)
class Moving:
    """Carries out plans. `confirm` raises ConflictError if another device has become the mover; None for a device
    that is not: what only the mover may do is left.

    No batch is begun after `ends_at` on the steady clock.
    """

    bench: Bench
    accesses: AccessLog
    gone: Gone
    confirm: Callable[[], object] | None
    ends_at: float | None = None
    progress: Progress = no_progress
    moved: Moved = field(default_factory=Moved)
    steady: Callable[[], float] = time.monotonic
    _confirmed_at: float | None = None
    _elsewhere: Elsewhere | None = None

    def run(self, plan: Plan) -> None:
        """Carry the plan out as far as time allows; `moved` says how far.

        Raises what the service, the bucket and the database raise, and BudgetSpentError: what was begun is ended
        by the next run, and `moved.left` counts the rest.
        """
        total = sum(map(len, plan.moves))
        placed = sum(len(move) for move in plan.moves if move.action == "place")
        self._elsewhere = Elsewhere(self.bench, many=placed > FEW)
        self.moved.left += total
        for move in plan.moves:
            if move.action in OF_THE_MOVER and self.confirm is None:
                continue
            for start in range(0, len(move), ITEMS_AT_ONCE):
                if self.ends_at is not None and self.steady() >= self.ends_at:
                    return
                self.progress(total - self.moved.left, total, _DOING[move.action])
                size = min(ITEMS_AT_ONCE, len(move) - start)
                self._batch(plan, move, slice(start, start + size))
                self.moved.left -= size
        self.progress(total - self.moved.left, total, "done")

    def allow_removal(self) -> None:
        """Raises ConflictError if this device is no longer the mover."""
        now = self.steady()
        if self.confirm is not None and (
            self._confirmed_at is None or now - self._confirmed_at >= _CONFIRM_SECONDS
        ):
            self.confirm()
            self._confirmed_at = now

    def _batch(self, plan: Plan, move: Move, part: slice) -> None:
        rows = {key_digest(row.key): row for row in self.bench.placements.of_digests(move.keys[part].tolist())}
        digests: list[int] = move.keys[part].tolist()
        size, adopted = len(digests), self.moved.adopted
        at_hand = self._at_hand(move, part)
        fits = [digest for digest in digests if self._still_fits(move, rows.get(digest), at_hand.get(digest))]
        if move.action in {"demote", "evict"}:
            used = self.accesses.accesses([rows[digest].key for digest in fits])
            fits = [
                digest
                for digest in fits
                if (use := used.get(rows[digest].key)) is None or use.last_at <= plan.made_at
            ]
        if move.action == "place":
            fits = self._adopt(fits, at_hand)
        reach("moving: read again")
        if move.target == "edge" and fits:
            if move.action in OF_THE_MOVER:
                self.allow_removal()
            self.bench.transfer.take_away([rows[digest] for digest in fits])
            done = len(fits)
        elif fits:
            self.bench.check_budget()
            done = self._carry_out(move, [(rows.get(digest), at_hand.get(digest)) for digest in fits])
        else:
            done = 0
        self.moved.done[move.action] += done
        self.moved.stale += size - done - (self.moved.adopted - adopted)

    def _adopt(self, digests: Sequence[int], at_hand: Mapping[int, Embedded]) -> list[int]:
        """Take in what another device has placed; the rest."""
        if self._elsewhere is None:
            return [*digests]
        found = self._elsewhere.find([at_hand[digest] for digest in digests])
        self.bench.placements.put([*found.values()])
        self.moved.adopted += len(found)
        return [digest for digest in digests if at_hand[digest].item.key not in found]

    def _carry_out(self, move: Move, items: Sequence[tuple[Placement | None, Embedded | None]]) -> int:
        target = move.target
        steps = self.bench.steps([(embedded, row, target) for row, embedded in items if embedded is not None])
        steps += [step for row, embedded in items if embedded is None and (step := self._copied(row, move))]
        if not steps:
            return 0
        failed = self.bench.transfer.carry_out(steps, allow_removal=self.allow_removal)
        return len(steps) - len(failed)

    def _copied(self, row: Placement | None, move: Move) -> Step | None:
        """A step with the points as the service has them, for an item that is not at hand here."""
        if row is None:
            return None
        points = self.bench.points_there(row, row.tier)
        return Step(row, replace(row, tier=move.target), points) if points else None

    def _at_hand(self, move: Move, part: slice) -> Mapping[int, Embedded]:
        """The items with their vectors, by the digests of their keys. An index made anew has other ids: then what
        has another digest is not at hand."""
        codes, ids = move.collections[part], move.ids[part]
        found: dict[int, Embedded] = {}
        for code in set(codes.tolist()) - {NO_COLLECTION}:
            found |= self.bench.at_hand(COLLECTION_CODES[code], ids[codes == code].tolist())
        return found

    def _still_fits(self, move: Move, row: Placement | None, embedded: Embedded | None) -> bool:
        if move.action == "place":
            return row is None and embedded is not None and not self.gone.erased(embedded.item.key)
        if row is None or row.tier != move.source or row.moving_to is not None:
            return False
        if move.target != "edge":
            return not self.gone.erased(row.key)
        # What leaves the service altogether is here with its vectors, or nobody knows it any more.
        return embedded is not None or self.gone(row.key)
