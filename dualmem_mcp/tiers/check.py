"""Comparing what the service holds with what it should hold, and mending it.

First the ids of all points are listed, by tier and key epoch: that tells what lacks, what lies in two places, and
what no row here stands for. Then the points themselves are read, once: of a service that is not trusted nothing
else tells whether they are what was written. Those of items at hand are made again and compared; of the others it
is seen whether they open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dualmem_mcp.errors import ConflictError, NotFoundError, StoreUnreachableError
from dualmem_mcp.model.search import key_digest
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports import Progress, no_progress
from dualmem_mcp.ports.placements import Placement
from dualmem_mcp.ports.tiers import TierPoint
from dualmem_mcp.tiers.bench import ITEMS_AT_ONCE, Bench, Place, device_name
from dualmem_mcp.tiers.gone import Gone
from dualmem_mcp.tiers.interrupted import Interrupted
from dualmem_mcp.tiers.likeness import is_as_made, opens
from dualmem_mcp.tiers.mover import Mover
from dualmem_mcp.tiers.service import SERVICE_TIERS
from dualmem_mcp.tiers.sightings import Sightings
from dualmem_mcp.tiers.strangers import Strangers
from dualmem_mcp.tiers.transfer import Step

_MOST_UNKNOWN: Final = 1_000_000
"""Points of one place that no row stands for, after which the rest is left: a service can name any number."""


@dataclass(slots=True)
class Checked:
    """What was found, in points: seen at all; lacking where they should be; otherwise than they were written; in a
    second place; of what is no more; of nobody. `mended` were written or removed."""

    points: int = 0
    missing: int = 0
    changed: int = 0
    doubled: int = 0
    unwanted: int = 0
    foreign: int = 0
    mended: int = 0
    warnings: list[str] = field(default_factory=list)

    def fields(self) -> dict[str, Any]:
        """The fields of `dualmem tiers check --json`, but for how long it took."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class _Standing:
    """A row, as it should be and as it was, and how many of its points were seen there; in which other places
    passages of the item were seen, which those may be, and how many points that were."""

    row: Placement
    was: Placement
    seen: int
    others: Mapping[Place, Sequence[int]]
    doubled: int

    @property
    def complete(self) -> bool:
        return self.seen == self.row.passages


