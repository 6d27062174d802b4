"""Sealed objects waiting to be uploaded: files in `handoff_cache/sync_queue/`, their order in memory.db."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dualmem_mcp.durable_files import TEMPORARY, file_faults, remove_abandoned, sync_folder, write_durably
from dualmem_mcp.errors import ConflictError, DualmemError, NotFoundError, TamperedError
from dualmem_mcp.failpoints import reach
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database


@dataclass(frozen=True, slots=True)
class StagedObject:
    """A sealed object that lies in the folder and has no row yet."""

    key: str
    path: Path
    sha256: bytes

    def enter(self, connection: Connection) -> bool:
        """Give it its row within a transaction: with that it waits. False if another object waits under its key."""
        statement = "INSERT INTO outbox (key, file_name, sha256) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        return bool(connection.execute(statement, (self.key, self.path.name, self.sha256)).rowcount)

    def discard(self) -> None:
        """Remove the file of an object that was not entered."""
        self.path.unlink(missing_ok=True)


def forget_waiting(connection: Connection, prefix: str, after: str) -> int:
    """Take the objects out whose keys have that prefix and sort behind `after`, within a transaction; how many.

    Their files stay until `remove_abandoned` finds them without rows.
    """
    return connection.execute(
        "DELETE FROM outbox WHERE substr(key, 1, length(?1)) = ?1 AND key > ?2", (prefix, after)
    ).rowcount


class FileOutbox:
    """An Outbox. An object is there when its row is: a file without one was left by a crash."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def add(self, key: str, data: bytes) -> None:
        """As the port says. Raises ConflictError if other bytes wait under that key."""
        staged = self.stage(key, data)
        if staged is None:
            return
        try:
            with self._database.write() as connection:
                added = staged.enter(connection)
        except DualmemError:
            staged.discard()  # on a full disk each try would leave one more
            raise
        if not added:
            # Another process was faster.
            staged.discard()
            self._waits_already(key, data, staged.sha256)

    def stage(self, key: str, data: bytes) -> StagedObject | None:
        """The object, durably on the disk, to be entered within a transaction of the caller's; None if it waits
        already. Raises ConflictError if other bytes wait under that key.

        A crash before its row is there leaves only a file without a name.
        """
        digest = hashlib.sha256(data).digest()
        if self._waits_already(key, data, digest):
            return None
        path = self._folder / f"{secrets.token_hex(16)}.sealed"
        write_durably(path, [data])
        return StagedObject(key, path, digest)

    def pending(self) -> Sequence[str]:
        with self._database.read() as connection:
            return [row[0] for row in connection.execute("SELECT key FROM outbox ORDER BY id")]

    def read(self, key: str) -> bytes:
        """As the port says. Raises TamperedError if the file is not what was added."""
        row = self._row(key)
        if row is None:
            raise NotFoundError(f"no object {key} waits to be uploaded", operation="read outbox", subject=key)
        path = self._folder / row[0]
        data = _read_or_nothing(path)
        if hashlib.sha256(data).digest() != row[1]:
            if self._row(key) is None:
                # Uploaded and removed by another process while it was being read here.
                raise NotFoundError(f"no object {key} waits to be uploaded", operation="read outbox", subject=key)
            raise TamperedError(
                f"the object {key} that waits to be uploaded is damaged or gone",
                operation="read outbox",
                subject=str(path),
                hint="Hand the conversation over again.",
            )
        return data

    def remove(self, key: str) -> None:
        with self._database.write() as connection:
            row = connection.execute("DELETE FROM outbox WHERE key = ? RETURNING file_name", (key,)).fetchone()
        if row is not None:
            with file_faults("remove", self._folder / row[0]):
                (self._folder / row[0]).unlink(missing_ok=True)
                reach("queue: removed")
                sync_folder(self._folder)

    def remove_abandoned(self) -> int:
        """Remove files that a crash left without a row, a day old at least; returns how many."""
        with self._database.read() as connection:
            known = {row[0] for row in connection.execute("SELECT file_name FROM outbox")}
        return remove_abandoned(
            self._folder, lambda name: name not in known and name.endswith((".sealed", TEMPORARY))
        )

    def _row(self, key: str) -> tuple[str, bytes] | None:
        with self._database.read() as connection:
            row: tuple[str, bytes] | None = connection.execute(
                "SELECT file_name, sha256 FROM outbox WHERE key = ?", (key,)
            ).fetchone()
        return row

    def _waits_already(self, key: str, data: bytes, digest: bytes) -> bool:
        """Whether the object has its row; its file is then whole, whatever happened to it since it was added."""
        row = self._row(key)
        if row is None:
            return False
        if row[1] != digest:
            raise ConflictError(
                f"other bytes wait to be uploaded as {key}",
                operation="queue object",
                subject=key,
                hint="Upload what waits first: run `dualmem handoff` again when the bucket can be reached.",
            )
        path = self._folder / row[0]
        if _read_or_nothing(path) != data:
            write_durably(path, [data])
        return True


def _read_or_nothing(path: Path) -> bytes:
    with file_faults("read", path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return b""
