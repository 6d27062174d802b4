"""The connection to the search service: opened when first needed, one client kept, each collection checked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from dualmem_mcp.errors import NotFoundError, StoreRefusedError, UsageError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.model.tiers import Cluster, TierName
from dualmem_mcp.ports.tiers import VectorTier

if TYPE_CHECKING:
    from dualmem_mcp.crypto.vectors import VectorKeys

SERVICE_TIERS: Final[tuple[TierName, ...]] = ("critical", "context", "historical")
"""The tiers that are collections of the service, the warmest first."""

Model = Callable[[], tuple[str, int] | None]
"""Gives the id of the model whose vectors the indexes hold, and their length; None without a model."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Where the service is: a URL, a folder or `:memory:`; None where none is set."""

    url: str | None = None
    api_key: str | None = field(default=None, repr=False)


class Service(Protocol):
    """What hands out tiers: Qdrant, or what stands for it."""

    def collection(self, tier: TierName) -> str:
        """The name of a tier's collection."""
        ...

    def create(
        self, tier: TierName, *, dimensions: int, model_id: str, cluster: Cluster | None = None
    ) -> VectorTier:
        """The tier, with its collection made if there is none. Raises StoreRefusedError, StoreUnreachableError."""
        ...

    def tier(self, tier: TierName, *, dimensions: int, model_id: str) -> VectorTier:
        """The tier in its collection. Raises StoreRefusedError if there is none, or one for other vectors, and
        StoreUnreachableError."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


Connect = Callable[[ServiceSettings], Service]
"""Opens the service at the place that is set. Raises UsageError, StoreUnreachableError."""


class TierService:
    """The tiers of the service, and the keys that protect what goes there. For use from any thread."""

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        model: Model,
        channel: Callable[[], Channel | None],
        connect: Connect,
    ) -> None:
        """`channel` gives the open vault, None without one. Nothing is opened yet."""
        self.settings = settings
        self._model = model
        self._channel = channel
        self._connect = connect
        self._lock = threading.RLock()
        self._service: Service | None = None
        self._opened: dict[tuple[TierName, str, int], VectorTier] = {}
        self._keys: dict[tuple[str, int], VectorKeys] = {}

    @property
    def configured(self) -> bool:
        """Whether a place is set."""
        return bool(self.settings.url)

    def check_configured(self, operation: str) -> None:
        """Raises UsageError if no place is set."""
        if not self.configured:
            raise UsageError(
                "no search service is set",
                operation=operation,
                hint="Set DUALMEM_QDRANT_URL to your Qdrant, then run `dualmem tiers init`.",
            )

    def model(self) -> tuple[str, int]:
        """Id of the model, and length of its vectors. Raises NotFoundError without one."""
        found = self._model()
        if found is None:
            raise NotFoundError(
                "there is no embedding model here, and tiers hold vectors",
                operation="use tiers",
                hint="Run `dualmem model pull`, then `dualmem index`.",
            )
        return found

    def joined(self) -> Channel | None:
        """The open vault, None without one."""
        return self._channel()

    def channel(self) -> Channel:
        """The open vault. Raises NotFoundError if this device belongs to none."""
        found = self._channel()
        if found is None:
            raise NotFoundError(
                "this device belongs to no vault, whose keys protect what goes to a search service",
                operation="use tiers",
                hint="Run `dualmem init`, or `dualmem join` on a further device.",
            )
        return found

    def tier(self, name: TierName) -> VectorTier:
        """A tier, checked when it is first used: its collection is for this model's vectors.

        Raises UsageError if no place is set, NotFoundError without a model, StoreRefusedError if there is no such
        collection or it is for other vectors, StoreUnreachableError.
        """
        model_id, dimensions = self.model()
        opened = self._opened.get((name, model_id, dimensions))
        if opened is None:
            # Not under the lock: three tiers are opened at once, and one that hangs must not hold up the others.
            opened = self._client("open tiers").tier(name, dimensions=dimensions, model_id=model_id)
            with self._lock:
                opened = self._opened.setdefault((name, model_id, dimensions), opened)
        return opened

    def tiers(self) -> Mapping[TierName, VectorTier]:
        """All of them, the warmest first. Raises what `tier` raises."""
        return {name: self.tier(name) for name in SERVICE_TIERS}

    def create(self, cluster: Cluster) -> list[dict[str, object]]:
        """Make the collections that are not there: tier, name and made of each. Raises what `tier` raises."""
        model_id, dimensions = self.model()
        service = self._client("make tiers")
        done: list[dict[str, object]] = []
        for name in SERVICE_TIERS:
            made = False
            try:
                service.tier(name, dimensions=dimensions, model_id=model_id)
            except StoreRefusedError:  # there is none; one that does not fit is refused again
                service.create(name, dimensions=dimensions, model_id=model_id, cluster=cluster)
                made = True
            done.append({"tier": name, "name": service.collection(name), "made": made})
        return done

    def keys(self, epoch: int) -> VectorKeys:
        """The keys of an epoch, kept. Raises NotFoundError without a vault, or if the epoch's key is neither here
        nor in the bucket, and what the bucket raises."""
        vault = self.channel().vault
        known = self._keys.get((vault.vault_id, epoch))
        if known is None:
            from dualmem_mcp.crypto.vectors import VectorKeys  # noqa: PLC0415  (numpy)

            known = VectorKeys(vault.epoch_key(epoch), vault.vault_id, epoch)
            with self._lock:
                known = self._keys.setdefault((vault.vault_id, epoch), known)
        return known

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        with self._lock:
            self._opened.clear()
            if self._service is not None:
                self._service.close()
                self._service = None

    def _client(self, operation: str) -> Service:
        with self._lock:
            self.check_configured(operation)
            if self._service is None:
                self._service = self._connect(self.settings)
            return self._service
