"""Bringing items' points to where they shall lie, so that at no moment they lie nowhere.

For each batch: its rows are marked with where it goes; the points are written there; what is to go from elsewhere
goes only when they were read back; the marks are cleared. Whoever is killed between leaves marks, and the next run
goes on from them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.failpoints import reach
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports.placements import Placement, Placements
from dualmem_mcp.ports.tiers import TierPoint, VectorTier
from dualmem_mcp.tiers.attempts import Attempts

Keys = Callable[[int], VectorKeys]
"""Gives the keys of an epoch."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One item: where its points lie, None for nowhere, and where they shall lie; `points` are those."""

    before: Placement | None
    after: Placement
    points: Sequence[TierPoint] = field(repr=False)


@dataclass(slots=True)
class Written:
    """What went to the service, points by tier and the bytes of all, and how many points were taken from it."""

    by_tier: Counter[TierName] = field(default_factory=Counter)
    removed: int = 0
    bytes: int = 0

    @property
    def points(self) -> int:
        """How many points went there."""
        return self.by_tier.total()


@dataclass(frozen=True, slots=True)
class Transfer:
    """Carries out steps over the tiers of the service, and counts in `written` what it did."""

    tiers: Mapping[TierName, VectorTier]
    placements: Placements
    keys: Keys
    attempts: Attempts
    written: Written = field(default_factory=Written)

    def carry_out(
        self, steps: Sequence[Step], *, allow_removal: Callable[[], object] = lambda: None
    ) -> Sequence[Step]:
        """Bring the points where they shall lie; gives those of the steps whose points the service did not give
        back as they were written, which are left as they were.

        `allow_removal` is called before anything is removed from where it was, and raises where that may not be any
        more. Raises besides what VectorTier and the database raise: then the marks stay.
        """
        self.placements.put([_marked(step) for step in steps])
        reach("tiers: marked")
        for name, some in _by_target(steps).items():
            points = [point for step in some for point in step.points]
            self.attempts(lambda tier=self.tiers[name], points=points: tier.upsert(points))  # type: ignore[misc]
            self.written.by_tier[name] += len(points)
            self.written.bytes += sum(map(point_bytes, points))
            reach("tiers: copied")
        failed = self._not_given_back([step for step in steps if self._leaves(step)])
        lost = set(failed)
        done = [step for step in steps if step not in lost]
        leaving = [place for step in done for place in self._leaves(step)]
        if leaving:
            allow_removal()
            reach("tiers: verified")
            self._remove(leaving)
            reach("tiers: removed")
        self.placements.put([step.after for step in done] + [_as_before(step) for step in failed])
        reach("tiers: cleared")
        return failed

    def take_away(self, rows: Sequence[Placement]) -> None:
        """Remove the points of these rows, wherever they are on their way, and then the rows."""
        self._remove([place for row in rows for place in self.places(row)])
        reach("tiers: taken away")
        self.placements.remove([row.key for row in rows])
        reach("tiers: forgotten")

    def places(self, row: Placement) -> list[tuple[TierName, int, str]]:
        """Tier, epoch and id of each point that a row stands for, in either tier if it is on its way."""
        keys = self.keys(row.epoch)
        tiers = {row.tier, row.moving_to or row.tier}
        ids = [keys.point_id(row.key, passage) for passage in range(row.passages)]
        return [(tier, row.epoch, point) for tier in tiers for point in ids]

    def fetch(self, tier: TierName, epoch: int, ids: Sequence[str]) -> Mapping[str, TierPoint]:
        """Those of the points that are in the tier, by their ids."""
        tenant = self.keys(epoch).tenant
        return {point.id: point for point in self.attempts(lambda: self.tiers[tier].fetch(tenant, ids))}

    def remove(self, places: Iterable[tuple[TierName, int, str]]) -> None:
        """Remove points at these places, which are not counted: they may not be there."""
        ids: dict[tuple[TierName, int], list[str]] = defaultdict(list)
        for tier, epoch, point in places:
            ids[tier, epoch].append(point)
        for (name, epoch), some in ids.items():
            tenant = self.keys(epoch).tenant
            self.attempts(lambda tier=self.tiers[name], tenant=tenant, some=some: tier.remove(tenant, some))  # type: ignore[misc]

    def _remove(self, places: Sequence[tuple[TierName, int, str]]) -> None:
        self.remove(places)
        self.written.removed += len(places)

    def _leaves(self, step: Step) -> list[tuple[TierName, int, str]]:
        """What has to go when the points are where they shall lie."""
        if step.before is None:
            return []
        target = (step.after.tier, step.after.epoch)
        own = {point.id for point in step.points}
        return [
            (tier, epoch, point)
            for tier, epoch, point in self.places(step.before)
            if (tier, epoch) != target or point not in own
        ]

    def _not_given_back(self, steps: Sequence[Step]) -> list[Step]:
        failed: list[Step] = []
        for name, some in _by_target(steps).items():
            wanted = {point.id: point for step in some for point in step.points}
            for epoch in {step.after.epoch for step in some}:
                ids = [point.id for step in some if step.after.epoch == epoch for point in step.points]
                for point, found in self.fetch(name, epoch, ids).items():
                    if found.payload == wanted[point].payload:
                        del wanted[point]
            failed += [step for step in some if any(point.id in wanted for point in step.points)]
        return failed


def point_bytes(point: TierPoint) -> int:
    """What a point has of bytes: payload, vector, words."""
    words = 0 if point.words is None else point.words.indices.nbytes + point.words.values.nbytes
    return len(point.payload) + point.vector.nbytes + words


def _marked(step: Step) -> Placement:
    return replace(step.before or step.after, moving_to=step.after.tier)


def _as_before(step: Step) -> Placement:
    return replace(step.before or step.after, moving_to=None)


def _by_target(steps: Iterable[Step]) -> Mapping[TierName, list[Step]]:
    targets: dict[TierName, list[Step]] = defaultdict(list)
    for step in steps:
        targets[step.after.tier].append(step)
    return targets
