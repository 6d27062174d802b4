"""Small objects of the vault, kept inside the encrypted database."""

from __future__ import annotations

from dualmem_mcp.stores.database import Database


class DatabaseBlobCache:
    """A BlobCache in memory.db."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> bytes | None:
        with self._database.read() as connection:
            row = connection.execute("SELECT data FROM blobs WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, key: str, data: bytes) -> None:
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO blobs VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET data = excluded.data",
                (key, bytes(data)),
            )

    def keys(self, prefix: str = "") -> list[str]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT key FROM blobs WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key", (prefix,)
            )
            return [row[0] for row in rows]
