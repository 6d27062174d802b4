"""An item with its vectors as the points that a search service gets: sealed, protected, with hashed words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.crypto.vector_payload import VectorPayload, seal_payload
from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.errors import UsageError
from dualmem_mcp.handoff.quoting import cut_middle
from dualmem_mcp.model.search import SearchItem, key_digest
from dualmem_mcp.ports import Stems
from dualmem_mcp.ports.tiers import SparseVector, TierPoint
from dualmem_mcp.search.passages import stretches

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_CHARACTERS: Final = 16_000
"""Of an item's text in its first point, which is what a search shows of it: of a longer one the beginning and the
end, so that no point is larger than some 70 KB."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """An item with its vectors, float32 (k, d), one for each of its passages, and the key of the turn before it in
    its conversation, empty for none."""

    item: SearchItem = field(repr=False)
    vectors: NDArray[np.float32] = field(repr=False)
    previous: str = field(default="", repr=False)

    @property
    def content(self) -> int:
        """The digest of the whole text, as indexes and placements have it."""
        return key_digest(self.item.text)


@dataclass(frozen=True, slots=True)
class PointMaker:
    """Makes points under the keys of one epoch; `stemmer` gives the stems of words, None where no words go along.

    The same item gives the same payloads, to the byte.
    """

    keys: VectorKeys
    model_id: str
    stemmer: Stems | None = None

    def points(self, items: Sequence[Embedded]) -> list[tuple[TierPoint, ...]]:
        """The points of each item, in the order of their passages; none for an item that cannot be sealed, whose
        name is longer than a page."""
        if not items:
            return []
        ids = [[self.keys.point_id(one.item.key, number) for number in range(len(one.vectors))] for one in items]
        protected = self.keys.protect(
            np.concatenate([one.vectors for one in items]), [point for some in ids for point in some]
        )
        made = []
        end = 0
        for one, own in zip(items, ids, strict=True):
            start, end = end, end + len(own)
            try:
                made.append(self._of(one, own, protected[start:end]))
            except UsageError:
                made.append(())
        return made

    def _of(self, one: Embedded, ids: Sequence[str], vectors: NDArray[np.float32]) -> tuple[TierPoint, ...]:
        own = stretches(one.item)
        points = []
        for passage, (point, vector) in enumerate(zip(ids, vectors, strict=True)):
            # Only the first has all of the text: what is found by a further passage is shown by that.
            text = cut_middle(one.item.text, MOST_CHARACTERS) if passage == 0 else own[min(passage, len(own) - 1)]
            payload = VectorPayload(
                item=replace(one.item, text=text),
                passage=passage,
                model_id=self.model_id,
                vector=one.vectors[passage],
                previous=one.previous,
            )
            words = self._words(one.item) if passage == 0 else None
            points.append(TierPoint(point, self.keys.tenant, vector, seal_payload(self.keys, payload), words))
        return tuple(points)

    def _words(self, item: SearchItem) -> SparseVector | None:
        """The stems of the item as its index has them: all of the text, and who said it."""
        if self.stemmer is None:
            return None
        return SparseVector(*self.keys.word_weights(self.stemmer.frequencies(item.author, item.text)))
