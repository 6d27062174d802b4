"""A second writer of sealed objects, made from docs/format.md alone: what it writes, the reader must open.

It shares no code with `dualmem_mcp`, so that an error in one of the two shows; and it writes the hostile
objects that our own writer refuses to.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

NONCE = bytes(12)


def hmac_sha256(key: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def expand(key: bytes, info: bytes) -> bytes:
    """HKDF-Expand of RFC 5869 for one block of output."""
    return hmac_sha256(key, info, b"\x01")


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    return expand(hmac_sha256(salt or bytes(32), key), info)


def canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def padme(length: int, floor: int) -> int:
    if length <= floor:
        return floor
    e = length.bit_length() - 1
    step = 1 << (e - e.bit_length())
    return -(-length // step) * step


def zero_padded(data: bytes, length: int) -> bytes:
    return data + bytes(length - len(data))


@dataclass
class Part:
    """One section; every field of its index entry can be given a hostile value."""

    name: bytes
    data: bytes
    algorithm: int = 1
    compression: int | None = None
    stored: bytes | None = None
    plain_size: int | None = None
    stored_size: int | None = None
    sealed_size: int | None = None
    sha256: bytes | None = None
    padding: bytes | None = None

    def __post_init__(self) -> None:
        if self.compression is None:
            packed = zstandard.ZstdCompressor(level=3).compress(self.data)
            self.compression = int(len(packed) < len(self.data))
        if self.stored is None:
            self.stored = zstandard.ZstdCompressor(level=3).compress(self.data) if self.compression else self.data

    def padded(self) -> bytes:
        stored = self.stored or b""
        if self.padding is not None:
            return stored + self.padding
        return zero_padded(stored, max(padme(len(stored), 4096), -(-len(self.data) // 1024)))

    def entry(self) -> bytes:
        def given(value: int | None, otherwise: int) -> int:
            return otherwise if value is None else value

        return (
            struct.pack(">B", len(self.name))
            + self.name
            + struct.pack(
                ">BBQQQ",
                self.algorithm,
                self.compression or 0,
                given(self.plain_size, len(self.data)),
                given(self.stored_size, len(self.stored or b"")),
                given(self.sealed_size, len(self.padded()) + 16),
            )
            + (self.sha256 or hashlib.sha256(self.data).digest())
        )


@dataclass
class Envelope:
    """One object; `index` is the plain index if not the parts' own, `clear` changes the header before sealing."""

    kind: int
    vault_id: bytes
    device_id: bytes
    key: str
    key_id: bytes
    key_epoch: int
    wrapping_key: bytes
    parts: Sequence[Part]
    random: Callable[[int], bytes]
    sequence: int = 0
    previous: bytes = bytes(32)
    version: int = 1
    suite: int = 1
    index: bytes | None = None
    index_length: int | None = None
    commitment: bytes | None = None
    object_hash: bytes = field(default=b"", init=False)

    def seal(self) -> bytes:
        data_key, object_id, salt = self.random(32), self.random(16), self.random(24)
        plain_index = self.index
        if plain_index is None:
            plain_index = struct.pack(">I", len(self.parts)) + b"".join(part.entry() for part in self.parts)
            plain_index = zero_padded(plain_index, padme(len(plain_index), 1024))
        encoded = self.key.encode()
        place = struct.pack(">H", len(encoded)) + encoded
        identity = (
            b"DUALMEM\x1a"
            + bytes([self.version, self.suite, self.kind, 0])
            + self.vault_id
            + object_id
            + self.device_id
            + struct.pack(">Q", self.sequence)
            + self.previous
            + struct.pack(">I", len(plain_index) + 16 if self.index_length is None else self.index_length)
            + (self.commitment or expand(data_key, b"dualmem/1/envelope/commitment"))
        )
        before = identity + struct.pack(">Q", self.key_epoch) + zero_padded(self.key_id, 32) + salt
        label = b"dualmem/1/envelope/wrap"
        wrapped = AESGCM(hkdf(self.wrapping_key, salt, label)).encrypt(NONCE, data_key, label + before + place)
        header = before + wrapped
        header += hashlib.sha256(header).digest()[:8]
        label = b"dualmem/1/envelope/index"
        sealed_index = AESGCM(expand(data_key, label)).encrypt(NONCE, plain_index, label + identity + place)
        self.object_hash = hashlib.sha256(b"dualmem/1/envelope/hash" + identity + sealed_index).digest()
        out = header + sealed_index
        for number, part in enumerate(self.parts):
            own = struct.pack(">IBH", number, part.algorithm, len(part.name)) + part.name
            label = b"dualmem/1/envelope/section"
            cipher = ChaCha20Poly1305 if part.algorithm == 2 else AESGCM
            out += cipher(expand(data_key, label + own)).encrypt(
                NONCE, part.padded(), label + identity + place + own
            )
        return out


def wrap(secret: bytes, key: bytes, context: bytes) -> dict[str, str]:
    """The JSON fields of a wrap."""
    return {
        "wrapped": AESGCM(expand(secret, b"dualmem/1/wrap/key")).encrypt(NONCE, key, context).hex(),
        "commitment": hmac_sha256(expand(secret, b"dualmem/1/wrap/commitment"), context).hex(),
    }


def recovery_text(key: bytes) -> str:
    """The recovery key in groups, with GF(32) worked out by tables of powers."""
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    powers = [1]
    while len(powers) < 31:
        doubled = powers[-1] * 2
        powers.append(doubled ^ 0b100101 if doubled >= 32 else doubled)
    logarithm = {value: exponent for exponent, value in enumerate(powers)}
    bits = "".join(f"{byte:08b}" for byte in key) + f"{hashlib.sha256(key).digest()[0]:08b}"[:4]
    groups = []
    for number in range(13):
        digits = [int(bits[20 * number + 5 * place : 20 * number + 5 * place + 5], 2) for place in range(4)]
        check = number
        for place, digit in enumerate(digits):
            if digit:
                check ^= powers[(logarithm[digit] + place + 1) % 31]
        groups.append("".join(alphabet[digit] for digit in [*digits, check]))
    return "DMR1-" + "-".join(groups)
