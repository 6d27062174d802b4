"""What the edge does for a handoff while this process makes it: preload set and vectors in the service."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar

from dualmem_mcp.edge.interface import EdgeInterface
from dualmem_mcp.edge.tier_results import nothing_placed
from dualmem_mcp.errors import DualmemError
from dualmem_mcp.handoff.beside import Placed, Preloaded
from dualmem_mcp.handoff.preload import (
    SIMILARITY,
    PreloadEntry,
    PreloadSet,
    preload_from_bytes,
    preload_to_bytes,
    shortened,
)
from dualmem_mcp.handoff.reconstruct import OpenedPackage
from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.device import DeviceProfile
from dualmem_mcp.model.digest import Digest
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.search import SearchItem, key_digest

PRELOAD_SECONDS: Final = 0.5
"""So long after it was begun the preload set is waited for. Source: half of the time in which a handoff is to be
done, most of which the rest of it takes meanwhile."""

PLACING_SECONDS: Final = 0.3
"""So long vectors are placed while a handoff is made, and waited for; the next sync places the rest."""

ALONE_SECONDS: Final = 10.0
"""The same for both in a process that ends with the handoff, as of a command: what it has begun it ends, and to
import numpy and the client of a service takes most of two seconds."""

_GRACE_SECONDS: Final = 0.05
"""Between the end of the time for placing and the answer."""

T = TypeVar("T")


class _Begun(Generic[T]):
    """Work in a thread of its own, from now on. Raises of it come with the result."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._began = time.monotonic()
        self._ended = self._began
        self._future: Future[T] = Future()
        # A daemon: what hangs must not keep the process.
        threading.Thread(target=self._run, args=(work,), name="beside handoff", daemon=True).start()

    @property
    def duration_ms(self) -> float:
        """How long it took, or takes already."""
        return ((self._ended if self._future.done() else time.monotonic()) - self._began) * 1000

    def result(self, seconds: float) -> T | None:
        """What came of it, waited for until so many seconds after it was begun; None if it has not ended by then.

        Raises DualmemError, and for a fault of this program one, too."""
        try:
            return self._future.result(max(0.0, self._began + seconds - time.monotonic()))
        except TimeoutError:
            return None

    def _run(self, work: Callable[[], T]) -> None:
        try:
            done = work()
        except DualmemError as error:
            self._ended = time.monotonic()
            self._future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - a handoff does not fail by what is beside it
            self._ended = time.monotonic()
            self._future.set_exception(DualmemError(f"a fault of this program ({type(error).__name__})"))
        else:
            self._ended = time.monotonic()
            self._future.set_result(done)


def take_along(package: OpenedPackage, profile: DeviceProfile, edge: Callable[[], EdgeInterface]) -> list[str]:
    """Have at hand for searches what the package brings for that, on a device with a small cache; warnings."""
    if not profile.has_small_cache:
        return []
    try:
        preload = package.preload
        if preload.entries:
            section = base64.b64encode(preload_to_bytes(preload)).decode("ascii")
            edge().preload(package.manifest.conversation_id, section)
    except DualmemError as error:  # what was taken up stands, and is indexed in a while
        return [f"what the package brings for searches is not at hand: {error.message}"]
    return []


class EdgeBesideHandoff:
    """A BesideHandoff for one conversation. Placing begins at once, if `placing`.

    `waits` says that what was begun has to end with the handoff: where it is done in this process, by a command.
    """

    def __init__(
        self,
        edge: Callable[[], EdgeInterface],
        conversation_id: ConversationId,
        *,
        target: DeviceProfile,
        device_name: str,
        placing: bool,
        waits: bool,
    ) -> None:
        self._find_edge = edge
        self._finding = threading.Lock()
        self._items: list[SearchItem] = []
        self._conversation_id = conversation_id
        self._target = target
        self._device_name = device_name
        self._preload: _Begun[Preloaded] | None = None
        self._placing: _Begun[Mapping[str, Any]] | None = None
        self._preload_seconds = ALONE_SECONDS if waits else PRELOAD_SECONDS
        self._seconds = ALONE_SECONDS if waits else PLACING_SECONDS
        if placing:
            self._placing = _Begun(lambda: self._edge().place(conversation_id, max_seconds=self._seconds))

    def begin_preload(self, session: Session, digest: Digest) -> None:
        """As the port says."""
        if not self._target.has_small_cache:
            return
        # Imported here: they bring the detectors of secrets.
        from dualmem_mcp.search.present import present_items  # noqa: PLC0415

        limit = self._target.cached_vectors
        self._items = present_items(session, digest, device=self._device_name, limit=limit)
        self._preload = _Begun(lambda: self._find(limit))

    def preloaded(self) -> Preloaded | None:
        """As the port says."""
        begun = self._preload
        if begun is None:
            return None
        try:
            found = begun.result(self._preload_seconds)
        except DualmemError as error:
            found = self._own_alone(error.message)
        if found is None:
            found = self._own_alone("what is indexed of it was not found in time")
        return replace(found, duration_ms=begun.duration_ms)

    def placed(self) -> Placed | None:
        """As the port says."""
        begun = self._placing
        if begun is None:
            return None
        try:
            done = begun.result(self._seconds + _GRACE_SECONDS)
        except DualmemError as error:
            done = nothing_placed(f"not placed in the search service: {error.message}")
        if done is None:
            done = nothing_placed("vectors are still being placed in the search service; the next sync sees to it")
        warnings = [*done["warnings"]]
        if done["waiting"] and not warnings:
            warnings.append(
                f"{done['waiting']} of its items are not in the search service yet; the next sync sees to it"
            )
        return Placed(
            bytes=done["bytes"],
            duration_ms=begun.duration_ms,
            ok=done["ok"],
            usd_month=done["usd_month"],
            warnings=warnings,
        )

    def _edge(self) -> EdgeInterface:
        with self._finding:  # two threads may be the first that want it
            return self._find_edge()

    def _find(self, limit: int) -> Preloaded:
        from dualmem_mcp.search.passages import passages  # noqa: PLC0415
        from dualmem_mcp.search.present import is_quoted  # noqa: PLC0415

        items = self._items
        own = [
            {
                "key": item.key,
                "contents": key_digest(item.text),
                # A turn is embedded with what was said before it.
                "text": "" if item.kind == "turn" else passages(item, None)[0],
                "is_seed": not is_quoted(item),
            }
            for item in items
        ]
        keys = {item.key for item in items}
        found = self._edge().preload_for(self._conversation_id, own=own, limit=limit, threshold=SIMILARITY)
        if not found["section"]:
            return self._own_alone(found["problem"])
        preload = preload_from_bytes(base64.b64decode(found["section"]), self._conversation_id)
        vectors = {entry.key: entry.vector for entry in preload.entries if entry.key in keys}
        entries = [
            *(PreloadEntry(item.key, 1.0, shortened(item), vectors.get(item.key, b"")) for item in items),
            *(entry for entry in preload.entries if entry.key not in keys),
        ]
        data = preload_to_bytes(PreloadSet(preload.model_id, preload.dimensions, entries))
        return Preloaded(data, problems=(found["problem"],) if found["problem"] else ())

    def _own_alone(self, problem: str) -> Preloaded:
        """What the conversation is at, without vectors: it is found by words."""
        entries = [PreloadEntry(item.key, 1.0, shortened(item)) for item in self._items]
        return Preloaded(preload_to_bytes(PreloadSet(entries=entries)), problems=(problem,) if problem else ())
