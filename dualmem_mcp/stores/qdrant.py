"""Tiers in Qdrant: a server, a cluster, or its local mode in a folder or in memory.

The client takes 1.5 s and 50 MB to import: import this module where it is used.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from dualmem_mcp.durable_files import file_faults
from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.tiers import Cluster, TierName
from dualmem_mcp.stores.bounded_answers import bounded_answers
from dualmem_mcp.stores.qdrant_collections import TENANT, check_collection, collection_settings
from dualmem_mcp.stores.qdrant_faults import no_collection, qdrant_faults
from dualmem_mcp.stores.qdrant_tier import QdrantTier

MEMORY: Final = ":memory:"

TIMEOUT_SECONDS: Final = 5
"""For one request; who cannot wait as long asks in a thread and goes on without the answer."""

KEPT_SECONDS: Final = 240.0
"""An idle connection is kept so long, httpx's own choice being 5 s: to make another one with TLS takes three ways
to the server and back, and a search waits 200 ms. One that the server has closed meanwhile is made anew."""

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_TAKEN: Final = 409


class QdrantService:
    """One Qdrant and its client, which is kept; hands out tiers. For use from any thread."""

    def __init__(self, client: QdrantClient, *, local: bool, prefix: str = "dualmem-") -> None:
        """Use `open`. `prefix` begins the names of the collections."""
        self.client = client
        self.local = local
        self._prefix = prefix
        self._lock = threading.RLock()

    @classmethod
    def open(
        cls,
        location: str,
        *,
        api_key: str | None = None,
        timeout_seconds: int = TIMEOUT_SECONDS,
        prefix: str = "dualmem-",
    ) -> Self:
        """The service at a URL, in a folder, or in memory (`:memory:`); nothing is asked of a server yet.

        Raises UsageError for a URL with credentials in it, or an API key for a server that is reached without TLS
        over a network, and StoreUnreachableError if the folder cannot be used.
        """
        # At the level INFO they write the URL of every request, at DEBUG the headers.
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if "://" in location:
            _check_url(location, api_key)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that a key goes to loopback without TLS
                client = QdrantClient(
                    url=location,
                    api_key=api_key,
                    timeout=timeout_seconds,
                    check_compatibility=False,
                    headers={"Accept-Encoding": "identity"},
                    event_hooks={"response": [bounded_answers(timeout_seconds)]},
                    limits=_limits(location),
                )
            return cls(client, local=False, prefix=prefix)
        if location == MEMORY:
            return cls(QdrantClient(MEMORY, force_disable_check_same_thread=True), local=True, prefix=prefix)
        with file_faults("make", Path(location)):
            Path(location).mkdir(mode=0o700, parents=True, exist_ok=True)
        with qdrant_faults("open Qdrant", location, local=True):
            client = QdrantClient(path=location, force_disable_check_same_thread=True)
        return cls(client, local=True, prefix=prefix)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self.client.close()

    @contextlib.contextmanager
    def asking(self, operation: str, *, collection: str) -> Iterator[QdrantClient]:
        """The client, with its errors turned into ours; the local mode is used by one thread at a time."""
        with contextlib.ExitStack() as stack:
            if self.local:
                stack.enter_context(self._lock)
                # It tells that it has no indexes, and that it is slow with many points.
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore", UserWarning)
            stack.enter_context(qdrant_faults(operation, collection, local=self.local))
            yield self.client

    def collection(self, tier: TierName) -> str:
        """The name of a tier's collection."""
        return self._prefix + tier

    def create(
        self, tier: TierName, *, dimensions: int, model_id: str, cluster: Cluster | None = None
    ) -> QdrantTier:
        """The tier, with its collection made if there is none yet; one that is there stays as it is.

        Raises what `tier` raises.
        """
        name = self.collection(tier)
        settings = collection_settings(tier, dimensions, model_id, cluster or Cluster())
        with self.asking("make collection", collection=name) as client:
            if not client.collection_exists(name):
                try:
                    client.create_collection(name, **settings)
                except UnexpectedResponse as error:
                    if error.status_code != _TAKEN:  # another device was faster
                        raise
            if not self.local:
                # Idempotent; a collection whose maker was killed before has it now.
                schema = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
                client.create_payload_index(name, TENANT, schema)
        return self.tier(tier, dimensions=dimensions, model_id=model_id)

    def tier(self, tier: TierName, *, dimensions: int, model_id: str) -> QdrantTier:
        """The tier in its collection.

        Raises StoreRefusedError if there is no such collection or it is for other vectors, and
        StoreUnreachableError.
        """
        name = self.collection(tier)
        with self.asking("open collection", collection=name) as client:
            if self.local and not client.collection_exists(name):
                raise no_collection("open collection", name)
            check_collection(client.get_collection(name), name, dimensions, model_id)
        return QdrantTier(partial(self.asking, collection=name), name, tier, dimensions)


def _limits(location: str) -> httpx.Limits | None:
    """How connections are kept; None for the client's own choice, which on loopback is to keep none."""
    if urlsplit(location).hostname in _LOOPBACK:
        return None
    return httpx.Limits(keepalive_expiry=KEPT_SECONDS)


def _check_url(location: str, api_key: str | None) -> None:
    try:
        url = urlsplit(location)
        host, fits = url.hostname or "", url.scheme in {"http", "https"} and url.port != 0
    except ValueError:  # a port that is none, a bracket that is left open
        host, fits = "", False
    if not fits or not host or "@" in url.netloc or url.query or url.fragment:
        raise UsageError(
            "DUALMEM_QDRANT_URL is not of the form https://host or https://host:port",
            operation="open Qdrant",
            hint="An API key is no part of it: set DUALMEM_QDRANT_API_KEY.",
        )
    if api_key and url.scheme == "http" and host not in _LOOPBACK:
        raise UsageError(
            f"the API key would go to {host} without encryption",
            operation="open Qdrant",
            subject=host,
            hint="Use a URL that begins with https://.",
        )