@dataclass(slots=True)
class Checking:
    """One check. With `repair` all is mended; what lies in two places only if this device is the mover then.

    Without `contents` only ids are compared, and of the points themselves only those of unknown ids are read.
    """

    bench: Bench
    gone: Gone
    repair: bool
    contents: bool = True
    progress: Progress = no_progress
    found: Checked = field(default_factory=Checked)
    populated: Sequence[Place] = ()
    _lost: dict[str, int] = field(default_factory=dict)
    _mover: Mover | None = None
    _asked: bool = False

    def run(self) -> Checked:
        """Compare, and mend. Raises what the service and the database raise, and BudgetSpentError; called again
        it goes on."""
        if self.repair and (interrupted := self.bench.placements.moving()):
            may_move = any(row.moving_to != row.tier for row in interrupted) and self._may_move()
            Interrupted(self.bench, self.gone).finish(may_move=may_move, allow_removal=self._confirm)
        while True:
            sightings = Sightings(self.bench.placements, self.bench.placements.columns(), self.bench.service.keys)
            strangers = Strangers(self.bench, self.gone, repair=self.repair)
            self._list(sightings, strangers)
            self.found.foreign += strangers.foreign
            self.found.unwanted += strangers.unwanted
            if self.repair:
                self.found.mended += strangers.foreign + strangers.unwanted
            # What was taken in is compared as well, now that it has rows.
            if not self.repair or not strangers.adopted:
                break
        self.found.foreign += strangers.newer
        self._compare(sightings, strangers)
        self._tell(strangers)
        return self.found

    def _list(self, sightings: Sightings, strangers: Strangers) -> None:
        self.found.points = 0
        self.populated = self.bench.populated()
        for number, (tier, epoch) in enumerate(self.populated):
            self.progress(number, len(self.populated), "listing points")
            met = 0
            for ids in self.bench.listed((tier, epoch)):
                self.found.points += len(ids)
                unknown = sightings.see(tier, ids)
                strangers.meet(tier, epoch, unknown)
                met += len(unknown)
                if met >= _MOST_UNKNOWN:
                    break

    def _tell(self, strangers: Strangers) -> None:
        if strangers.newer:
            self.found.warnings.append(
                f"written by a newer version, and left: {strangers.newer:,} points; update dualmem-mcp"
            )
        if strangers.unknown:
            self.found.warnings.append(
                f"of items that are not on this device (yet), and left: {strangers.unknown:,} points"
            )

        if self._lost:
            self.found.warnings.append(
                f"not made again, since their items have no vectors here: {sum(self._lost.values()):,} points; run "
                "`dualmem index`"
            )

    def _compare(self, sightings: Sightings, strangers: Strangers) -> None:
        columns, counts = sightings.columns, sightings.counts()
        total = len(columns.keys)
        for start in range(0, total, ITEMS_AT_ONCE):
            self.progress(start, total, "comparing points")
            part = slice(start, start + ITEMS_AT_ONCE)
            digests = columns.keys[part]
            seen = {
                digest: {name: int(counts[name][start + place]) for name in SERVICE_TIERS}
                for place, digest in enumerate(digests.tolist())
            }
            rows = self.bench.placements.of_digests(digests.tolist())
            self._batch([row for row in rows if row.moving_to is None], seen, strangers)
        self.progress(total, total, "done")

    def _batch(
        self, rows: Sequence[Placement], seen: Mapping[int, Mapping[TierName, int]], strangers: Strangers
    ) -> None:
        standing = [_standing(row, seen[key_digest(row.key)], strangers.elsewhere.get(row.key, {})) for row in rows]
        gone = {row.key for row in rows if self.gone(row.key)}
        self._remove_gone([one for one in standing if one.row.key in gone])
        standing = [one for one in standing if one.row.key not in gone]
        wrong = self._wrong([one for one in standing if self.contents or not one.complete])
        if self.repair:
            self._mend(standing, wrong)
        # What lies elsewhere may be all that is left of what cannot be mended.
        self._doubles([one for one in standing if one.others and one.row.key not in self._lost])

    def _remove_gone(self, gone: Sequence[_Standing]) -> None:
        unwanted = sum(one.seen + one.doubled for one in gone)
        self.found.unwanted += unwanted
        if self.repair:
            self._remove_others(gone)
            self.bench.transfer.take_away([one.row for one in gone])
            self.found.mended += unwanted

    def _wrong(self, standing: Sequence[_Standing]) -> list[Step]:
        """Steps that write again what is not there, or not as it should be; counts both."""
        at_hand = self.bench.of_rows([one.row for one in standing])
        steps = {
            step.after.key: step
            for step in self.bench.steps(
                [(at_hand[one.row.key], one.row, one.row.tier) for one in standing if one.row.key in at_hand],
                keep_epochs=True,
            )
        }
        wrong: list[Step] = []
        there = self._fetched([one.row for one in standing])
        for one in standing:
            row, step = one.row, steps.get(one.row.key)
            keys = self.bench.service.keys(row.epoch)
            if step is None:
                ids = [keys.point_id(row.key, passage) for passage in range(row.passages)]
                missing = sum(point not in there for point in ids)
                changed = sum(point in there and not opens(keys, there[point]) for point in ids)
                if missing or changed:
                    self._lost[row.key] = missing + changed
            else:
                words = row.words == self.bench.words
                missing = sum(point.id not in there for point in step.points)
                changed = sum(
                    point.id in there and not is_as_made(keys, there[point.id], point, compare_words=words)
                    for point in step.points
                )
                if missing or changed or len(step.points) != row.passages:
                    wrong.append(step)
                elif not words and all(
                    is_as_made(keys, there[point.id], point, compare_words=True) for point in step.points
                ):
                    # Another device has renewed it since: nothing is left to do.
                    one.row = replace(row, words=self.bench.words)
            self.found.missing += missing
            self.found.changed += changed
        return wrong

    def _fetched(self, rows: Sequence[Placement]) -> dict[str, TierPoint]:
        wanted: dict[Place, list[str]] = {}
        for row in rows:
            keys = self.bench.service.keys(row.epoch)
            ids = [keys.point_id(row.key, passage) for passage in range(row.passages)]
            wanted.setdefault((row.tier, row.epoch), []).extend(ids)
        found: dict[str, TierPoint] = {}
        for (tier, epoch), ids in wanted.items():
            found |= self.bench.transfer.fetch(tier, epoch, ids)
        return found

    def _mend(self, standing: Sequence[_Standing], wrong: Sequence[Step]) -> None:
        self.bench.placements.put([one.row for one in standing if one.row != one.was])
        if wrong:
            self.bench.check_budget()
            self.bench.transfer.carry_out(wrong)
            self.found.mended += sum(len(step.points) for step in wrong)

    def _doubles(self, standing: Sequence[_Standing]) -> None:
        if not standing:
            return
        doubled = sum(one.doubled for one in standing)
        self.found.doubled += doubled
        if self.repair and self._may_move():
            self._confirm()
            self.found.mended += doubled
            self._remove_others(standing)

    def _remove_others(self, standing: Sequence[_Standing]) -> None:
        self.bench.transfer.remove(
            (tier, epoch, self.bench.service.keys(epoch).point_id(one.row.key, passage))
            for one in standing
            for (tier, epoch), passages in one.others.items()
            for passage in passages
        )

    def _may_move(self) -> bool:
        """Whether this device is the mover now; asked once."""
        if not self._asked:
            self._asked = True
            mover = Mover(self.bench.channel)
            try:
                other = mover.acquire()
            except (StoreUnreachableError, ConflictError, NotFoundError) as error:
                self.found.warnings.append(f"what lies in two places stays there: {error.message}")
            else:
                if other is None:
                    self._mover = mover
                else:
                    name = device_name(self.bench.channel, other.device_id)
                    self.found.warnings.append(f"what lies in two places is left to {name}, which moves vectors")
        return self._mover is not None

    def _confirm(self) -> None:
        if self._mover is not None:
            self._mover.confirm()


def _standing(row: Placement, seen: Mapping[TierName, int], elsewhere: Mapping[Place, set[int]]) -> _Standing:
    """Where the item should be: where all of it is, under the newest epoch, in the warmest tier; else where its row
    says."""
    counts: dict[Place, int] = {(tier, row.epoch): count for tier, count in seen.items() if count}
    passages: dict[Place, Sequence[int]] = dict.fromkeys(counts, range(row.passages))
    complete = [place for place, count in counts.items() if count == row.passages]
    for place, some in elsewhere.items():
        counts[place], passages[place] = len(some), sorted(some)
        if some >= {*range(row.passages)}:
            complete.append(place)
    best = min(complete or [(row.tier, row.epoch)], key=lambda place: (-place[1], SERVICE_TIERS.index(place[0])))
    others = {place: some for place, some in passages.items() if place != best}
    tier, epoch = best
    return _Standing(
        row=replace(row, tier=tier, epoch=epoch),
        was=row,
        seen=counts.get(best, 0),
        others=others,
        doubled=sum(counts[place] for place in others),
    )
