"""Sealed objects waiting to be uploaded: files in `handoff_cache/sync_queue/`, their order in memory.db."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from dualmem_mcp.durable_files import TEMPORARY, file_faults, remove_abandoned, sync_folder, write_durably
from dualmem_mcp.errors import ConflictError, DualmemError, NotFoundError, TamperedError
from dualmem_mcp.stores.database import Database


class FileOutbox:
    """An Outbox. An object is there when its row is: a file without one was left by a crash."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def add(self, key: str, data: bytes) -> None:
        """As the port says. Raises ConflictError if other bytes wait under that key."""
        digest = hashlib.sha256(data).digest()
        if self._waits_already(key, data, digest):
            return
        # The file is there before its row, and a crash between them leaves only a file without a name.
        file_name = f"{secrets.token_hex(16)}.sealed"
        path = self._folder / file_name
        write_durably(path, [data])
        try:
            with self._database.write() as connection:
                added = connection.execute(
                    "INSERT INTO outbox (key, file_name, sha256) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (key, file_name, digest),
                ).rowcount
        except DualmemError:
            path.unlink(missing_ok=True)  # on a full disk each try would leave one more
            raise
        if not added:
            # Another process was faster.
            path.unlink(missing_ok=True)
            self._waits_already(key, data, digest)

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
