"""Items that another device has placed already: this one would place them again, maybe in another tier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.ports.placements import Placement
from dualmem_mcp.tiers.bench import Bench, Place
from dualmem_mcp.tiers.likeness import opens
from dualmem_mcp.tiers.points import Embedded
from dualmem_mcp.tiers.sightings import id_beginnings

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEW: Final = 1_000
"""So many items are looked for by their ids, and what there is of them is read; for more, all ids are listed, which
takes 40 bytes a point and not 8,000."""


@dataclass(slots=True)
class Elsewhere:
    """Looks only where there are more points than this device knows of. `many`: many will be looked for."""

    bench: Bench
    many: bool
    _listed: dict[Place, NDArray[np.uint64]] = field(default_factory=dict)

    def find(self, items: Sequence[Embedded]) -> Mapping[str, Placement]:
        """Those of the items whose first points are in the service, with where: by their keys. What lies there is
        not compared with what should, which a check does. Raises what the service raises."""
        found: dict[str, Placement] = {}
        for tier, epoch in self.bench.crowded:
            left = [one for one in items if one.item.key not in found]
            keys = self.bench.service.keys(epoch)
            ids = [keys.point_id(one.item.key, 0) for one in left]
            for one, words in zip(left, self._there((tier, epoch), ids), strict=True):
                if words is not None:
                    found[one.item.key] = Placement(
                        one.item.key, tier, epoch, passages=len(one.vectors), content=one.content, words=words
                    )
        return found

    def _there(self, place: Place, ids: Sequence[str]) -> Iterator[bool | None]:
        """Of each point whether it has words, None if it is not there; of what is only listed, as it would here."""
        if self.many:
            there = np.isin(id_beginnings(ids), self._ids(place))
            return (self.bench.words if one else None for one in there.tolist())
        keys, points = self.bench.service.keys(place[1]), self.bench.transfer.fetch(*place, ids)
        return (
            points[one].words is not None if one in points and opens(keys, points[one]) else None for one in ids
        )

    def _ids(self, place: Place) -> NDArray[np.uint64]:
        if place not in self._listed:
            parts = [id_beginnings(page) for page in self.bench.listed(place)]
            self._listed[place] = np.concatenate([np.empty(0, np.uint64), *parts])
        return self._listed[place]
