"""What the driver's errors become."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlcipher3 import dbapi2

from dualmem_mcp.errors import DiskFullError, StoreUnreachableError
from dualmem_mcp.stores.database import MEMORY
from dualmem_mcp.stores.database_faults import translated

IOERR, CANTOPEN = 10, 14


@pytest.mark.parametrize("code", [IOERR, IOERR | 2 << 8, CANTOPEN])
def test_a_disk_that_went_is_not_called_full_and_raises_nothing_else(tmp_path: Path, code: int) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "gone", tmp_path / "file" / "no folder"):
        fault = dbapi2.OperationalError("disk I/O error")
        fault.sqlite_errorcode = code
        found = translated(fault, "read database", folder / "memory.db", MEMORY.remedies)
        assert type(found) is StoreUnreachableError
        assert not isinstance(found, DiskFullError)
        assert "memory.db" in found.message
