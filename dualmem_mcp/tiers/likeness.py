"""Whether a point in the service is what it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.crypto.vector_payload import VectorPayload, open_payload
from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.ports.tiers import SparseVector, TierPoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAME_DIRECTION: Final = 0.995
"""Cosine of a vector and what it should be, at least. Devices compute vectors alike but for the last bits."""


def is_as_made(keys: VectorKeys, found: TierPoint, made: TierPoint, *, compare_words: bool) -> bool:
    """Whether a point that was found will do for the one that was made here again.

    Mostly their bytes are the same. One that another device made may say of the same text that another turn came
    before it, if turns came to both in another order, and have a vector that was embedded with that; then its
    vector has to be that of its own payload.
    """
    vector = made.vector
    if found.payload != made.payload:
        theirs, ours = _opened(keys, found), _opened(keys, made)
        if theirs is None or ours is None or not _say_the_same(theirs, ours):
            return False
        vector = keys.protect(theirs.vector[np.newaxis], [found.id])[0]
    return _cosine(found.vector, vector) >= SAME_DIRECTION and (
        not compare_words or _same_words(found.words, made.words)
    )


def opens(keys: VectorKeys, found: TierPoint) -> bool:
    """Whether a point holds what was sealed for it, all that can be told of an item that is not at hand."""
    return _opened(keys, found) is not None


def _opened(keys: VectorKeys, point: TierPoint) -> VectorPayload | None:
    try:
        return open_payload(keys, point.id, point.payload)
    except TamperedError:
        return None


def _say_the_same(one: VectorPayload, other: VectorPayload) -> bool:
    names = ("key", "kind", "text", "conversation_id", "turn_id")
    return (one.passage, one.model_id) == (other.passage, other.model_id) and all(
        getattr(one.item, name) == getattr(other.item, name) for name in names
    )


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    if one.shape != other.shape:
        return -1.0
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / lengths if lengths > 0 else -1.0


def _same_words(one: SparseVector | None, other: SparseVector | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one.indices, other.indices) and bool(np.allclose(one.values, other.values, rtol=1e-3))
