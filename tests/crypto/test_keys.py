"""A device's keys: kept in the cache, never shown."""

from __future__ import annotations

import pytest

from dualmem_mcp.crypto.keys import (
    ConversationKey,
    DeviceKeys,
    derive_database_key,
    derive_index_key,
    load_device,
)
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.model.ids import ConversationId
from tests.crypto.conftest import MemoryBlobCache
from tests.crypto.spec import hkdf


def test_bytes_and_back():
    keys = DeviceKeys.generate()
    again = DeviceKeys.from_bytes(keys.to_bytes())
    assert again.to_bytes() == keys.to_bytes()
    assert (again.x25519_public, again.ed25519_public) == (keys.x25519_public, keys.ed25519_public)
    assert len(keys.to_bytes()) == 64
    assert keys.to_bytes() != DeviceKeys.generate().to_bytes()


@pytest.mark.parametrize("length", [0, 32, 63, 65])
def test_keys_of_the_wrong_length(length):
    with pytest.raises(TamperedError):
        DeviceKeys.from_bytes(bytes(length))


def test_the_second_half_is_the_signing_key():
    # Source: RFC 8032, section 7.1, test 1.
    private = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    keys = DeviceKeys.from_bytes(bytes(32) + private)
    assert keys.ed25519_public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def test_the_device_is_made_once():
    cache = MemoryBlobCache()
    device_id, keys = load_device(cache)
    again_id, again = load_device(cache)
    assert (again_id, again.to_bytes()) == (device_id, keys.to_bytes())
    assert load_device(MemoryBlobCache())[0] != device_id
    assert len(device_id) == 32


def test_nothing_is_shown():
    keys = DeviceKeys.generate()
    assert repr(keys) == "DeviceKeys()"
    key = ConversationKey("00" * 16, ConversationId("c"), 1, b"secret" * 5)
    assert "secret" not in repr(key)


def test_the_database_key_is_not_the_secret():
    secret = bytes(range(32))
    assert derive_database_key(secret) == hkdf(secret, b"", b"dualmem/1/device/database")
    assert derive_database_key(secret) != secret
    assert derive_index_key(secret) == hkdf(secret, b"", b"dualmem/1/device/index")
