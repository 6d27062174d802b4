"""A user's secret comes out by the passphrase and by a token's secret, and by nothing else."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.crypto.canonical import canonical_json
from dualmem_mcp.crypto.kdf import KdfLimits, Pbkdf2
from dualmem_mcp.crypto.user_keys import (
    TOKEN_WRAP_BYTES,
    make_user_file,
    open_user_file,
    unwrap_for_token,
    user_made_at,
    wrap_for_token,
)
from dualmem_mcp.errors import LockedError, TamperedError
from dualmem_mcp.model.grant import UserId

ANA = UserId("ana")
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUICK = Pbkdf2(rounds=10)
QUICK_TOO = KdfLimits(min_rounds=10)
keys = st.binary(min_size=32, max_size=32)


@given(secret=keys, token=keys, other=keys)
def test_a_token_opens_what_was_wrapped_for_it_alone(secret: bytes, token: bytes, other: bytes) -> None:
    wrapped = wrap_for_token(secret, token)
    assert len(wrapped) == TOKEN_WRAP_BYTES
    assert secret not in wrapped
    assert token not in wrapped
    assert unwrap_for_token(wrapped, token) == secret
    if other != token:
        with pytest.raises(LockedError):
            unwrap_for_token(wrapped, other)


@given(st.integers(0, TOKEN_WRAP_BYTES * 8 - 1))
def test_every_bit_of_a_tokens_wrap_counts(bit: int) -> None:
    token = bytes(range(32))
    changed = bytearray(wrap_for_token(bytes(32), token))
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((LockedError, TamperedError)):
        unwrap_for_token(bytes(changed), token)


def test_a_host_that_keeps_its_key_itself_has_nothing_to_wrap() -> None:
    assert wrap_for_token(b"", bytes(32)) == b""
    assert unwrap_for_token(b"", bytes(32)) == b""


def test_lengths_are_checked() -> None:
    with pytest.raises(ValueError, match="32"):
        wrap_for_token(bytes(16), bytes(32))
    with pytest.raises(ValueError, match="32"):
        wrap_for_token(bytes(32), bytes(31))
    with pytest.raises(ValueError, match="32"):
        make_user_file(b"", "long enough", user=ANA, created_at=AT)
    with pytest.raises(TamperedError):
        unwrap_for_token(bytes(79), bytes(32))


def test_the_passphrase_opens_the_users_own_file() -> None:
    secret = os.urandom(32)
    data = make_user_file(secret, "cafe\u0301 au lait", user=ANA, created_at=AT, kdf=QUICK)
    assert secret not in data
    assert secret.hex().encode() not in data
    assert open_user_file(data, "caf\u00e9 au lait", user=ANA, limits=QUICK_TOO) == secret
    assert user_made_at(data, user=ANA) == AT
    with pytest.raises(LockedError):
        open_user_file(data, "cafe au lait", user=ANA, limits=QUICK_TOO)


def test_another_users_file_opens_nothing() -> None:
    data = make_user_file(os.urandom(32), "the same words", user=ANA, created_at=AT, kdf=QUICK)
    with pytest.raises(LockedError):
        open_user_file(data, "the same words", user=UserId("ben"), limits=QUICK_TOO)


def test_two_files_of_one_secret_share_nothing() -> None:
    first, second = (
        json.loads(make_user_file(bytes(32), "the same words", user=ANA, created_at=AT, kdf=QUICK)) for _ in "12"
    )
    assert first["kdf"]["salt"] != second["kdf"]["salt"]
    assert first["wrapped"] != second["wrapped"]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"created_at": "yesterday"},
        {"kdf": {"name": "pbkdf2-hmac-sha256", "rounds": 10, "salt": "00" * 32}},
        {"kdf": {"name": "pbkdf2-hmac-sha256", "rounds": 10**12, "salt": "00" * 32}},
        {"kdf": {"name": "md5", "salt": "00" * 32}},
        {"kdf": "fast"},
        {"wrapped": "00" * 47},
        {"commitment": None},
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_refused(change: dict[str, object]) -> None:
    values = json.loads(make_user_file(bytes(32), "the words", user=ANA, created_at=AT, kdf=QUICK))
    with pytest.raises(TamperedError, match=r"user\.json|newer version"):
        open_user_file(canonical_json({**values, **change}), "the words", user=ANA)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": 1}', b"\xff" * 70_000])
def test_bytes_that_are_no_such_file_are_refused(data: bytes) -> None:
    with pytest.raises(TamperedError, match=r"user\.json"):
        open_user_file(data, "the words", user=ANA)
    with pytest.raises(TamperedError, match=r"user\.json"):
        user_made_at(data, user=ANA)


# As docs/format.md has it, from the formulas alone


def expand(key: bytes, info: bytes) -> bytes:
    return hmac.digest(key, info + b"\1", "sha256")


def opened_by_hand(wrapped: bytes, commitment: bytes, secret: bytes, context: bytes) -> bytes:
    assert commitment == hmac.digest(expand(secret, b"dualmem/1/wrap/commitment"), context, "sha256")
    return AESGCM(expand(secret, b"dualmem/1/wrap/key")).decrypt(bytes(12), wrapped, context)


def test_a_tokens_wrap_is_as_the_format_says() -> None:
    secret, token = os.urandom(32), os.urandom(32)
    wrapped = wrap_for_token(secret, token)
    own = expand(token, b"dualmem/1/user/token")
    assert opened_by_hand(wrapped[:48], wrapped[48:], own, b"dualmem/1/user/token") == secret


def test_a_users_file_is_as_the_format_says() -> None:
    secret = os.urandom(32)
    fields = json.loads(make_user_file(secret, "five words", user=ANA, created_at=AT, kdf=QUICK))
    assert fields["kdf"].items() >= {"name": "pbkdf2-hmac-sha256", "rounds": 10}.items()
    own = hashlib.pbkdf2_hmac("sha256", b"five words", bytes.fromhex(fields["kdf"]["salt"]), 10)
    wrapped, commitment = (bytes.fromhex(fields[name]) for name in ("wrapped", "commitment"))
    assert opened_by_hand(wrapped, commitment, own, b"dualmem/1/user/passphrase\0ana") == secret
    assert set(fields) == {"format", "user", "created_at", "kdf", "wrapped", "commitment"}
