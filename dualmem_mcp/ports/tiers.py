"""What moving and searching vectors asks of a tier outside the device: a collection of points, protected before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from dualmem_mcp.model.tiers import TierName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """Words as numbers: uint32 (k,), ascending and none twice, and how much each counts, float32 (k,)."""

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class TierPoint:
    """One passage of an item as a tier holds it: all of it protected, sealed or hashed (`crypto/vectors.py`).

    `id` is a UUID as text, `tenant` 32 hexadecimal digits, `vector` float32 (d,), L2-normalised. `words` is None
    where the user has not switched words on.
    """

    id: str
    tenant: str
    vector: NDArray[np.float32] = field(repr=False)
    payload: bytes = field(repr=False)
    words: SparseVector | None = field(default=None, repr=False)


def check_dimensions(points: Sequence[TierPoint], dimensions: int) -> None:
    """Raises ValueError for a point whose vector is not of that length."""
    for point in points:
        if point.vector.shape != (dimensions,):
            raise ValueError(f"a vector of {point.vector.shape}, not of {dimensions} dimensions")


@dataclass(frozen=True, slots=True)
class TierHit:
    """A point that was found, with its sealed payload, and how: `similarity` is its cosine, None where it was not
    among the nearest; `word_score` the sum over the common words, None where it was not among the best by words.
    The payload is as the tier gave it: whoever opens it sees whether it is one."""

    id: str
    payload: bytes = field(repr=False)
    similarity: float | None = None
    word_score: float | None = None


@dataclass(frozen=True, slots=True)
class TierPage:
    """Ids in ascending order, and where the next page begins; `next` is None after the last."""

    ids: tuple[str, ...]
    next: str | None


class VectorTier(Protocol):
    """A collection of points of one model's vectors, for use from any thread.

    Whoever runs the service is not trusted: what an answer holds that is no point of the tenant is left out,
    never an error. Every method raises StoreUnreachableError if the tier cannot be reached, is late, or answers
    with something else than an answer, and StoreRefusedError if it cannot be used as it is set up: no such
    collection, one of another model, no rights.
    """

    @property
    def name(self) -> TierName:
        """Which tier it is."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        ...

    def upsert(self, points: Sequence[TierPoint]) -> None:
        """Write the points over those of the same ids; done again, it changes nothing. When it returns, `fetch` and
        `nearest` see them. If it fails, some of them may be written. Raises ValueError for a vector that is not of
        the tier's length."""
        ...

    def nearest(
        self,
        tenant: str,
        limit: int,
        *,
        vector: NDArray[np.float32] | None = None,
        words: SparseVector | None = None,
    ) -> Sequence[TierHit]:
        """The tenant's points nearest to the vector, by cosine, and those that share the most with the words, each
        weighted by its rarity among the tenant's points; at most `limit` of either, no point twice."""
        ...

    def fetch(self, tenant: str, ids: Sequence[str]) -> Sequence[TierPoint]:
        """Those of the points that are there, in any order."""
        ...

    def remove(self, tenant: str, ids: Sequence[str]) -> None:
        """Remove the tenant's points of these ids; those that are not there are no error."""
        ...

    def ids(self, tenant: str, *, start: str | None = None, limit: int = 1_000) -> TierPage:
        """A page of the ids of the tenant's points, from the beginning or from where the page before says."""
        ...

    def count(self, tenant: str) -> int:
        """How many points of the tenant there are."""
        ...
