"""The application: everything opened once from the settings, and what the product does with it.

Opening touches only this device: the data home, its key, its database. The vault and the bucket are opened
when a call needs them, so that memory works without either.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dualmem_mcp.errors import ConflictError, DualmemError, NotFoundError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.model.device import DeviceProfile
from dualmem_mcp.model.ids import ConversationId, parse_conversation_id
from dualmem_mcp.ports import Clock, ObjectStore, Progress, SystemClock, no_progress
from dualmem_mcp.settings import Settings, save_config


def open_app(settings: Settings, *, clock: Clock | None = None) -> App:
    """The application on the settings' data home, made if it is not there.

    Raises LockedError if the database does not open with this device's key, StoreUnreachableError if the
    data home cannot be written, UsageError if a setting does not fit.
    """
    return App(settings, clock or SystemClock())


class App:
    """One data home, open. Safe to call from several threads; `close` it, or use it as a context manager.

    `notices` are sentences for the user about what opening did (a file migrated, a mirror imported).
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        # Imported here, not above: the server answers `initialize` before any of it is needed.
        from dualmem_mcp.stores.blob_cache import DatabaseBlobCache  # noqa: PLC0415
        from dualmem_mcp.stores.conversation_store import ConversationStore  # noqa: PLC0415
        from dualmem_mcp.stores.data_home import open_data_home  # noqa: PLC0415
        from dualmem_mcp.stores.outbox import FileOutbox  # noqa: PLC0415
        from dualmem_mcp.stores.package_cache import FilePackageCache  # noqa: PLC0415

        self.settings = settings
        self.clock = clock
        self._lock = threading.RLock()
        self._home = open_data_home(settings.home, keystore=settings.keystore, clock=clock, mirror=settings.memory_file)
        self.graph = self._home.graph
        self.notices: list[str] = list(self._home.notices)
        self.blobs = DatabaseBlobCache(self._home.database)
        self.catalogue = ConversationStore(self._home.database)
        self.outbox = FileOutbox(self._home)
        self.packages = FilePackageCache(self._home)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Write what is not written yet and let everything go. Calling it again does nothing."""
        self._home.close()
