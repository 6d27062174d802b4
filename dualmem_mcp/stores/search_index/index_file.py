"""The file of an index: opened when it is needed, made anew when it is damaged, deleted or of another key.

Other processes use the same file. Whoever finds it damaged removes it under a lock, unless another process did so
first; SQLite leaves the log of the new file alone when connections to the removed one are closed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from dualmem_mcp.durable_files import file_faults, file_lock
from dualmem_mcp.errors import (
    DiskFullError,
    DualmemError,
    LockedError,
    StoreRefusedError,
    StoreUnreachableError,
    TamperedError,
)
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.search_index.layout import INDEX

FILE_NAME: Final = "index.db"
_LOCK_NAME: Final = ".index.lock"
_LOG, _SHARED = "-wal", "-shm"
_ATTEMPTS: Final = 20
_PATIENCE_SECONDS: Final = 2.0

S = TypeVar("S")
T = TypeVar("T")


class _ReplacedError(Exception):
    """Another file is there now than the one that was opened."""


_Identity = tuple[int, int]


@dataclass(slots=True)
class _Opened:
    """An open database, which files it is in, and how they looked when it was last known to be whole."""

    database: Database
    identity: _Identity
    log: _Identity | None
    shared: _Identity | None
    shared_bytes: int
    looks: tuple[int, int]


class IndexFile:
    """Transactions on the index in a folder; safe from several threads and beside other processes."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self.path = folder / FILE_NAME
        self._log = _beside(self.path, _LOG)
        self._shared = _beside(self.path, _SHARED)
        self._key = key
        self._lock = threading.Lock()
        self._opened: _Opened | None = None

    def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` makes of one state of the index; called again if the file had to be made anew."""
        return self._run(_reading, work)

    def reading(self, begin: Callable[[Connection], S]) -> AbstractContextManager[Reading[S]]:
        """Several reads of one state of the index, with what `begin` makes of it."""
        return contextlib.closing(Reading(self, begin))

    def write(self, work: Callable[[Connection], T]) -> T:
        """The same in a transaction that alone may write."""
        return self._run(_writing, work)

    def size_bytes(self) -> int:
        """Size on disk, with the write-ahead log."""
        size = 0
        for path in (self.path, self._log):
            with contextlib.suppress(OSError):  # deleted a moment ago
                size += path.stat().st_size
        return size

    def release(self) -> None:
        """Close all connections; the next use opens one again."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.database.close()

    def _run(
        self,
        transaction: Callable[[_Opened], AbstractContextManager[Connection]],
        work: Callable[[Connection], T],
    ) -> T:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for attempt in range(_ATTEMPTS):
            try:
                opened = self._open()
            except (LockedError, TamperedError):
                continue  # what has just been made is not whole: somebody is at it
            except (StoreRefusedError, DiskFullError):
                raise
            except StoreUnreachableError:
                # It may have been deleted again while it was being made; that shows at once, being locked does not.
                if attempt + 1 == _ATTEMPTS or time.monotonic() > deadline:
                    raise
                continue
            with self._mending(opened):
                self._check(opened)
                with transaction(opened) as connection:
                    return work(connection)
        raise StoreUnreachableError(
            f"{self.path} is damaged again each time it is made anew",
            operation="open index",
            subject=str(self.path),
            hint="Check that its disk is healthy, and that no other program writes to it.",
        )

    @contextlib.contextmanager
    def _mending(self, opened: _Opened) -> Iterator[None]:
        """Pass over what was wrong with the file once it is let go or removed; all else is the caller's to see."""
        try:
            yield
        except _ReplacedError:
            self._let_go(opened)
        except (LockedError, TamperedError):
            self._remove(opened)
        except DualmemError as error:
            if self._survives(opened, error):
                raise

    def _survives(self, opened: _Opened, error: DualmemError) -> bool:
        """Whether the index is still the one to be used after that error, which is then the caller's to see."""
        if _identity(self.path) != opened.identity or opened is not self._opened:
            self._let_go(opened)
            return False
        if isinstance(error, StoreUnreachableError):
            # Connections that met with a fault have been closed, and perhaps the log with the last of them.
            self._let_go(opened)
        elif type(error) is DualmemError and _has_damage(opened.database):
            # sqlite-vec reports damage of the pages below it as an error of its own.
            self._remove(opened)
            return False
        return True

    def _open(self) -> _Opened:
        with self._lock:
            if self._opened is None:
                with file_faults("make", self.path.parent):
                    self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with file_lock(self.path.with_name(_LOCK_NAME)):
                    try:
                        database = Database.open(self.path, self._key, INDEX)
                    except (LockedError, TamperedError):
                        _delete(self.path)
                        database = Database.open(self.path, self._key, INDEX)
                    try:
                        self._opened = self._look(database)
                    except StoreUnreachableError:
                        database.close()
                        raise
            return self._opened

    def _look(self, database: Database) -> _Opened:
        with file_faults("look at", self.path):
            status = self.path.stat()
            shared = self._shared.stat()
        return _Opened(
            database=database,
            identity=_identity_of(status),
            log=_identity(self._log),
            shared=_identity_of(shared),
            shared_bytes=shared.st_size,
            looks=(status.st_size, status.st_mtime_ns),
        )

    def _check(self, opened: _Opened) -> None:
        """See, before SQLite touches them, that the files are still those that were opened, and not cut.

        They are only looked at: to close one of them would end the locks that SQLite holds on it for this process.
        Source: https://sqlite.org/howtocorrupt.html, 2.2.
        """
        try:
            status = self.path.stat()
        except OSError:
            raise _ReplacedError from None
        if _identity_of(status) != opened.identity:
            raise _ReplacedError
        self._check_shared_memory(opened)
        looks = (status.st_size, status.st_mtime_ns)
        if looks[0] < opened.looks[0] or _identity(self._log) != opened.log:
            raise _damaged(self.path)
        if looks != opened.looks:
            # Connections that are open would go on answering from their caches.
            opened.database.try_to_open()
            opened.looks = looks

    def _check_shared_memory(self, opened: _Opened) -> None:
        """SQLite maps this file into memory: if it has been cut, reading there ends the process with SIGBUS. Grown
        back, it can be read, if only to close the connections."""
        path = self._shared
        try:
            status = path.stat()
        except OSError:
            raise _damaged(self.path) from None
        if _identity_of(status) != opened.shared:
            raise _damaged(self.path)
        if status.st_size < opened.shared_bytes:
            with file_faults("mend", path):
                os.truncate(path, opened.shared_bytes)
            raise _damaged(self.path)
        opened.shared_bytes = status.st_size

    def _let_go(self, opened: _Opened) -> None:
        with self._lock:
            if self._opened is opened:
                self._opened = None
        opened.database.close()

    def _remove(self, opened: _Opened) -> None:
        self._let_go(opened)
        if _identity(self.path) != opened.identity:
            return  # another process was faster
        with file_lock(self.path.with_name(_LOCK_NAME)):
            if _identity(self.path) == opened.identity:
                _delete(self.path)


class Reading(Generic[S]):
    """Reads in one transaction, which begins with the first of them; for use from one thread at a time.

    If the index is found damaged on the way, the read is done again on the one that is made anew, and so are those
    after it.
    """

    def __init__(self, file: IndexFile, begin: Callable[[Connection], S]) -> None:
        self._file = file
        self._begin = begin
        self._begun: _Begun[S] | None = None

    def read(self, work: Callable[[Connection, S], T]) -> T:
        """What `work` makes of the state and of what `begin` made of it."""
        begun = self._begun
        if begun is not None:
            with self._file._mending(begun.opened), self._ended_by_faults():
                # What was looked at when it began need not be looked at again, but for what could end the process.
                self._file._check_shared_memory(begun.opened)
                return work(begun.connection, begun.state)

        def first(connection: Connection) -> T:
            states[:] = [self._begin(connection)]
            return work(connection, states[0])

        @contextlib.contextmanager
        def kept(opened: _Opened) -> Iterator[Connection]:
            with contextlib.ExitStack() as stack:
                connection = stack.enter_context(opened.database.read())
                yield connection
                self._begun = _Begun(opened, connection, states[0], stack.pop_all())

        states: list[S] = []
        return self._file._run(kept, first)

    def close(self) -> None:
        """End the transaction, if one was begun."""
        begun, self._begun = self._begun, None
        if begun is not None:
            with contextlib.suppress(DualmemError):  # nothing was written: what was read stands
                begun.transaction.close()

    @contextlib.contextmanager
    def _ended_by_faults(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            begun, self._begun = self._begun, None
            # The driver's errors become ours in there.
            if begun is None or not begun.transaction.__exit__(*sys.exc_info()):
                raise


@dataclass(frozen=True, slots=True)
class _Begun(Generic[S]):
    """A transaction that has begun, on which files, and what was made of the state that it sees."""

    opened: _Opened
    connection: Connection
    state: S
    transaction: contextlib.ExitStack


def _reading(opened: _Opened) -> AbstractContextManager[Connection]:
    return opened.database.read()


def _writing(opened: _Opened) -> AbstractContextManager[Connection]:
    return opened.database.write()


def _identity(path: Path) -> _Identity | None:
    try:
        return _identity_of(path.stat())
    except OSError:
        return None


def _identity_of(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _has_damage(database: Database) -> bool:
    try:
        return bool(database.damaged_pages())
    except (LockedError, TamperedError, StoreUnreachableError):
        return True


def _damaged(path: Path) -> TamperedError:
    return TamperedError("the index has been changed from outside", operation="use index", subject=str(path))


def _delete(path: Path) -> None:
    with file_faults("replace", path):
        for file in (path, _beside(path, _LOG), _beside(path, _SHARED)):
            file.unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
