"""memory.db: one connection policy for every thread and process that uses it.

Raw 256-bit key, write-ahead log, `BEGIN IMMEDIATE` for writes, and `synchronous = FULL`: a write that was
acknowledged has been handed to the disk with fsync, and survives a machine that stops. That costs 0.3 ms a
write on an SSD, where NORMAL would lose the last writes; memory is written seldom and meant to stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from sqlcipher3 import dbapi2

from dualmem_mcp.errors import (
    DiskFullError,
    DualmemError,
    LockedError,
    StoreRefusedError,
    StoreUnreachableError,
    TamperedError,
    UsageError,
)
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.migrations import migrate

KEY_BYTES: Final = 32
# Source: https://sqlite.org/wal.html#walresetbug; versions 3.7.0 to 3.51.2 can corrupt a database that two
# connections use.
OLDEST_SQLITE: Final = (3, 51, 3)
BUSY_TIMEOUT_SECONDS: Final = 30.0
_IDLE_CONNECTIONS: Final = 4
_FREE_BYTES_WHEN_FULL: Final = 1 << 20

# Primary result codes. Source: https://sqlite.org/rescode.html
_PERM, _BUSY, _LOCKED, _NOMEM, _READONLY, _IOERR, _CORRUPT = 3, 5, 6, 7, 8, 10, 11
_FULL, _CANTOPEN, _PROTOCOL, _TOOBIG, _NOTADB = 13, 14, 15, 18, 26
# After these a connection is not used again: SQLCipher remembers the fault for good.
_FATAL: Final = frozenset({_IOERR, _CORRUPT, _NOTADB, _NOMEM})

_Meaning = tuple[type[DualmemError], str, str]
_UNWRITTEN: Final[_Meaning] = (
    StoreUnreachableError,
    "memory.db cannot be read or written",
    "Check the rights on {folder}, and that its disk is present and healthy.",
)
_BUSY_TOO_LONG: Final[_Meaning] = (
    StoreUnreachableError,
    f"memory.db has been busy for {BUSY_TIMEOUT_SECONDS:.0f} seconds; nothing was changed",
    "Another program is writing to it: try again when it has finished.",
)
_MEANINGS: Final[dict[int | None, _Meaning]] = {
    _NOTADB: (
        LockedError,
        "memory.db does not open with this device's key",
        "Check that the key belongs to this data home. If it does, the file's beginning is damaged: use a backup.",
    ),
    _CORRUPT: (
        TamperedError,
        "memory.db is damaged: a page of it does not authenticate",
        "Put a backup in its place; the file was left as it is. While it opens, `dualmem doctor` counts the pages.",
    ),
    _FULL: (
        DiskFullError,
        "there is no space left to write memory.db; nothing was changed",
        "Free some space where {folder} lies, then try again.",
    ),
    _TOOBIG: (UsageError, "a value is too large to be stored", "A text can have up to 1,000,000,000 bytes."),
    _BUSY: _BUSY_TOO_LONG,
    _LOCKED: _BUSY_TOO_LONG,
    _PROTOCOL: _BUSY_TOO_LONG,
    _PERM: _UNWRITTEN,
    _READONLY: _UNWRITTEN,
    _CANTOPEN: _UNWRITTEN,
    _IOERR: _UNWRITTEN,
}


class Database:
    """The encrypted database of one data home, for use from any thread, beside any other processes.

    Readers see one state of the database and never wait for writers; writers take turns, and wait up to
    30 seconds for those of other processes. A thread opens no write inside its own write.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        """Use `Database.open`."""
        self.path = path
        self._key = key
        self._writing = threading.Lock()
        self._writer = 0
        self._idle: list[Connection] = []
        self._idle_lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(cls, path: Path, key: bytes) -> Self:
        """The database in that file, made if there is none, with its schema brought up to date.

        Raises LockedError if the key does not open it, TamperedError if it is damaged, StoreRefusedError
        if a newer version has changed it, StoreUnreachableError or DiskFullError if it cannot be written.
        No file that does not open is ever replaced.
        """
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key has {len(key)} bytes, not {KEY_BYTES}")
        if dbapi2.sqlite_version_info < OLDEST_SQLITE:
            raise StoreRefusedError(
                f"SQLite {dbapi2.sqlite_version} can damage a database that two programs use at once",
                operation="open database",
                subject=str(path),
                hint="Install sqlcipher3 0.6.4 or newer.",
            )
        _prepare_file(path)
        database = cls(path, key)
        with database._faults("open database"):
            connection = database._connect()
            try:
                migrate(connection, lambda: database._transaction(connection, _begin_immediate), str(path))
            except BaseException:
                connection.close()
                raise
            database._give_back(connection)
        return database

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database."""
        with (
            self._faults("read database"),
            self._borrowed() as connection,
            self._transaction(connection, _begin),
        ):
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that alone may write; committed at the end, rolled back if an exception passes."""
        if self._writer == threading.get_ident():
            raise RuntimeError("a write inside a write of the same thread would wait for itself")
        # Threads of this process queue here, which is fair and instant; between processes it takes polling.
        with (
            self._writing,
            self._faults("write database"),
            self._borrowed() as connection,
            self._transaction(connection, _begin_immediate),
        ):
            self._writer = threading.get_ident()
            try:
                yield connection
            finally:
                self._writer = 0

    def damaged_pages(self) -> list[str]:
        """What an authentication of every page finds wrong, one sentence each; empty if all is well."""
        with self._faults("check database"), self._borrowed() as connection:
            return [row[0] for row in connection.execute("PRAGMA cipher_integrity_check")]

    def close(self) -> None:
        """Close the idle connections; using the database afterwards is an error of the program."""
        with self._idle_lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> Connection:
        connection: Connection = dbapi2.connect(
            # mode=rw: a file that has vanished meanwhile is an error, not a new empty memory.
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_SECONDS,
        )
        try:
            connection.execute("PRAGMA cipher_log_level = NONE")  # else SQLCipher writes to stderr
            connection.execute(f"PRAGMA key = \"x'{self._key_and_salt()}'\"")
            if connection.execute("PRAGMA cipher_version").fetchone() is None:
                # Plain SQLite ignores the key, and would write everything in clear.
                raise StoreRefusedError(
                    "this installation of sqlcipher3 cannot encrypt",
                    operation="open database",
                    subject=str(self.path),
                    hint="Install sqlcipher3 from its wheels: `pip install --force-reinstall sqlcipher3`.",
                )
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            _use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA temp_store = MEMORY")  # a temporary file would not be encrypted
            connection.execute("PRAGMA journal_size_limit = 67108864")
        except BaseException:
            connection.close()
            raise
        return connection

    def _key_and_salt(self) -> str:
        # SQLCipher gives a new file a random salt. Two processes that make one file at the same time would each
        # choose their own, and the slower would then find it locked; so a new file's salt comes from the key.
        # An existing file's salt is its first 16 bytes.
        if _size_or_zero(self.path):
            return self._key.hex()
        salt = hashlib.sha256(b"dualmem memory.db salt\0" + self._key).digest()[:16]
        return self._key.hex() + salt.hex()

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[Connection]:
        with self._idle_lock:
            if self._closed:
                raise StoreUnreachableError(
                    "the database has been closed", operation="use database", subject=str(self.path)
                )
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect()
        try:
            yield connection
        except dbapi2.Error as error:
            if _primary_code(error) in _FATAL:
                connection.close()
            else:
                self._give_back(connection)
            raise
        except BaseException:
            self._give_back(connection)
            raise
        else:
            self._give_back(connection)

    def _give_back(self, connection: Connection) -> None:
        with self._idle_lock:
            if not self._closed and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    @contextlib.contextmanager
    def _transaction(self, connection: Connection, begin: Callable[[Connection], None]) -> Iterator[None]:
        begin(connection)
        try:
            yield
            connection.execute("COMMIT")
        finally:
            # Some faults (a full disk) have rolled back already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _faults(self, operation: str) -> Iterator[None]:
        """Turn the driver's errors into ours, without a word of what was being written."""
        try:
            yield
        except dbapi2.Error as error:
            raise self._translated(error, operation) from None

    def _translated(self, error: Exception, operation: str) -> DualmemError:
        code = _primary_code(error)
        if isinstance(error, dbapi2.InterfaceError):  # what the driver makes of a text over the limit
            code = _TOOBIG
        if code in {_IOERR, _CANTOPEN} and _is_full(self.path.parent):
            code = _FULL
        kind, message, hint = _MEANINGS.get(code, (DualmemError, f"the database failed: {error}", ""))
        return kind(message, operation=operation, subject=str(self.path), hint=hint.format(folder=self.path.parent))


