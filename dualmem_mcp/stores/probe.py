"""Whether a store keeps conditional writes, found out by trying."""

from __future__ import annotations

import secrets

from dualmem_mcp.errors import ConflictError, StoreRefusedError
from dualmem_mcp.ports import ObjectStore


def check_conditional_writes(store: ObjectStore) -> None:
    """Return if the store refuses to write over an object with `if_absent`, and over a changed one with `if_match`.

    Devices agree through these two alone; a store that ignores them loses one device's writes to another's
    without a word. Writes a few objects of some bytes under a random key below `probe/` and removes it.
    Raises StoreRefusedError if the store ignores either, or does not give back what was written.
    """
    key = f"probe/{secrets.token_hex(16)}"
    first, second, third = (secrets.token_bytes(32) for _ in range(3))
    first_tag = store.put(key, first, if_absent=True)
    try:
        if _writes(store, key, second, if_absent=True) or store.get(key) != first:
            raise _ignores(store, "If-None-Match")
        if not _writes(store, key, second, if_match=first_tag):
            raise _refused(store, "refuses a write over the very version that it holds")
        if _writes(store, key, third, if_match=first_tag) or store.get(key) != second:
            raise _ignores(store, "If-Match")
        # MinIO once wrote here. Source: https://github.com/minio/minio/issues/21526
        store.delete(key)
        if _writes(store, key, third, if_match=first_tag):
            raise _ignores(store, "If-Match on a missing object")
    finally:
        store.delete(key)


def _writes(
    store: ObjectStore, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
) -> bool:
    try:
        store.put(key, data, if_absent=if_absent, if_match=if_match)
    except ConflictError:
        return False
    return True


def _ignores(store: ObjectStore, condition: str) -> StoreRefusedError:
    return _refused(store, f"ignores the condition {condition} and writes over what is there")


def _refused(store: ObjectStore, fault: str) -> StoreRefusedError:
    return StoreRefusedError(
        f"{store.location} {fault}",
        operation="probe bucket",
        subject=store.location,
        hint="Two devices that write at once would lose data there. Use a server with conditional writes "
        "(AWS S3, Ceph, MinIO, Cloudflare R2), or a folder.",
    )
