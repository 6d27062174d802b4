"""Keeping the indexes of one data home up to date: all of it, what is new, or what a search cannot wait for."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from dualmem_mcp.durable_files import file_lock_if_free
from dualmem_mcp.edge.model import QueryModel
from dualmem_mcp.errors import ConflictError, DualmemError, NotFoundError, StoreUnreachableError, TamperedError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.handoff.kept import KeptConversations
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.search import Collection
from dualmem_mcp.ports import Clock, Progress, SearchIndex, no_progress
from dualmem_mcp.search.filling import ShouldStop, never
from dualmem_mcp.search.indexing import Indexer, IndexReport
from dualmem_mcp.search.lag import is_behind
from dualmem_mcp.search.turns_file import import_turns
from dualmem_mcp.settings import Settings
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.search_feed import SearchFeed
from dualmem_mcp.stores.search_index.index_file import FILE_NAME as INDEX_FILE
from dualmem_mcp.stores.source_progress import SourceProgress
from dualmem_mcp.transcripts.carried import parse_session
from dualmem_mcp.transcripts.local_sessions import LocalSessions, scope_of_project

_CATCH_UP_SECONDS: Final = 2.0
"""A search from the command line brings the indexes up to date first, for no longer than this."""

_ALONE_SECONDS: Final = 600.0

_FILL_SECONDS: Final = 0.5
"""So long a search waits at most for what the memory got since the last look, and for whoever indexes meanwhile."""

_INCOMPLETE: Final = "the index is being made or brought up to date: more may be found in a moment"

Indexes = Callable[[list[str] | None], Mapping[Collection, SearchIndex]]
"""Opens the indexes; why one cannot be opened is added to the list, or raised if there is none."""


class Upkeep:
    """Indexing of one data home. Safe for use from several threads, beside other processes on the same data home.

    `behind` says why what is new could not be indexed the last time; empty if it could.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        vector_cache: Path,
        database: Database,
        indexes: Indexes,
        model: QueryModel,
        device_id: DeviceId,
        channel: Callable[[], Channel | None],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._vector_cache = vector_cache
        self._indexes = indexes
        self._model = model
        self._device_id = device_id
        self._channel = channel
        self._database = database
        self._clock = clock
        self._truth = SearchFeed(database, self._device_names)
        self._own_sessions: LocalSessions | None = None
        self._wanted = threading.Event()
        self._waiting: int | None = None
        self._filled_as: object = None
        self._empty: set[Collection] = set()
        memory = database.path
        self._files = (
            memory,
            memory.with_name(memory.name + "-wal"),
            *(vector_cache / collection.value / INDEX_FILE for collection in Collection),
        )
        self.behind = ""

    def index(
        self, *, project: str | None = None, claude_dir: Path | None = None, progress: Progress = no_progress
    ) -> dict[str, Any]:
        """Index all that is new; the contract's *index* fields, and `warnings`.

        Raises ConflictError if another process is at it for more than ten minutes, StoreUnreachableError,
        DiskFullError.
        """
        sessions = self._sessions(project, claude_dir)
        report = self._indexer().run_alone(
            wait_seconds=_ALONE_SECONDS,
            files=sessions,
            carried=self._carried(),
            embedder=self._model.loaded(),
            progress=progress,
        )
        self._waiting = report.waiting
        if not sessions.paths():
            report.warnings.append(sessions.none_found())
        return self._told(report)

    def import_turns(self, path: Path, progress: Progress = no_progress) -> dict[str, Any]:
        """Keep the turns of a file and index them: turns, skipped, conversations, warnings.

        Raises NotFoundError, MalformedError if no line is a turn, StoreUnreachableError, DiskFullError.
        """
        kept = import_turns(path, self._log(), progress=progress)
        report = self._indexer().run_alone(
            wait_seconds=_ALONE_SECONDS, embedder=self._model.loaded(), progress=progress
        )
        self._waiting = report.waiting
        told = self._told(report)["warnings"]
        return {
            "turns": kept.turns,
            "skipped": kept.skipped,
            "conversations": kept.conversations,
            "warnings": [*kept.warnings, *told],
        }

    def catch_up(self, *, should_stop: ShouldStop = never, embed: bool = True) -> bool:
        """Index what is new now, unless another process is at it; whether there was anything to do.

        Raises StoreUnreachableError, DiskFullError; until it succeeds again, searches say so.
        """
        try:
            report = self._caught_up(lambda: self._wanted.is_set() or should_stop(), embed=embed)
        except DualmemError as error:
            self.behind = f"what is new is not indexed yet: {error.message}"
            raise
        self.behind = ""
        self._waiting = report.waiting
        return bool(report.items_indexed or report.embedded)

    def _caught_up(self, should_stop: ShouldStop, *, embed: bool) -> IndexReport:
        if self._own_sessions is None:
            self._own_sessions = self._sessions(None, None)
        run = partial(
            self._indexer().run, files=self._own_sessions, carried=self._carried(), should_stop=should_stop
        )
        try:
            return run(embedder=self._model.embedder if embed else None)
        except (NotFoundError, TamperedError, StoreUnreachableError):
            if not embed or self._model.loaded() is not None:
                raise
            return run()  # the model does not load: by words alone, then

    def catch_up_quickly(self) -> list[str]:
        """Index what is new as far as that is quick; a warning if it was not quick enough."""
        deadline = threading.Event()
        timer = threading.Timer(_CATCH_UP_SECONDS, deadline.set)
        timer.daemon = True
        timer.start()
        try:
            self.catch_up(should_stop=deadline.is_set)
        except DualmemError:
            return []  # the search says so
        finally:
            timer.cancel()
        return ["not all that is new is indexed yet; `dualmem index` does that"] if deadline.is_set() else []

    def _indexer(self) -> Indexer:
        return Indexer(
            log=self._log(),
            truth=self._truth,
            indexes=self._indexes(None),
            lock=partial(file_lock_if_free, self._vector_cache / ".indexing.lock"),
        )

    def _log(self) -> SourceProgress:
        """What was read, kept under this device's name: it may have got one, or another, since the last time."""
        channel = self._channel()
        own = channel.vault.device_name if channel else self._settings.device_name
        return SourceProgress(self._database, self._clock, own or platform.node())

    def _device_names(self) -> Mapping[str, str]:
        """What the vault's devices are called, by their ids."""
        channel = self._channel()
        return {entry.device_id: entry.name for entry in channel.vault.devices()} if channel else {}

    def _sessions(self, project: str | None, claude_dir: Path | None) -> LocalSessions:
        settings = self._settings
        scope = scope_of_project(settings.index, project) if project else settings.index
        current = settings.claude_project_dir or str(Path.cwd())
        return LocalSessions(claude_dir or settings.claude_dir, scope, current)

    def _carried(self) -> KeptConversations | None:
        channel = self._channel()
        return None if channel is None else KeptConversations(channel, self._device_id, parse_session)

    def _told(self, report: IndexReport) -> dict[str, Any]:
        fields = report.fields()
        if self._model.missing:
            fields["warnings"] = [*fields["warnings"], self._model.missing]
        return fields

    def fill_quickly(self) -> list[str]:
        """Put into the indexes what the memory got meanwhile, so that it is found by words at once; a warning if
        more is lacking than that is quick for, as from an index that was begun anew."""
        looks = self._looks()
        if looks == self._filled_as:
            return []
        try:
            indexes = self._indexes([])
            if is_behind(self._truth, indexes):
                deadline = time.monotonic() + _FILL_SECONDS
                self._wanted.set()  # whoever embeds here lets go of the lock at its next batch
                report = self._indexer().run_alone(
                    wait_seconds=_FILL_SECONDS, should_stop=lambda: time.monotonic() > deadline
                )
                self._waiting = report.waiting
                if is_behind(self._truth, indexes):
                    return [_INCOMPLETE]
            else:
                self._empty = {name for name, index in indexes.items() if not index.counts().items}
                self._filled_as = looks
        except (ConflictError, StoreUnreachableError):
            return [_INCOMPLETE]  # another process is at it, or the search meets the same fault and tells of it
        finally:
            self._wanted.clear()
        return []

    def worth_asking(self, indexes: Mapping[Collection, SearchIndex]) -> Mapping[Collection, SearchIndex]:
        """The indexes without those that were empty when `fill_quickly` last found that nothing was lacking: as
        nothing was written since, they still are, and asking them takes a tenth of a search."""
        return {name: index for name, index in indexes.items() if name not in self._empty}

    def lost_meanwhile(self) -> list[str]:
        """A warning if an index was made anew during a search, which then found less than there is."""
        if self._looks() == self._filled_as:
            return []
        try:
            return [_INCOMPLETE] if is_behind(self._truth, self._indexes([])) else []
        except StoreUnreachableError:
            return []  # the search has met it and told of it

    def is_behind(self) -> bool:
        """Whether the indexes lack something that the memory has, or cannot be looked at."""
        try:
            return is_behind(self._truth, self._indexes(None))
        except StoreUnreachableError:
            return True

    def _looks(self) -> tuple[tuple[int, int, int] | None, ...]:
        """How the files of memory and indexes look from outside: as long as that stays, nothing was written."""
        return tuple(map(_look, self._files))

    def waiting(self) -> int:
        """How many items had no vectors the last time that something was indexed here."""
        if self._waiting is None:
            try:
                counts = [index.counts() for index in self._indexes([]).values()]
            except StoreUnreachableError:
                return 0  # which the search itself has met and told of
            self._waiting = sum(count.items - count.embedded for count in counts)
        return self._waiting


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)
