"""Wraps: the wrong secret is locked, a changed wrap is tampered, and one wrap has one secret."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from dualmem_mcp.crypto.keys import DeviceKeys
from dualmem_mcp.crypto.wraps import Wrap, unwrap_for_device, unwrap_key, wrap_for_device, wrap_key
from dualmem_mcp.errors import LockedError, TamperedError
from tests.crypto import spec

KEY, SECRET, CONTEXT = bytes(range(32)), b"s" * 32, b"context"


def test_round_trip_and_layout():
    wrap = wrap_key(KEY, secret=SECRET, context=CONTEXT)
    assert unwrap_key(wrap, secret=SECRET, context=CONTEXT, subject="x") == KEY
    assert spec.wrap(SECRET, KEY, CONTEXT) == {"wrapped": wrap.wrapped.hex(), "commitment": wrap.commitment.hex()}


@pytest.mark.parametrize(("secret", "context"), [(b"t" * 32, CONTEXT), (SECRET, b"contexu")])
def test_another_secret_or_context_is_locked(secret, context):
    wrap = wrap_key(KEY, secret=SECRET, context=CONTEXT)
    with pytest.raises(LockedError):
        unwrap_key(wrap, secret=secret, context=context, subject="x")


def test_every_changed_byte():
    wrap = wrap_key(KEY, secret=SECRET, context=CONTEXT)
    for field, error in (("wrapped", TamperedError), ("commitment", LockedError)):
        good = getattr(wrap, field)
        for position in range(len(good)):
            changed = bytearray(good)
            changed[position] ^= 1
            with pytest.raises(error):
                unwrap_key(
                    dataclasses.replace(wrap, **{field: bytes(changed)}),
                    secret=SECRET,
                    context=CONTEXT,
                    subject="x",
                )


def test_a_ciphertext_made_for_two_secrets_opens_for_one_at_most():
    """Whatever the ciphertext: the commitment fits one secret, and another gets no oracle of success."""
    one, other = wrap_key(KEY, secret=SECRET, context=CONTEXT), wrap_key(KEY, secret=b"t" * 32, context=CONTEXT)
    mixed = Wrap(one.wrapped, other.commitment)
    with pytest.raises(LockedError):
        unwrap_key(mixed, secret=SECRET, context=CONTEXT, subject="x")
    with pytest.raises(TamperedError):
        unwrap_key(mixed, secret=b"t" * 32, context=CONTEXT, subject="x")


def test_for_a_device():
    keys = DeviceKeys.generate()
    wrap, ephemeral = wrap_for_device(KEY, device=keys.x25519_public, context=CONTEXT)
    again, other_ephemeral = wrap_for_device(KEY, device=keys.x25519_public, context=CONTEXT)
    assert ephemeral != other_ephemeral
    assert wrap.wrapped != again.wrapped

    def unwrap(device: X25519PrivateKey, public: bytes = ephemeral) -> bytes:
        return unwrap_for_device(wrap, ephemeral=public, device=device, context=CONTEXT, subject="x")

    assert unwrap(keys.x25519) == KEY
    with pytest.raises(LockedError):
        unwrap(X25519PrivateKey.generate())
    with pytest.raises(LockedError):
        unwrap(keys.x25519, other_ephemeral)


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)])
def test_low_order_points_are_refused(point):
    """They give a shared secret that everybody knows. Source: RFC 7748, section 6.1."""
    keys = DeviceKeys.generate()
    wrap, _ = wrap_for_device(KEY, device=keys.x25519_public, context=CONTEXT)
    with pytest.raises(TamperedError):
        unwrap_for_device(wrap, ephemeral=point, device=keys.x25519, context=CONTEXT, subject="x")
