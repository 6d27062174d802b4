"""Vaults made, joined at once, opened offline; what a bucket that lies is told."""

from __future__ import annotations

from dualmem_mcp.crypto.keys import load_device
from dualmem_mcp.crypto.vault import open_vault
from tests.crypto.conftest import MemoryBlobCache


def test_smoke(bench):
    v, rk = bench.create()
    c2 = MemoryBlobCache()
    w = bench.join(c2)
    assert [d.name for d in w.devices()] == ["desk", "phone"]
    x = bench.join(secret=rk)
    key, objs = v.create_conversation_key("abc")
    for k, d in objs:
        bench.objects.put(k, d, if_absent=True)
    assert x.conversation_key(key.key_id) == key
    d, k = load_device(c2)
    y = open_vault(c2, device_id=d, device_keys=k)
    assert y.device_name == "phone"
