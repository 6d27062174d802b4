"""Vectors as they are stored: sign bits for the coarse search, float16 for the exact score.

float16 halves the index: a component has 11 significant bits, so that the cosine of two unit vectors is off by less
than 1e-3 (2^-11 relative a component, at most 5e-4 in the sum by Cauchy and Schwarz).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.search_index.layout import bit_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT: Final = np.dtype("<f2")
_WORD: Final = np.dtype("<u8")
_READ_AT_ONCE: Final = 1_000

# Always the same statement, so that it is prepared once.
_OF_PASSAGES: Final = "SELECT passage, vector FROM vectors WHERE passage IN (SELECT value FROM json_each(?))"


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors with length 1, float32 (…, d); those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def direction(vector: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The vector with length 1, or None if it points nowhere: of length 0, or with what is no number."""
    # In float64, where the squares of no finite float32 overflow.
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return (vector / length).astype(np.float32) if 0 < length < np.inf else None


def bits_of(vectors: NDArray[np.float16]) -> NDArray[np.uint64]:
    """The signs of stored vectors, one bit a component and zeros after the last: uint64 (n, words)."""
    packed = np.packbits(vectors > 0, axis=1, bitorder="little")
    padded = np.zeros((len(vectors), bit_words(vectors.shape[1]) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(_WORD)


def cosines(connection: Connection, passages: NDArray[np.int64], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """The dot product of the query with each stored vector, float32 (n,); nan where there is none."""
    ascending, places = np.unique(passages, return_inverse=True)  # items may share one
    result = np.full(len(ascending), np.nan, np.float32)
    for start in range(0, len(ascending), _READ_AT_ONCE):
        wanted = ascending[start : start + _READ_AT_ONCE]
        rows = connection.execute(_OF_PASSAGES, (json.dumps(wanted.tolist()),)).fetchall()
        if rows:
            found = np.searchsorted(wanted, np.array([row[0] for row in rows]))
            matrix = decoded([row[1] for row in rows], len(query))
            result[start + found] = matrix.astype(np.float32) @ query
    return result[places]


def decoded(blobs: Sequence[bytes], dimensions: int) -> NDArray[np.float16]:
    """Stored vectors, float16 (n, dimensions)."""
    return np.frombuffer(b"".join(blobs), EXACT).reshape(len(blobs), dimensions)
