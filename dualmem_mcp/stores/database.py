"""Encrypted database files: one connection policy for every thread and process that uses them.

Raw 256-bit key, write-ahead log, `BEGIN IMMEDIATE` for writes. memory.db has `synchronous = FULL`: a write that
was acknowledged has been handed to the disk with fsync, and survives a machine that stops. That costs 0.3 ms a
write on an SSD, where NORMAL would lose the last writes; memory is written seldom and meant to stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from sqlcipher3 import dbapi2

from dualmem_mcp.errors import LockedError, StoreRefusedError, StoreUnreachableError, TamperedError
from dualmem_mcp.failpoints import reach
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database_faults import (
    BUSY,
    BUSY_TIMEOUT_SECONDS,
    FATAL,
    Remedies,
    primary_code,
    translated,
)
from dualmem_mcp.stores.migrations import migrate

KEY_BYTES: Final = 32
# Source: https://sqlite.org/wal.html#walresetbug; versions 3.7.0 to 3.51.2 can corrupt a database that two
# connections use.
OLDEST_SQLITE: Final = (3, 51, 3)

_EMPTYING_MS: Final = 500
"""That emptying the write-ahead log waits for readers to end."""

_SetUp = Callable[[Connection, Callable[[], AbstractContextManager[None]], str], None]


@dataclass(frozen=True, slots=True)
class DatabaseKind:
    """In what the database files of a data home differ.

    `salt_label` keeps their salts apart, `cipher` are pragmas of the encryption other than SQLCipher's defaults.
    `set_up(connection, transaction, path)` brings the schema up to date.
    `pragmas` are of each connection, after those that all have in common; `extend` loads what the schema needs of
    extensions. `idle_connections` stay open, each with its page cache.
    """

    salt_label: bytes
    set_up: _SetUp
    pragmas: tuple[str, ...]
    remedies: Remedies
    cipher: tuple[str, ...] = ()
    idle_connections: int = 4
    extend: Callable[[Connection], None] | None = None


MEMORY: Final = DatabaseKind(
    salt_label=b"dualmem memory.db salt\0",
    set_up=migrate,
    pragmas=("synchronous = FULL", "journal_size_limit = 67108864"),
    remedies=Remedies(
        does_not_open="Check that the key belongs to this data home. If it does, the file's beginning is damaged: "
        "use a backup.",
        damaged="Put a backup in its place; the file was left as it is. While it opens, `dualmem doctor` counts "
        "the pages.",
        cut="Put a backup in its place, or move both files away to start anew. They were left as they are.",
    ),
)


class Database:
    """An encrypted database file of a data home, for use from any thread, beside any other processes.

    Readers see one state of the database and never wait for writers; writers take turns, and wait up to
    30 seconds for those of other processes. A thread opens no write inside its own write.
    """

    def __init__(self, path: Path, key: bytes, kind: DatabaseKind = MEMORY) -> None:
        """Use `Database.open`."""
        self.path = path
        self.kind = kind
        self._key = key
        self._writing = threading.Lock()
        self._writer = 0
        self._idle: list[Connection] = []
        self._idle_lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(cls, path: Path, key: bytes, kind: DatabaseKind = MEMORY) -> Self:
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
        _prepare_file(path, kind.remedies)
        database = cls(path, key, kind)
        try:
            with database._faults("open database"):
                connection = database._connect()
                try:
                    kind.set_up(connection, lambda: database._transaction(connection, _begin_immediate), str(path))
                except BaseException:
                    connection.close()
                    raise
                database._give_back(connection)
        except LockedError:
            _refuse_plain_file(path)
            raise
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
            reach("database: before commit")
        reach("database: committed")

    def empty_log(self) -> bool:
        """Move what the write-ahead log holds into the file and empty it, so that no earlier pages stay in it;
        whether it could be done at once: a reader may be in the way."""
        with self._faults("empty write-ahead log"), self._borrowed() as connection:
            # While it waits for readers, it keeps writers waiting.
            connection.execute(f"PRAGMA busy_timeout = {_EMPTYING_MS}")
            try:
                (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000:.0f}")
            return not busy

    def damaged_pages(self) -> list[str]:
        """What an authentication of every page finds wrong, one sentence each; empty if all is well."""
        with self._faults("check database"), self._borrowed() as connection:
            return [row[0] for row in connection.execute("PRAGMA cipher_integrity_check")]

    def try_to_open(self) -> None:
        """See whether the file opens now: connections that are open may go on answering from their caches when
        it has been written over. Raises as `open` does."""
        with self._faults("open database"):
            self._connect().close()

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
            for pragma in self.kind.cipher:
                connection.execute(f"PRAGMA {pragma}")
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
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA temp_store = MEMORY")  # a temporary file would not be encrypted
            for pragma in self.kind.pragmas:
                connection.execute(f"PRAGMA {pragma}")
            if self.kind.extend is not None:
                self.kind.extend(connection)
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
        salt = hashlib.sha256(self.kind.salt_label + self._key).digest()[:16]
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
            if primary_code(error) in FATAL:
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
            if not self._closed and len(self._idle) < self.kind.idle_connections:
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
            raise translated(error, operation, self.path, self.kind.remedies) from None


def _prepare_file(path: Path, remedies: Remedies) -> None:
    """Make the file if there is none, so that its mode is 0600 from the first byte on."""
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited on for ever
            raise OSError(0, "it is not a file")
        size = status.st_size
        log_size = _size_or_zero(path.with_name(path.name + "-wal"))
    except OSError as error:
        raise StoreUnreachableError(
            f"{path.name} cannot be opened: {error.strerror}",
            operation="open database",
            subject=str(path),
            hint=f"Check that {path.parent} exists and that you may write there.",
        ) from None
    if size == 0 and log_size:
        # SQLite would throw the log away with all that is in it.
        raise TamperedError(
            f"{path.name} is empty, but its write-ahead log is not: the file has been cut",
            operation="open database",
            subject=str(path),
            hint=remedies.cut,
        )


def _refuse_plain_file(path: Path) -> None:
    """Name a database without encryption so. Only for a file that does not open: to close a file of one's own ends
    the locks that SQLite holds on it for this process. Source: https://sqlite.org/howtocorrupt.html, 2.2."""
    with path.open("rb") as file:
        head = file.read(16)
    if head == b"SQLite format 3\0":
        raise LockedError(
            f"{path.name} is a database without encryption, which this program did not make",
            operation="open database",
            subject=str(path),
            hint="Move it away, or choose another data home. The file was left as it is.",
        ) from None


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
            if primary_code(error) != BUSY or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.0002, 0.003))  # noqa: S311 - spreads the waiting ones, protects nothing
        else:
            return
