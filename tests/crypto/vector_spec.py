"""A second writer of what a search service gets, made from docs/format.md alone; shares no code with `dualmem_mcp`.

Its ChaCha20 is RFC 8439's text, its orthogonal matrix comes from Gram and Schmidt's method in Python's own numbers.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import struct
import uuid
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

LABEL = b"dualmem/1/vectors"
BETA = 2.0


def mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def expand(key: bytes, info: bytes) -> bytes:
    return mac(key, info, b"\x01")


def root(epoch_key: bytes, vault_id: bytes, epoch: int) -> bytes:
    return expand(epoch_key, LABEL + vault_id + struct.pack(">Q", epoch))


def use(v: bytes, name: bytes) -> bytes:
    return expand(v, LABEL + b"/" + name)


def point_id(v: bytes, item_key: str, passage: int) -> str:
    data = bytearray(mac(use(v, b"points"), struct.pack(">I", passage), item_key.encode())[:16])
    data[6] = data[6] & 0x0F | 0x40
    data[8] = data[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(data)))


def chacha20_words(key: bytes, count: int) -> list[int]:
    """The first words of the key stream with a counter from 0 and a nonce of zeros. Source: RFC 8439, 2.3."""

    def turn(x: list[int], a: int, b: int, c: int, d: int) -> None:
        for to, of, rotated, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[to] = (x[to] + x[of]) & 0xFFFFFFFF
            mixed = x[rotated] ^ x[to]
            x[rotated] = (mixed << by | mixed >> (32 - by)) & 0xFFFFFFFF

    words: list[int] = []
    for counter in range(-(-count // 16)):
        start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), counter, 0, 0, 0]
        x = list(start)
        for _ in range(10):
            for column in range(4):
                turn(x, column, column + 4, column + 8, column + 12)
            for first in range(4):
                turn(x, first, 4 + (first + 1) % 4, 8 + (first + 2) % 4, 12 + (first + 3) % 4)
        words += [(now + before) & 0xFFFFFFFF for now, before in zip(x, start, strict=True)]
    return words[:count]


def uniform(word: int) -> float:
    return (word + 0.5) / 2**32


def gaussians(words: Sequence[int]) -> list[float]:
    found = []
    for a, b in zip(words[0::2], words[1::2], strict=True):
        radius, angle = math.sqrt(-2 * math.log(uniform(a))), 2 * math.pi * uniform(b)
        found += [radius * math.cos(angle), radius * math.sin(angle)]
    return found


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def rotation(v: bytes, d: int) -> list[list[float]]:
    """The columns of Q."""
    numbers = gaussians(chacha20_words(use(v, b"rotation" + struct.pack(">I", d)), d * d + d % 2))
    columns: list[list[float]] = []
    for place in range(d):
        column = [numbers[row * d + place] for row in range(d)]
        for _ in range(2):  # once more takes out what rounding left
            for earlier in columns:
                share = dot(earlier, column)
                column = [x - share * y for x, y in zip(column, earlier, strict=True)]
        length = math.sqrt(dot(column, column))
        columns.append([x / length for x in column])
    return columns


def protect(v: bytes, x: Sequence[float], noise_key: bytes) -> list[float]:
    d = len(x)
    even = d + d % 2
    words = chacha20_words(noise_key, even + 1)
    g = gaussians(words[:even])[:d]
    size = BETA / 4 * uniform(words[even]) ** (1 / d) / math.sqrt(dot(g, g))
    length = math.sqrt(dot(x, x))
    x = [component / length for component in x]
    moved = [dot(x, column) + size * step for column, step in zip(rotation(v, d), g, strict=True)]
    length = math.sqrt(dot(moved, moved))
    return [component / length for component in moved]


def protect_point(v: bytes, x: Sequence[float], point: str) -> list[float]:
    return protect(v, x, use(v, b"noise" + uuid.UUID(point).bytes))


def protect_query(v: bytes, x: Sequence[float]) -> list[float]:
    digest = hashlib.sha256(struct.pack(f"<{len(x)}f", *x)).digest()
    return protect(v, x, use(v, b"query" + digest))


def word_index(v: bytes, stem: str) -> int:
    return int.from_bytes(mac(use(v, b"words"), stem.encode())[:4], "big")


def word_value(frequency: int) -> float:
    return 2.2 * frequency / (frequency + 1.2)


def plain_payload(item: dict[str, Any], vector: Sequence[float]) -> bytes:
    encoded = json.dumps(item, sort_keys=True, separators=(",", ":")).encode()
    exact = struct.pack(f"<{len(vector)}e", *vector)
    return struct.pack(">I", len(encoded)) + encoded + struct.pack(">I", len(vector)) + exact


def padme(length: int, floor: int) -> int:
    if length <= floor:
        return floor
    e = length.bit_length() - 1
    step = 1 << (e - e.bit_length())
    return -(-length // step) * step


def seal(
    v: bytes,
    vault_id: bytes,
    epoch: int,
    point: str,
    plain: bytes,
    *,
    version: int = 1,
    padding: bytes | None = None,
) -> bytes:
    """`padding` other than zeros up to Padmé makes it hostile."""
    if padding is None:
        padding = bytes(padme(len(plain), 2048) - len(plain))
    name = b"dualmem/1/vectors/payload"
    aad = name + vault_id + struct.pack(">Q", epoch) + uuid.UUID(point).bytes + bytes([version])
    salt = mac(use(v, b"salt"), aad, plain)[:16]
    key = expand(mac(salt, use(v, b"payload")), name)
    return bytes([version]) + salt + ChaCha20Poly1305(key).encrypt(bytes(12), plain + padding, aad)
