"""What a search service gets of a vault's vectors and words, and under which names.

Everything follows from the key of an epoch: point ids, the tenant, protected vectors, hashed words. Source:
docs/format.md, "Vectors in a service".
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.crypto.kdf import KEY_BYTES, expand
from dualmem_mcp.crypto.obfuscation import BETA, orthogonal_matrix, steps, unit
from dualmem_mcp.model.ids import VaultId

if TYPE_CHECKING:
    from numpy.typing import NDArray

POINT_ID_BYTES: Final = 16
_LABEL: Final = b"dualmem/1/vectors"
_AT_ONCE: Final = 2_000
"""Vectors protected at a time: 20 MB of 64-bit numbers."""
_REMEMBERED_WORDS: Final = 200_000

_SATURATION: Final = 1.2
"""At so many occurrences a word counts half of what it can at most. Source: BM25's k1, as in Lucene."""


class VectorKeys:
    """The keys of one vault's vectors in one epoch. Safe from several threads.

    `beta` other than the format's is for measuring.
    """

    def __init__(self, epoch_key: bytes, vault_id: VaultId, epoch: int, *, beta: float = BETA) -> None:
        """`epoch_key` has 32 bytes. Raises ValueError otherwise."""
        if len(epoch_key) != KEY_BYTES:
            raise ValueError(f"an epoch key has {KEY_BYTES} bytes, not {len(epoch_key)}")
        self.vault_id = vault_id
        self.epoch = epoch
        self._beta = beta
        self._root = expand(epoch_key, _LABEL + bytes.fromhex(vault_id) + epoch.to_bytes(8))
        self._points = self.subkey(b"points")
        self._words = self.subkey(b"words")
        self._rotations: dict[int, NDArray[np.float64]] = {}
        self._indices: dict[str, int] = {}
        self.tenant = self.subkey(b"tenant")[:16].hex()
        """Names the vault's points of this epoch to the service: 32 hexadecimal digits."""

    def subkey(self, use: bytes) -> bytes:
        """The 32-byte key of one use."""
        return expand(self._root, _LABEL + b"/" + use)

    @cached_property
    def payload_key(self) -> bytes:
        """The key from which those of payloads follow."""
        return self.subkey(b"payload")

    @cached_property
    def salt_key(self) -> bytes:
        """The key of payloads' salts."""
        return self.subkey(b"salt")

    def point_id(self, item_key: str, passage: int) -> str:
        """The id of an item's passage, a UUID that looks random and is the same for the same passage."""
        return str(self.point_uuid(item_key, passage))

    def point_uuid(self, item_key: str, passage: int) -> uuid.UUID:
        """The same."""
        text = passage.to_bytes(4) + item_key.encode("utf-8", "surrogatepass")
        digest = hmac.digest(self._points, text, "sha256")
        return uuid.UUID(bytes=digest[:POINT_ID_BYTES], version=4)

    def protect(self, vectors: NDArray[np.float32], ids: Sequence[str]) -> NDArray[np.float32]:
        """The vectors as the service gets them, float32 (n, d), L2-normalised; the same for the same vector and id.

        `vectors` is (n, d), `ids` are their points'. Raises ValueError if there are not as many of both, or if a
        component is not finite.
        """
        noise = (b"noise" + uuid.UUID(point).bytes for point in ids)
        return self._protected(vectors, [self.subkey(use) for use in noise])

    def protect_query(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """A query's vector (d,) as the service gets it; the same for the same query, so that asking it again does
        not let the noise be averaged out. Raises ValueError if a component is not finite."""
        digest = hashlib.sha256(vector.astype("<f4").tobytes()).digest()
        protected: NDArray[np.float32] = self._protected(vector[np.newaxis], [self.subkey(b"query" + digest)])[0]
        return protected

    def word_index(self, stem: str) -> int:
        """The number below 2^32 that stands for a word's stem."""
        index = self._indices.get(stem)
        if index is None:
            digest = hmac.digest(self._words, stem.encode("utf-8", "surrogatepass"), "sha256")
            index = int.from_bytes(digest[:4])
            if len(self._indices) < _REMEMBERED_WORDS:
                self._indices[stem] = index
        return index

    def word_weights(self, frequencies: Mapping[str, int]) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """A sparse vector of stems by how often they occur: ascending indices and their values, both (k,)."""
        counts: dict[int, int] = {}
        for stem, frequency in frequencies.items():
            index = self.word_index(stem)
            counts[index] = counts.get(index, 0) + frequency
        indices = sorted(counts)
        return np.array(indices, np.uint32), word_values(np.array([counts[index] for index in indices], np.float32))

    def query_words(self, stems: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """The sparse vector of a query's stems: ascending indices, each with the value 1, both (k,)."""
        indices = np.array(sorted({self.word_index(stem) for stem in stems}), np.uint32)
        return indices, np.ones(len(indices), np.float32)

    def _protected(self, vectors: NDArray[np.float32], keys: Sequence[bytes]) -> NDArray[np.float32]:
        count, dimensions = vectors.shape
        if len(keys) != count:
            raise ValueError(f"{count} vectors and {len(keys)} ids")
        if not np.isfinite(vectors).all():
            raise ValueError("a vector has a component that is not finite")
        rotation = self._rotation(dimensions)
        protected = np.empty((count, dimensions), np.float32)
        for start in range(0, count, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            turned = unit(vectors[part].astype(np.float64)) @ rotation
            protected[part] = unit(turned + steps(keys[part], dimensions, beta=self._beta))
        return protected

    def _rotation(self, dimensions: int) -> NDArray[np.float64]:
        rotation = self._rotations.get(dimensions)
        if rotation is None:
            key = self.subkey(b"rotation" + dimensions.to_bytes(4))
            # Two threads may both compute it, and get the same.
            rotation = self._rotations[dimensions] = orthogonal_matrix(key, dimensions)
        return rotation


def word_values(frequencies: NDArray[np.float32]) -> NDArray[np.float32]:
    """What words count that occur so often: 1 for once, nearly 2.2 at most, so that no text gains by repeating."""
    values: NDArray[np.float32] = frequencies * (_SATURATION + 1) / (frequencies + _SATURATION)
    return values.astype(np.float32)
