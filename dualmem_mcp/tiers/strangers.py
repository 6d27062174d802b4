"""Points of the vault's tenants that no row here stands for: opened, and taken in, removed or left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dualmem_mcp.crypto.vector_payload import VectorPayload, open_payload
from dualmem_mcp.errors import NewerFormatError, TamperedError
from dualmem_mcp.model.search import key_digest
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.ports.placements import Placement
from dualmem_mcp.ports.tiers import TierPoint
from dualmem_mcp.tiers.bench import Bench, Place, batches
from dualmem_mcp.tiers.gone import Gone
from dualmem_mcp.tiers.points import Embedded


@dataclass(slots=True)
class Strangers:
    """`foreign` and `unwanted` count points that are removed with `repair`: what does not open, and what is of an
    erased conversation, of another model or a passage too many. `newer` were written by a newer version and stay,
    as do `unknown`: another device's items that are in no index here.

    `adopted` items, which another device placed, have rows now. `elsewhere` says of items with rows which of their
    passages lie under other epochs than these say.
    """

    bench: Bench
    gone: Gone
    repair: bool
    foreign: int = 0
    unwanted: int = 0
    newer: int = 0
    unknown: int = 0
    adopted: int = 0
    elsewhere: dict[str, dict[Place, set[int]]] = field(default_factory=lambda: defaultdict(dict))
    _newer_ids: set[str] = field(default_factory=set)

    def meet(self, tier: TierName, epoch: int, ids: Sequence[str]) -> None:
        """Look at points that were listed in that tier under that epoch. Raises what the service raises."""
        for some in batches(ids):
            points = self.bench.transfer.fetch(tier, epoch, some)
            unfit = [one for one in some if one not in points]  # not even of the form of a point
            opened = []
            for point in points.values():
                payload = self._opened(epoch, point)
                if payload is not None:
                    opened.append((point, payload))
                elif point.id not in self._newer_ids:
                    unfit.append(point.id)
            self.foreign += len(unfit)
            unwanted = self._met(tier, epoch, opened)
            self.unwanted += len(unwanted)
            if self.repair:
                self.bench.transfer.remove((tier, epoch, one) for one in (*unfit, *unwanted))

    def _opened(self, epoch: int, point: TierPoint) -> VectorPayload | None:
        try:
            return open_payload(self.bench.service.keys(epoch), point.id, point.payload)
        except NewerFormatError:
            self._newer_ids.add(point.id)
            self.newer += 1
        except TamperedError:
            pass
        return None

    def _met(self, tier: TierName, epoch: int, opened: Sequence[tuple[TierPoint, VectorPayload]]) -> list[str]:
        """Ids of what has to go."""
        unwanted: list[str] = []
        keys = {payload.item.key for _, payload in opened}
        rows = self.bench.placements.get([*keys])
        model_id, _ = self.bench.service.model()
        new: list[tuple[TierPoint, VectorPayload]] = []
        for point, payload in opened:
            row = rows.get(payload.item.key)
            if self.gone.erased(payload.item.key) or payload.model_id != model_id:
                unwanted.append(point.id)
            elif row is None:
                new.append((point, payload))
            elif row.epoch != epoch:
                self.elsewhere[row.key].setdefault((tier, epoch), set()).add(payload.passage)
            elif payload.passage >= row.passages:
                unwanted.append(point.id)
        self._adopt(tier, epoch, new)
        return unwanted

    def _adopt(self, tier: TierName, epoch: int, new: Sequence[tuple[TierPoint, VectorPayload]]) -> None:
        digests = np.array([key_digest(payload.item.key) for _, payload in new], np.int64)
        there = self.bench.item_places.there(digests)
        self.unknown += int((~there).sum())
        # What says the same as an item of this device is its own device's affair: taken in here the next plan would
        # remove it, and that device's next check write it again.
        known = digests[there & ~np.isin(digests, self.bench.repeated)].tolist()
        at_hand: dict[int, Embedded] = {}
        for collection, ids in self.bench.item_places.ids(known).items():
            at_hand |= self.bench.at_hand(collection, ids)
        rows: dict[str, Placement] = {}
        for digest, (point, payload) in zip(digests.tolist(), new, strict=True):
            if (own := at_hand.get(digest)) is not None and own.item.key == payload.item.key:
                words = rows[payload.item.key].words if payload.item.key in rows else False
                rows[payload.item.key] = Placement(
                    key=payload.item.key,
                    tier=tier,
                    epoch=epoch,
                    passages=len(own.vectors),
                    content=own.content,
                    words=words or point.words is not None,
                )
        self.adopted += len(rows)
        if self.repair:
            self.bench.placements.put([*rows.values()])
