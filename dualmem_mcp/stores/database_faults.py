"""What SQLite's result codes mean for a database file of a data home, said without a word of what is in it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlcipher3 import dbapi2

from dualmem_mcp.errors import (
    DiskFullError,
    DualmemError,
    LockedError,
    StoreUnreachableError,
    TamperedError,
    UsageError,
)

BUSY_TIMEOUT_SECONDS: Final = 30.0
_FREE_BYTES_WHEN_FULL: Final = 1 << 20

# Primary result codes. Source: https://sqlite.org/rescode.html
_PERM, BUSY, _LOCKED, _NOMEM, _READONLY, _IOERR, _CORRUPT = 3, 5, 6, 7, 8, 10, 11
_FULL, _CANTOPEN, _PROTOCOL, _TOOBIG, _NOTADB = 13, 14, 15, 18, 26
FATAL: Final = frozenset({_IOERR, _CORRUPT, _NOTADB, _NOMEM})
"""After these a connection is not used again: SQLCipher remembers the fault for good."""


@dataclass(frozen=True, slots=True)
class Remedies:
    """What a user can do about a file that does not open with the key, is damaged, or has been cut to nothing."""

    does_not_open: str
    damaged: str
    cut: str


_Meaning = tuple[type[DualmemError], str, str]
_UNWRITTEN: Final[_Meaning] = (
    StoreUnreachableError,
    "{name} cannot be read or written",
    "Check the rights on {folder}, and that its disk is present and healthy.",
)
_BUSY_TOO_LONG: Final[_Meaning] = (
    StoreUnreachableError,
    f"{{name}} has been busy for {BUSY_TIMEOUT_SECONDS:.0f} seconds; nothing was changed",
    "Another program is writing to it: try again when it has finished.",
)
_MEANINGS: Final[dict[int | None, _Meaning]] = {
    _NOTADB: (LockedError, "{name} does not open with this device's key", "{does_not_open}"),
    _CORRUPT: (TamperedError, "{name} is damaged: a page of it does not authenticate", "{damaged}"),
    _FULL: (
        DiskFullError,
        "there is no space left to write {name}; nothing was changed",
        "Free some space where {folder} lies, then try again.",
    ),
    _TOOBIG: (UsageError, "a value is too large to be stored", "A text can have up to 1,000,000,000 bytes."),
    BUSY: _BUSY_TOO_LONG,
    _LOCKED: _BUSY_TOO_LONG,
    _PROTOCOL: _BUSY_TOO_LONG,
    _PERM: _UNWRITTEN,
    _READONLY: _UNWRITTEN,
    _CANTOPEN: _UNWRITTEN,
    _IOERR: _UNWRITTEN,
}


def translated(error: Exception, operation: str, path: Path, remedies: Remedies) -> DualmemError:
    """The driver's error as one of ours."""
    code = primary_code(error)
    if isinstance(error, dbapi2.InterfaceError):  # what the driver makes of a text over the limit
        code = _TOOBIG
    if code in {_IOERR, _CANTOPEN} and _is_full(path.parent):
        code = _FULL
    kind, message, hint = _MEANINGS.get(code, (DualmemError, f"the database failed: {error}", ""))
    if code in _MEANINGS:
        message = message.format(name=path.name)
        hint = hint.format(folder=path.parent, does_not_open=remedies.does_not_open, damaged=remedies.damaged)
    return kind(message, operation=operation, subject=str(path), hint=hint)


def primary_code(error: Exception) -> int | None:
    """SQLite's primary result code of a driver's error, or None."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_full(folder: Path) -> bool:
    """Whether there is hardly room for another byte or, where the platform tells, for another file."""
    try:
        if shutil.disk_usage(folder).free < _FREE_BYTES_WHEN_FULL:
            return True
        if sys.platform == "win32":
            return False
        files = os.statvfs(folder)
    except OSError:  # the folder or its disk went while it was in use
        return False
    return files.f_files > 0 and files.f_favail == 0
