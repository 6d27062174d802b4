"""What a run that writes to the service works with: the tiers, where things lie, how items become points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final, TypeVar

from dualmem_mcp.crypto.vector_payload import open_payload
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.search import Collection, key_digest
from dualmem_mcp.model.tiers import TIER_NAMES, TierName
from dualmem_mcp.ports import ItemColumns, SearchIndex, Stems
from dualmem_mcp.ports.placements import Placement, PlacementColumns, Placements
from dualmem_mcp.ports.tiers import TierPoint
from dualmem_mcp.tiers.at_hand import ItemPlaces, embedded_items
from dualmem_mcp.tiers.attempts import Attempts
from dualmem_mcp.tiers.points import Embedded, PointMaker
from dualmem_mcp.tiers.service import TierService
from dualmem_mcp.tiers.standing import repeated
from dualmem_mcp.tiers.transfer import Step, Transfer
from dualmem_mcp.tiers.worth import joined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

Place = tuple[TierName, int]
"""A tier and a key epoch."""

NEWEST_EPOCHS: Final = 3
"""Points of other devices are looked for under so many: older ones are renewed."""

ITEMS_AT_ONCE: Final = 256
"""Items in a batch: so many at most are on their way when a run is killed. With 16 passages each, 20 MB."""


@dataclass(frozen=True)
class Bench:
    """Made for one run; `close` it."""

    service: TierService
    placements: Placements
    indexes: Mapping[Collection, SearchIndex]
    channel: Channel
    words: bool
    stems: Callable[[], Stems]
    check_budget: Callable[[], object]
    attempts: Attempts = field(default_factory=Attempts)

    @cached_property
    def transfer(self) -> Transfer:
        """Moves points between the tiers. Raises what opening a tier raises."""
        return Transfer(self.attempts(self.service.tiers), self.placements, self.service.keys, self.attempts)

    @property
    def is_open(self) -> bool:
        """Whether the tiers were opened."""
        return "transfer" in self.__dict__

    def populated(self) -> Sequence[Place]:
        """Where the vault has points, whichever device placed them: a request for each tier and key epoch. Raises
        what the service raises."""
        own = self.placements.epochs()
        return [
            (tier, epoch)
            for epoch in sorted({*self.channel.vault.epochs(), *own})
            for tier in self.transfer.tiers
            if epoch in own or self.count((tier, epoch))
        ]

    @cached_property
    def crowded(self) -> Sequence[Place]:
        """Where there are more points than this device knows of, the newest epoch first, and the warmest tier: a
        request for each tier and each epoch that is new or has points of this device. Raises what the service
        raises."""
        columns = self.placements.columns()
        epochs = {*self.channel.vault.epochs()[-NEWEST_EPOCHS:], *self.placements.epochs()}
        return [
            (tier, epoch)
            for epoch in sorted(epochs, reverse=True)
            for tier in self.transfer.tiers
            if self.count((tier, epoch)) > _points(columns, tier, epoch)
        ]

    def count(self, place: Place) -> int:
        """How many points there are at a place."""
        tier, tenant = self.transfer.tiers[place[0]], self.service.keys(place[1]).tenant
        return self.attempts(lambda: tier.count(tenant))

    def listed(self, place: Place) -> Iterator[Sequence[str]]:
        """The ids of the points at a place, page by page."""
        tier, tenant = self.transfer.tiers[place[0]], self.service.keys(place[1]).tenant
        start: str | None = None
        while True:
            page = self.attempts(partial(tier.ids, tenant, start=start))
            yield page.ids
            start = page.next
            if start is None:
                return

    @cached_property
    def epoch(self) -> int:
        """The key epoch of new points; its key is queued for the bucket, so that other devices can open them."""
        vault = self.channel.vault
        for key, data in vault.pending_epoch():
            self.channel.outbox.add(key, data)
        return vault.current_epoch()

    @cached_property
    def _stemmer(self) -> Stems | None:
        return self.stems() if self.words else None

    def maker(self, epoch: int | None = None) -> PointMaker:
        """Makes points of that epoch, or of the present one."""
        model_id, _ = self.service.model()
        return PointMaker(self.service.keys(self.epoch if epoch is None else epoch), model_id, self._stemmer)

    def at_hand(self, collection: Collection, ids: Sequence[int]) -> Mapping[int, Embedded]:
        """Those of the items of an index that are there and have vectors, by the digests of their keys."""
        return embedded_items(self.indexes[collection], ids) if collection in self.indexes else {}

    @cached_property
    def columns(self) -> Mapping[Collection, ItemColumns]:
        """The items of all indexes as they were when this was first asked for."""
        return {collection: index.columns() for collection, index in self.indexes.items()}

    @cached_property
    def repeated(self) -> NDArray[np.int64]:
        """The digests of the items that say the same as an earlier one: this device places none of them."""
        _, columns = joined(self.columns)
        return columns.keys[repeated(columns)]

    @cached_property
    def item_places(self) -> ItemPlaces:
        """Where the items were in the indexes then."""
        return ItemPlaces(self.columns)

    def of_rows(self, rows: Sequence[Placement]) -> Mapping[str, Embedded]:
        """The items of these rows that are at hand with their vectors, by their keys."""
        found: dict[str, Embedded] = {}
        for collection, ids in self.item_places.ids([key_digest(row.key) for row in rows]).items():
            found |= {one.item.key: one for one in self.at_hand(collection, ids).values()}
        return found

    def steps(
        self, wanted: Iterable[tuple[Embedded, Placement | None, TierName]], *, keep_epochs: bool = False
    ) -> list[Step]:
        """A step for each item that can be sealed: from where its row says to that tier, under the present epoch,
        or with `keep_epochs` under that of its row."""
        by_epoch: dict[int, list[tuple[Embedded, Placement | None, TierName]]] = {}
        for one in wanted:
            before = one[1]
            by_epoch.setdefault(before.epoch if keep_epochs and before else self.epoch, []).append(one)
        steps = []
        for epoch, some in by_epoch.items():
            made = self.maker(epoch).points([embedded for embedded, _, _ in some])
            for (embedded, before, tier), points in zip(some, made, strict=True):
                if points:
                    after = Placement(
                        key=embedded.item.key,
                        tier=tier,
                        epoch=epoch,
                        passages=len(points),
                        content=embedded.content,
                        words=self.words,
                    )
                    steps.append(Step(before, after, points))
        return steps

    def points_there(self, row: Placement, tier: TierName) -> Sequence[TierPoint]:
        """The points of a row as they lie in that tier, in the order of their passages; none unless all of them
        are there, and open."""
        keys = self.service.keys(row.epoch)
        ids = [keys.point_id(row.key, passage) for passage in range(row.passages)]
        found = self.transfer.fetch(tier, row.epoch, ids)
        try:
            for point in found.values():
                open_payload(keys, point.id, point.payload)
        except TamperedError:
            return ()
        return tuple(found[point] for point in ids) if len(found) == len(ids) else ()

    def close(self) -> None:
        """Let go of what was opened for the run."""
        if self.words and self._stemmer is not None:
            self._stemmer.close()


def device_name(channel: Channel, device_id: DeviceId) -> str:
    """The name under which a device joined; its id where it has none."""
    devices = channel.vault.devices()
    return next((one.name for one in devices if one.device_id == device_id), "") or device_id


def _points(columns: PlacementColumns, tier: TierName, epoch: int) -> int:
    there = (columns.tiers == TIER_NAMES.index(tier)) & (columns.epochs == epoch)
    return int(columns.passages[there].sum())


def unmarked(row: Placement) -> Placement:
    """The row of an item that is on its way nowhere."""
    return replace(row, moving_to=None)


def batches(values: Sequence[T], size: int = ITEMS_AT_ONCE) -> Iterator[Sequence[T]]:
    """The values in parts of that size."""
    return (values[start : start + size] for start in range(0, len(values), size))
