"""Migrations of memory.db: the steps of `schema.py` that it has not had, each in a transaction with its record."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.errors import StoreRefusedError
from dualmem_mcp.stores.schema import SCRIPTS, Step, statements

if TYPE_CHECKING:
    from dualmem_mcp.stores.connection import Connection

MIGRATION_SET: Final = "dualmem"
# Where sqlite-utils keeps its record. Source: sqlite_utils.migrations.Migrations.migrations_table.
_RECORD_TABLE: Final = "_sqlite_migrations"


def migrate(connection: Connection, transaction: Callable[[], Any], path: str) -> None:
    """Bring the database up to this version; two processes that do so at once both succeed.

    `transaction` opens a write transaction on the connection. Raises StoreRefusedError for a database that
    a newer version has changed: this version would not know what its own writes mean there.
    """
    applied = _applied(connection)
    known = [name for name, _ in SCRIPTS]
    if unknown := sorted(applied - set(known)):
        raise StoreRefusedError(
            f"the database was changed by a newer version of dualmem-mcp (it has {unknown[-1]!r})",
            operation="open database",
            subject=path,
            hint="Update dualmem-mcp on this device; nothing was changed.",
        )
    if applied != set(known):
        _apply_pending(connection, transaction)


def _applied(connection: Connection) -> set[str]:
    # Read without sqlite-utils, whose import takes a tenth of a second: nearly always nothing is pending.
    exists = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (_RECORD_TABLE,)).fetchone()
    if not exists:
        return set()
    rows = connection.execute(f"SELECT name FROM {_RECORD_TABLE} WHERE migration_set = ?", (MIGRATION_SET,))  # noqa: S608
    return {row[0] for row in rows}


def _apply_pending(connection: Connection, transaction: Callable[[], Any]) -> None:
    sqlite_utils = _import_sqlite_utils()
    migrations = sqlite_utils.Migrations(MIGRATION_SET)
    for name, script in SCRIPTS:
        migrations(name=name)(_runner(script))
    database = sqlite_utils.Database(connection, recursive_triggers=False, execute_plugins=False)
    while True:
        # The write lock is taken before looking what is pending, so that of two processes one waits and then
        # finds the migration done.
        with transaction():
            pending = [migration.name for migration in migrations.pending(database)]
            if not pending:
                return
            migrations.apply(database, stop_before=pending[1:])


def _runner(script: Step) -> Callable[[Any], None]:
    def run(database: Any) -> None:
        if not isinstance(script, str):
            script(database.conn)
            return
        # One by one: executescript would commit the transaction that holds the migration and its record.
        for statement in statements(script):
            database.conn.execute(statement)

    return run


def _import_sqlite_utils() -> Any:
    """sqlite-utils, made to use SQLCipher's driver: it takes `pysqlite3` where that can be imported."""
    import sqlcipher3  # noqa: PLC0415
    import sqlcipher3.dbapi2  # noqa: PLC0415

    sys.modules.setdefault("pysqlite3", sqlcipher3)
    sys.modules.setdefault("pysqlite3.dbapi2", sqlcipher3.dbapi2)
    import sqlite_utils  # noqa: PLC0415
    import sqlite_utils.migrations  # noqa: PLC0415

    return sqlite_utils
