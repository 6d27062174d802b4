"""Vectors turned by a secret rotation and moved by a random step: distances stay roughly comparable, no more.

It is obfuscation, no encryption: docs/threat-model.md has its worth.
Source: docs/format.md, "Vectors in a service"; Fuchsbauer, Ghosal, Hauke, O'Neill, "Approximate Distance-
Comparison-Preserving Symmetric Encryption", SCN 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

if TYPE_CHECKING:
    from numpy.typing import NDArray

BETA: Final = 2.0
"""Distances that differ by less may change their order; a step is at most a quarter of it. Recall and resistance by
its value are in docs/threat-model.md, measured by benchmarks/vectors.py."""

_WORD: Final = np.dtype("<u4")
_COUNTER_AND_NONCE: Final = bytes(16)
"""Zeros are safe: each key makes one stream."""


def orthogonal_matrix(key: bytes, dimensions: int) -> NDArray[np.float64]:
    """The orthogonal matrix (d, d) of a key; over all keys uniformly distributed. Source: Mezzadri 2007."""
    gaussian = _gaussians(_stream([key], dimensions * dimensions + dimensions % 2), dimensions * dimensions)
    q, r = np.linalg.qr(gaussian.reshape(dimensions, dimensions))
    # QR is unique only up to signs; with R's diagonal positive there is one Q, whoever computes it.
    return np.ascontiguousarray(q * np.sign(np.diagonal(r)))


def steps(keys: Sequence[bytes], dimensions: int, *, beta: float = BETA) -> NDArray[np.float64]:
    """One random step a key, uniformly distributed in a ball of radius beta/4: (n, d)."""
    even = dimensions + dimensions % 2
    words = _stream(keys, even + 1)
    directions = _gaussians(words[:, :even], dimensions)
    lengths = beta / 4 * _uniforms(words[:, even:]) ** (1 / dimensions)
    drawn: NDArray[np.float64] = directions * (lengths / np.linalg.norm(directions, axis=1, keepdims=True))
    return drawn


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows with length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float64] = vectors / np.where(lengths > 0, lengths, np.float64(1))
    return scaled


def _stream(keys: Sequence[bytes], words: int) -> NDArray[np.uint32]:
    """The first words of each key's stream, uint32 (n, words)."""
    zeros = bytes(words * 4)
    streams = [Cipher(ChaCha20(key, _COUNTER_AND_NONCE), mode=None).encryptor().update(zeros) for key in keys]
    return np.frombuffer(b"".join(streams), _WORD).reshape(len(keys), words)


def _uniforms(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    return (words.astype(np.float64) + 0.5) / 2.0**32


def _gaussians(words: NDArray[np.uint32], count: int) -> NDArray[np.float64]:
    """The first `count` Gaussian numbers of each row of an even number of words. Source: Box and Muller 1958."""
    radius = np.sqrt(-2 * np.log(_uniforms(words[:, 0::2])))
    angle = 2 * np.pi * _uniforms(words[:, 1::2])
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    return pairs.reshape(len(words), -1)[:, :count]
