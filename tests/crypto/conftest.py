"""An object store and a blob cache in memory: real implementations of the ports, without files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest

from dualmem_mcp.crypto.kdf import KdfLimits, Pbkdf2
from dualmem_mcp.crypto.keys import load_device
from dualmem_mcp.crypto.membership import create_vault, join_vault
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.errors import ConflictError, NotFoundError, StoreUnreachableError
from dualmem_mcp.ports import ObjectInfo

PASSPHRASE = "correct horse battery staple"

# A thousand rounds keep the suite fast; that files cannot ask for so few is tested on its own.
FAST_KDF = Pbkdf2(rounds=1_000)
FAST_LIMITS = KdfLimits(min_rounds=1_000)


class MemoryObjectStore:
    """The port ObjectStore over a dict; `away` makes every call fail as an unreachable bucket does."""

    location = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False
        self.reads: list[tuple[str, int, int | None]] = []
        self.before_put: Callable[[str], None] | None = None
        self.clock: datetime | None = None

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._reach()
        self.reads.append((key, start, length))
        data = self._find(key)
        return data[start:] if length is None else data[start : start + length]

    def stat(self, key: str) -> ObjectInfo:
        self._reach()
        data = self._find(key)
        return ObjectInfo(key, len(data), _tag(data))

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        self._reach()
        if self.before_put:
            self.before_put(key)
        if if_absent and key in self.objects:
            raise ConflictError("exists", subject=key)
        if if_match is not None and (key not in self.objects or _tag(self.objects[key]) != if_match):
            raise ConflictError("changed", subject=key)
        self.objects[key] = bytes(data)
        return _tag(data)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        self._reach()
        for key in sorted(self.objects, key=str.encode):
            if key.startswith(prefix) and key > start_after:
                yield ObjectInfo(key, len(self.objects[key]), _tag(self.objects[key]))

    def delete(self, key: str) -> None:
        self._reach()
        self.objects.pop(key, None)

    def server_time(self) -> datetime | None:
        return self.clock

    def _find(self, key: str) -> bytes:
        if key not in self.objects:
            raise NotFoundError("no such object", subject=key)
        return self.objects[key]

    def _reach(self) -> None:
        if self.away:
            raise StoreUnreachableError("the bucket is away")


class MemoryBlobCache:
    """The port BlobCache over a dict."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.blobs.get(key)

    def put(self, key: str, data: bytes) -> None:
        self.blobs[key] = bytes(data)

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(key for key in self.blobs if key.startswith(prefix))


@dataclass
class Bench:
    """A bucket, a clock, and the devices that tests make over them."""

    objects: MemoryObjectStore
    clock: object

    def create(self, cache: MemoryBlobCache | None = None, name: str = "desk") -> tuple[Vault, str]:
        cache = cache if cache is not None else MemoryBlobCache()
        device_id, keys = load_device(cache)
        return create_vault(
            self.objects,
            cache,
            passphrase=PASSPHRASE,
            device_id=device_id,
            device_name=name,
            device_keys=keys,
            clock=self.clock,
            kdf=FAST_KDF,
        )

    def join(self, cache: MemoryBlobCache | None = None, name: str = "phone", secret: str = PASSPHRASE) -> Vault:
        cache = cache if cache is not None else MemoryBlobCache()
        device_id, keys = load_device(cache)
        return join_vault(
            self.objects,
            cache,
            secret=secret,
            device_id=device_id,
            device_name=name,
            device_keys=keys,
            clock=self.clock,
            limits=FAST_LIMITS,
        )


@pytest.fixture
def bench(clock) -> Bench:
    """An empty bucket in memory."""
    return Bench(MemoryObjectStore(), clock)


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
