"""Derivations against published vectors; parameters from a bucket only within bounds."""

from __future__ import annotations

import tracemalloc

import pytest

from dualmem_mcp.crypto.kdf import (
    Argon2id,
    KdfLimits,
    Pbkdf2,
    expand,
    extract_and_expand,
    kdf_from_json,
    passphrase_bytes,
)
from dualmem_mcp.errors import TamperedError


def test_pbkdf2_vector():
    # Source: RFC 7914, section 11, first 32 bytes.
    assert Pbkdf2(rounds=1).derive("passwd", b"salt").hex().startswith("55ac046e56e3089fec1691c22544b605")


def test_hkdf_vector():
    # Source: RFC 5869, appendix A.1, first 32 bytes of the output.
    info = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")
    pseudorandom_key = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    assert expand(pseudorandom_key, info).hex() == expected
    assert extract_and_expand(bytes([0x0B]) * 22, salt=bytes(range(13)), info=info).hex() == expected


def test_argon2id_depends_on_everything():
    small = Argon2id(iterations=1, lanes=1, memory_kib=64)
    outputs = {
        small.derive("a passphrase", bytes(32)),
        small.derive("a passphrasf", bytes(32)),
        small.derive("a passphrase", bytes([1]) * 32),
        Argon2id(iterations=2, lanes=1, memory_kib=64).derive("a passphrase", bytes(32)),
        Argon2id(iterations=1, lanes=2, memory_kib=64).derive("a passphrase", bytes(32)),
        Argon2id(iterations=1, lanes=1, memory_kib=128).derive("a passphrase", bytes(32)),
    }
    assert len(outputs) == 6
    assert {len(output) for output in outputs} == {32}


def test_a_passphrase_is_the_same_from_every_keyboard():
    assert passphrase_bytes("caf\u00e9") == passphrase_bytes("cafe\u0301") == "café".encode()


@pytest.mark.parametrize("kdf", [Pbkdf2(), Argon2id(), Pbkdf2(rounds=1_200_000)])
def test_what_is_written_is_read(kdf):
    assert kdf_from_json({**kdf.to_json(), "salt": "00"}, KdfLimits()) == kdf


PBKDF2 = "pbkdf2-hmac-sha256"
HOSTILE = [
    {"name": PBKDF2, "rounds": 1},
    {"name": PBKDF2, "rounds": 599_999},
    {"name": PBKDF2, "rounds": 10_000_001},
    {"name": PBKDF2, "rounds": 2**63},
    {"name": PBKDF2, "rounds": -600_000},
    {"name": PBKDF2, "rounds": 0},
    {"name": PBKDF2, "rounds": True},
    {"name": PBKDF2, "rounds": 600_000.0},
    {"name": PBKDF2, "rounds": "600000"},
    {"name": PBKDF2, "rounds": None},
    {"name": PBKDF2},
    {"name": "argon2id", "iterations": 3, "lanes": 4, "memory_kib": 8},
    {"name": "argon2id", "iterations": 1, "lanes": 4, "memory_kib": 65_536},
    {"name": "argon2id", "iterations": 3, "lanes": 4, "memory_kib": 2**32 - 1},
    {"name": "argon2id", "iterations": 2**31, "lanes": 4, "memory_kib": 65_536},
    {"name": "argon2id", "iterations": 3, "lanes": 2**24, "memory_kib": 65_536},
    {"name": "argon2id", "iterations": 3, "lanes": 0, "memory_kib": 65_536},
    {"name": "argon2id", "iterations": 3, "memory_kib": 65_536},
    {"name": "scrypt", "n": 2},
    {"name": "hkdf-sha256"},
    {"name": ["pbkdf2-hmac-sha256"], "rounds": 600_000},
    {},
]


@pytest.mark.parametrize("fields", HOSTILE, ids=str)
def test_hostile_parameters_are_refused_before_any_work(fields, monkeypatch):
    def never(*_: object) -> bytes:
        raise AssertionError("derived")

    for kdf in (Pbkdf2, Argon2id):
        monkeypatch.setattr(kdf, "derive", never)
    tracemalloc.start()
    try:
        with pytest.raises(TamperedError) as caught:
            kdf_from_json(fields, KdfLimits())
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.hint


def test_the_default_is_what_owasp_asks_for():
    assert Pbkdf2().rounds == 600_000