def _is_full(folder: Path) -> bool:
    """Whether there is hardly room for another byte or, where the platform tells, for another file."""
    if shutil.disk_usage(folder).free < _FREE_BYTES_WHEN_FULL:
        return True
    if sys.platform == "win32":
        return False
    files = os.statvfs(folder)
    return files.f_files > 0 and files.f_favail == 0


def _prepare_file(path: Path) -> None:
    """Make the file if there is none, so that its mode is 0600 from the first byte on."""
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited on for ever
            raise OSError(0, "it is not a file")
        size = status.st_size
        with path.open("rb") as file:
            head = file.read(16)
        log_size = _size_or_zero(path.with_name(path.name + "-wal"))
    except OSError as error:
        raise StoreUnreachableError(
            f"memory.db cannot be opened: {error.strerror}",
            operation="open database",
            subject=str(path),
            hint=f"Check that {path.parent} exists and that you may write there.",
        ) from None
    if size == 0 and log_size:
        # SQLite would throw the log away with all that is in it.
        raise TamperedError(
            "memory.db is empty, but its write-ahead log is not: the file has been cut",
            operation="open database",
            subject=str(path),
            hint="Put a backup in its place, or move both files away to start anew. They were left as they are.",
        )
    if head == b"SQLite format 3\0":
        raise LockedError(
            "memory.db is a database without encryption, which this program did not make",
            operation="open database",
            subject=str(path),
            hint="Move it away, or choose another data home. The file was left as it is.",
        )


def _size_or_zero(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _begin(connection: Connection) -> None:
    connection.execute("BEGIN")


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock. SQLite's own wait sleeps longer and longer, up to 0.1 s between two looks: beside a
    program that writes all the time, others then wait for seconds. Looking about every millisecond is fair."""
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        _retry_while_busy(lambda: connection.execute("BEGIN IMMEDIATE"))
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000:.0f}")


def _use_write_ahead_log(connection: Connection) -> None:
    """Switch to WAL, which is kept in the file: on a new one several processes may try at once, and this switch
    does not wait for others by itself."""
    _retry_while_busy(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone())


def _retry_while_busy(attempt: Callable[[], object]) -> None:
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            attempt()
        except dbapi2.OperationalError as error:
            if _primary_code(error) != _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.0002, 0.003))  # noqa: S311 - spreads the waiting ones, protects nothing
        else:
            return


def _primary_code(error: Exception) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
